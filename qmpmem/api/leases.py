"""Room for guests that are about to start: made, kept, bound to the guest, given back.

Theory of operation:
    The policy counts a lease as memory that is taken. Once a round that knew of it ends with
    nothing lacking (`Plan.spare` is not negative), the room is there, and the process that asked is
    told. The guest it was for is found by its process, which asked and then became the guest (exec
    keeps the pid), or by its name. What that guest has touched is no longer kept for it, and when
    it ends, so does the lease; so it does when its time is over, or its process ends without having
    become a guest.
"""

import asyncio
import os
import select
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from qmpmem.agent.loop import Agent
from qmpmem.api.permissions import Peer
from qmpmem.api.recent_rounds import RecentRounds
from qmpmem.api.records import Contribution, LeaseRequest, LeaseResult
from qmpmem.errors import ConfigError, NotReached
from qmpmem.guests.rundir import GuestRecord
from qmpmem.model.names import LONGEST_NAME, label
from qmpmem.model.round import Explanation, Tick
from qmpmem.units import Bytes, format_size

NAMED: Final = 5
"""Guests that a message names: those that could have given most."""

OWNER: Final = 256
"""Characters that say what wants the room: they are in each round, for as long as it is kept."""

REGISTERING: Final = 10.0
"""Seconds after the end of a process in which its guest may still be found: -daemonize."""

Gone = Callable[[], Awaitable[bool]]


class _Claim:
    """Which guest a lease is for."""

    def __init__(self, room: LeaseRequest, peer: Peer) -> None:
        self.guest = room.guest
        self.pid = peer.pid if room.mine else None
        self.since = time.time()
        self.ended: float | None = None
        self.process = os.pidfd_open(peer.pid) if room.mine else None

    def fits(self, record: GuestRecord) -> bool:
        """Whether this guest is the one."""
        if self.pid is not None:
            return record.pid == self.pid and record.created >= self.since - 1
        return self.guest is not None and self.guest in (record.id, record.name)

    def is_void(self, now: float) -> bool:
        """Whether the guest will never come: its process ended some time ago."""
        if self.ended is None and self.process is not None:
            poll = select.poll()
            poll.register(self.process, select.POLLIN)
            self.ended = now if poll.poll(0) else None
        return self.ended is not None and now - self.ended >= REGISTERING

    def close(self) -> None:
        if self.process is not None:
            os.close(self.process)


class Leases:
    """Makes room, and follows what becomes of it.

    Args:
        agent: whose orders they are.
        rounds: where its rounds are heard of.
        log: told what became of them, in a line.
    """

    def __init__(self, agent: Agent, rounds: RecentRounds, log: Callable[[str], None]) -> None:
        self._agent = agent
        self._rounds = rounds
        self._log = log
        self._claims: dict[str, _Claim] = {}

    async def reserve(self, room: LeaseRequest, peer: Peer, is_gone: Gone) -> LeaseResult:
        """Make room, and keep it for a guest.

        Args:
            room: what is asked for.
            peer: by whom.
            is_gone: whether the client that asked has left.

        Raises:
            ConfigError: it makes no sense, or never can be.
            NotReached: it is not there in time; tells which guests could not give what.
        """
        _check(room, self._rounds.last)
        began, start = time.monotonic(), self._rounds.last
        owner = room.owner or f"uid {peer.uid} pid {peer.pid}"
        claim = _claim(room, peer)
        try:
            lease = self._agent.requests.reserve(
                owner, room.size, room.timeout + room.keep, began, meant=room.guest
            )
        except ConfigError:
            claim.close()
            raise
        self._claims[lease.id] = claim
        self._agent.hurry()
        try:
            await self._wait(lease.id, room, is_gone, start)
        except BaseException:
            self.give_back(lease.id)
            raise
        now = time.monotonic()
        self._agent.requests.extend(lease.id, now + room.keep)
        return LeaseResult(
            lease=lease.id,
            size=room.size,
            seconds=now - began,
            keep=room.keep,
            gave=given(start, self._rounds.last),
        )

    def give_back(self, lease: str) -> bool:
        """End a lease; whether there was one."""
        claim = self._claims.pop(lease, None)
        if claim is not None:
            claim.close()
        ended = self._agent.requests.give_back(lease)
        self._agent.hurry()
        return ended

    def follow(self, guests: Mapping[str, GuestRecord], now: float) -> None:
        """Bind leases to their guests, and give back those that are no longer needed.

        Args:
            guests: all that run, by id.
            now: as `Snapshot.time`.
        """
        for lease in self._agent.requests.in_force.leases:
            claim = self._claims.get(lease.id)
            if lease.guest is not None:
                is_over = lease.guest not in guests
            elif claim is not None:
                is_over = not self._bind(lease.id, claim, guests) and claim.is_void(now)
            else:
                is_over = False
            if is_over:
                self._log(f"lease {lease.id}: given back, it is no longer needed")
                self.give_back(lease.id)
        known = {lease.id for lease in self._agent.requests.in_force.leases}
        for over in self._claims.keys() - known:
            self._log(f"lease {over}: its time is over")
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
        self._log(f"lease {lease}: taken by guest {found}")
        return self._agent.requests.take(lease, found)

    async def _wait(
        self, lease: str, room: LeaseRequest, is_gone: Gone, start: Tick | None
    ) -> None:
        try:
            async with asyncio.timeout(room.timeout):
                while not is_there(lease, await self._rounds.next()):
                    if await is_gone():
                        raise NotReached("the client that asked for it has left")
        except TimeoutError:
            raise NotReached(
                failure(room, start, self._rounds.last),
                hint="a longer --timeout, a smaller size, or more memory for the host",
            ) from None


