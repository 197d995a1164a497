"""Room for guests that are about to start: asked for, and waited for.

Theory of operation:
    The policy counts a lease as memory that is taken. Once a round that knew of it ends with
    nothing lacking (`Plan.spare` is not negative), the room is there, and the process that asked is
    told. What becomes of the lease then is the agent's to follow (`qmpmem.agent.leases`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from qmpmem.agent.leases import Wanted
from qmpmem.agent.loop import Agent
from qmpmem.api.permissions import Peer
from qmpmem.api.recent_rounds import RecentRounds
from qmpmem.api.records import Contribution, LeaseRequest, LeaseResult
from qmpmem.errors import ConfigError, NotReached
from qmpmem.model.names import LONGEST_NAME, label
from qmpmem.model.round import Explanation, Tick
from qmpmem.units import Bytes, format_size

NAMED: Final = 5
"""Guests that a message names: those that could have given most."""

OWNER: Final = 256
"""Characters that say what wants the room: they are in each round, for as long as it is kept."""

Gone = Callable[[], Awaitable[bool]]


async def reserve(
    agent: Agent, rounds: RecentRounds, room: LeaseRequest, peer: Peer, is_gone: Gone
) -> LeaseResult:
    """Make room, and have the agent keep it for a guest.

    Args:
        agent: whose guests give it.
        rounds: where its rounds are heard of.
        room: what is asked for.
        peer: by whom.
        is_gone: whether the client that asked has left.

    Raises:
        ConfigError: it makes no sense, or never can be.
        NotReached: it is not there in time; tells which guests could not give what.
    """
    _check(room, rounds.last)
    began, start = time.monotonic(), rounds.last
    lease = agent.leases.reserve(_wanted(room, peer), room.timeout + room.keep)
    agent.hurry()
    try:
        await _wait(rounds, lease.id, room, is_gone, start)
    except BaseException:
        agent.leases.give_back(lease.id)
        agent.hurry()
        raise
    agent.leases.keep(lease.id, room.keep)
    return LeaseResult(
        lease=lease.id,
        size=room.size,
        seconds=time.monotonic() - began,
        keep=room.keep,
        gave=given(start, rounds.last),
    )


async def _wait(
    rounds: RecentRounds, lease: str, room: LeaseRequest, is_gone: Gone, start: Tick | None
) -> None:
    try:
        async with asyncio.timeout(room.timeout):
            while not is_there(lease, await rounds.next()):
                if await is_gone():
                    raise NotReached("the client that asked for it has left")
    except TimeoutError:
        raise NotReached(
            failure(room, start, rounds.last),
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


def _wanted(room: LeaseRequest, peer: Peer) -> Wanted:
    return Wanted(
        owner=room.owner or f"uid {peer.uid} pid {peer.pid}",
        size=room.size,
        guest=room.guest,
        pid=peer.pid if room.mine else None,
    )
