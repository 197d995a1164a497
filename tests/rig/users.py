"""The user of the tests: root, which can become any user, or an ordinary user, which stays one.

Theory of operation:
    An ordinary user may be unable to read the checkout: root's home has mode 0700, a clone may be
    made with umask 077. A test that runs qmpmem as that user takes `shared_program`, which is the
    checkout's own where that runs, and else a copy: the package, and the distributions that it
    requires.
"""

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement

import qmpmem
from qmpmem.files import directories, launcher_paths
from tests.rig.command import PROGRAM

NOBODY: Final = 65534

IS_ROOT: Final = os.geteuid() == 0

ORDINARY: Final = NOBODY if IS_ROOT else os.geteuid()
"""An ordinary user."""

AS_ORDINARY: Final = (
    ["/usr/bin/setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if IS_ROOT
    else []
)
"""What a command is started by to run as that one."""


def give_to_another_user(path: Path) -> None:
    """Let one more user write a file or directory, by an access control list (acl(5), xattr(7)).

    Skips the test where the file system has no such lists.
    """
    owner, named, group, mask, others = 0x01, 0x02, 0x04, 0x10, 0x20
    nobody_in_particular = 0xFFFFFFFF
    entries = [
        *((owner, 7, nobody_in_particular), (named, 7, NOBODY), (group, 5, nobody_in_particular)),
        *((mask, 7, nobody_in_particular), (others, 5, nobody_in_particular)),
    ]
    content = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, directories.ACL, content)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error.strerror}")


def needs_root(why: str) -> pytest.MarkDecorator:
    """Mark a test of what only root can bring about."""
    return pytest.mark.skipif(not IS_ROOT, reason=f"not root: {why}")


def shared_program(directory: Path) -> Path:
    """Name a qmpmem that an ordinary user may run: the checkout's own, or a copy in a directory.

    Skips the test where that user may not run Python itself.
    """
    if _runs_as_ordinary(PROGRAM):
        return PROGRAM
    program = directory / PROGRAM.name
    copy = _copy_of(program)
    for each in _required("qmpmem", set()):
        _copy_files(each, copy)
    package = Path(qmpmem.__file__).parent
    shutil.copytree(package, copy / package.name)
    shutil.copytree(launcher_paths.launchers_directory(), copy / package.name / "launchers")
    program.write_text(
        f"#!{Path(sys.executable).resolve()} -I\n"
        f"import sys\nsys.path.insert(0, {str(copy)!r})\n"
        "from qmpmem.cli import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    _open_to_all(directory)
    python = Path(sys.executable).resolve()
    if not _runs_as_ordinary(python):
        pytest.skip(f"an ordinary user may not run {python}")
    assert _runs_as_ordinary(program), "the copy lacks something"
    return program


def python_of(program: Path, script: str) -> list[str]:
    """Return the words that run a script as a program of `shared_program` is run.

    Args:
        program: that program.
        script: Python, which may import what the program may.
    """
    python = program.read_text().splitlines()[0].removeprefix("#!").split()
    return [*python, "-c", f"import sys; sys.path.insert(0, {str(_copy_of(program))!r})\n{script}"]


def _copy_of(program: Path) -> Path:
    return program.parent / "qmpmem-copy"


def _runs_as_ordinary(program: Path) -> bool:
    words = [*AS_ORDINARY, str(program), "--version"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _required(name: str, seen: set[str]) -> Iterator[Distribution]:
    """Find the distribution of this name, and those that it requires here."""
    if name in seen:
        return
    seen.add(name)
    found = distribution(name)
    yield found
    for text in found.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield from _required(requirement.name, seen)


def _copy_files(found: Distribution, into: Path) -> None:
    for file in found.files or ():
        source = Path(str(found.locate_file(file)))
        if ".." not in file.parts and file.suffix != ".pth" and source.exists():
            (into / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, into / file)


def _open_to_all(directory: Path) -> None:
    for path in (directory, *directory.rglob("*")):
        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
