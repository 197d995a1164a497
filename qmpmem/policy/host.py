"""How short of memory the host is: the reserve, and five states.

Theory of operation:
    What is available decides, and pressure corrects it. Without swap, pressure stays near nothing
    until it is too late. Pressure alone may come from a cgroup that is short all by itself. A worse
    state is entered at once, and left one step at a time, when all was well for half a minute.

Sources: ESX (Waldspurger, OSDI'02, 6.3, states high, soft, hard, low; vSphere's sliding scale
Mem.MinFreePct); glib GMemoryMonitor and Android lmkd for the stall thresholds (70 ms in 2 s).
"""

from collections.abc import Mapping
from typing import Final

from qmpmem.model import bounds
from qmpmem.model.config import Config
from qmpmem.model.observation import HostReading, Snapshot
from qmpmem.model.round import STATES, HostState, severity
from qmpmem.policy.state import HostTrend
from qmpmem.records import Record, replace
from qmpmem.units import MIB, Bytes

CALM: Final = 30.0
"""Seconds for which all must be well before the host leaves a state for a better one."""
BURST_WINDOW: Final = 10.0
"""Seconds within which growth counts as one burst."""
BURST_MEMORY: Final = 600.0
"""Seconds after which a burst is forgotten."""
BURST_PERCENT: Final = 10
"""Most percent of the host's memory that are kept against bursts."""
SWAPPING: Final = Bytes(MIB)
"""Bytes a second: a host that reads back more from swap swapped out what was needed."""
SLACK_BEGINS: Final = 2.5
"""Reserves available: with so many, memory that guests do not need may be given out."""
SOFT_BEGINS: Final = 1.25
"""Reserves available: with less, guests give what they do not use."""
HARD_BEGINS: Final = 0.75
"""Reserves without what is kept against bursts: with less available, the host is in HARD."""
CRITICAL_BEGINS: Final = 0.40
"""Reserves without what is kept against bursts: with less available, the host is in CRITICAL."""
SOFT_ENDS: Final = 1.6
"""Reserves available: with so many, guests no longer have to give what they do not use."""
THRASHING: Final = 20.0
"""Percent of the time in which all tasks wait for memory: with so much, the host's swap is too slow
for what is asked of it."""
STILL_THRASHING: Final = 10.0
"""Percent of the time in which all tasks wait for memory: a host that thrashes does so until it is
below this."""
RELEVANT: Final = SLACK_BEGINS
"""Times the reserve: with so much available, tasks that stall lack memory for another reason."""
PLAIN: Final = 5.0
"""Seconds after which the host leaves a state where its numbers call for one two steps better."""
VISIBLE: Final = 1.0
"""Seconds over which a rate of stalls must be taken to tell anything."""


class HostPressure(Record, frozen=True):
    """The numbers that decide on the state."""

    ratio: float
    """What is available, in reserves."""
    least: float
    """What is available, in reserves without what is kept against bursts: a burst may take that,
    and is no emergency."""
    some: float
    """Percent of the time in which some task waited for memory, now."""
    some10: float
    """Percent of the time in which some task waited for memory, over 10 s."""
    full10: float
    """Percent of the time in which all tasks waited for memory, over 10 s."""
    swapping: bool
    """Whether the host reads back from swap."""


def total_of(host: HostReading) -> Bytes | None:
    """Return how much memory there is to share out: the host's, or the budget's."""
    return _least(host.total, host.limit)


def available_of(host: HostReading) -> Bytes | None:
    """Return what may still be taken: of the host, or within the budget."""
    return _least(host.available, host.headroom)


def _least(of_host: Bytes | None, of_budget: Bytes | None) -> Bytes | None:
    if of_host is None or of_budget is None:
        return of_budget if of_host is None else of_host
    return min(of_host, of_budget)


def base_reserve(host: HostReading, config: Config) -> Bytes:
    """Return what is kept in any case: what the administrator set, or what the scale gives."""
    return bounds.reserve(total_of(host) or Bytes(0)) if config.reserve is None else config.reserve


def reserve(host: HostReading, trend: HostTrend, config: Config, now: float) -> Bytes:
    """Return what is kept: `base_reserve`, and the last burst on top."""
    fading = max(0.0, 1 - (now - trend.burst_at) / BURST_MEMORY)
    burst = min(trend.burst * fading, (total_of(host) or 0) * BURST_PERCENT / 100)
    return Bytes(base_reserve(host, config) + int(burst))


def follow(
    snapshot: Snapshot, trend: HostTrend, config: Config, uses: Mapping[str, int]
) -> tuple[HostTrend, Bytes]:
    """Bring the host's trend up to this round: its state, and the reserve that it rests on.

    Args:
        snapshot: what is seen now.
        trend: what the round before left.
        config: what the administrator wants.
        uses: bytes that guests use by their last reports, without guests that just started. These
            take their memory once, which is no reason to keep as much for another time.
    """
    now = snapshot.time
    trend = _note_burst(trend, uses, now)
    kept = reserve(snapshot.host, trend, config, now)
    pinch = measure(snapshot, trend, config, kept)
    seen = replace(
        trend,
        time=now,
        swap_in=snapshot.host.swap_in,
        stalled=snapshot.host.stalled,
        thrashes=_thrashes(snapshot.host, trend),
    )
    return (seen if pinch is None else _step(seen, pinch, now)), kept


