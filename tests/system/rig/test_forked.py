"""A call in a fork says and does what the same call does as a program of its own."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig import forked
from tests.rig.command import called, plain_environment, qmpmem
from tests.rig.guests import ROOT
from tests.rig.qemu import short_directory, until

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--version", ""),
        ("set --help", ""),
        ("list --json", ""),
        ("info none", ""),
        ("info none --json", ""),
        ("set none", ""),
        ("nonsense", ""),
        ("script -", "set none 256M\n"),
        ("script -", "wait\n"),
        ("run -- -version", ""),
    ],
)
def test_it_is_the_same(tmp_path: Path, words: str, text: str) -> None:
    (tmp_path / "run").mkdir()
    one, other = (
        call(*words.split(), run=tmp_path / "run", text=text) for call in (qmpmem, called)
    )
    assert one == other


def test_directory_and_environment_are_those_of_the_call(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("perod = 7\n")
    own = {"QMPMEM_CONFIG": "a.toml", "XDG_RUNTIME_DIR": ""}
    ran = called("config", "check", run=tmp_path, directory=tmp_path, environ=own)
    assert ran.code == 2
    assert ran == qmpmem("config", "check", run=tmp_path, directory=tmp_path, environ=own)
    assert called("config", "check", run=tmp_path).code == 0, "the next call has its own"


def test_a_call_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        files = [out.fileno()] * 3
        environ = plain_environment() | {"QMPMEM_RUN_DIR": str(tmp_path)}
        with pytest.raises(subprocess.TimeoutExpired):
            forked.call(["list", "--watch", "1h"], environ, files, None, 0.2)


CALLS = """
import os, sys
from tests.rig import forked
from tests.rig.command import plain_environment
files = [os.open("/dev/null", os.O_RDWR)] * 3
forked.call(["serve", "--unix", sys.argv[1]], plain_environment(), files, None, 600.0)
"""


def test_a_call_ends_with_the_process_that_was_killed_meanwhile() -> None:
    with short_directory() as directory:
        path = directory / "page.sock"
        caller = subprocess.Popen([sys.executable, "-c", CALLS, path], cwd=ROOT)
        try:
            until(lambda: listens(path), seconds=20, what="the call is at work")
        finally:
            caller.kill()
            caller.wait()
        until(lambda: not listens(path), seconds=5, what="the call has ended")


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
