"""What is asked of a guest how often, and what is due, without a clock."""

import pytest

from qmpmem.agent import schedule
from qmpmem.agent.guest_state import GuestState
from qmpmem.agent.schedule import NEVER, Schedule
from qmpmem.model.guest import BalloonDevice
from qmpmem.model.observation import GuestReading
from qmpmem.units import GIB, Bytes

NOW = 100.0
DEVICE = BalloonDevice(driver="virtio-balloon-pci", path="/machine/b")


def guest(
    state: str = "running",
    maximum: Bytes | None = GIB,
    device: BalloonDevice | None = DEVICE,
    changed: float | None = None,
) -> GuestState:
    reading = GuestReading(id="g", state=state, maximum=maximum)
    return GuestState(reading=reading, device=device, changed=changed)


def asked(**times: object) -> Schedule:
    """Have one that was asked for all of it just now, and reports every 2 s."""
    just = {"report_due": NOW + 2, "checked": NOW, "sized": NOW, "surveyed": NOW, "woken": NOW}
    return Schedule(**(just | times))  # type: ignore[arg-type]


def due(of: Schedule, known: GuestState | None = None, now: float = NOW) -> set[str]:
    known = known or guest()
    all_of_it = {
        "check": schedule.is_check_due(of, known, now),
        "size": schedule.is_size_due(of, now),
        "survey": schedule.is_survey_due(of, now),
        "report": now >= of.report_due,
    }
    return {what for what, is_due in all_of_it.items() if is_due}


EVERYTHING = {"check", "size", "survey", "report"}
DUE: tuple[tuple[Schedule, set[str]], ...] = (
    (asked(), set()),
    (Schedule(), EVERYTHING),
    (schedule.session_begun(asked()), EVERYTHING),
    (asked(checked=NOW - 9.9, sized=NOW - 9.9, surveyed=NOW - 59.9), set()),
    (asked(checked=NOW - 10), {"check"}),
    (asked(sized=NOW - 10), {"size"}),
    (asked(surveyed=NOW - 60), {"survey"}),
    (asked(report_due=NOW), {"report"}),
    (schedule.ordered(asked(), NOW), {"size"}),
    (asked(ordered=NOW - 9.9), {"size"}),
    (asked(ordered=NOW - 10), set()),
    (schedule.unanswered(asked()), {"check", "size"}),
    (schedule.device_lost(asked()), {"check"}),
    (schedule.heard(asked(), []), {"size"}),
    (schedule.heard(asked(), ["BALLOON_CHANGE"]), {"size"}),
    (schedule.heard(asked(), ["RESET"]), {"check", "size"}),
    (schedule.heard(asked(), ["BALLOON_CHANGE", "STOP", "BALLOON_CHANGE"]), {"check", "size"}),
    (schedule.hurried(asked(), NOW), {"report"}),
    (schedule.checked(schedule.unanswered(asked()), NOW), {"size"}),
    (schedule.sized(schedule.unanswered(asked()), NOW), {"check"}),
    (schedule.surveyed(asked(surveyed=NEVER), NOW), set()),
)


@pytest.mark.parametrize(("of", "expected"), DUE)
def test_what_is_due(of: Schedule, expected: set[str]) -> None:
    assert due(of) == expected


def test_a_guest_whose_memory_is_not_known_is_checked_each_time() -> None:
    assert due(asked(), guest(maximum=None)) == {"check"}


def test_a_session_forgets_when_its_polling_was_set_and_keeps_what_was_ordered() -> None:
    of = schedule.session_begun(asked(ordered=NOW, every=5.0))
    assert (of.woken, of.ordered, of.every) == (NEVER, NOW, 5.0)


# Reports


@pytest.mark.parametrize(
    ("seconds", "expected"), [(1.0, {"report"}), (2.0, set[str]()), (10.0, set[str]())]
)
def test_a_report_is_due_at_once_where_they_are_to_come_more_often(
    seconds: float, expected: set[str]
) -> None:
    of = schedule.reported_every(asked(), seconds)
    assert due(of) == expected
    assert schedule.report_begun(of, NOW).report_due == NOW + seconds


def test_what_was_asked_for_at_once_is_read_soon_and_then_as_ever() -> None:
    of = schedule.report_begun(schedule.hurried(asked(), NOW), NOW)
    assert of.report_due == NOW + 0.1
    assert schedule.report_begun(schedule.hurry_taken(of), NOW).report_due == NOW + 2


def test_a_guest_is_hurried_once_a_second_at_the_most() -> None:
    of = schedule.report_begun(schedule.hurried(asked(), NOW), NOW)
    assert schedule.hurried(of, NOW + 0.9) is of
    assert due(schedule.hurried(of, NOW + 1), now=NOW) == {"report"}
    assert schedule.was_hurried(of, NOW + 0.9)
    assert not schedule.was_hurried(of, NOW + 1)


@pytest.mark.parametrize(
    ("every", "expected"), [(0.25, 1), (1.0, 1), (2.0, 2), (2.6, 3), (10.0, 10)]
)
def test_qemu_polls_at_whole_seconds_and_not_at_none(every: float, expected: int) -> None:
    assert schedule.polling(asked(every=every)) == expected


WAKES = (
    (asked(woken=NOW - 6), guest(), False),
    (asked(woken=NOW - 6.1), guest(), True),
    (asked(woken=NOW - 6.1), guest(changed=NOW - 6), False),
    (asked(woken=NOW - 6), guest(changed=NOW - 50), False),
    (asked(woken=NOW - 6.1), guest("paused"), False),
    (asked(woken=NOW - 6.1, every=10.0), guest(), False),
    (asked(woken=NOW - 30.1, every=10.0), guest(), True),
    (schedule.hurried(asked(), NOW), guest(changed=NOW), True),
    (schedule.hurried(asked(), NOW), guest("paused", changed=NOW), True),
    (schedule.hurry_taken(schedule.hurried(asked(), NOW)), guest(changed=NOW), False),
    (schedule.woken(asked(woken=NOW - 50), NOW), guest(), False),
    (schedule.polling_seen(asked(woken=NEVER), NOW), guest(), False),
    (schedule.polling_seen(asked(woken=NOW - 50), NOW), guest(), True),
)


@pytest.mark.parametrize(("of", "known", "expected"), WAKES)
def test_polling_is_set_again_where_reports_of_a_running_guest_stay_out(
    of: Schedule, known: GuestState, *, expected: bool
) -> None:
    assert schedule.is_to_be_woken(of, known, NOW) is expected


# Rests

RESTS = (
    (asked(), guest(), 2.0),
    (asked(report_due=NOW), guest(), 0.1),
    (asked(report_due=NOW + 0.5), guest(), 0.5),
    (asked(report_due=NOW + 50), guest(), 10.0),
    (asked(report_due=NOW), guest(device=None), 10.0),
    (asked(sized=NOW - 9.5), guest(), 0.5),
    (asked(sized=NOW + 50), guest(device=None), 10.0),
    (asked(ordered=NOW), guest(), 1.0),
    (asked(ordered=NOW, every=0.25, report_due=NOW + 5), guest(), 0.25),
    (asked(ordered=NOW - 10), guest(), 2.0),
    (asked(report_due=NOW), guest(maximum=None), 1.0),
    (asked(report_due=NOW), guest("busy"), 1.0),
    (asked(every=0.25), guest("unreachable", maximum=None), 0.25),
)


@pytest.mark.parametrize(("of", "known", "seconds"), RESTS)
def test_how_long_there_is_nothing_to_ask(of: Schedule, known: GuestState, seconds: float) -> None:
    assert schedule.rest(of, known, NOW) == pytest.approx(seconds)
