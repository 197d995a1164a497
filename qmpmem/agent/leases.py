"""Memory that is kept for guests that are about to start: bound to the guest, and given back.

Theory of operation:
    The guest that a lease is for is found by its process, which asked and then became the guest
    (exec keeps the pid), or by its name. What that guest has touched is no longer kept for it, and
    when it ends, so does the lease; so it does when its time is over, or its process ends without
    having become a guest.
"""

import os
import select
import time
from collections.abc import Callable, Mapping
from typing import Final

from qmpmem.agent.requests import RequestStore
from qmpmem.errors import ConfigError
from qmpmem.guests.rundir import GuestRecord
from qmpmem.model.observation import Lease
from qmpmem.records import Record
from qmpmem.units import Bytes

REGISTERING: Final = 10.0
"""Seconds after the end of a process in which its guest may still be found: -daemonize."""


class Wanted(Record, frozen=True):
    """What is to be kept, and for which guest."""

    owner: str
    """The user or program that asked for it, in words."""
    size: Bytes
    guest: str | None = None
    """The guest's id or name, if it is known."""
    pid: int | None = None
    """The process that becomes the guest, if it is one that runs already."""


class _Claim:
    """Which guest a lease is for."""

    def __init__(self, wanted: Wanted) -> None:
        self._guest = wanted.guest
        self._pid = wanted.pid
        self._since = time.time()
        self._ended: float | None = None
        self._process = None if wanted.pid is None else os.pidfd_open(wanted.pid)

    def fits(self, record: GuestRecord) -> bool:
        """Whether this guest is the one."""
        if self._pid is not None:
            return record.pid == self._pid and record.created >= self._since - 1
        return self._guest is not None and self._guest in (record.id, record.name)

    def is_void(self, now: float) -> bool:
        """Whether the guest will never come: its process ended some time ago."""
        if self._ended is None and self._process is not None:
            poll = select.poll()
            poll.register(self._process, select.POLLIN)
            self._ended = now if poll.poll(0) else None
        return self._ended is not None and now - self._ended >= REGISTERING

    def close(self) -> None:
        if self._process is not None:
            os.close(self._process)


class Leases:
    """Keep memory, and follow what becomes of it.

    Args:
        requests: where the leases in force are.
        say: gets a line for each lease that ended or was taken.
        clock: the clock of `Snapshot.time`.
    """

    def __init__(
        self, requests: RequestStore, say: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        self._requests = requests
        self._say = say
        self._clock = clock
        self._claims: dict[str, _Claim] = {}

    def reserve(self, wanted: Wanted, seconds: float) -> Lease:
        """Keep memory for a guest, for so many seconds from now.

        Raises:
            ConfigError: too long, or too many; or there is no such process.
        """
        claim = _claim(wanted)
        try:
            lease = self._requests.reserve(
                wanted.owner, wanted.size, seconds, self._clock(), meant=wanted.guest
            )
        except ConfigError:
            claim.close()
            raise
        self._claims[lease.id] = claim
        return lease

    def keep(self, lease: str, seconds: float) -> None:
        """Keep a lease for so many seconds from now."""
        self._requests.extend(lease, self._clock() + seconds)

    def give_back(self, lease: str) -> bool:
        """End a lease; whether there was one."""
        claim = self._claims.pop(lease, None)
        if claim is not None:
            claim.close()
        return self._requests.give_back(lease)

    def follow(self, guests: Mapping[str, GuestRecord], now: float) -> None:
        """Bind leases to their guests, and give back those that are no longer needed.

        Args:
            guests: all that run, by id.
            now: as `Snapshot.time`.
        """
        for lease in self._requests.in_force.leases:
            claim = self._claims.get(lease.id)
            if lease.guest is not None:
                is_over = lease.guest not in guests
            elif claim is not None:
                is_over = not self._bind(lease.id, claim, guests) and claim.is_void(now)
            else:
                is_over = False
            if is_over:
                self._say(f"lease {lease.id}: given back, it is no longer needed")
                self.give_back(lease.id)
        known = {lease.id for lease in self._requests.in_force.leases}
        for over in self._claims.keys() - known:
            self._say(f"lease {over}: its time is over")
            self._claims.pop(over).close()

    def close(self) -> None:
        """Let go of the processes that are watched."""
        for claim in self._claims.values():
            claim.close()
        self._claims.clear()

    def _bind(self, lease: str, claim: _Claim, guests: Mapping[str, GuestRecord]) -> bool:
        found = next((guest for guest, record in guests.items() if claim.fits(record)), None)
        if found is None:
            return False
        self._say(f"lease {lease}: taken by guest {found}")
        return self._requests.take(lease, found)


def _claim(wanted: Wanted) -> _Claim:
    try:
        return _Claim(wanted)
    except OSError as error:
        raise ConfigError(f"process {wanted.pid}: {error.strerror}") from error
