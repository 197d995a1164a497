"""What each answer and each event makes of what is known of a guest, without a session."""

from collections.abc import Callable

import pytest

from qmpmem.agent import guest_state
from qmpmem.agent.guest_state import NOT_SEEN, GuestState, Launched
from qmpmem.errors import GuestError, GuestRefused, GuestUnreachable
from qmpmem.model.guest import BalloonDevice, GuestDevices, GuestStats
from qmpmem.model.observation import GuestReading
from qmpmem.model.sizes import Sizes
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes
from qmpmem.wire.replies import RawStats

Change = Callable[[GuestState], GuestState]

DEVICE = BalloonDevice(driver="virtio-balloon-pci", path="/machine/b", deflate_on_oom=True)
PINNED = GuestDevices(obstacle="its memory is in huge pages")
WALL = 1000.0


def unseen(**launched: object) -> GuestState:
    reading = GuestReading(id="g", state="unreachable", exempt=NOT_SEEN)
    return GuestState(reading=reading, launched=Launched(**launched))  # type: ignore[arg-type]


def report(second: int, **fields: int) -> RawStats:
    """Make a report of a guest of 1 GiB; `faults` are its major ones."""
    stats: dict[str, object] = {
        "stat-total-memory": fields.get("total", GIB - 64 * MIB),
        "stat-available-memory": fields.get("available", 400 * MIB),
        "stat-free-memory": 300 * MIB,
        "stat-major-faults": fields.get("faults", 100),
    }
    return RawStats(stats=stats, last_update=second)


def told(known: GuestState, second: int, **fields: int) -> GuestState:
    """Have it report; our clock shows the same second."""
    return guest_state.report_read(known, report(second, **fields), float(second), WALL)


def looked_at(state: str = "running", known: GuestState | None = None) -> GuestState:
    """Have a guest of 1 GiB that has 512 MiB and has not reported."""
    known = guest_state.session_begun(known or unseen(), DEVICE)
    known = guest_state.run_state_read(known, state)
    known = guest_state.given_read(known, Sizes(boot=GIB))
    known = guest_state.device_read(known, DEVICE)
    known = guest_state.size_read(known, 512 * MIB, None)
    return guest_state.looked_at(guest_state.answering(known))


def reporting() -> GuestState:
    """Have one that has reported twice, so that its report has an age."""
    return told(told(looked_at(), 1), 2)


def life(known: GuestState) -> tuple[int, str]:
    return known.reading.epoch, known.reading.began


def test_a_guest_that_was_looked_at_is_known() -> None:
    known = looked_at()
    reading = known.reading
    assert (reading.state, reading.maximum, reading.actual) == ("running", GIB, 512 * MIB)
    assert (reading.exempt, reading.deflates, known.problem) == (None, True, None)
    assert (known.is_new, life(known)) == (False, (0, "seen"))


# Reports


def test_the_first_report_has_no_age_and_the_next_has_only_where_it_differs() -> None:
    first = told(looked_at(), 1)
    assert (first.changed, first.reported, first.reading.stats.available) == (None, None, 400 * MIB)
    assert guest_state.report_read(first, report(1), 5.0, WALL).changed is None
    second = told(first, 7)
    assert (second.changed, second.reported) == (7.0, 512 * MIB)
    again = guest_state.report_read(second, report(7), 9.0, WALL)
    assert (again.changed, again.reported) == (7.0, 512 * MIB)


def test_what_it_had_when_it_reported_stays_as_its_balloon_moves() -> None:
    known = guest_state.size_read(reporting(), 300 * MIB, None)
    assert (known.reading.actual, known.reported) == (300 * MIB, 512 * MIB)


def test_a_report_that_contradicts_itself_is_implausible_until_the_next() -> None:
    known = told(reporting(), 3, available=2 * GIB)
    assert (known.reading.implausible, known.reading.stats.available) == (True, None)
    assert guest_state.size_read(known, 512 * MIB, None).reading.implausible
    assert not told(known, 4).reading.implausible


def test_a_report_does_not_make_up_for_a_size_that_cannot_be_true() -> None:
    known = guest_state.size_read(reporting(), 2 * GIB, None)
    assert (known.reading.implausible, known.reading.actual) == (True, None)
    assert told(known, 3).reading.implausible
    assert not guest_state.size_read(known, 512 * MIB, None).reading.implausible


def test_a_report_that_was_cleared_is_none_and_has_no_age() -> None:
    raw = RawStats(stats={}, last_update=0)
    known = guest_state.report_read(reporting(), raw, 3.0, WALL)
    assert (known.changed, known.reading.stats) == (None, GuestStats())


