"""A short look at all guests: one quick question to the healthy ones, a session for each other."""

from collections.abc import Sequence
from typing import Final

from qmpmem.guests import inventory
from qmpmem.guests.inventory import LiveGuest
from qmpmem.model import sanitise
from qmpmem.model.guest import GuestView
from qmpmem.model.sizes import Sizes
from qmpmem.records import replace
from qmpmem.wire.limits import Deadlines
from qmpmem.wire.quick_query import Address, QuickStatus, glance

SHORT: Final = Deadlines(handshake=2.0, query=1.5, probe=0.5)
"""Deadlines for a look at all guests: it is to show which guest hangs, and not to hang with it."""


def overview(guests: Sequence[LiveGuest], *, machine: bool = True) -> list[GuestView]:
    """Read every guest. Blocks; inside an event loop use `qmpmem.guests.read_guest.observe_all`.

    Args:
        guests: the guests.
        machine: whether to ask for their machines, which takes a third of the time.

    Returns:
        One snapshot each, in the order given. The state of a guest that cannot be read tells why.
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
        closer[found.record.id] if quick is None else _snapshot(found, quick)
        for found in guests
        for quick in [glimpses.get(found.record.id)]
    ]


def _snapshot(found: LiveGuest, quick: QuickStatus) -> GuestView:
    actual = sanitise.balloon_actual(quick.actual, quick.maximum)
    memory = inventory.cost(found.pid)
    base = inventory.silent(found, memory.rss)
    # Nothing is plugged: else the quick question would have no answer.
    sizes = None if quick.maximum is None else Sizes(boot=quick.maximum)
    seen = replace(
        inventory.describe(base, sizes, actual),
        state=quick.state,
        machine=quick.machine,
        unmovable=base.unmovable or inventory.obstacle(memory, sizes),
    )
    problem = sanitise.balloon_problem(quick.actual, actual, quick.state)
    return replace(seen, problem=inventory.remarks(base, seen, problem))


def _look_closer(odd: Sequence[LiveGuest]) -> list[GuestView]:
    if not odd:
        return []
    import asyncio  # noqa: PLC0415 - takes longer to load than 50 guests to look at

    from qmpmem.guests import read_guest  # noqa: PLC0415 - as asyncio

    return asyncio.run(read_guest.observe_all(odd, deadlines=SHORT))
