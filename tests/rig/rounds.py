"""Rounds of an agent, made up."""

from random import Random

from qmpmem.actions import Explanation, Plan, Tick
from qmpmem.sight import GuestSight, HostSight, Snapshot
from qmpmem.units import Bytes


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