def test_a_report_is_held_against_all_that_the_guest_could_have() -> None:
    known = guest_state.given_read(looked_at(), Sizes(boot=GIB, pluggable=GIB))
    assert told(known, 1, total=2 * GIB).reading.stats.total == 2 * GIB
    assert told(known, 1, total=3 * GIB).reading.stats.total is None


def test_all_that_a_report_tells_is_for_the_rounds() -> None:
    names = (
        ("free-memory", "free"),
        ("total-memory", "total"),
        ("available-memory", "available"),
        ("disk-caches", "disk_caches"),
        ("swap-in", "swap_in"),
        ("swap-out", "swap_out"),
        ("major-faults", "major_faults"),
        ("oom-kills", "oom_kills"),
        ("alloc-stalls", "alloc_stalls"),
    )
    stats: dict[str, object] = {f"stat-{name}": GIB for name, _ in names}
    raw = RawStats(stats=stats, last_update=1)
    reading = guest_state.report_read(looked_at(), raw, 1.0, WALL).reading
    assert {field for _, field in names if getattr(reading.stats, field) != GIB} == set()


def test_a_report_counts_also_where_what_it_was_given_is_not_known() -> None:
    assert told(guest_state.given_read(looked_at(), None), 1).reading.stats.available == 400 * MIB


def test_a_report_tells_what_of_the_plugged_memory_is_in_use() -> None:
    known = guest_state.given_read(looked_at(), Sizes(boot=GIB, movable=GIB))
    assert (known.reading.maximum, known.reading.actual) == (2 * GIB, 512 * MIB + GIB)
    assert known.reading.beyond == GIB
    known = told(known, 1)  # as much as its boot memory
    assert (known.reading.maximum, known.reading.actual) == (GIB, 512 * MIB)
    assert known.reading.beyond is None
    assert known.sizes is not None
    assert known.sizes.offline == GIB


# Pauses, resets and arrivals


def resumed(known: GuestState) -> GuestState:
    return guest_state.event_heard(known, "RESUME")


@pytest.mark.parametrize("event", ["RESUME", "WAKEUP"])
def test_after_a_pause_the_last_report_is_void_and_kept_to_compare(event: str) -> None:
    before = reporting()
    known = guest_state.event_heard(before, event)
    assert (known.changed, known.before_pause) == (None, before.reading.stats)
    assert life(known) == (0, "seen")


@pytest.mark.parametrize("event", ["STOP", "BALLOON_CHANGE", "SHUTDOWN", "resume", ""])
def test_other_events_change_nothing(event: str) -> None:
    known = reporting()
    assert guest_state.event_heard(known, event) is known


COUNTERS = (
    (100, (0, "seen")),
    (101, (0, "seen")),
    (99, (1, "arrived")),
)


@pytest.mark.parametrize(("faults", "expected"), COUNTERS)
def test_counters_that_are_lower_after_a_pause_tell_of_another_life(
    faults: int, expected: tuple[int, str]
) -> None:
    known = told(resumed(reporting()), 3, faults=faults)
    assert life(known) == expected
    assert (known.changed, known.before_pause) == (3.0, None)


def test_counters_that_are_lower_without_a_pause_tell_nothing() -> None:
    assert life(told(reporting(), 3, faults=99)) == (0, "seen")
    assert life(told(told(resumed(reporting()), 3), 4, faults=99)) == (0, "seen"), "only the first"


def test_the_report_that_is_still_there_after_a_pause_is_not_the_next() -> None:
    known = guest_state.report_read(resumed(reporting()), report(2), 3.0, WALL)
    assert known.changed is None
    assert known.before_pause is not None
    assert life(told(known, 4, faults=99)) == (1, "arrived")


def test_a_second_pause_before_the_next_report_compares_with_the_same() -> None:
    once = resumed(reporting())
    cleared = replace(once, reading=replace(once.reading, stats=GuestStats()))
    assert resumed(cleared).before_pause == once.before_pause


def test_the_second_report_of_a_session_is_compared_with_the_first() -> None:
    assert life(told(told(looked_at(), 1), 2, faults=99)) == (1, "arrived")


def test_a_reset_leaves_no_report_with_an_age() -> None:
    assert guest_state.event_heard(reporting(), "RESET").changed is None


def test_a_reset_begins_anew_and_what_was_reported_is_compared_with_nothing() -> None:
    known = guest_state.event_heard(resumed(reporting()), "RESET")
    assert life(known) == (1, "reset")
    assert (known.changed, known.before_pause) == (None, None)
    assert life(told(resumed(known), 3, faults=1)) == (1, "reset")


RUN_STATES = (
    (("running", "paused", "running"), (0, "seen")),
    (("inmigrate", "inmigrate"), (0, "seen")),
    (("inmigrate", "paused", "running"), (1, "arrived")),
    (("running", "restore-vm", "running"), (1, "arrived")),
    (("prelaunch", "running"), (1, "seen")),
)


