"""Real guests under a real limit: a burst is served, and nobody's kernel kills."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.bench import limits, packing, squeeze
from tests.rig.users import needs_root

pytestmark = [pytest.mark.qemu, pytest.mark.host("limits"), pytest.mark.timeout(300)]

ALONE: Final = replace(squeeze.QUICK, settle=0.0, late=1.0, jobs=1, lasts=1.0)
"""Where only the limit is looked at."""


@needs_root("may not limit and swap")
@pytest.mark.skipif(limits.why_not() is not None, reason=limits.why_not() or "")
def test_a_burst_is_served_out_of_idle_cache() -> None:
    [alone] = squeeze.measure(ALONE, print, ("reporting",))
    assert alone.hits > 0  # without a policy the limit is met: it is one
    [ours] = squeeze.measure(squeeze.QUICK, print, ("ours",))
    assert ours.burst is not None
    assert ours.kills == 0
    assert ours.work == squeeze.QUICK.job * squeeze.QUICK.jobs
    nothing_is_left()


@needs_root("may not limit and swap")
@pytest.mark.skipif(limits.why_not() is not None, reason=limits.why_not() or "")
def test_guests_are_started_until_one_suffers_or_there_are_enough() -> None:
    [row] = packing.measure(packing.QUICK, print, ("ours",))
    assert (row.guests, row.why) == (packing.QUICK.most, "no more were started")
    nothing_is_left()


def nothing_is_left() -> None:
    mark = f"{limits.MARK}{os.getpid()}"
    assert not (limits.GROUPS / mark).exists()
    assert "loop" not in Path("/proc/swaps").read_text()
    assert not Path(tempfile.gettempdir(), f"{mark}.swap").exists()
    for way in limits.WAYS:
        assert not (limits.THROTTLE / f"blkio.throttle.{way}_bps_device").read_text()
