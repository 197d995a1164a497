"""A line of the doctor's, and the host that it is about."""

import os
from pathlib import Path
from typing import Literal

from qmpmem.records import Record

Status = Literal["ok", "warning", "failed"]


class Finding(Record, frozen=True):
    """One thing that was looked at. The field names are the keys of ``--json``."""

    status: Status
    what: str
    said: str
    todo: str | None = None
    """What to do about it; None where all is well, or nothing can be done."""


class Host(Record, frozen=True):
    """Where to look, and as whom."""

    root: Path
    run: Path
    environ: dict[str, str]
    uid: int
    groups: frozenset[int]
    machine: str = os.uname().machine
    roots: Path | None = None
    """Root's run directory, where this user sees that one as well."""
    launchers: Path | None = None
    """The launchers that an install would install; None: those that came with this package."""

    @property
    def proc(self) -> Path:
        """Return the directory that stands for /proc."""
        return self.root / "proc"

    def path(self, name: str) -> Path:
        """Return where an absolute name is under the root."""
        return self.root / name.lstrip("/")


def is_roots(host: Host) -> bool:
    """Tell whether the guests are root's and this user, another, sees them by its agent."""
    try:
        return host.uid != 0 and host.run.lstat().st_uid == 0
    except OSError:
        return False


def ok(what: str, said: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(status="ok", what=what, said=said)


def warning(what: str, said: str, todo: str | None) -> Finding:
    """Return the finding that something works, but could be better."""
    return Finding(status="warning", what=what, said=said, todo=todo)


def failed(what: str, said: str, todo: str | None) -> Finding:
    """Return the finding that something does not work."""
    return Finding(status="failed", what=what, said=said, todo=todo)
