"""What the launcher reads may be without end, and its forks may fail: the guest starts."""

import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.rig import odd
from tests.rig.launcher import PLAYED, Emulator, copy_launchers
from tests.rig.qemu import short_directory
from tests.rig.users import AS_ORDINARY, NOBODY, needs_root

pytestmark = pytest.mark.timeout(60)

GUEST: Final = ("-m", "256", "-name", "it")
SHELLS: Final = [path for path in map(shutil.which, ("dash", "bash")) if path]
each_shell = pytest.mark.parametrize("shell", SHELLS, ids=os.path.basename)
MODEST: Final = 64 << 10
"""KiB of memory, far above what a launch takes."""
WEIGH: Final = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=False)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with short_directory() as directory:
        yield Emulator(directory)


def launch_and_weigh(emulator: Emulator, **environ: str) -> int:
    """Launch, and return the most memory that one of its processes had, in KiB (getrusage(2))."""
    ran = emulator.launch(*GUEST, before=[sys.executable, "-c", WEIGH], environ=environ)
    assert emulator.words()[: len(GUEST)] == [word.encode() for word in GUEST]
    return int(ran.out)


@each_shell
def test_a_stamp_without_end_is_replaced(emulator: Emulator, shell: str) -> None:
    stamp = emulator.run / ".python/proof"
    stamp.parent.mkdir(0o700, parents=True)
    odd.sparse(stamp)
    ran = emulator.launch(*GUEST, before=[shell])
    assert (ran.code, ran.err) == (PLAYED, "")
    assert stamp.read_text().startswith("/usr/bin/python3\n")


@each_shell
def test_defaults_without_end_name_nothing(emulator: Emulator, shell: str) -> None:
    defaults = emulator.path.with_name("defaults")
    odd.sparse(defaults)
    ran = emulator.launch(*GUEST, before=[shell], environ={"QMPMEM_DEFAULTS": str(defaults)})
    assert ran.code == PLAYED
    assert emulator.words() == [word.encode() for word in GUEST]
    assert f"{defaults}: too large" in ran.err
    assert f"{defaults}: expected a readable file" in ran.err


@each_shell
def test_a_program_without_end_is_not_the_emulator(emulator: Emulator, shell: str) -> None:
    odd.sparse(emulator.tools / "kvm")
    (emulator.tools / "kvm").chmod(0o755)
    later = emulator.path.parent / "later"
    later.mkdir()
    played = Emulator(later, "kvm")
    environ = {"QMPMEM_REAL": "", "PATH": f"{emulator.tools}:{later}"}
    ran = played.launch(*GUEST, before=[shell], environ=environ)
    assert (ran.code, ran.err) == (PLAYED, "")


def test_a_python_that_never_stops_talking_costs_no_memory(emulator: Emulator) -> None:
    python = emulator.path.with_name("python3")
    python.write_text("#!/bin/sh\nexec tr '\\0' x </dev/zero\n")
    python.chmod(0o755)
    (emulator.tools / "tr").symlink_to(shutil.which("tr") or "tr")
    assert launch_and_weigh(emulator, QMPMEM_PYTHON=str(python)) < MODEST


def test_an_emulator_that_never_stops_talking_costs_no_memory(emulator: Emulator) -> None:
    answers = emulator.path.with_name(f"{emulator.path.name}.answers")
    answers.unlink()
    odd.sparse(answers)
    assert launch_and_weigh(emulator) < MODEST


def test_nothing_is_left_beside_a_stamp_that_cannot_be_replaced(emulator: Emulator) -> None:
    stamp = emulator.run / ".python/proof"
    stamp.mkdir(parents=True)
    emulator.run.chmod(0o700)
    for _ in range(2):
        assert emulator.launch(*GUEST).code == PLAYED
    assert list(stamp.parent.iterdir()) == [stamp]


@contextmanager
def opening_waits(path: Path) -> Iterator[Callable[[], bool]]:
    """Have each open(2) of a file wait for us (fcntl(2): leases); yields whether none was asked."""
    descriptor = os.open(path, os.O_RDWR)
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            pytest.skip(f"no leases on this file system: {error.strerror}")
        yield lambda: fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_WRLCK
    finally:
        os.close(descriptor)
        signal.signal(signal.SIGIO, before)


@needs_root("gives directories to another user")
@each_shell
@pytest.mark.parametrize(
    ("name", "file", "link"),
    [
        ("DEFAULTS", "theirs/defaults", None),
        ("DEFAULTS", "ours/defaults", "theirs"),
        ("RUN_DIR", "theirs/.python/proof", None),
        ("RUN_DIR", "ours/proof", "theirs/.python"),
    ],
)
def test_f82_no_file_that_another_user_may_exchange_is_opened(
    emulator: Emulator, shell: str, name: str, file: str, link: str | None
) -> None:
    """Row F82: it may be a pipe by then, or a file that blocks: the guest would not start."""
    here = emulator.path.parent
    kept = here / file
    kept.parent.mkdir(parents=True)
    kept.touch(0o600)
    if link is not None:
        (here / link).parent.mkdir(exist_ok=True)
        (here / link).symlink_to(here / "ours")
    for each in (here / "theirs", *(here / "theirs").glob(".python")):
        os.chown(each, NOBODY, NOBODY, follow_symlinks=False)
    named = here / "theirs" / ("defaults" if name == "DEFAULTS" else "")
    with opening_waits(kept) as was_left_alone:
        ran = emulator.launch(*GUEST, before=[shell], environ={f"QMPMEM_{name}": str(named)})
        assert was_left_alone()
    assert ran.code == PLAYED
    assert emulator.words() == [word.encode() for word in GUEST]
    assert "others may" in ran.err or "belongs to user" in ran.err
    assert ran.err.count("\n") == 1


@needs_root("cannot become another user, whose processes are limited")
@pytest.mark.parametrize("defaults", [False, True])
@pytest.mark.parametrize("linked", [False, True])
def test_without_a_fork_the_guest_starts(
    emulator: Emulator, *, linked: bool, defaults: bool
) -> None:
    """dash ends where it cannot fork, and bash tries for 15 s."""
    directory = emulator.path.parent
    shim = copy_launchers(directory)
    if linked:
        (directory / "kvm").symlink_to(shim)
        shim = directory / "kvm"
    environ = {}
    if defaults:  # which nothing can look at closely
        file = directory / "defaults"
        file.write_text("QMPMEM_REAL=/bin/false\n")
        (directory / "later").mkdir()
        emulator = Emulator(directory / "later", "kvm")
        places = f"{emulator.path.parent}:{emulator.tools}"
        environ = {"QMPMEM_DEFAULTS": str(file), "QMPMEM_REAL": "", "PATH": places}
    for path in (directory, *directory.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    limited = ["/bin/dash", "-c", 'ulimit -p 1; exec "$@"', "dash"]
    ran = emulator.launch(
        *GUEST, shim=shim, before=[*AS_ORDINARY, *limited, "/bin/dash"], environ=environ
    )
    assert "fork" in ran.err.lower()
    assert emulator.words()[: len(GUEST)] == [word.encode() for word in GUEST]
