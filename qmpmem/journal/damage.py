"""Whether a journal's own bytes are what SQLite fails on, or something outside of them.

Theory of operation:
    `database.is_damage` goes by SQLite's code. Two codes mean either. A file says of itself which
    versions may write it (SQLite: Database File Format, 1.3.3), and SQLite then calls it read-only,
    as on a read-only file system. It cannot open a file with a -wal of another version, as where
    the process has too many files open. Here the file system, and the -wal, are asked which it is.

Rules of this file:
    No file is opened while SQLite has it open: to close it would take SQLite's locks (fcntl(2)).
"""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from qmpmem.journal import database

BESIDE: Final = ("-wal", "-shm", "-journal")
"""What SQLite may make beside a file, by the ends of the names."""
HEAD: Final = 8
"""Bytes of a -wal: a magic number, and the version (SQLite: Database File Format, 4.1)."""
VERSION: Final = (3_007_000).to_bytes(4, "big")
"""Of each -wal that SQLite wrote so far."""


def is_damage(path: Path, error: sqlite3.Error) -> bool:
    """Tell whether to try a journal again does not help, since its bytes are what fails.

    Args:
        path: the journal, which is closed.
        error: what happened to it.
    """
    if database.is_damage(error):
        return True
    code = database.code_of(error)
    if code == sqlite3.SQLITE_READONLY:
        return _may_write(path)
    return code == sqlite3.SQLITE_CANTOPEN and _is_of_another_version(path)


def beside(path: Path) -> list[Path]:
    """Return what SQLite may make beside a file."""
    return [path.with_name(path.name + end) for end in BESIDE]


def _may_write(path: Path) -> bool:
    """Tell whether the rights, and the file system, let this process write a journal."""
    files = (path, *(each for each in beside(path) if each.exists()))
    return all(
        os.access(each, os.R_OK | os.W_OK, effective_ids=True) for each in (*files, path.parent)
    )


def _is_of_another_version(path: Path) -> bool:
    with suppress(OSError), path.with_name(path.name + BESIDE[0]).open("rb") as file:
        head = file.read(HEAD)
        return len(head) == HEAD and not head.endswith(VERSION)
    return False
