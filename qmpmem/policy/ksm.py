"""When merging is worth its effort, and how hard to try.

Theory of operation:
    A campaign is three full scans, or a quarter of an hour. What it gained is the kernel's own
    profit figure, so memory that merges and costs more than it saves counts as nothing. After a
    campaign that gained little ksmd rests, longer each time. What is merged stays merged. A new
    guest, guests that grew, or a host that is short wake it.

    How many pages ksmd scans in a second of CPU time differs from host to host. So the speed of a
    preset is a guess, which is corrected by the CPU time that ksmd is seen to take.

    The policy never unmerges: that could need, at once, all the memory that was saved. Where
    another program changes what we wrote, or the kernel refuses it, for the second time, KSM is
    left to others from then on.
"""

from collections.abc import Mapping
from typing import Final

from qmpmem.ksm import presets, rules, verdict
from qmpmem.model.config import Config
from qmpmem.model.ksm import KsmState
from qmpmem.model.observation import GuestReading, Snapshot
from qmpmem.model.round import HostState, SetKsm, severity
from qmpmem.policy.host import total_of
from qmpmem.policy.state import KsmTrend
from qmpmem.records import Record, replace
from qmpmem.units import MIB, Bytes

CAMPAIGN_SCANS: Final = 3
"""Full scans after which a campaign is judged by what merging gained."""
CAMPAIGN_SECONDS: Final = 900.0
"""Seconds after which a campaign is judged, where its scans take long."""
LITTLE: Final = Bytes(4 * MIB)
"""A campaign that gained less than this was in vain."""
LITTLE_PERMILLE: Final = 1
"""Permille of the host's memory: a campaign that gained less than this was in vain, too."""
REST: Final = 300.0
"""Seconds without merging after a campaign in vain."""
LONGEST_REST: Final = 3600.0
"""Seconds; `REST` is doubled up to here."""
GREW_PERCENT: Final = 10
"""Percent by which the cost of all guests has grown since ksmd went to rest: there is something new
to merge."""

COW_SLOW: Final = 0.005
"""Part of the host's memory that is copied a minute, from which on merging goes at half the
speed."""
COW_REST: Final = 0.02
"""Part of the host's memory that is copied a minute, because guests write to what is merged, from
which on ksmd rests."""
COW_WINDOW: Final = 10.0
"""Seconds over which copies are counted."""

CPU_WINDOW: Final = 10.0
"""Seconds over which ksmd's share of a core is measured."""
LEAST_PACE: Final = 0.01
"""Part of a preset's speed below which ksmd is not slowed down."""
BELOW: Final = 0.9
"""Part of its CPU share that ksmd is slowed down to where it took more than its share."""
FASTER: Final = 1.25
"""Factor by which ksmd's speed is raised again where it takes less than half of its CPU share."""

GIVE_UP: Final = 2
"""Changes by another program, or refusals by the kernel, after which merging is left to others."""

EFFORT: Final[Mapping[HostState, str]] = {
    "SLACK": "quiet",
    "BALANCED": "quiet",
    "SOFT": "balanced",
    "HARD": "eager",
    "CRITICAL": "eager",
}
"""The preset of KSM, by the state of the host."""


class KsmDecision(Record, frozen=True):
    """What the governor decided, and what it remembers."""

    trend: KsmTrend
    action: SetKsm | None = None
    warnings: tuple[str, ...] = ()


def govern(snapshot: Snapshot, trend: KsmTrend, config: Config, state: HostState) -> KsmDecision:
    """Decide whether and how hard to merge in this round."""
    seen = snapshot.ksm
    if not config.ksm.managed or seen is None:
        return KsmDecision(trend=trend)
    trend, lost = _watch_rival(seen, trend)
    if trend.contended >= GIVE_UP:
        said = f"KSM: another program changes {lost}; left as it is" if lost else ""
        return KsmDecision(trend=trend, warnings=(said,) if said else ())
    if strangers := _strangers(snapshot, config):
        return _off(trend, seen, f"guests of different domains would merge: {strangers}")
    if trend.started is None:
        return _wake(snapshot, trend, config, state)
    return _go_on(snapshot, trend, config, state)


