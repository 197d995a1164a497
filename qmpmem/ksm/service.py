"""The systemd unit that sets KSM up at boot: put in place, and taken out again.

Rules of this file:
    The unit is enabled by a link, which is all that `systemctl enable` does for it
    (systemd.unit(5), [Install]), so that an image can be prepared from outside.
    A unit of this name that we did not write is not ours to replace.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from qmpmem import places
from qmpmem.errors import LaunchError

NAME: Final = "qmpmem-ksm.service"
DIRECTORY: Final = "etc/systemd/system"
WANTS: Final = f"{DIRECTORY}/multi-user.target.wants"
FIRST_LINE: Final = "# Does at boot what KSM_ENABLED and KSM_PRESET"


def unit(program: str) -> str:
    """Give the unit's text, which runs this program.

    Raises:
        LaunchError: this copy of qmpmem came without it, or the path cannot stand in a unit.
    """
    # systemd.service(5), "Command lines": these would be read as something else.
    if not program.startswith("/") or set(program) & set(" \t\n\"'\\%$;"):
        raise LaunchError(f"{program!r}: expected an absolute path without blanks and quotes")
    path = places.launchers_directory() / NAME
    try:
        text = path.read_text()
    except OSError as error:
        raise LaunchError(f"{path}: {error.strerror}", hint="install qmpmem again") from error
    return text.replace("=qmpmem ", f"={program} ")


def install(root: Path, program: str) -> list[str]:
    """Put the unit in place and enable it.

    Returns:
        What was done, a line each; empty where all of it was there.

    Raises:
        LaunchError: another unit of that name is there, or it cannot be written.
    """
    text = unit(program)
    place, link = root / DIRECTORY / NAME, root / WANTS / NAME
    done: list[str] = []
    try:
        present = _read(place)
        if present != text:
            place.parent.mkdir(parents=True, exist_ok=True)
            beside = place.with_name(f".{NAME}.{os.getpid()}")
            beside.write_text(text)
            beside.chmod(0o644)
            beside.replace(place)
            done.append(f"wrote {place}")
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(f"/{DIRECTORY}/{NAME}")
            done.append(f"enabled it: {link}")
    except OSError as error:
        raise LaunchError(
            f"{error.filename or place}: {error.strerror}", hint="run as root"
        ) from error
    return done


def uninstall(root: Path) -> list[str]:
    """Disable the unit and remove it.

    Returns:
        What was done, a line each; empty where nothing of ours was there.

    Raises:
        LaunchError: another unit of that name is there, or it cannot be removed.
    """
    place, link = root / DIRECTORY / NAME, root / WANTS / NAME
    done: list[str] = []
    try:
        present = _read(place)
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


def _read(place: Path) -> str | None:
    """Read our unit; None where there is none.

    Raises:
        LaunchError: it is somebody else's.
    """
    try:
        text = place.read_text()
    except FileNotFoundError:
        return None
    if not text.startswith(FIRST_LINE):
        raise LaunchError(f"{place}: not written by qmpmem", hint="move it out of the way")
    return text
