"""A kvm command that is a script, and a user without a login session."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from qmpmem.guests import rundir
from qmpmem.guests.rundir import GuestRecord
from tests.rig.launcher import PLAYED, SHIM, Emulator, copy_launchers, talking
from tests.rig.qemu import EMULATOR, short_directory
from tests.rig.users import AS_ORDINARY, ORDINARY, needs_root

QEMU: Final = f"/usr/bin/{EMULATOR}"
PAUSED: Final = ("-S", "-display", "none", "-m", "128")
GUEST: Final = ("-m", "256", "-name", "it")


@pytest.fixture
def here() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


def script(here: Path, last: str) -> Path:
    path = here / "script-kvm"
    path.write_text(f"#! /bin/sh\n{last}\n")
    path.chmod(0o755)
    return path


@contextmanager
def started(here: Path, real: Path, *words: str, **environ: str) -> Iterator[GuestRecord]:
    """Start a paused guest of a real QEMU through a script, and give its record."""
    chosen = {"QMPMEM_REAL": str(real), "QMPMEM_RUN_DIR": f"{here}/run", "PATH": os.environ["PATH"]}
    guest = subprocess.Popen(
        [SHIM, *PAUSED, "-name", "it", *words],
        env=chosen | {"QMPMEM_DEFAULTS": "/proc/nonexistent"} | environ,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        with talking(here / "run/it/qmp.sock") as monitor:
            has = "balloon: actual" in monitor.say("info balloon")
        record = rundir.read_record(here / "run/it")
        assert isinstance(record, GuestRecord)
        assert has == (record.balloon is not None)
        yield record
    finally:
        guest.kill()
        guest.communicate()


@pytest.mark.qemu
def test_a_guest_of_a_plain_script_gets_its_balloon(here: Path) -> None:
    with started(here, script(here, f'exec {QEMU} -accel tcg "$@"')) as record:
        assert record.balloon == "qmpmem0"
    assert list((here / "run").glob(".emulator-*"))


@pytest.mark.qemu
@pytest.mark.parametrize(
    "options",
    ["-M isapc", "-overcommit mem-lock=off -icount shift=auto,rr=record,rrfile=/dev/null"],
)
def test_the_options_of_a_script_are_the_guests(here: Path, options: str) -> None:
    with started(here, script(here, f'exec {QEMU} -accel tcg {options} "$@"')) as record:
        assert record.balloon is None


@pytest.mark.qemu
def test_what_a_script_starts_is_looked_for_as_its_shell_does(here: Path) -> None:
    """And never taken for a launcher of ours that stands before it on PATH."""
    (here / "first").mkdir()
    (here / f"first/{EMULATOR}").symlink_to(SHIM)
    real = script(here, f'exec {EMULATOR} "$@"')
    with started(here, real, PATH=f"{here}/first:{os.environ['PATH']}") as record:
        assert record.balloon == "qmpmem0"


def test_a_script_that_does_more_is_left_alone(here: Path) -> None:
    emulator = Emulator(here)
    line = f'echo >>{here}/count\nexec {emulator.path} "$@"'
    environ = {"QMPMEM_REAL": str(script(here, line)), "QMPMEM_ASK_SCRIPT": ""}
    ran = emulator.launch(*GUEST, environ=environ)
    assert "no balloon" in ran.err
    assert "QMPMEM_ASK_SCRIPT=on" in ran.err
    assert (here / "count").read_text() == "\n"


@needs_root("an ordinary user with a session has a place")
def test_a_user_without_a_session_is_told_what_to_do(here: Path) -> None:
    emulator = Emulator(here)
    shim = copy_launchers(here)
    here.chmod(0o777)
    ran = emulator.launch(*GUEST, environ={"QMPMEM_RUN_DIR": ""}, shim=shim, before=AS_ORDINARY)
    assert ran.code == PLAYED
    assert f"/run/user/{ORDINARY}" in ran.err
    assert f"loginctl enable-linger {ORDINARY}" in ran.err
    assert "QMPMEM_RUN_DIR" in ran.err
    assert ran.err.count("\n") == 1