def _go_on(snapshot: Snapshot, trend: KsmTrend, config: Config, state: HostState) -> KsmDecision:
    seen = snapshot.ksm
    if seen is None:
        return KsmDecision(trend=trend)
    trend, copied = _watch_copies(snapshot, trend)
    if copied >= COW_REST:
        return _rest(snapshot, trend, seen, "guests write to what was merged")
    if done := _is_over(snapshot, trend):
        return _end(snapshot, trend, seen, done)
    if copied >= COW_SLOW:
        trend = replace(trend, slowed=trend.slowed + 1)
    return _steer(snapshot, trend, config, state)


def unmade(trend: KsmTrend, change: SetKsm, *, refused: bool) -> KsmTrend:
    """Return the trend where a change of ours was not made, so that no rival is blamed for it.

    Args:
        trend: as `govern` returned it with that change.
        change: what was to be written.
        refused: whether the kernel refused it, which counts like another program's change; else it
            was never asked for.
    """
    wrote = {name: value for name, value in trend.wrote.items() if name not in change.changes}
    return replace(trend, wrote=wrote, contended=trend.contended + refused)


def debt(seen: KsmState | None) -> Bytes:
    """Return the bytes that would be needed at once if guests wrote to all that is merged."""
    return Bytes(0) if seen is None else verdict.saved(seen)


def _watch_cpu(snapshot: Snapshot, trend: KsmTrend, share: int) -> KsmTrend:
    """Correct the speed by what ksmd takes; `share` in percent of a core."""
    ran, now = snapshot.ksmd, snapshot.time
    if ran is None or trend.cpu is None or trend.cpu_time is None or ran < trend.cpu:
        return replace(trend, cpu=ran, cpu_time=now)
    seconds = now - trend.cpu_time
    if seconds < CPU_WINDOW:
        return trend
    percent = 100 * (ran - trend.cpu) / seconds
    pace = trend.pace
    if percent > share:
        pace = max(LEAST_PACE, pace * BELOW * share / percent)
    elif percent < share / 2:
        pace = min(1.0, pace * FASTER)
    return replace(trend, cpu=ran, cpu_time=now, pace=pace)


def _strangers(snapshot: Snapshot, config: Config) -> str:
    names = {config.domain(guest.id, guest.domain, guest.name) for guest in snapshot.guests}
    if config.ksm.across_domains or len(names) < 2:
        return ""
    return ", ".join(sorted(name or "(none)" for name in names))


def _watch_rival(seen: KsmState, trend: KsmTrend) -> tuple[KsmTrend, str]:
    now = rules.current(seen)
    theirs = [name for name, value in trend.wrote.items() if now.get(name, value) != value]
    if not theirs:
        return trend, ""
    kept = {name: now[name] if name in theirs else value for name, value in trend.wrote.items()}
    counted = replace(trend, contended=trend.contended + 1, wrote=kept)
    return counted, ", ".join(sorted(theirs))


def _watch_copies(snapshot: Snapshot, trend: KsmTrend) -> tuple[KsmTrend, float]:
    """Measure which part of the host is copied a minute; 0 until a window is full."""
    count, now, total = snapshot.host.cow_ksm, snapshot.time, total_of(snapshot.host)
    if count is None or snapshot.ksm is None or not total:
        return trend, 0.0
    if trend.cow is None or trend.cow_time is None or count < trend.cow:
        return replace(trend, cow=count, cow_time=now), 0.0
    seconds = now - trend.cow_time
    if seconds < COW_WINDOW:
        return trend, 0.0
    size = (count - trend.cow) * snapshot.ksm.page_size
    return replace(trend, cow=count, cow_time=now), size * 60 / seconds / total


