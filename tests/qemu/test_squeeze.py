"""Real guests under a real limit: a burst is served, and nobody's kernel kills."""

from pathlib import Path

import pytest

from tests.bench import squeeze
from tests.rig.users import needs_root

pytestmark = [pytest.mark.qemu, pytest.mark.host, pytest.mark.timeout(300)]


@needs_root("may not limit and swap")
@pytest.mark.skipif(squeeze.why_not() is not None, reason=squeeze.why_not() or "")
def test_a_burst_is_served_out_of_idle_cache() -> None:
    alone, ours = squeeze.measure(squeeze.QUICK, print, ("reporting", "ours"))
    assert alone.hits > 0  # without a policy the limit is met: it is one
    assert ours.burst is not None
    assert ours.kills == 0
    assert ours.work == squeeze.QUICK.turn * squeeze.QUICK.turns
    assert not list(squeeze.GROUPS.glob(f"{squeeze.MARK}*"))
    assert squeeze.MARK not in Path("/proc/swaps").read_text()
