"""All guests at a glance: the quick way for the healthy ones, a session for each of the others."""

from collections.abc import Sequence
from typing import Final

from qmpmem import inventory, sanitise
from qmpmem.inventory import Found
from qmpmem.records import replace
from qmpmem.sizes import Sizes
from qmpmem.snapshot import GuestSnapshot
from qmpmem.wire.glance import Address, Glimpse, glance
from qmpmem.wire.limits import Deadlines

SHORT: Final = Deadlines(handshake=2.0, query=1.5, probe=0.5)
"""Who looks at all guests wants to know which one hangs, not to hang with it."""


def overview(guests: Sequence[Found], *, machine: bool = True) -> list[GuestSnapshot]:
    """Look at every guest. Blocks; inside an event loop use `qmpmem.sources.observe_all`.

    Args:
        guests: those to look at.
        machine: whether anybody wants to know their machines, which takes a third of the time.

    Returns:
        One snapshot each, in the order given. A guest that cannot be read has a state that says so.
    """
    glimpses = glance(
        {
            found.record.id: Address(found.record.socket, found.listener)
            for found in guests
            if not found.record.human
        },
        machine=machine,
    )
    odd = [found for found in guests if glimpses.get(found.record.id) is None]
    closer = {guest.id: guest for guest in _look_closer(odd)}
    return [
        closer[found.record.id] if glimpse is None else _snapshot(found, glimpse)
        for found in guests
        for glimpse in [glimpses.get(found.record.id)]
    ]


def _snapshot(found: Found, glimpse: Glimpse) -> GuestSnapshot:
    actual = sanitise.balloon_actual(glimpse.actual, glimpse.maximum)
    memory = inventory.cost(found.pid)
    base = inventory.silent(found, memory.rss)
    # Nothing is plugged, or there would be no glimpse.
    sizes = None if glimpse.maximum is None else Sizes(boot=glimpse.maximum)
    seen = replace(
        inventory.describe(base, sizes, actual),
        state=glimpse.state,
        machine=glimpse.machine,
        unmovable=base.unmovable or inventory.obstacle(memory, sizes),
    )
    problem = sanitise.balloon_problem(glimpse.actual, actual, glimpse.state)
    return replace(seen, problem=inventory.remarks(base, seen, problem))


def _look_closer(odd: Sequence[Found]) -> list[GuestSnapshot]:
    if not odd:
        return []
    import asyncio  # noqa: PLC0415 - takes longer to load than 50 guests to look at

    from qmpmem import sources  # noqa: PLC0415 - likewise

    return asyncio.run(sources.observe_all(odd, deadlines=SHORT))
