"""Rounds of an agent, made up."""

from random import Random

from qmpmem.actions import Explanation, Plan, SetBalloon, Tick
from qmpmem.journal.points import STATES
from qmpmem.sight import GuestSight, HostSight, Snapshot
from qmpmem.units import GIB, MIB, Bytes


def tick(number: int, *, wall: float | None = None, guests: int = 1, noise: int = 0) -> Tick:
    """A round at second `number`; `noise`: bytes that no compression makes smaller."""
    random = Random(number)  # noqa: S311 - repeatable on purpose
    sights = tuple(
        GuestSight(id=f"g{each}", state="running", actual=Bytes(random.getrandbits(60)))
        for each in range(guests)
    )
    said = tuple(
        Explanation(guest=sight.id, used=Bytes(random.getrandbits(60))) for sight in sights
    )
    return Tick(
        number=number,
        snapshot=Snapshot(
            time=float(number),
            wall=1000.0 + number if wall is None else wall,
            host=HostSight(total=Bytes(number)),
            guests=sights,
        ),
        plan=Plan(guests=said, reason=random.randbytes(noise).hex()),
    )


def busy(number: int, *, wall: float, guests: int = 3) -> Tick:
    """A round in which something is known, something is not, and some guests are told something.

    Args:
        number: of the round; the same number gives the same round.
        wall: seconds since 1970.
        guests: how many there may be; each is missing from some rounds.
    """
    random = Random(number)  # noqa: S311 - repeatable on purpose
    there = [each for each in range(guests) if random.random() < 0.9]
    sights = tuple(_sight(each, random) for each in there)
    said = tuple(
        Explanation(guest=sight.id, verdict=random.choice(("normal", "distress", "stale")))
        for sight in sights
    )
    told = tuple(
        SetBalloon(guest=sight.id, target=Bytes(random.randrange(GIB)), reason="made up")
        for sight in sights
        if random.random() < 0.2
    )
    return Tick(
        number=number,
        snapshot=Snapshot(
            time=float(number),
            wall=wall,
            host=HostSight(
                total=Bytes(8 * GIB),
                available=_maybe(random, 8 * GIB),
                swap_total=Bytes(GIB),
                swap_free=_maybe(random, GIB),
                some=random.choice((None, random.uniform(0, 100))),
            ),
            guests=sights,
        ),
        plan=Plan(
            state=random.choice(STATES), reserve=Bytes(512 * MIB), guests=said, balloons=told
        ),
        dry_run=random.random() < 0.1,
    )


def _sight(number: int, random: Random) -> GuestSight:
    actual = _maybe(random, GIB)
    return GuestSight(
        id=f"g{number}",
        name=f"guest {number}",
        state="running",
        maximum=Bytes(GIB) if random.random() < 0.9 else None,
        actual=actual,
        available=None if actual is None else _maybe(random, actual),
        free=None if actual is None else _maybe(random, actual),
        rss=_maybe(random, GIB),
    )


def _maybe(random: Random, most: int) -> Bytes | None:
    return Bytes(random.randrange(most + 1)) if random.random() < 0.8 else None