def worst(pinch: HostPressure) -> HostState:
    """Return the state that these numbers call for at once."""
    eases = pinch.ratio >= RELEVANT
    some, full = (0.0, 0.0) if eases else (pinch.some, pinch.full10)
    if pinch.least < CRITICAL_BEGINS or full >= 15:
        return "CRITICAL"
    if (
        pinch.least < HARD_BEGINS
        or some >= 10
        or full >= 5
        or (pinch.swapping and pinch.ratio < SOFT_BEGINS)
    ):
        return "HARD"
    if pinch.ratio < SOFT_BEGINS or some >= 3.5:
        return "SOFT"
    return "BALANCED" if pinch.ratio < SLACK_BEGINS else "SLACK"


def is_calm(state: HostState, pinch: HostPressure) -> bool:
    """Tell whether a state could be left for the next better one."""
    if worst(pinch) == state:  # what calls for it is still there
        return False
    eases = pinch.ratio >= RELEVANT
    match state:
        case "SLACK":
            return False
        case "BALANCED":
            return pinch.ratio >= SLACK_BEGINS and (eases or pinch.some10 < 0.5)
        case "SOFT":
            return pinch.ratio >= SOFT_ENDS and (eases or pinch.some10 < 1)
        case "HARD":
            return pinch.least >= 1.0 and (eases or pinch.full10 < 1)
        case "CRITICAL":
            return pinch.least >= 0.6 and (eases or pinch.full10 < 5)


def explain(pinch: HostPressure | None, state: HostState) -> str:
    """Return a line that tells what the state rests on."""
    if pinch is None:
        return f"{state}: the host does not say what is available"
    swapping = ", the host swaps in" if pinch.swapping else ""
    bursts = "" if pinch.least < 1.01 * pinch.ratio else f" ({pinch.least:.2f} without bursts)"
    return (
        f"{state}: {pinch.ratio:.2f} times the reserve is available{bursts}, some task waits "
        f"{pinch.some10:.1f} % of the time, all {pinch.full10:.1f} %{swapping}"
    )


def at_least(state: HostState, least: HostState) -> HostState:
    """Return the worse of two states."""
    return max(state, least, key=severity)


def measure(
    snapshot: Snapshot, trend: HostTrend, config: Config, kept: Bytes
) -> HostPressure | None:
    """Return the numbers; None where the kernel does not tell what is available.

    Args:
        snapshot: what is seen now.
        trend: what the round before left.
        config: what the administrator wants.
        kept: the reserve, with what is kept against bursts.
    """
    host = snapshot.host
    available = available_of(host)
    if available is None:
        return None
    some10 = host.some or 0.0
    seconds = 0.0 if trend.time is None else snapshot.time - trend.time
    return HostPressure(
        ratio=available / max(1, kept),
        least=available / max(1, base_reserve(host, config)),
        some=max(some10, _stall(host, trend, seconds)),
        some10=some10,
        full10=host.full or 0.0,
        swapping=_rate(trend.swap_in, host.swap_in, seconds) > SWAPPING,
    )


def _stall(host: HostReading, trend: HostTrend, seconds: float) -> float:
    """Return the percent of the time since the last round in which some task waited.

    Over a fraction of a second that would only be noise.
    """
    if seconds < VISIBLE:
        return 0.0
    return _rate(trend.stalled, host.stalled, seconds) / 10_000  # µs a second, in percent


def _thrashes(host: HostReading, trend: HostTrend) -> bool:
    """Tell whether the host's swap is too slow for what is asked of it."""
    return (host.full or 0.0) >= (STILL_THRASHING if trend.thrashes else THRASHING)


def _rate(before: int | None, after: int | None, seconds: float) -> float:
    if before is None or after is None or after < before or seconds <= 0:
        return 0.0
    return (after - before) / seconds


def _step(trend: HostTrend, pinch: HostPressure, now: float) -> HostTrend:
    called = worst(pinch)
    if severity(called) > severity(trend.state):
        return replace(trend, state=called, since=now, calm_since=None)
    if not is_calm(trend.state, pinch):
        return replace(trend, calm_since=None)
    if trend.calm_since is None:
        return replace(trend, calm_since=now)
    plain = severity(trend.state) - severity(called) >= 2
    if now - trend.calm_since < (PLAIN if plain else CALM):
        return trend
    better = STATES[severity(trend.state) - 1]
    return replace(trend, state=better, since=now, calm_since=None)


def _note_burst(trend: HostTrend, uses: Mapping[str, int], now: float) -> HostTrend:
    """Note the largest growth of what guests use; the page cache that they read in is no burst."""
    total, names = sum(uses.values()), frozenset(uses)
    known = trend.uses if names == trend.settled else ()
    first = 0
    while first < len(known) and not now - BURST_WINDOW <= known[first][0] <= now:
        first += 1
    seen = known[first:]
    growth = total - min([size for _, size in seen], default=total)
    trend = replace(trend, uses=(*seen, (now, total)), settled=names)
    fading = max(0.0, 1 - (now - trend.burst_at) / BURST_MEMORY)
    if growth <= trend.burst * fading:
        return trend
    return replace(trend, burst=float(growth), burst_at=now)
