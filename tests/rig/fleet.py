"""Half an hour of a host with seven guests, made up: what the web page shows in tests and pictures.

The host becomes short ten minutes ago. Guests with idle cache give memory; a build that has ended
gives most; a web server needs more in the last two minutes; a guest with Windows has not reported
for 41 seconds. Nothing depends on the policy, so no change of the policy changes a picture.
"""

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from qmpmem.journal.store import Store
from qmpmem.model.config import Config
from qmpmem.model.guest import GuestStats
from qmpmem.model.ksm import KsmState
from qmpmem.model.observation import GuestReading, HostReading, Snapshot
from qmpmem.model.round import Explanation, HostState, Plan, SetBalloon, Tick, Verdict
from qmpmem.records import Record, replace
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.agent import Office

LENGTH: Final = 1800.0
"""Seconds of the story; it ends at 0."""
STEP: Final = 2.0
"""Seconds from one round to the next."""
MOVING: Final = 16.0
"""Seconds in which a guest reaches its target."""
SHORT: Final = -600.0
"""When the host becomes short."""
SILENT: Final = 41.0
"""Seconds since the last report of the guest that is stale."""

Told = tuple[float, float, str]
"""When a guest was told something, its target in GiB, and the reason."""


class Guest(Record, frozen=True):
    """One guest of the story; sizes in GiB."""

    id: str
    maximum: float
    begins: float
    """Its size at the beginning."""
    uses: float
    """What it uses, on the average."""
    caches: float
    """Its page cache, where it has room for that."""
    name: str | None = None
    since: float = -LENGTH
    """When it starts."""
    waves: float = 0.06
    """How much of what it uses comes and goes."""
    grows: tuple[float, float] | None = None
    """From when on it uses more, and GiB a second."""
    rests: float | None = None
    """From when on it uses a fifth."""
    told: tuple[Told, ...] = ()


GIVES: Final = "gives because the host is in SOFT"
FLEET: Final[Sequence[Guest]] = (
    Guest(
        id="web1",
        maximum=2,
        begins=1.9,
        uses=1.0,
        caches=0.6,
        grows=(-120, 0.0035),
        told=(
            (-580, 1.7, GIVES),
            (-520, 1.5, GIVES),
            (-460, 1.4, GIVES),
            (-4, 1.6, "swaps in 3.1 MiB/s; is given more"),
        ),
    ),
    Guest(
        id="db1",
        maximum=8,
        begins=7.4,
        uses=3.6,
        caches=2.4,
        told=((-590, 6.9, GIVES), (-540, 6.6, GIVES), (-490, 6.4, GIVES)),
    ),
    Guest(
        id="build-07",
        maximum=4,
        begins=3.9,
        uses=2.6,
        caches=1.1,
        rests=-420,
        told=(
            (-400, 3.3, "what is free goes to others"),
            (-340, 2.8, "what is free goes to others"),
            (-280, 2.4, "what is free goes to others"),
            (-2, 2.2, GIVES),
        ),
    ),
    Guest(id="Windows-10", name="Windows 10", maximum=4, begins=4, uses=2.2, caches=1.0),
    Guest(
        id="desk3",
        maximum=4,
        begins=2.6,
        uses=1.0,
        caches=0.8,
        waves=0.3,
        told=((-570, 2.2, GIVES), (-500, 2.0, GIVES)),
    ),
    Guest(id="mail", maximum=1, begins=0.75, uses=0.45, caches=0.2),
    Guest(id="ci-12", maximum=1, begins=1, uses=0.3, caches=0.12, since=-34),
)


