"""What may stand in the place of a file of state: made by a mistake, or by another user."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.rig.users import IS_ROOT, NOBODY

Make = Callable[[Path], None]

WORDS: Final = b"not to be touched\n"


def victim(path: Path) -> Path:
    """Name the file that `link` leads to."""
    return path.parent.parent / "victim"


def fifo(path: Path) -> None:
    """Make a FIFO, whose opening waits for its other end."""
    os.mkfifo(path)


def link(path: Path) -> None:
    """Make a link to a file that must stay as it is."""
    victim(path).write_bytes(WORDS)
    path.symlink_to(victim(path))


def directory(path: Path) -> None:
    """Make a directory."""
    path.mkdir()


def device(path: Path) -> None:
    """Make a device from which can be read without end."""
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))


def sparse(path: Path) -> None:
    """Make a file of 1 TiB that takes no room."""
    with path.open("wb") as file:
        file.truncate(1 << 40)
    path.chmod(0o600)


def others(path: Path) -> None:
    """Make a file of another user."""
    path.write_bytes(b"{}")
    os.chown(path, NOBODY, NOBODY)


def groups(path: Path) -> None:
    """Make a file that a group may write."""
    path.write_bytes(b"{}")
    os.chown(path, -1, NOBODY)
    path.chmod(0o660)


def writable_by_all(path: Path) -> None:
    """Make a file that any user may write."""
    path.write_bytes(b"{}")
    path.chmod(0o666)


_ROOT: Final = pytest.mark.skipif(not IS_ROOT, reason="not root: makes devices and others' files")

EVERY: Final = [
    pytest.param(fifo, id="fifo"),
    pytest.param(link, id="link"),
    pytest.param(directory, id="directory"),
    pytest.param(device, id="device", marks=_ROOT),
    pytest.param(sparse, id="sparse"),
    pytest.param(others, id="others", marks=_ROOT),
    pytest.param(groups, id="groups", marks=_ROOT),
    pytest.param(writable_by_all, id="writable-by-all"),
]
"""All of them, for `pytest.mark.parametrize`."""