@pytest.mark.parametrize(("states", "expected"), RUN_STATES)
def test_a_guest_whose_memory_comes_from_elsewhere_begins_anew(
    states: tuple[str, ...], expected: tuple[int, str]
) -> None:
    known = looked_at(states[0])
    for state in states[1:]:
        known = guest_state.run_state_read(known, state)
    assert life(known) == expected


def test_an_arrival_counts_also_where_the_session_broke_in_between() -> None:
    lost = guest_state.session_lost(looked_at("inmigrate"), GuestUnreachable("x", reason="closed"))
    assert life(looked_at("running", lost)) == (1, "arrived")


def test_a_run_state_is_shown_only_when_its_size_is_known() -> None:
    known = guest_state.run_state_read(unseen(), "running")
    assert known.reading.state == "unreachable"
    assert guest_state.answering(known).reading.state == "running"


# What is lost


LOST = (
    (GuestUnreachable("x", reason="gone"), "gone"),
    (GuestUnreachable("x", reason="taken"), "in-use"),
    (GuestUnreachable("x", reason="busy"), "busy"),
    (GuestUnreachable("x", reason="closed"), "unreachable"),
    (GuestRefused("x", error_class="GenericError"), "unreachable"),
)


@pytest.mark.parametrize(("error", "state"), LOST)
def test_without_a_session_nothing_that_its_driver_said_holds(
    error: GuestError, state: str
) -> None:
    known = guest_state.reads_read(told(reporting(), 3, available=2 * GIB), Bytes(1), 1)
    known = guest_state.size_read(known, 2 * GIB, None)
    known = guest_state.session_lost(known, error)
    reading = known.reading
    assert (reading.state, reading.refused, known.problem) == (state, "x", "x")
    assert (reading.actual, reading.stats.available, reading.maximum) == (None, None, GIB)
    assert (reading.reads, reading.reads_waited, reading.implausible) == (None, None, False)
    assert (known.changed, known.reading.stats, known.is_odd) == (None, GuestStats(), False)


def test_without_a_session_a_good_report_holds_no_more_than_a_bad_one() -> None:
    known = guest_state.session_lost(reporting(), GuestUnreachable("x", reason="closed"))
    assert (known.reading.actual, known.reading.stats.available) == (None, None)


@pytest.mark.parametrize(
    ("known", "expected"),
    [(unseen(), None), (guest_state.device_read(looked_at(), None), "no balloon device")],
)
def test_what_was_found_out_of_a_guest_stays_and_what_was_not_is_no_reason(
    known: GuestState, expected: str | None
) -> None:
    lost = guest_state.session_lost(known, GuestUnreachable("x", reason="closed"))
    assert (lost.reading.exempt, lost.is_new) == (expected, False)


def test_a_lost_socket_comes_with_what_to_do() -> None:
    error = GuestUnreachable("it is lost", reason="lost", hint="start it again")
    assert guest_state.session_lost(reporting(), error).problem == "it is lost; start it again"


@pytest.mark.parametrize(("reason", "state"), [("busy", "busy"), ("timeout", "unreachable")])
def test_one_that_does_not_answer_now_keeps_what_it_said(reason: str, state: str) -> None:
    before = reporting()
    known = guest_state.unanswered(before, GuestUnreachable("x", reason=reason))
    assert (known.reading.state, known.problem) == (state, "x")
    assert (known.changed, known.reading.stats) == (before.changed, before.reading.stats)
    assert guest_state.answering(known).reading == before.reading


FORGETS: tuple[Change, ...] = (
    guest_state.device_lost,
    lambda known: guest_state.session_begun(known, None),
    lambda known: guest_state.size_read(known, None, None),
)


@pytest.mark.parametrize("forget", FORGETS, ids=["unplugged", "session", "no size"])
def test_the_next_balloon_has_its_own_settings_and_reports(forget: Change) -> None:
    known = forget(guest_state.polling_read(reporting(), 5))
    assert (known.device, known.polled_before) == (None, None)
    assert (known.reading.stats, known.raw, known.changed) == (GuestStats(), None, None)
    assert guest_state.polling_to_put_back(known) is None
    assert told(known, 3).changed is None, "its first"


def test_a_session_begins_with_the_balloon_that_it_found() -> None:
    assert guest_state.session_begun(unseen(), DEVICE).device == DEVICE


# What is asked rarely


