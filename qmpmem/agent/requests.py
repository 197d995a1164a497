"""What operators asked for: hold, pins, leases. Kept in a file, so that a restart forgets nothing.

Rules of this file:
    A file that cannot be read or written, or that another user could have written, stops nothing:
    what it held is lost, and that is said.
    Leases are not kept: their time is that of a clock that begins anew.
    The file is written in a thread. A request is in force at once; `kept` waits for the file.
"""

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from qmpmem.errors import ConfigError
from qmpmem.files import asynchronous, state_files
from qmpmem.model import sanitise
from qmpmem.model.observation import Lease, OperatorRequests
from qmpmem.records import replace
from qmpmem.units import Bytes

LONGEST_LEASE: Final = 3600.0
"""Seconds. A guest that has not started by then will not."""
MOST_LEASES: Final = 64

KEEPING: Final = 1.0
"""Seconds that an operator waits for the file; the answer then comes without it, and in time."""
LARGEST: Final = 16 << 20
"""Bytes of the file: some 300,000 pins."""
LOST: Final = "holds and pins end with this agent"


class RequestStore:
    """Hold the requests in force.

    Args:
        path: where they are kept; None: nowhere.
        say: told, in a line, what went wrong.
    """

    def __init__(self, path: Path | None, say: Callable[[str], None]) -> None:
        self._path = path
        self._say = say
        self._is_written = True
        self._writing: asyncio.Task[None] | None = None
        self.in_force = self._load()

    def hold(self, *, on: bool) -> None:
        """Have the agent only release, or let it go on."""
        self._set(replace(self.in_force, hold=on))

    def pin(self, guest: str, size: Bytes) -> None:
        """Keep a guest at a size, within its limits."""
        self._set(replace(self.in_force, pins={**self.in_force.pins, guest: size}))

    def unpin(self, guest: str) -> bool:
        """Let a guest go; whether it was pinned."""
        if guest not in self.in_force.pins:
            return False
        pins = {name: size for name, size in self.in_force.pins.items() if name != guest}
        self._set(replace(self.in_force, pins=pins))
        return True

    def reserve(
        self, owner: str, size: Bytes, seconds: float, now: float, *, meant: str | None = None
    ) -> Lease:
        """Keep memory for a guest that is about to start.

        Args:
            owner: who wants it.
            size: how much.
            seconds: for so long.
            now: as `Snapshot.time`.
            meant: the guest's id or name, if it is known.

        Raises:
            ConfigError: too long, or too many.
        """
        if not 0 < seconds <= LONGEST_LEASE:
            raise ConfigError(f"a lease of {seconds:g} s: expected up to {LONGEST_LEASE:g}")
        self.expire(now)
        if len(self.in_force.leases) >= MOST_LEASES:
            raise ConfigError(f"there are {MOST_LEASES} leases already")
        identity, until = secrets.token_hex(4), now + seconds
        lease = Lease(id=identity, owner=owner, size=size, until=until, meant=meant)
        self.in_force = replace(self.in_force, leases=(*self.in_force.leases, lease))
        return lease

    def take(self, lease: str, guest: str) -> bool:
        """Note which guest a lease was for, and return whether there is such a lease."""
        known = any(each.id == lease for each in self.in_force.leases)
        leases = tuple(
            replace(each, guest=guest) if each.id == lease else each
            for each in self.in_force.leases
        )
        self.in_force = replace(self.in_force, leases=leases)
        return known

    def extend(self, lease: str, until: float) -> None:
        """Keep a lease until then."""
        leases = tuple(
            replace(each, until=until) if each.id == lease else each
            for each in self.in_force.leases
        )
        self.in_force = replace(self.in_force, leases=leases)

    def give_back(self, lease: str) -> bool:
        """End a lease; whether there was one."""
        left = tuple(each for each in self.in_force.leases if each.id != lease)
        ended = len(left) < len(self.in_force.leases)
        self.in_force = replace(self.in_force, leases=left)
        return ended

    def expire(self, now: float) -> None:
        """Forget leases whose time is over."""
        left = tuple(each for each in self.in_force.leases if each.until > now)
        if len(left) < len(self.in_force.leases):
            self.in_force = replace(self.in_force, leases=left)

    async def kept(self) -> bool:
        """Wait until the requests of now are in their file, for `KEEPING` seconds at most.

        Returns:
            Whether they are.
        """
        self._begin_to_write()
        if self._writing is None:
            return True
        done, _ = await asyncio.wait((self._writing,), timeout=KEEPING)
        if not done:
            self._say(f"{self._path}: not written within {KEEPING:g} s; {LOST}")
        return bool(done)

    def _set(self, requests: OperatorRequests) -> None:
        self.in_force = requests
        self._is_written = self._path is None
        self._begin_to_write()

    def _begin_to_write(self) -> None:
        """Have a task write, where there is something to write and none does so already."""
        if self._is_written or (self._writing is not None and not self._writing.done()):
            return
        with suppress(RuntimeError):  # no event loop yet: `kept` writes
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        """Write what the requests are by now, and again if they changed meanwhile."""
        while self._path is not None and not self._is_written:
            self._is_written = True
            content = msgspec.json.encode(replace(self.in_force, leases=()))
            try:
                # Other users do not learn from it which guests there are.
                await asynchronous.write(self._path, content, 0o600)
            except OSError as error:
                self._say(f"{self._path}: {error.strerror}; {LOST}")

    def _load(self) -> OperatorRequests:
        """Read the file. Blocks: an agent is made before its event loop runs."""
        if self._path is None:
            return OperatorRequests()
        try:
            content = state_files.read(self._path, LARGEST)
            found = msgspec.json.decode(content, type=OperatorRequests)
            if all(map(sanitise.count, found.pins.values())):
                return replace(found, leases=())
            problem = "a size that no guest can have"
        except FileNotFoundError:
            return OperatorRequests()
        except OSError as error:
            problem = error.strerror or str(error)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            problem = str(error)
        self._say(f"{self._path}: {problem}: what was pinned or held before is not known")
        return OperatorRequests()
