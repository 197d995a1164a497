"""What operators asked for: hold, pins, leases. Kept in a file, so that a restart forgets nothing.

Rules of this file:
    A file that cannot be read or written stops nobody: what it held is lost, and that is said.
    Leases are not kept: their time is that of a clock that begins anew.
"""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from qmpmem.errors import ConfigError
from qmpmem.records import replace
from qmpmem.sight import Lease, Wishes
from qmpmem.units import Bytes

LONGEST_LEASE: Final = 3600.0
"""Seconds. A guest that has not started by then will not."""
MOST_LEASES: Final = 64


class Orders:
    """Holds the wishes in force.

    Args:
        path: where they are kept; None: nowhere.
        say: told, in a line, what went wrong.
    """

    def __init__(self, path: Path | None, say: Callable[[str], None]) -> None:
        self._path = path
        self._say = say
        self.wishes = self._load()

    def hold(self, *, on: bool) -> None:
        """Have the agent only release, or let it go on."""
        self._set(replace(self.wishes, hold=on))

    def pin(self, guest: str, size: Bytes) -> None:
        """Keep a guest at a size, within its limits."""
        self._set(replace(self.wishes, pins={**self.wishes.pins, guest: size}))

    def unpin(self, guest: str) -> bool:
        """Let a guest go; whether it was pinned."""
        if guest not in self.wishes.pins:
            return False
        pins = {name: size for name, size in self.wishes.pins.items() if name != guest}
        self._set(replace(self.wishes, pins=pins))
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
        if len(self.wishes.leases) >= MOST_LEASES:
            raise ConfigError(f"there are {MOST_LEASES} leases already")
        identity, until = secrets.token_hex(4), now + seconds
        lease = Lease(id=identity, owner=owner, size=size, until=until, meant=meant)
        self.wishes = replace(self.wishes, leases=(*self.wishes.leases, lease))
        return lease

    def take(self, lease: str, guest: str) -> bool:
        """Say which guest a lease was for; whether there is such a lease."""
        known = any(each.id == lease for each in self.wishes.leases)
        leases = tuple(
            replace(each, guest=guest) if each.id == lease else each for each in self.wishes.leases
        )
        self.wishes = replace(self.wishes, leases=leases)
        return known

    def extend(self, lease: str, until: float) -> None:
        """Keep a lease until then."""
        leases = tuple(
            replace(each, until=until) if each.id == lease else each for each in self.wishes.leases
        )
        self.wishes = replace(self.wishes, leases=leases)

    def give_back(self, lease: str) -> bool:
        """End a lease; whether there was one."""
        left = tuple(each for each in self.wishes.leases if each.id != lease)
        ended = len(left) < len(self.wishes.leases)
        self.wishes = replace(self.wishes, leases=left)
        return ended

    def expire(self, now: float) -> None:
        """Forget leases whose time is over."""
        left = tuple(each for each in self.wishes.leases if each.until > now)
        if len(left) < len(self.wishes.leases):
            self.wishes = replace(self.wishes, leases=left)

    def _set(self, wishes: Wishes) -> None:
        self.wishes = wishes
        if self._path is None:
            return
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            beside.touch(mode=0o600)  # which guests there are is not everybody's business
            beside.write_bytes(msgspec.json.encode(replace(wishes, leases=())))
            beside.replace(self._path)
        except OSError as error:
            self._say(f"{self._path}: {error.strerror}: holds and pins end with this agent")

    def _load(self) -> Wishes:
        if self._path is None:
            return Wishes()
        try:
            return replace(msgspec.json.decode(self._path.read_bytes(), type=Wishes), leases=())
        except FileNotFoundError:
            return Wishes()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self._say(f"{self._path}: {error}: what was pinned or held before is not known")
            return Wishes()