def is_there(lease: str, tick: Tick) -> bool:
    """Whether the room for a lease is there, by a round that knew of it. Pure."""
    known = any(each.id == lease for each in tick.snapshot.requests.leases)
    return known and tick.plan.spare is not None and tick.plan.spare >= 0


def given(start: Tick | None, end: Tick | None) -> tuple[Contribution, ...]:
    """Return what each guest gave between two rounds, and what it could have. Pure."""
    if start is None or end is None:
        return ()
    before = {each.guest: each for each in start.plan.guests}
    return tuple(
        Contribution(
            guest=each.guest,
            gave=Bytes(max(0, (was.actual or 0) - (each.actual or was.actual or 0))),
            could=Bytes(max(0, (was.actual or 0) - (was.minimum or was.actual or 0))),
            reason=_reason(each),
            name=each.name,
        )
        for each in end.plan.guests
        for was in [before.get(each.guest, each)]
    )


def failure(room: LeaseRequest, start: Tick | None, end: Tick | None) -> str:
    """Return why there is no room, and which guests could not give what. Pure."""
    lack = "" if end is None or end.plan.spare is None else _lack(end.plan.spare)
    gave = given(start, end)
    short = sorted(gave, key=lambda each: each.gave - each.could)[:NAMED]
    named = "; ".join(
        f"{label(each.guest, each.name)} gave {format_size(each.gave)} of "
        f"{format_size(each.could)} ({each.reason})"
        for each in short
    )
    rest = f"; and {len(gave) - len(short)} more" if len(gave) > len(short) else ""
    return (
        f"no room for {format_size(room.size)} after {room.timeout:g} s{lack}: "
        f"{named or 'there are no guests to take it from'}{rest}"
    )


def _lack(spare: Bytes) -> str:
    return f", {format_size(Bytes(-spare))} missing" if spare < 0 else ""


def _reason(explanation: Explanation) -> str:
    if explanation.verdict != "normal":
        return f"{explanation.verdict}: {explanation.reason}"
    if explanation.bound in ("none", "demand") and explanation.demand is not None:
        return f"it needs {format_size(explanation.demand)}"
    return explanation.reason or explanation.bound


def _check(room: LeaseRequest, tick: Tick | None) -> None:
    for what, text, most in (("owner", room.owner, OWNER), ("guest", room.guest, LONGEST_NAME)):
        if text is not None and len(text) > most:
            raise ConfigError(f"{what}: {len(text)} characters, expected {most} at most")
    if room.size <= 0:
        raise ConfigError(f"{room.size} bytes: expected a size to make room for")
    if room.timeout < 0 or room.keep <= 0:
        raise ConfigError("expected a time of 0 s or more, and to keep it for more than 0 s")
    if tick is None:
        return
    host = tick.snapshot.host
    whole = host.limit or host.total
    if whole is not None and room.size > whole - tick.plan.reserve:
        raise ConfigError(
            f"no room for {format_size(room.size)}, ever: the guests may use "
            f"{format_size(Bytes(max(0, whole - tick.plan.reserve)))} together"
        )


def _claim(room: LeaseRequest, peer: Peer) -> _Claim:
    try:
        return _Claim(room, peer)
    except OSError as error:
        raise ConfigError(f"process {peer.pid}: {error.strerror}") from error