def size(gib: float) -> Bytes:
    """Return so many GiB, in whole pages."""
    return Bytes(int(gib * GIB) // 4096 * 4096)


def used(guest: Guest, at: float) -> float:
    """Return what a guest uses, in GiB."""
    found = guest.uses * (1 + guest.waves * math.sin(at / 47 + len(guest.id)))
    if guest.grows is not None and at > guest.grows[0]:
        found += (at - guest.grows[0]) * guest.grows[1]
    if guest.rests is not None and at > guest.rests:
        found *= max(0.2, 1 - (at - guest.rests) / 40)
    return min(found, actual(guest, at) - 0.02)


def actual(guest: Guest, at: float) -> float:
    """Return the size of a guest, in GiB: it goes to each target in some seconds."""
    found = guest.begins
    for when, target, _ in guest.told:
        done = min(1.0, max(0.0, (at - when) / MOVING))
        found += (target - found) * done
    return found


def reading(guest: Guest, at: float) -> GuestReading:
    """Return a guest as the agent sees it."""
    has, uses = actual(guest, at), used(guest, at)
    rest = has - uses
    is_stale = guest.name is not None and at > -SILENT
    return GuestReading(
        id=guest.id,
        name=guest.name,
        state="running",
        maximum=size(guest.maximum),
        actual=size(has),
        rss=size(min(has, max(uses + guest.caches, has * 0.9))),
        stats=GuestStats(available=size(rest), free=size(max(0.01, rest - guest.caches))),
        age=at + SILENT if is_stale else 1.0,
        every=2.0,
        up=at - guest.since,
    )


def said(guest: Guest, at: float) -> Explanation:
    """Return what the agent makes of a guest."""
    now = [each for each in guest.told if each[0] <= at < each[0] + MOVING]
    verdict, reason = _verdict(guest, at)
    return Explanation(
        guest=guest.id,
        name=guest.name,
        verdict=verdict,
        reason=now[-1][2] if now else reason,
        bound="spare" if verdict == "distress" else "none",
        actual=size(actual(guest, at)),
        used=size(used(guest, at)),
        working=size(used(guest, at) * 1.05),
        headroom=size(0.12 * guest.maximum),
        demand=size(min(guest.maximum, used(guest, at) * 1.05 + 0.12 * guest.maximum)),
        minimum=size(guest.maximum * 0.35),
        maximum=size(guest.maximum),
        entitlement=size(guest.maximum * 0.72),
        shares=1000,
        reclaimable=size(max(0.0, actual(guest, at) - used(guest, at) - 0.4)),
        target=size(now[-1][1]) if now else None,
    )


def _verdict(guest: Guest, at: float) -> tuple[Verdict, str]:
    if at - guest.since < 60 and guest.since > -LENGTH:
        return "grace", "it has only just started"
    if guest.name is not None and at > -SILENT + 6:
        return "stale", "it does not report what it uses any more"
    if guest.grows is not None and at > -20:
        return "distress", "swaps in 3.1 MiB/s; is given more"
    return "normal", "it has what it needs"


def tick_at(at: float, *, number: int, wall: float, extra: int = 0) -> Tick:
    """Return a round.

    Args:
        at: seconds in the story, up to 0.
        number: of the round.
        wall: when that is, in seconds since 1970.
        extra: guests beside those of the story.
    """
    more = (
        Guest(id=f"vm{each:03}", maximum=2, begins=1.5, uses=0.9, caches=0.3)
        for each in range(extra)
    )
    there = [guest for guest in (*FLEET, *more) if guest.since <= at]
    told = [
        SetBalloon(guest=guest.id, target=size(target), reason=reason)
        for guest in there
        for when, target, reason in guest.told
        if when <= at < when + STEP
    ]
    is_short = at > SHORT
    state: HostState = "SOFT" if is_short else "BALANCED"
    reserve, available = 2.5, (3.1 if is_short else 4.6) + 0.2 * math.sin(at / 31)
    return Tick(
        number=number,
        snapshot=Snapshot(
            time=LENGTH + at,
            wall=wall,
            host=HostReading(
                total=size(32),
                available=size(available),
                swap_total=size(8),
                swap_free=size(7.5),
                some=max(0.0, 0.4 + 0.4 * math.sin(at / 20)) if is_short else 0.0,
                full=0.0,
            ),
            ksm=KsmState(
                page_size=Bytes(4096),
                run=1,
                pages_sharing=300_000,
                pages_shared=90_000,
                pages_unshared=800_000,
                pages_volatile=41_000,
                full_scans=9,
            ),
            ksmd=27.0,
            guests=tuple(reading(guest, at) for guest in there),
        ),
        plan=Plan(
            state=state,
            reason=f"{available / reserve:.2f} times the reserve is available",
            reserve=size(reserve),
            budget=size(21),
            spare=size(6.6),
            debt=Bytes(900 * MIB),
            guests=tuple(said(guest, at) for guest in there),
            balloons=tuple(told),
        ),
    )


def story(end: float, *, step: float = STEP) -> Iterator[Tick]:
    """Yield all rounds of the story.

    Args:
        end: when it ends, in seconds since 1970.
        step: seconds from one to the next.
    """
    count = int(LENGTH / step)
    for number in range(count):
        at = (number + 1 - count) * step
        yield tick_at(at, number=number + 1, wall=end + at)


def write(path: Path, end: float) -> None:
    """Write the story into a journal."""
    store = Store(path, Bytes(8 * MIB))
    for tick in story(end):
        store.add(tick, Config())
    store.close()


def show(office: Office, tick: Tick) -> None:
    """Have an agent publish a round, and know its guests."""
    for seen in tick.snapshot.guests:
        if seen.id not in office.readings:
            office.add(seen.id, name=seen.name or seen.id)
    office.handlers.publish(tick)


def go_on(office: Office, extra: int = 0) -> None:
    """Have an agent publish another round of the story's end."""
    office.number += 1
    tick = tick_at(0.0, number=office.number, wall=time.time(), extra=extra)
    show(
        office,
        replace(tick, snapshot=replace(tick.snapshot, requests=office.agent.requests.in_force)),
    )
