"""What one guest is asked how often, and what is due.

Theory of operation:
    QEMU tells when a size changes (BALLOON_CHANGE), so a guest at rest is asked for its size every
    ten seconds, not every one: a question costs both sides some 0.4 ms, and there may be thousands
    of guests. After an order the size is asked each time, as an event may be lost.

    An event makes due what it may have changed. A guest that does not answer is asked for all of
    it once it answers again, except its devices and its report.

    Reports come by QEMU's own polling, which is set again where they stay out, and to have one at
    once (`qmpmem.agent.guest_state.polling_to_set`).

Rules of this file:
    Pure. Times are seconds of the agent's steady clock; what never was, was `NEVER`.
"""

from collections.abc import Iterable
from typing import Final

from qmpmem.agent.guest_state import GuestState
from qmpmem.policy import cadence
from qmpmem.records import Record, replace
from qmpmem.wire import errors

SIZES: Final = frozenset({"BALLOON_CHANGE"})
"""Events that tell of a new size, and of nothing else."""
RECHECK: Final = 10.0
"""Seconds after which a guest's size is asked again: memory may be plugged in."""
UNDER_WAY: Final = 10.0
"""Seconds after an order in which a guest's size is asked each time: an event may be lost."""
ANSWER: Final = 0.1
"""Seconds after which the report has come that a guest was asked for at once: its driver takes
milliseconds, and one that takes longer is read the next time."""
WAKE_UP: Final = 3
"""Reports that stayed out, after which polling is set again: another client may have turned it off,
or plugged another device (QEMU keeps the interval with the device)."""
SURVEY: Final = 60.0
"""Seconds after which a guest's devices, disks and memory backends are looked at again. What a
passed-through device pins, the kernel shows at once."""
AGAIN: Final = 1.0
"""Seconds between two questions to a guest that does not answer, or does not say its size."""
SHORTEST: Final = 0.1
"""Seconds of the shortest rest."""

NEVER: Final = float("-inf")


class Schedule(Record, frozen=True):
    """When one guest was asked what."""

    every: float = 2.0
    """Seconds from one report to the next."""
    report_due: float = NEVER
    checked: float = NEVER
    """When its run state and memory were asked."""
    sized: float = NEVER
    surveyed: float = NEVER
    """When its devices were looked at."""
    ordered: float = NEVER
    """When there was an order for it."""
    hurried: float = NEVER
    """When a report was asked for at once."""
    is_hurried: bool = False
    """Whether QEMU was not told of that yet."""
    woken: float = NEVER
    """When its polling was set again, or was first looked at in this session."""


def session_begun(asked: Schedule) -> Schedule:
    """Have everything be due."""
    return replace(asked, report_due=NEVER, checked=NEVER, sized=NEVER, surveyed=NEVER, woken=NEVER)


def heard(asked: Schedule, events: Iterable[str]) -> Schedule:
    """Have due what events may have changed; its size in any case, also without an event."""
    is_more = any(name not in SIZES for name in events)
    return replace(asked, sized=NEVER, checked=NEVER if is_more else asked.checked)


def unanswered(asked: Schedule) -> Schedule:
    """Have all of it be asked again when the guest is back."""
    return replace(asked, checked=NEVER, sized=NEVER)


def device_lost(asked: Schedule) -> Schedule:
    """Have the guest be looked at: there may be another balloon."""
    return replace(asked, checked=NEVER)


def ordered(asked: Schedule, now: float) -> Schedule:
    """Have its size be asked each time for a while."""
    return replace(asked, ordered=now)


def reported_every(asked: Schedule, seconds: float) -> Schedule:
    """Have it report so often; where that is more often, a report is due."""
    due = NEVER if seconds < asked.every else asked.report_due
    return replace(asked, every=seconds, report_due=due)


def hurried(asked: Schedule, now: float) -> Schedule:
    """Have it report at once as well, where that was not asked for within a second."""
    if was_hurried(asked, now):
        return asked
    return replace(asked, hurried=now, is_hurried=True, report_due=NEVER)


def was_hurried(asked: Schedule, now: float) -> bool:
    """Tell whether a report was asked for at once within the last second."""
    return now - asked.hurried < cadence.HURRY


def is_check_due(asked: Schedule, known: GuestState, now: float) -> bool:
    """Tell whether to ask for its run state and its memory."""
    return now - asked.checked >= RECHECK or known.reading.maximum is None


def is_size_due(asked: Schedule, now: float) -> bool:
    """Tell whether to ask for its size."""
    return now - asked.sized >= RECHECK or _is_under_way(asked, now)


def is_survey_due(asked: Schedule, now: float) -> bool:
    """Tell whether to look at its devices."""
    return now - asked.surveyed >= SURVEY


def checked(asked: Schedule, when: float) -> Schedule:
    """Take in when its run state and its memory were asked."""
    return replace(asked, checked=when)


def sized(asked: Schedule, when: float) -> Schedule:
    """Take in when its size was asked."""
    return replace(asked, sized=when)


def surveyed(asked: Schedule, when: float) -> Schedule:
    """Take in when its devices were looked at."""
    return replace(asked, surveyed=when)


def report_begun(asked: Schedule, now: float) -> Schedule:
    """Take in that its report is read; the next is due soon where one was asked for at once."""
    return replace(asked, report_due=now + (ANSWER if asked.is_hurried else asked.every))


def polling(asked: Schedule) -> int:
    """Return the seconds that QEMU's polling is to have; QEMU knows only whole ones."""
    return max(1, round(asked.every))


def polling_seen(asked: Schedule, now: float) -> Schedule:
    """Take in that its polling is looked at; from the first time on, reports may stay out."""
    return replace(asked, woken=now) if asked.woken == NEVER else asked


def is_to_be_woken(asked: Schedule, known: GuestState, now: float) -> bool:
    """Tell whether to set polling again: a report was asked for, or a running guest makes none."""
    if asked.is_hurried:
        return True
    since = max(asked.woken, NEVER if known.changed is None else known.changed)
    return known.reading.state == "running" and now - since > WAKE_UP * polling(asked)


def hurry_taken(asked: Schedule) -> Schedule:
    """Take in that QEMU is being told to have a report at once."""
    return replace(asked, is_hurried=False)


def woken(asked: Schedule, now: float) -> Schedule:
    """Take in that its polling was set to none, to be set again."""
    return replace(asked, woken=now)


def rest(asked: Schedule, known: GuestState, now: float) -> float:
    """Return the seconds for which there is nothing to ask."""
    if known.reading.state in errors.WITHOUT_SESSION:
        return min(AGAIN, asked.every)
    if known.reading.maximum is None:
        return AGAIN
    due = asked.sized + RECHECK
    if _is_under_way(asked, now):
        due = now + min(AGAIN, asked.every)
    if known.device is not None:
        due = min(due, asked.report_due)
    return min(RECHECK, max(SHORTEST, due - now))


def _is_under_way(asked: Schedule, now: float) -> bool:
    return now - asked.ordered < UNDER_WAY
