"""Our systemd units: put in place, and taken out again.

Rules of this file:
    A unit is enabled by a link, which is all that `systemctl enable` does for it
    (systemd.unit(5), [Install]), so that an image can be prepared from outside.
    A unit of this name that we did not write is not ours to replace.
    Nothing is reached through a link of the root that leads out of it: see
    `qmpmem.files.directories.opened_beneath`.
"""

import os
import stat
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from qmpmem.errors import LaunchError
from qmpmem.files import directories, launcher_paths, obstacles, state_files
from qmpmem.records import Record

DIRECTORY: Final = "etc/systemd/system"
WANTS: Final = f"{DIRECTORY}/multi-user.target.wants"
READABLE: Final = 0o644
PLAIN: Final = (
    "an absolute path of printable characters, without blanks and quotes, and none of \\ % $ ;"
)
LARGEST: Final = 1 << 20
"""Bytes of a unit that are looked at."""


class Unit(Record, frozen=True):
    """One of our units."""

    name: str
    first_line: str
    """What its file starts with: that is how we know it for ours."""
    source: str = ""
    """The name of the file with its text, where that is another."""
    values: tuple[tuple[str, str], ...] = ()
    """What stands in the text as ``@NAME@``, by name."""


def is_plain(path: str) -> bool:
    """Tell whether a path stands in a unit for itself.

    systemd.service(5), "Command lines", and systemd.unit(5), "Specifiers": some characters would be
    read as something else. Control characters, and what is not UTF-8, are refused in a path.
    """
    return path.startswith("/") and path.isprintable() and not set(path) & set(" \"'\\%$;")


def text_of(unit: Unit, program: str) -> str:
    """Return the unit's text, which runs this program.

    Raises:
        LaunchError: this copy of qmpmem came without it, or the path cannot stand in a unit.
    """
    if not is_plain(program):
        raise LaunchError(f"{program!r}: expected {PLAIN}")
    path = launcher_paths.launchers_directory() / (unit.source or unit.name)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LaunchError(f"{path}: {error.strerror}", hint="install qmpmem again") from error
    for name, value in unit.values:
        text = text.replace(f"@{name}@", value)
    return text.replace("=qmpmem ", f"={program} ").replace("=-qmpmem ", f"=-{program} ")


def install(unit: Unit, root: Path, program: str, needs: Sequence[Unit] = ()) -> list[str]:
    """Put a unit in place and enable it, and before it those that it needs.

    Nothing is written where something is in the way of any of it. None is enabled before all are
    written: one that is cut off, as by a full disk, starts nothing at the next boot that did not
    start before.

    Returns:
        What was done, a line each; empty where all of it was there.

    Raises:
        LaunchError: another unit of that name is there, or it cannot be written.
    """
    units = (*needs, unit)
    texts = [text_of(each, program) for each in units]
    expect_installable(units, root)
    done: list[str] = []
    for each, text in zip(units, texts, strict=True):
        done += _write(each, root, text)
    for each in units:
        done += _enable(each, root)
    return done


