"""The rig leaves nothing behind, however it ends: no QEMU, and KSM as it was."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.rig import ksm
from tests.rig.equalmemory import holding
from tests.rig.qemu import short_directory, until
from tests.rig.users import needs_root

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]

ROOT: Final = Path(__file__).resolve().parents[3]
HOLD: Final = """
import sys
from pathlib import Path
from tests.rig.qemu import paused
with paused(Path(sys.argv[1]), "a", "b") as children:
    print(*(child.pid for child in children.values()), flush=True)
    sys.stdin.read()
"""


def test_the_qemus_of_a_process_that_is_killed_end_with_it() -> None:
    with short_directory() as run:
        words = [sys.executable, "-c", HOLD, str(run)]
        with subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None
            guests = [Path("/proc", pid) for pid in holder.stdout.readline().split()]
            assert len(guests) == 2
            assert all(guest.exists() for guest in guests)
            holder.kill()
        until(lambda: not any(_runs(guest) for guest in guests), what="the guests are gone")


def _runs(process: Path) -> bool:
    """Whether a process is there and no zombie, which another process has to reap."""
    try:
        return ") Z " not in (process / "stat").read_text()
    except OSError:
        return False


@needs_root("may not steer KSM")
@pytest.mark.host
@pytest.mark.timeout(1000)  # of which nearly all is waiting until others let KSM go
def test_what_ended_processes_had_merged_does_not_count_any_more() -> None:
    with ksm.held() as machine:
        machine.reset()
        with holding(16 << 20):
            machine.write({"pages_to_scan": 5000, "run": 1})
            until(lambda: machine.number("pages_sharing") > 2000, seconds=60, what="merged")
            machine.write({"run": 0})
        assert machine.number("pages_sharing") > 2000  # of no process
        before = machine.before
    with ksm.held() as machine:
        assert machine.get("pages_shared") == "0"
        assert machine.before == before
