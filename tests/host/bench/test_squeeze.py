"""Real guests under a real limit: a burst is served, no kernel kills, and nothing is left."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.bench import limits, packing, squeeze
from tests.bench.jobs import Jobs
from tests.bench.stacks import OURS, REPORTING
from tests.rig.patience import patient
from tests.rig.users import needs_root

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.host("limits"),
    pytest.mark.timeout(300),
    needs_root("may not limit and swap"),
    pytest.mark.skipif(limits.why_not() is not None, reason=limits.why_not() or ""),
]

ALONE: Final = replace(
    squeeze.QUICK, settle=0.0, late=1.0, jobs=Jobs(count=1, touches=1, every=1.0, lasts=1.0)
)
"""Where only the limit is looked at."""
PATIENT: Final = replace(
    squeeze.QUICK,
    late=patient(squeeze.QUICK.late),
    jobs=replace(squeeze.QUICK.jobs, late=patient(squeeze.QUICK.jobs.lasts)),
)

PACKED: Final = replace(packing.QUICK, late=patient(packing.QUICK.late))
"""The agent, too, is slower on a busy machine."""


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    mark = f"{limits.MARK}{os.getpid()}"
    assert not (limits.GROUPS / mark).exists()
    assert not limits.loops(f"{mark}.")
    assert not list(Path(tempfile.gettempdir()).glob(f"{mark}*"))
    assert not limits.forgotten()


def test_a_burst_is_served_out_of_idle_cache() -> None:
    alone = squeeze.play(REPORTING, ALONE)
    assert alone.hits > 0  # without a policy the limit is met: it is one
    ours = squeeze.play(OURS, PATIENT)
    assert ours.burst is not None
    assert ours.kills == 0
    assert ours.work == PATIENT.jobs.touches * PATIENT.jobs.count


def test_guests_are_started_until_one_suffers_or_there_are_enough() -> None:
    row = packing.play(OURS, PACKED)
    assert (row.guests, row.why) == (PACKED.most, "no more were started")
