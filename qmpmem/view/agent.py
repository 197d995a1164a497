"""What the agent says, as rows of text. Pure."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from qmpmem.api.records import Decision, Status, Why
from qmpmem.model.escapes import printable
from qmpmem.model.observation import GuestReading, Lease
from qmpmem.model.round import Explanation, Plan
from qmpmem.view.rows import UNKNOWN, label, named, number, size

GUEST_HEADERS: Final = (
    "ID",
    "VERDICT",
    "ACTUAL",
    "WORKS-WITH",
    "WANTS",
    "ENTITLED",
    "MINIMUM",
    "TOLD",
    "LIMIT",
    "REASON",
)


NAMED: Final = 5
"""Most guests that a line names; for the others it gives their number."""


def status_rows(status: Status) -> Iterator[tuple[str, str]]:
    """Yield how the agent and its host are: pairs of label and value."""
    yield "agent", f"pid {status.pid}, {_mode(status)}, round {status.number}"
    yield "rounds", _rounds(status)
    yield "host", UNKNOWN if status.state is None else _host(status.state, status.reason)
    yield "available", f"{size(status.available)} of {size(status.total)}"
    if status.limit is not None:
        by = f" (cgroup {printable(status.limited_by)})" if status.limited_by else ""
        yield "budget", f"{size(status.headroom)} left of {size(status.limit)}{by}"
    yield "reserve", size(status.reserve)
    yield "to spare", size(status.spare)
    yield "for guests", size(status.budget)
    if status.debt:
        yield "merging owes", size(status.debt)
    if status.hold:
        yield "hold", "nothing is taken from any guest (`qmpmem agent release` goes on)"
    names = {each.guest: each.name for each in status.guests}
    for guest, pin in sorted(status.pins.items()):
        yield f"pin {label(guest, names.get(guest))}", size(pin)
    for lease in status.leases:
        held = f"{size(lease.size)} for {printable(lease.owner)}{_whose(lease, names)}"
        yield f"lease {lease.id}", f"{held}{_left(lease, status.clock)}"


def guest_row(each: Explanation) -> tuple[str, ...]:
    """Return one guest as a row under `GUEST_HEADERS`."""
    return (
        each.guest,
        each.verdict,
        size(each.actual),
        size(each.working),
        size(each.demand),
        size(each.entitlement),
        size(each.minimum),
        size(each.target),
        each.bound,
        printable(each.reason),
    )


def why_rows(why: Why) -> Iterator[tuple[str, str]]:
    """Yield one guest's decision, term by term."""
    told, reading = why.explanation, why.reading
    yield "guest", label(why.guest, why.reading.name)
    yield "host", _host(why.state, why.reason)
    yield "verdict", f"{told.verdict}: {printable(told.reason)}".rstrip(": ")
    yield "state", printable(reading.state)
    yield "has", f"{size(reading.actual)} of {size(reading.maximum)}"
    yield "costs the host", size(reading.cost)
    yield "says available", _available(why)
    yield "swap-in", size(reading.stats.swap_in)
    yield "major faults", number(reading.stats.major_faults)
    yield "uses", size(told.used)
    yield "works with (W)", size(told.working)
    if told.usual is not None:
        days = 0 if reading.habit is None else reading.habit.days
        on = "on one day before" if days == 1 else f"on {days} days before"
        yield "usually needs", f"{size(told.usual)} at this hour, as {on}"
    yield "page cache that pays (C)", "0" if told.cache is None else size(told.cache)
    yield "headroom (H)", size(told.headroom)
    yield "demand (D)", f"{size(told.demand)}, W + C + H within {_limits(told)}"
    yield "entitled to (E)", _entitled(told)
    yield "could give", size(told.reclaimable)
    if why.pin is not None:
        yield "pinned to", size(why.pin)
    yield "should have", size(told.wanted)
    yield "told", "nothing" if told.target is None else size(told.target)
    yield "aim", told.kind
    yield "limit", told.bound
    if reading.refused:
        yield "refused", printable(reading.refused)


def decision_line(decision: Decision) -> str:
    """Return one decision of the past as a line."""
    told = decision.explanation
    clock = time.strftime("%H:%M:%S", time.localtime(decision.time))
    target = "" if told.target is None else f" → {size(told.target)}"
    words = printable(told.reason)
    return f"{clock} {decision.state} {told.verdict}: {size(told.actual)}{target}: {words}"


def guest_table(
    guests: Sequence[Explanation],
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Return all guests as a table: headers and rows."""
    table = [guest_row(each) for each in guests]
    return named(GUEST_HEADERS, table, [(each.guest, each.name) for each in guests])


def plan_lines(plan: Plan) -> Iterator[str]:
    """Yield what a round would do, in lines."""
    yield _host(plan.state, plan.reason)
    told = {each.guest: each for each in plan.guests}
    for change in plan.balloons:
        known = told.get(change.guest)
        before, name = (None, None) if known is None else (known.actual, known.name)
        move = f"{size(before)} → {size(change.target)}"
        yield f"{label(change.guest, name)}: {move}: {printable(change.reason)}"
    for step in plan.reclaims:
        known = told.get(step.guest)
        name = label(step.guest, None if known is None else known.name)
        yield f"{name}: {size(step.size)} of its cgroup {printable(step.reason)}"
    if plan.ksm is not None:
        changes = ", ".join(f"{name}={value}" for name, value in plan.ksm.changes.items())
        yield f"KSM: {changes}: {printable(plan.ksm.reason)}"
    if not plan.balloons and not plan.reclaims and plan.ksm is None:
        yield "nothing to change"


def left_line(guests: Sequence[GuestReading]) -> str:
    """Return which guests are left below their maximum when the agent stops; "" where none is."""
    small = [
        f"{label(each.id, each.name)} ({size(each.actual)} of {size(each.maximum)})"
        for each in guests
        if each.actual is not None and each.maximum is not None and each.actual < each.maximum
    ]
    named = ", ".join(small[:NAMED])
    rest = f" and {len(small) - NAMED} more" if len(small) > NAMED else ""
    return f"left below their maximum: {named}{rest}" if small else ""


def _whose(lease: Lease, names: Mapping[str, str | None]) -> str:
    if lease.guest:
        return f", taken by {label(lease.guest, names.get(lease.guest))}"
    return f", meant for {printable(lease.meant)}" if lease.meant else ""


def _left(lease: Lease, clock: float | None) -> str:
    """Return how long a lease still lasts, in words."""
    if clock is None:
        return ""
    minutes, seconds = divmod(max(0, round(lease.until - clock)), 60)
    return f", {minutes} min {seconds} s left" if minutes else f", {seconds} s left"


def _mode(status: Status) -> str:
    return "changes nothing (--dry-run)" if status.dry_run else "at work"


def _rounds(status: Status) -> str:
    if status.took is None or status.took_most is None:
        return UNKNOWN
    return f"{status.took * 1000:.0f} ms, 99 of 100 within {status.took_most * 1000:.0f} ms"


def _host(state: str, reason: str) -> str:
    words = printable(reason)
    return words if words.startswith(state) else f"{state}: {words}".rstrip(": ")


def _limits(told: Explanation) -> str:
    return f"{size(told.minimum)} to {size(told.maximum)}"


def _entitled(told: Explanation) -> str:
    shares = "" if told.shares is None else f", {told.shares} shares"
    active = "" if told.active is None else f", {told.active * 100:.0f} % active"
    return f"{size(told.entitlement)}{shares}{active}"


def _available(why: Why) -> str:
    age = "" if why.reading.age is None else f", {why.reading.age:.0f} s ago"
    return f"{size(why.reading.stats.available)}{age}"
