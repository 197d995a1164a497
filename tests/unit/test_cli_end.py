"""The end of a command: what was printed is written, whatever the exit code."""

import os
import subprocess
from pathlib import Path

import pytest

from qmpmem import rundir
from qmpmem.rundir import GuestRecord
from qmpmem.wire import kernel
from tests.rig.command import PROGRAM, qmpmem


@pytest.fixture
def gone(tmp_path: Path) -> Path:
    """A run directory with one guest, whose process lives but whose socket is gone."""
    process = kernel.process(os.getpid())
    assert process is not None
    record = GuestRecord(
        version=1,
        id="a",
        name="a",
        pid=process.pid,
        start_time=process.start_time,
        socket=str(tmp_path / "a" / "qmp.sock"),
        uid=0,
        created=0.0,
    )
    (tmp_path / "a").mkdir()
    rundir.write_record(tmp_path, record)
    return tmp_path


def test_what_was_printed_before_an_error_is_written(gone: Path) -> None:
    ran = qmpmem("info", "a", run=gone)
    assert ran.code == 5
    assert "state:               gone" in ran.out
    assert ran.err.count("\n") == 1


def test_no_room_for_what_was_printed_before_an_error_is_no_traceback(gone: Path) -> None:
    environ = os.environ | {"QMPMEM_RUN_DIR": str(gone)}
    with Path("/dev/full").open("w") as full:
        words = [str(PROGRAM), "info", "a"]
        done = subprocess.run(words, env=environ, stdout=full, stderr=-1, check=False)
    assert done.returncode != 0
    assert b"Traceback" not in done.stderr
