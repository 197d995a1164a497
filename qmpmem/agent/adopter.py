"""Adopting by rule: a QEMU that listens on a socket that an ``[[adopt]]`` names becomes a guest.

Theory of operation:
    A guest that its unit starts again is another process on the same socket. Its old record is
    stale, and the rule still holds: the next search adopts the new process, within `LOOK` seconds.

    A rule names paths, and any user that may make a socket there could have root's agent take it
    for a guest's. So the directory must belong to root, to the agent's user or to the socket's
    owner, and no other user may write there. The socket must belong to root, the agent's user or
    the directory's owner. The process that listens must be of the socket's owner, or root's
    (unix(7): SO_PEERCRED).

Rules of this file:
    Nothing here ends the agent: what cannot be adopted is a warning, which comes once while it is
    so.
"""

import asyncio
import glob
import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from qmpmem.errors import GuestError, QmpmemError
from qmpmem.guests import inventory
from qmpmem.guests.adopt import adopt
from qmpmem.model.config import Adoption
from qmpmem.records import Record

LOOK: Final = 5.0
"""Seconds between two searches."""
MOST: Final = 1000
"""Most sockets that one rule may name."""

_ENDING: Final = re.compile(r"[._-]?(?:qmp|monitor|mon|sock|socket)$", re.IGNORECASE)
"""What the names of monitors' files have beside the guest's name: ``db1.qmp.sock``."""


class Candidate(Record, frozen=True):
    """A socket to adopt, and what to call its guest."""

    socket: str
    name: str


class Adopter:
    """Adopts by rule, beside the rounds.

    Args:
        run: the run directory.
        warn: called with what could not be adopted, and why.
    """

    def __init__(self, run: Path, warn: Callable[[str], None]) -> None:
        self._run = run
        self._warn = warn
        self._due = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._said: dict[str, str] = {}

    def tend(self, rules: Sequence[Adoption], now: float) -> None:
        """Begin a search where it is time for one, and none is under way."""
        if not rules or now < self._due or (self._task is not None and not self._task.done()):
            return
        self._due = now + LOOK
        self._task = asyncio.create_task(self._look(rules))

    async def stop(self) -> None:
        """End what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _look(self, rules: Sequence[Adoption]) -> None:
        try:
            found = await asyncio.to_thread(candidates, rules, self._run)
        except (QmpmemError, OSError) as error:
            self._warn(f"adopting by rule: {error}")
            return
        said: dict[str, str] = {}
        for each in found:
            problem = await self._adopt(each)
            if problem is not None:
                said[each.socket] = problem
                if self._said.get(each.socket) != problem:
                    self._warn(f"not adopted by rule: {problem}")
        self._said = said

    async def _adopt(self, each: Candidate) -> str | None:
        """Adopt a guest, or return why that is not possible."""
        try:
            owner = await asyncio.to_thread(owner_of, each.socket)
            await adopt(self._run, each.name, each.socket, owner=owner)
        except GuestError as error:
            return error.message
        except (QmpmemError, OSError) as error:
            return f"{each.socket}: {error}"
        return None


def candidates(rules: Sequence[Adoption], run: Path) -> list[Candidate]:
    """Find the sockets that rules name, and that belong to no guest yet. Blocks.

    There are none where the run directory is a broker's: the broker adopts.
    """
    if run.is_dir() and not os.access(run, os.W_OK):
        return []
    taken = {found.record.socket for found in inventory.take(run).guests}
    found: dict[str, Candidate] = {}
    for rule in rules:
        for path in sorted(glob.iglob(rule.socket))[:MOST]:  # noqa: PTH207 - it is text
            if path not in taken and path not in found and _is_socket(path):
                found[path] = Candidate(socket=path, name=rule.name or name_of(path))
    return list(found.values())


def name_of(path: str) -> str:
    """Return a guest's name by its socket: ``db1`` for /run/db1.qmp and /run/db1/qmp.sock. Pure."""
    directory, _, name = path.rpartition("/")
    while (shorter := _ENDING.sub("", name)) != name:
        name = shorter
    return name or directory.rpartition("/")[2] or "guest"


def owner_of(path: str) -> int:
    """Return the user whose process may listen on a socket.

    Raises:
        PermissionError: users other than those that the administrator meant may have made it.
        OSError: it cannot be looked at.
    """
    directory, socket = os.stat(os.path.dirname(path)), os.lstat(path)  # noqa: PTH116, PTH120 - text
    ours = {0, os.geteuid()}
    if stat.S_IMODE(directory.st_mode) & stat.S_IWOTH:
        raise PermissionError("every user may make a socket in its directory")
    if directory.st_uid not in ours | {socket.st_uid}:
        raise PermissionError(f"its directory belongs to uid {directory.st_uid}")
    if socket.st_uid not in ours | {directory.st_uid}:
        raise PermissionError(f"it belongs to uid {socket.st_uid}, and its directory does not")
    return socket.st_uid


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False
