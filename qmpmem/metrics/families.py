"""What is told: for each family its name, kind and help, and where its values are from.

Source: prometheus.io, "Metric and label naming" and "Exposition formats".
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal, get_args

from qmpmem.ksm import verdict
from qmpmem.metrics.totals import Totals
from qmpmem.model.observation import GuestReading
from qmpmem.model.round import Explanation, Tick, Verdict
from qmpmem.records import Record
from qmpmem.units import Bytes

Value = int | float | None
Kind = Literal["gauge", "counter", "histogram", "info"]

VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)
BLIND: Final = frozenset({"unreachable", "busy", "in-use", "gone"})
"""The states in which a guest cannot be asked; see `GuestReading.state`."""


class Family(Record, frozen=True):
    """Metrics of one name."""

    name: str
    """The name as in a query; in OpenMetrics the family of a counter is called without
    ``_total``."""
    kind: Kind
    help: str


class GuestPoint(Record, frozen=True):
    """One guest in one round."""

    reading: GuestReading
    said: Explanation
    target: Bytes | None
    """The size that the guest was told last; in bytes."""


class HostFamily(Record, frozen=True):
    """A family with one value for the host."""

    family: Family
    value: Callable[[Tick, Totals], Value]


class GuestFamily(Record, frozen=True):
    """A family with one value for each guest."""

    family: Family
    value: Callable[[GuestPoint], Value]


def _gauge(name: str, words: str) -> Family:
    return Family(name=f"qmpmem_{name}", kind="gauge", help=words)


def _counter(name: str, words: str) -> Family:
    return Family(name=f"qmpmem_{name}_total", kind="counter", help=words)


UP: Final = _gauge("up", "Whether the agent answers.")
BUILD: Final = Family(name="qmpmem_build_info", kind="info", help="The version of the agent.")
STATE: Final = _gauge("host_state", "The state of the host: 1 for the one that it is in.")
DURATION: Final = Family(
    name="qmpmem_round_duration_seconds",
    kind="histogram",
    help="How long the rounds of the agent took.",
)
COMMANDS: Final = _counter("balloon_commands", "What came of commands to balloons.")
DECISIONS: Final = _counter("decisions", "Targets that were told, by the limit that decided them.")
GUEST: Final = Family(
    name="qmpmem_guest_info", kind="info", help="The name of a guest, and its merging domain."
)
VERDICT: Final = _gauge("guest_verdict", "What the agent takes a guest for: 1 for that verdict.")


def _behind(tick: Tick, _: Totals) -> int:
    stale = {each.guest for each in tick.plan.guests if each.verdict == "stale"}
    return sum(each.id in stale or each.state in BLIND for each in tick.snapshot.guests)


def _leased(tick: Tick, _: Totals) -> int:
    return sum(lease.size for lease in tick.snapshot.requests.leases)


def _saved(tick: Tick, _: Totals) -> Value:
    return None if tick.snapshot.ksm is None else verdict.saved(tick.snapshot.ksm)


def _profit(tick: Tick, _: Totals) -> Value:
    return None if tick.snapshot.ksm is None else verdict.profit(tick.snapshot.ksm)


def _debt(tick: Tick, _: Totals) -> Value:
    return None if tick.snapshot.ksm is None else tick.plan.debt


_HOST: Final[Sequence[tuple[Family, Callable[[Tick, Totals], Value]]]] = (
    (_counter("rounds", "Rounds of the agent."), lambda _, totals: totals.rounds),
    (
        _gauge("round_timestamp_seconds", "When the last round was, in seconds since 1970."),
        lambda tick, _: tick.snapshot.wall,
    ),
    (
        _gauge("host_memory_bytes", "Memory of the host."),
        lambda tick, _: tick.snapshot.host.total,
    ),
    (
        _gauge("host_available_bytes", "Memory of the host that can be had without swapping."),
        lambda tick, _: tick.snapshot.host.available,
    ),
    (
        _gauge("host_limit_bytes", "The limit of the budget, where it is below the host's."),
        lambda tick, _: tick.snapshot.host.limit,
    ),
    (
        _gauge("host_headroom_bytes", "What may still be taken within the limit."),
        lambda tick, _: tick.snapshot.host.headroom,
    ),
    (
        _gauge("host_reserve_bytes", "What the host keeps for itself."),
        lambda tick, _: tick.plan.reserve,
    ),
    (
        _gauge("host_budget_bytes", "What there is to share out among guests."),
        lambda tick, _: tick.plan.budget,
    ),
    (
        _gauge("host_spare_bytes", "What is available beyond the reserve and all promises."),
        lambda tick, _: tick.plan.spare,
    ),
    (
        _gauge("host_leased_bytes", "Memory that is kept for guests about to start."),
        _leased,
    ),
    (
        _gauge("hold", "Whether an operator has the agent take nothing from guests."),
        lambda tick, _: int(tick.snapshot.requests.hold),
    ),
    (
        _gauge("pinned_guests", "Guests that an operator keeps at a size."),
        lambda tick, _: len(tick.snapshot.requests.pins),
    ),
    (_gauge("guests", "Guests on the host."), lambda tick, _: len(tick.snapshot.guests)),
    (
        _gauge("guests_behind", "Guests that cannot be asked, or do not report their use."),
        _behind,
    ),
    (_counter("warnings", "Warnings to the administrator."), lambda _, totals: totals.warnings),
    (
        _counter("reclaimed_bytes", "Memory that was reclaimed of guests' cgroups."),
        lambda _, totals: totals.reclaimed,
    ),
    (_gauge("ksm_saved_bytes", "Memory that merging of equal pages saves."), _saved),
    (_gauge("ksm_profit_bytes", "The same, less what the kernel's accounts take."), _profit),
    (_gauge("ksm_debt_bytes", "What comes back if all merged pages are written to."), _debt),
    (
        _counter("ksmd_cpu_seconds", "Processor time of the kernel thread that merges."),
        lambda tick, _: tick.snapshot.ksmd,
    ),
)
HOST: Final = tuple(HostFamily(family=family, value=value) for family, value in _HOST)
"""The families of the host. Pressure and swap of the host are not here: node_exporter has them."""


def _pressure(point: GuestPoint) -> float | None:
    used, actual = point.said.used, point.reading.actual
    return None if used is None or not actual else used / actual


_GUESTS: Final[Sequence[tuple[Family, Callable[[GuestPoint], Value]]]] = (
    (
        _gauge("guest_maximum_bytes", "What the guest has with an empty balloon."),
        lambda point: point.reading.maximum,
    ),
    (
        _gauge("guest_actual_bytes", "What the guest has: its maximum less the balloon."),
        lambda point: point.reading.actual,
    ),
    (
        _gauge("guest_target_bytes", "What the guest was last told to have."),
        lambda point: point.target,
    ),
    (
        _gauge("guest_used_bytes", "What the guest cannot give up without swapping."),
        lambda point: point.said.used,
    ),
    (
        _gauge("guest_available_bytes", "What the guest could give up without swapping."),
        lambda point: point.reading.stats.available,
    ),
    (
        _gauge("guest_free_bytes", "Memory of the guest that nothing is in."),
        lambda point: point.reading.stats.free,
    ),
    (
        _gauge("guest_cache_bytes", "Memory of the guest that holds parts of its disks."),
        lambda point: point.reading.stats.disk_caches,
    ),
    (
        _gauge("guest_host_resident_bytes", "Resident memory of the guest's process."),
        lambda point: point.reading.rss,
    ),
    (
        _gauge("guest_host_cost_bytes", "What the guest costs the host."),
        lambda point: point.reading.cost,
    ),
    (
        _gauge("guest_host_swap_bytes", "What of the guest is in the host's swap."),
        lambda point: point.reading.swap,
    ),
    (
        _gauge("guest_demand_bytes", "What the guest should have, were there enough."),
        lambda point: point.said.demand,
    ),
    (
        _gauge("guest_entitled_bytes", "The guest's share of the budget."),
        lambda point: point.said.entitlement,
    ),
    (
        _gauge("guest_minimum_bytes", "What is never taken from the guest."),
        lambda point: point.said.minimum,
    ),
    (
        _gauge("guest_pressure_ratio", "Which part of what the guest has is in use."),
        _pressure,
    ),
    (
        _gauge("guest_stats_age_seconds", "How old the last report of the guest is."),
        lambda point: point.reading.age,
    ),
    (
        _counter("guest_swap_in_bytes", "What the guest read from its own swap."),
        lambda point: point.reading.stats.swap_in,
    ),
    (
        _counter("guest_swap_out_bytes", "What the guest wrote to its own swap."),
        lambda point: point.reading.stats.swap_out,
    ),
    (
        _counter("guest_major_faults", "Page faults of the guest that waited for a disk."),
        lambda point: point.reading.stats.major_faults,
    ),
    (
        _counter("guest_oom_kills", "Programs that the guest ended for lack of memory."),
        lambda point: point.reading.stats.oom_kills,
    ),
)
GUESTS: Final = tuple(GuestFamily(family=family, value=value) for family, value in _GUESTS)
