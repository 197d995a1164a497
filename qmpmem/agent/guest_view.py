"""From a guest's record to what is known of it, and from that to its object in ``--json``."""

from qmpmem.agent.guest_state import NOT_SEEN, GuestState, Launched
from qmpmem.guests import inventory
from qmpmem.guests.inventory import LiveGuest
from qmpmem.model import sanitise
from qmpmem.model.guest import GuestStats, GuestView
from qmpmem.model.observation import GuestReading
from qmpmem.records import replace
from qmpmem.units import Bytes
from qmpmem.wire.kernel.processes import Memory


def unseen(found: LiveGuest, epoch: int) -> GuestState:
    """Return what is known of a guest before the first look at it.

    Args:
        found: the guest.
        epoch: what to begin counting at.
    """
    record = found.record
    reading = GuestReading(
        id=record.id,
        name=record.name,
        state="unreachable",
        epoch=epoch,
        domain=record.domain,
        current=record.current,
        exempt=NOT_SEEN,
    )
    launched = Launched(
        mode=record.mode,
        managed=record.managed,
        human=record.human,
        no_balloon=record.no_balloon,
        unmovable=record.unmovable,
    )
    return GuestState(reading=reading, launched=launched)


def view(
    found: LiveGuest, known: GuestState, costs: Memory, rss: Bytes | None, now: float
) -> GuestView:
    """Return a guest's object in ``--json``.

    Args:
        found: the guest.
        known: what the agent knows of it.
        costs: what its process cost when a round asked last.
        rss: what its process costs.
        now: seconds since 1970.
    """
    reading, stats = known.reading, _aged(known.reading.stats, now)
    base = inventory.silent(found, rss)
    process = inventory.obstacle(costs, known.sizes)
    seen = replace(
        inventory.describe(base, known.sizes, known.counted),
        state=reading.state,
        maximum=reading.maximum,
        actual=reading.actual,
        stats=stats,
        machine=known.machine,
        used=sanitise.used(known.reported, stats),
        accelerator=known.accelerator,
        balloon=known.device,
        unmovable=base.unmovable or process or known.devices.obstacle,
        current=reading.current,
    )
    return replace(seen, problem=inventory.remarks(base, seen, known.problem))


def _aged(stats: GuestStats, now: float) -> GuestStats | None:
    if stats.last_update is None:
        return None
    since = now - stats.last_update
    return replace(stats, age=since if since >= 0 else None)