EXEMPT = (
    (unseen(), PINNED, DEVICE, "a balloon frees nothing: its memory is in huge pages", False),
    (unseen(), PINNED, None, "no balloon device: its memory is in huge pages", False),
    (unseen(), GuestDevices(), DEVICE, None, False),
    (unseen(), GuestDevices(), None, "no balloon device", True),
    (unseen(unmovable="x"), PINNED, DEVICE, "a balloon frees nothing: x", False),
    (unseen(unmovable="x"), GuestDevices(), None, "no balloon device: x", False),
    (unseen(no_balloon="y"), PINNED, None, "no balloon device: y", False),
    (unseen(no_balloon="y"), GuestDevices(), None, "no balloon device: y", True),
    (unseen(managed=False, mode="static"), PINNED, None, "started in mode static", False),
    (unseen(managed=False), GuestDevices(), None, "started in mode balloon", False),
    (unseen(human=True), GuestDevices(), None, "human monitor: no statistics", False),
    (unseen(human=True), PINNED, None, "human monitor: no statistics", False),
)


@pytest.mark.parametrize(("known", "devices", "device", "reason", "is_bare"), EXEMPT)
def test_why_memory_stays_where_it_is(
    known: GuestState,
    devices: GuestDevices,
    device: BalloonDevice | None,
    reason: str | None,
    *,
    is_bare: bool,
) -> None:
    known = guest_state.devices_read(known, devices)
    known = guest_state.device_read(known, device)
    assert (known.reading.exempt, known.reading.bare) == (NOT_SEEN, False)
    known = guest_state.looked_at(known)
    assert (known.reading.exempt, known.reading.bare) == (reason, is_bare)


def test_a_size_that_is_none_tells_that_the_balloon_is_gone() -> None:
    known = guest_state.size_read(looked_at(), None, None)
    assert known.problem == "no balloon device"
    assert (known.reading.exempt, known.reading.bare) == ("no balloon device", True)


@pytest.mark.parametrize(
    ("claimed", "lacks", "problem"),
    [
        (512 * MIB, None, None),
        (512 * MIB, "no statistics", "no statistics"),
        (2 * GIB, "no statistics", "implausible: the guest claims 2147483648 bytes"),
        (-1, None, "implausible: the guest claims -1 bytes"),
    ],
)
def test_a_size_that_cannot_be_true_is_said(
    claimed: object, lacks: str | None, problem: str | None
) -> None:
    assert guest_state.size_read(looked_at(), claimed, lacks).problem == problem


def test_while_qemu_does_not_know_yet_no_size_is_no_problem() -> None:
    known = guest_state.run_state_read(looked_at(), "preconfig")
    assert guest_state.size_read(known, None, None).problem is None


def test_without_what_it_was_given_its_size_is_qemus_count() -> None:
    known = guest_state.given_read(looked_at(), None)
    assert (known.reading.maximum, known.reading.actual) == (None, 512 * MIB)
    assert guest_state.size_read(known, 3 * GIB, None).reading.actual == 3 * GIB


@pytest.mark.parametrize(("kvm", "expected"), [(None, None), (True, "kvm"), (False, "tcg")])
def test_what_a_machine_runs_on(*, kvm: bool | None, expected: str | None) -> None:
    known = guest_state.machine_read(looked_at(), "pc-q35-7.2", kvm=kvm)
    assert (known.machine, known.accelerator) == ("pc-q35-7.2", expected)


def test_what_it_was_told_and_what_it_read_is_for_the_rounds() -> None:
    known = guest_state.order_told(looked_at(), "no")
    known = guest_state.started_with(known, Bytes(MIB))
    known = guest_state.reads_read(known, Bytes(7), 3)
    reading = known.reading
    assert (reading.refused, reading.current) == ("no", MIB)
    assert (reading.reads, reading.reads_waited) == (7, 3)
    assert guest_state.order_told(known, None).reading.refused is None


# Polling


@pytest.mark.parametrize(
    ("wanted", "again", "expected"),
    [(2, False, ()), (10, False, (10,)), (2, True, (0, 2)), (10, True, (0, 10))],
)
def test_polling_is_set_where_it_is_another_and_to_none_first_to_ask_at_once(
    wanted: int, expected: tuple[int, ...], *, again: bool
) -> None:
    known = guest_state.polling_set(guest_state.polling_read(looked_at(), 0), 2)
    assert guest_state.polling_to_set(known, wanted, again=again) == expected


@pytest.mark.parametrize(("before", "now", "expected"), [(0, 2, 0), (5, 2, 5), (2, 2, None)])
def test_polling_is_put_back_where_it_was_another(
    before: int, now: int, expected: int | None
) -> None:
    known = guest_state.polling_set(guest_state.polling_read(looked_at(), before), now)
    assert guest_state.polling_to_put_back(known) == expected


def test_polling_that_is_as_wanted_is_left_alone() -> None:
    known = guest_state.polling_read(looked_at(), 5)
    assert guest_state.polling_to_set(known, 5, again=False) == ()


def test_polling_that_was_never_read_is_not_put_back() -> None:
    assert guest_state.polling_to_put_back(guest_state.polling_set(looked_at(), 2)) is None
