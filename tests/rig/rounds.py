"""Rounds of an agent, made up."""

from random import Random

from qmpmem.model.guest import GuestStats
from qmpmem.model.observation import GuestReading, HostReading, Snapshot
from qmpmem.model.round import STATES, Explanation, Plan, SetBalloon, Tick
from qmpmem.units import GIB, MIB, Bytes


def tick(number: int, *, wall: float | None = None, guests: int = 1, noise: int = 0) -> Tick:
    """A round at second `number`; `noise`: bytes that no compression makes smaller."""
    random = Random(number)  # noqa: S311 - repeatable on purpose
    readings = tuple(
        GuestReading(id=f"g{each}", state="running", actual=Bytes(random.getrandbits(60)))
        for each in range(guests)
    )
    said = tuple(
        Explanation(guest=reading.id, used=Bytes(random.getrandbits(60))) for reading in readings
    )
    return Tick(
        number=number,
        snapshot=Snapshot(
            time=float(number),
            wall=1000.0 + number if wall is None else wall,
            host=HostReading(total=Bytes(number)),
            guests=readings,
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
    readings = tuple(_reading(each, random) for each in there)
    said = tuple(
        Explanation(guest=reading.id, verdict=random.choice(("normal", "distress", "stale")))
        for reading in readings
    )
    told = tuple(
        SetBalloon(guest=reading.id, target=Bytes(random.randrange(GIB)), reason="made up")
        for reading in readings
        if random.random() < 0.2
    )
    return Tick(
        number=number,
        snapshot=Snapshot(
            time=float(number),
            wall=wall,
            host=HostReading(
                total=Bytes(8 * GIB),
                available=_maybe(random, 8 * GIB),
                swap_total=Bytes(GIB),
                swap_free=_maybe(random, GIB),
                some=random.choice((None, random.uniform(0, 100))),
            ),
            guests=readings,
        ),
        plan=Plan(
            state=random.choice(STATES), reserve=Bytes(512 * MIB), guests=said, balloons=told
        ),
        dry_run=random.random() < 0.1,
    )


def _reading(number: int, random: Random) -> GuestReading:
    actual = _maybe(random, GIB)
    return GuestReading(
        id=f"g{number}",
        name=f"guest {number}",
        state="running",
        maximum=Bytes(GIB) if random.random() < 0.9 else None,
        actual=actual,
        stats=GuestStats(
            available=None if actual is None else _maybe(random, actual),
            free=None if actual is None else _maybe(random, actual),
        ),
        rss=_maybe(random, GIB),
    )


def _maybe(random: Random, most: int) -> Bytes | None:
    return Bytes(random.randrange(most + 1)) if random.random() < 0.8 else None