def expect_installable(units: Sequence[Unit], root: Path) -> None:
    """Expect that nothing is in the way of units of ours, or of the links that enable them.

    Raises:
        LaunchError: something is, or it cannot be seen.
    """
    for each in units:
        link = root / WANTS / each.name
        with _reported(root / DIRECTORY / each.name):
            find(each, root)
        with _reported(link), suppress(FileNotFoundError):
            with directories.opened_beneath(root, WANTS) as directory:
                found = os.stat(each.name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISLNK(found.st_mode):
                raise LaunchError(
                    f"{link}: expected a link, got {directories.kind_of(found)}",
                    hint="move it out of the way",
                )


def _write(unit: Unit, root: Path, text: str) -> list[str]:
    place = root / DIRECTORY / unit.name
    with _reported(place), directories.opened_beneath(root, DIRECTORY, make=True) as directory:
        if _read(unit, place, directory) == text:
            return []
        state_files.write_below(directory, unit.name, text.encode(), READABLE)
    return [f"wrote {place}"]


def _enable(unit: Unit, root: Path) -> list[str]:
    link = root / WANTS / unit.name
    with _reported(link), directories.opened_beneath(root, WANTS, make=True) as directory:
        if _is_link(directory, unit.name):
            return []
        os.symlink(f"/{DIRECTORY}/{unit.name}", unit.name, dir_fd=directory)
    return [f"enabled it: {link}"]


@contextmanager
def _reported(path: Path) -> Generator[None]:
    """Raise what the kernel refuses as an error of ours."""
    try:
        yield
    except OSError as error:
        raise obstacles.explain(error, path) from error


def uninstall(unit: Unit, root: Path) -> list[str]:
    """Disable a unit and remove it.

    Returns:
        What was done, a line each; empty where nothing of ours was there.

    Raises:
        LaunchError: another unit of that name is there, or it cannot be removed.
    """
    done: list[str] = []
    place = root / DIRECTORY / unit.name
    with _reported(place):
        present = find(unit, root)
        for where, there in ((WANTS, _is_enabled(unit, root)), (DIRECTORY, present is not None)):
            if there:
                with directories.opened_beneath(root, where) as directory:
                    os.unlink(unit.name, dir_fd=directory)
                done.append(f"removed {root / where / unit.name}")
        with suppress(OSError), directories.opened_beneath(root, DIRECTORY) as directory:
            os.rmdir(Path(WANTS).name, dir_fd=directory)  # others have links there, too
    return done


class UnitStatus(Record, frozen=True):
    """Whether systemd knows a unit of ours. The field names are the keys of ``--json``."""

    name: str
    state: Literal["absent", "installed", "outdated", "foreign"]
    """outdated: written by another version, or for another program; foreign: not by us at all."""
    enabled: bool
    """Whether it starts with the host."""
    path: str
    active: str | None = None
    """What ``systemctl is-active`` says; None where it was not asked."""
    needs: tuple["UnitStatus", ...] = ()
    """Another unit of ours, without which it is of no use."""


def status(unit: Unit, root: Path, program: str) -> UnitStatus:
    """Look at a unit.

    Raises:
        LaunchError: its file is there and cannot be read, or this program cannot run a unit.
    """
    place = root / DIRECTORY / unit.name
    state: Literal["absent", "installed", "outdated", "foreign"]
    try:
        present = find(unit, root)
    except LaunchError:
        state = "foreign"
    except OSError as error:
        raise LaunchError(f"{place}: {error.strerror}") from error
    else:
        is_ours = present == text_of(unit, program)
        state = "absent" if present is None else "installed" if is_ours else "outdated"
    enabled = _is_enabled(unit, root)
    return UnitStatus(name=unit.name, state=state, enabled=enabled, path=str(place))


def expect_ours(unit: Unit, root: Path) -> None:
    """Refuse to touch a unit of that name that is not ours.

    Raises:
        LaunchError: another one is there, or it cannot be read.
    """
    with _reported(root / DIRECTORY / unit.name):
        find(unit, root)


def find(unit: Unit, root: Path) -> str | None:
    """Read our unit; None where there is none.

    Raises:
        LaunchError: the unit of that name is not ours.
        OSError: it cannot be read.
    """
    try:
        with directories.opened_beneath(root, DIRECTORY) as directory:
            return _read(unit, root / DIRECTORY / unit.name, directory)
    except FileNotFoundError:
        return None


def _read(unit: Unit, place: Path, directory: int) -> str | None:
    """Read our unit in a directory that is open; see `find`."""
    foreign = LaunchError(f"{place}: not written by qmpmem", hint="move it out of the way")
    try:
        text = state_files.read_below(directory, unit.name, LARGEST).decode(errors="replace")
    except FileNotFoundError:
        return None
    except directories.UntrustedError as error:  # a link, as to mask it
        raise foreign from error
    if not text.startswith(unit.first_line):
        raise foreign
    return text


def _is_enabled(unit: Unit, root: Path) -> bool:
    try:
        with directories.opened_beneath(root, WANTS) as directory:
            return _is_link(directory, unit.name)
    except OSError:
        return False


def _is_link(directory: int, name: str) -> bool:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISLNK(found.st_mode)