def _wake(snapshot: Snapshot, trend: KsmTrend, config: Config, state: HostState) -> KsmDecision:
    names = frozenset(guest.id for guest in snapshot.guests if _may_merge(guest))
    cost = _cost(snapshot)
    news = names - trend.guests
    grew = cost * 100 > trend.cost * (100 + GREW_PERCENT)
    short = severity(state) >= severity("SOFT")
    rested = snapshot.time >= trend.rest_until
    if len(names) < 2 or not (news or grew or rested or (short and trend.rests < 2)):
        return KsmDecision(trend=trend)
    seen = snapshot.ksm
    begun = replace(
        trend,
        started=snapshot.time,
        scans=0 if seen is None else seen.full_scans or 0,
        profit=0 if seen is None else verdict.profit(seen),
        guests=names,
        cost=cost,
        slowed=0,
        cpu=snapshot.ksmd,
        cpu_time=snapshot.time,
    )
    return _steer(snapshot, begun, config, state)


def _steer(snapshot: Snapshot, trend: KsmTrend, config: Config, state: HostState) -> KsmDecision:
    seen = snapshot.ksm
    if seen is None:
        return KsmDecision(trend=trend)
    chosen = presets.PRESETS[EFFORT[state]]
    slower = replace(
        chosen,
        scan_time=chosen.scan_time * 2 ** min(trend.slowed, 4),
        max_cpu=min(chosen.max_cpu, config.ksm.max_cpu),
    )
    trend = _watch_cpu(snapshot, trend, slower.max_cpu)
    # The memory that was there when the campaign began: else each round would have another speed.
    settings = presets.settings(slower, seen, mergeable=Bytes(trend.cost))
    pages = max(1, int(int(settings[rules.PAGES]) * trend.pace))
    wanted = {**settings, rules.PAGES: str(pages), "run": "1"}
    return _write(trend, seen, wanted, f"merging, {chosen.name}: the host is in {state}")


def _is_over(snapshot: Snapshot, trend: KsmTrend) -> str:
    seen = snapshot.ksm
    scans = 0 if seen is None else (seen.full_scans or 0) - trend.scans
    if scans >= CAMPAIGN_SCANS:
        return f"{scans} full scans"
    seconds = 0.0 if trend.started is None else snapshot.time - trend.started
    return f"{seconds / 60:.0f} minutes" if seconds >= CAMPAIGN_SECONDS else ""


def _end(snapshot: Snapshot, trend: KsmTrend, seen: KsmState, done: str) -> KsmDecision:
    """Judge a campaign: begin another one at once, or rest."""
    gained = verdict.profit(seen) - trend.profit
    total = total_of(snapshot.host) or 0
    if gained >= max(LITTLE, total * LITTLE_PERMILLE // 1000):
        again = replace(
            trend,
            started=snapshot.time,
            scans=seen.full_scans or 0,
            profit=verdict.profit(seen),
            rests=0,
            cost=_cost(snapshot),
        )
        return KsmDecision(trend=again)
    return _rest(snapshot, trend, seen, f"{done} gained little")


def _rest(snapshot: Snapshot, trend: KsmTrend, seen: KsmState, why: str) -> KsmDecision:
    pause = min(LONGEST_REST, REST * 2**trend.rests)
    resting = replace(
        trend,
        started=None,
        rests=trend.rests + 1,
        rest_until=snapshot.time + pause,
        cost=_cost(snapshot),
    )
    return _off(resting, seen, f"resting {pause / 60:.0f} min: {why}")


def _off(trend: KsmTrend, seen: KsmState, why: str) -> KsmDecision:
    if not trend.wrote:  # never ours: left as it is
        return KsmDecision(trend=replace(trend, started=None))
    return _write(replace(trend, started=None), seen, {"run": "0"}, why)


def _write(trend: KsmTrend, seen: KsmState, wanted: Mapping[str, str], why: str) -> KsmDecision:
    changes = {write.name: write.after for write in rules.plan(wanted, seen)}
    if not changes:
        return KsmDecision(trend=trend)
    known = replace(trend, wrote={**trend.wrote, **changes})
    return KsmDecision(trend=known, action=SetKsm(changes=changes, reason=why))


def _may_merge(guest: GuestReading) -> bool:
    return guest.state == "running"


def _cost(snapshot: Snapshot) -> int:
    return sum(guest.cost or 0 for guest in snapshot.guests)
