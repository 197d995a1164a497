"""Our systemd units: put in place, and taken out again.

Rules of this file:
    A unit is enabled by a link, which is all that `systemctl enable` does for it
    (systemd.unit(5), [Install]), so that an image can be prepared from outside.
    A unit of this name that we did not write is not ours to replace.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from qmpmem import places
from qmpmem.errors import LaunchError
from qmpmem.records import Record

DIRECTORY: Final = "etc/systemd/system"
WANTS: Final = f"{DIRECTORY}/multi-user.target.wants"


class Unit(Record, frozen=True):
    """One of our units."""

    name: str
    first_line: str
    """What its file starts with: that is how we know it for ours."""


def text_of(unit: Unit, program: str) -> str:
    """Give the unit's text, which runs this program.

    Raises:
        LaunchError: this copy of qmpmem came without it, or the path cannot stand in a unit.
    """
    # systemd.service(5), "Command lines": these would be read as something else.
    if not program.startswith("/") or set(program) & set(" \t\n\"'\\%$;"):
        raise LaunchError(f"{program!r}: expected an absolute path without blanks and quotes")
    path = places.launchers_directory() / unit.name
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LaunchError(f"{path}: {error.strerror}", hint="install qmpmem again") from error
    return text.replace("=qmpmem ", f"={program} ")


def install(unit: Unit, root: Path, program: str) -> list[str]:
    """Put a unit in place and enable it.

    Returns:
        What was done, a line each; empty where all of it was there.

    Raises:
        LaunchError: another unit of that name is there, or it cannot be written.
    """
    text = text_of(unit, program)
    place, link = root / DIRECTORY / unit.name, root / WANTS / unit.name
    done: list[str] = []
    try:
        present = _read(unit, place)
        if present != text:
            place.parent.mkdir(parents=True, exist_ok=True)
            beside = place.with_name(f".{unit.name}.{os.getpid()}")
            beside.write_text(text, encoding="utf-8")
            beside.chmod(0o644)
            beside.replace(place)
            done.append(f"wrote {place}")
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(f"/{DIRECTORY}/{unit.name}")
            done.append(f"enabled it: {link}")
    except OSError as error:
        raise LaunchError(
            f"{error.filename or place}: {error.strerror}", hint="run as root"
        ) from error
    return done


def uninstall(unit: Unit, root: Path) -> list[str]:
    """Disable a unit and remove it.

    Returns:
        What was done, a line each; empty where nothing of ours was there.

    Raises:
        LaunchError: another unit of that name is there, or it cannot be removed.
    """
    place, link = root / DIRECTORY / unit.name, root / WANTS / unit.name
    done: list[str] = []
    try:
        present = _read(unit, place)
        for path, there in ((link, link.is_symlink()), (place, present is not None)):
            if there:
                path.unlink()
                done.append(f"removed {path}")
        with suppress(OSError):  # others have links there, too
            link.parent.rmdir()
    except OSError as error:
        raise LaunchError(
            f"{error.filename or place}: {error.strerror}", hint="run as root"
        ) from error
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


def status(unit: Unit, root: Path, program: str) -> UnitStatus:
    """Look at a unit.

    Raises:
        LaunchError: its file is there and cannot be read, or this program cannot run a unit.
    """
    place = root / DIRECTORY / unit.name
    state: Literal["absent", "installed", "outdated", "foreign"]
    try:
        present = _read(unit, place)
    except LaunchError:
        state = "foreign"
    except OSError as error:
        raise LaunchError(f"{place}: {error.strerror}") from error
    else:
        is_ours = present == text_of(unit, program)
        state = "absent" if present is None else "installed" if is_ours else "outdated"
    enabled = (root / WANTS / unit.name).is_symlink()
    return UnitStatus(name=unit.name, state=state, enabled=enabled, path=str(place))


def _read(unit: Unit, place: Path) -> str | None:
    """Read our unit; None where there is none.

    Raises:
        LaunchError: it is somebody else's.
    """
    try:
        text = place.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    if not text.startswith(unit.first_line):
        raise LaunchError(f"{place}: not written by qmpmem", hint="move it out of the way")
    return text
