"""The end of a command: what was printed is written, whatever the exit code."""

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.rig.command import PROGRAM

BREAKS_OFF: Final = """
import sys
import qmpmem.guests.overview

def overview(guests, **_):
    sys.stdout.write("half a line")
    raise ZeroDivisionError("oops")

qmpmem.guests.overview.overview = overview
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which `list` breaks off in the middle of a line."""
    (tmp_path / "sitecustomize.py").write_text(BREAKS_OFF)
    buffered = {"PYTHONUNBUFFERED": ""}
    return os.environ | buffered | {"QMPMEM_RUN_DIR": str(tmp_path), "PYTHONPATH": str(tmp_path)}


def test_what_was_printed_before_a_failure_is_written(environ: dict[str, str]) -> None:
    words = [str(PROGRAM), "list"]
    done = subprocess.run(words, env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (70, b"half a line")


def test_where_it_cannot_be_written_there_is_no_traceback(environ: dict[str, str]) -> None:
    words = [str(PROGRAM), "list"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, env=environ, stdout=full, stderr=-1, check=False)
    assert done.returncode != 0
    assert b"oops" in done.stderr
    assert b"Traceback" not in done.stderr
