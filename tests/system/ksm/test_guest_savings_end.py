"""A program that has looked at guests and KSM ends, whatever hangs meanwhile."""

import os
import subprocess
import sys
from pathlib import Path

from tests.rig.patience import patient

LOOK = """
import asyncio, sys
from pathlib import Path
from qmpmem.guests.inventory import LiveGuest
from qmpmem.guests.rundir import GuestRecord
from qmpmem.ksm import guest_savings
guest_savings.PATIENCE = 0.1
record = GuestRecord(
    version=1, id="g", name="g", pid=42, start_time=1, socket="/x", uid=0, created=0.0
)
seen = guest_savings.look([LiveGuest(record=record, pid=42)], Path(sys.argv[1]), ask=False)
print(len(asyncio.run(seen)))
"""


def test_a_program_that_has_looked_can_end(tmp_path: Path) -> None:
    pipe = tmp_path / "proc/42/smaps_rollup"
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(tmp_path)],
        capture_output=True,
        timeout=patient(15),
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"1\n"), done.stderr
