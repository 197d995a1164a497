"""What can be asked of an agent: decisions that are kept, pins and how they end."""

import asyncio
import os
import time
from itertools import permutations
from pathlib import Path
from typing import Final

import pytest

from qmpmem.agent import pins
from qmpmem.agent.guest_state import NOT_SEEN
from qmpmem.agent.watcher import Watcher
from qmpmem.api.handlers import FIRST_LOOK, Handlers
from qmpmem.api.permissions import Peer
from qmpmem.api.recent_rounds import RecentRounds
from qmpmem.api.records import DECISIONS, PinRequest
from qmpmem.errors import ConfigError, GuestRefused
from qmpmem.guests.inventory import LiveGuest
from qmpmem.model.config import Config, Rule
from qmpmem.model.observation import GuestReading, Habit
from qmpmem.model.round import Explanation, SetBalloon, Tick
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes
from qmpmem.view import agent as view
from tests.rig.agent import Office
from tests.rig.agent_scenarios import is_seen, play
from tests.rig.fakeguest import FakeHost
from tests.rig.invariants import Watched

HANGS: Final = ("a", "b")
"""Of four guests."""

ME = Peer(pid=os.getpid(), uid=os.geteuid(), groups=frozenset())


def office_with(*rules: Rule, dry_run: bool = False) -> Office:
    made = Office(Path("/proc/none"), Config(rules=rules), dry_run=dry_run)
    made.add("web1")
    return made


def request(size: int, *, force: bool = False) -> PinRequest:
    return PinRequest(size=Bytes(size * MIB), force=force)


def explained(target: int | None = None, **fields: object) -> Explanation:
    size = None if target is None else Bytes(target * MIB)
    return replace(Explanation(guest="web1", target=size), **fields)


def tell(office: Office, target: int) -> None:
    change = SetBalloon(guest="web1", target=Bytes(target * MIB), reason="so")
    office.round(told=[change], guests=[explained(target)])


def test_a_decision_is_a_command_or_another_verdict() -> None:
    office = office_with()
    office.round(guests=[explained()])
    office.round(guests=[explained()])
    office.round(guests=[explained(600)])  # wanted, but told already
    tell(office, 500)
    office.round(guests=[explained(verdict="grace")])
    office.round(guests=[explained(verdict="grace")])
    kept = office.rounds.decisions("web1")
    assert [(each.number, each.explanation.verdict) for each in kept] == [
        (1, "normal"),
        (4, "normal"),
        (5, "grace"),
    ]


def test_a_minimum_that_a_guest_cannot_have_is_said_once() -> None:
    office = office_with(Rule(match="*", minimum=Bytes(2 * GIB)))
    office.readings["web2"] = replace(office.readings["web1"], id="web2", maximum=Bytes(4 * GIB))
    office.round()
    office.round()
    (said,) = office.handlers.status().warnings
    assert said.startswith("guest web1: the minimum of its rule, 2 GiB, is more than the 1 GiB")


def test_only_so_many_are_kept_and_none_of_a_guest_that_is_gone() -> None:
    office = office_with()
    for size in range(400, 400 + 2 * DECISIONS):
        tell(office, size)
    kept = office.handlers.why("web1").decisions
    assert len(kept) == DECISIONS
    assert kept[-1].explanation.target == (399 + 2 * DECISIONS) * MIB
    office.remove("web1")
    office.round()
    assert office.rounds.decisions("web1") == ()


def test_warnings_are_kept_and_said() -> None:
    office = office_with()
    office.agent.warn("one of the agent's own")
    for number in range(100):
        office.round(warnings=(f"warning {number}",))
    found = office.handlers.status().warnings
    assert len(found) == 20
    assert found[-1] == "warning 99"
    assert office.lines == ["warning: one of the agent's own"]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_listener_that_warns_is_heard_in_the_same_round_in_every_order(
    order: tuple[int, ...],
) -> None:
    """As the journal, whose problems a client must find beside the round they are of."""
    office = office_with()

    def write_down(_: Tick) -> None:
        office.agent.warn("journal: no space")

    def ignore(_: Tick) -> None:
        pass

    listeners = [write_down, *office.listeners, ignore]
    office.listeners[:] = [listeners[place] for place in order]
    office.round(warnings=("one of the policy's",))
    assert set(office.handlers.status().warnings) == {"journal: no space", "one of the policy's"}
    assert office.handlers.status().number == 1
    assert office.lines == ["warning: journal: no space"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("700M", 700), ("50%", 512), ("+100M", 612), ("-100M", 412), ("max", 1024), (" 1 GiB ", 1024)],
)
def test_a_pin_may_be_a_change_of_what_the_guest_has(text: str, expected: int) -> None:
    office = office_with()
    done = office.handlers.pin("web1", PinRequest(size=text), ME)
    assert (done.size, done.actual) == (expected * MIB, 512 * MIB)
    assert office.agent.requests.in_force.pins == {"web1": expected * MIB}


@pytest.mark.parametrize("text", ["", "700", "700MB", "-", "x" * 1000, "1e9G", "\u0663M", "101%"])
def test_what_is_no_size_is_no_pin(text: str) -> None:
    office = office_with()
    with pytest.raises(ConfigError, match="size"):
        office.handlers.pin("web1", PinRequest(size=text), ME)
    assert office.agent.requests.in_force.pins == {}


def test_a_pin_is_an_order() -> None:
    office = office_with()
    done = office.handlers.pin("web1", request(600), ME)
    assert (done.size, done.actual, done.changed) == (600 * MIB, 512 * MIB, True)
    assert office.agent.requests.in_force.pins == {"web1": 600 * MIB}
    assert office.agent._hurry.is_set()
    office.round()
    assert office.handlers.why("web1").pin == 600 * MIB
    assert office.handlers.unpin("web1", ME).changed
    assert not office.handlers.unpin("web1", ME).changed


def test_a_dry_run_of_a_pin_checks_and_does_nothing() -> None:
    office = office_with()
    assert not office.handlers.pin("web1", request(600), ME, dry_run=True).changed
    with pytest.raises(ConfigError):
        office.handlers.pin("web1", request(6000), ME, dry_run=True)
    assert office.agent.requests.in_force.pins == {}
    assert office.lines == []


@pytest.mark.parametrize(
    ("rule", "size", "force", "words"),
    [
        (Rule(match="*"), 2000, False, "more than its maximum"),
        (Rule(match="*"), 2000, True, "more than its maximum"),
        (Rule(match="*"), 300, False, "less than its floor"),
        (Rule(match="*"), 300, True, "not between 358.4 MiB and 1 GiB"),
        (Rule(match="web*", minimum=Bytes(600 * MIB)), 512, False, "not between 600 MiB"),
        (Rule(match="web*", maximum=Bytes(700 * MIB)), 800, True, "and 700 MiB"),
        (Rule(match="*"), 0, True, "no memory at all"),
    ],
)
def test_a_pin_respects_the_guests_limits(rule: Rule, size: int, force: bool, words: str) -> None:  # noqa: FBT001 - a column of the table
    office = office_with(rule)
    with pytest.raises(ConfigError, match=words):
        office.handlers.pin("web1", request(size, force=force), ME)
    assert office.agent.requests.in_force.pins == {}


@pytest.mark.parametrize(("minimum", "helps"), [(100, "--force"), (340, "a rule for this guest")])
def test_force_is_named_where_it_helps(minimum: int, helps: str) -> None:
    office = office_with(Rule(match="*", minimum=Bytes(minimum * MIB)))
    with pytest.raises(ConfigError, match="less than its floor") as caught:
        office.handlers.pin("web1", request(300), ME)
    assert (caught.value.hint or "").startswith(helps)


def test_force_goes_below_the_floor_where_the_rule_allows_it() -> None:
    office = office_with(Rule(match="*", minimum=Bytes(200 * MIB)))
    assert office.handlers.pin("web1", request(256, force=True), ME).changed


def test_a_guest_that_is_not_managed_is_not_pinned() -> None:
    office = office_with(Rule(match="*", managed=False))
    with pytest.raises(GuestRefused, match="not managed"):
        office.handlers.pin("web1", request(512), ME)


@pytest.mark.parametrize("force", [False, True])
def test_a_guest_of_which_nothing_is_freed_is_only_pinned_upwards(*, force: bool) -> None:
    office = office_with()
    watcher = office.handlers.agent.guests["web1"]
    found = watcher.found
    kept = replace(found.record, unmovable="its memory is in huge pages")
    watcher.found = LiveGuest(record=kept, pid=found.pid)
    with pytest.raises(GuestRefused, match="a balloon frees nothing: its memory is in huge pages"):
        office.handlers.pin("web1", request(400, force=force), ME)
    assert office.handlers.pin("web1", request(1024), ME).size == 1024 * MIB


def test_an_agent_that_changes_nothing_takes_no_pin() -> None:
    office = office_with(dry_run=True)
    with pytest.raises(ConfigError, match="--dry-run"):
        office.handlers.pin("web1", request(512), ME)


def show(watcher: Watcher, **fields: object) -> None:
    """Have a guest be seen otherwise."""
    known = watcher._inquiry.known
    watcher._inquiry.known = replace(known, reading=replace(known.reading, **fields))


def test_a_guest_without_a_size_is_told_from_one_with_an_impossible_one() -> None:
    office = office_with()
    watcher = office.agent.guests["web1"]
    watcher._inquiry.known = replace(
        watcher._inquiry.known, reading=replace(watcher._inquiry.known.reading, actual=None)
    )
    with pytest.raises(GuestRefused, match="no balloon device"):
        office.handlers.pin("web1", request(512), ME)


def test_a_pin_ends_with_its_guest() -> None:
    office = office_with()
    office.round()
    office.handlers.pin("web1", request(600), ME)
    office.round()
    office.remove("web1")
    office.round()
    assert office.agent.requests.in_force.pins == {}


def test_the_next_guest_of_that_id_is_another() -> None:
    office = office_with()
    office.handlers.pin("web1", request(600), ME)
    office.round()
    office.add("web1", start_time=2)
    office.round()
    assert office.agent.requests.in_force.pins == {}


def test_a_pin_from_before_a_restart_waits_for_its_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    office = office_with()
    office.agent.requests.pin("db1", GIB)
    office.round()
    assert "db1" in office.agent.requests.in_force.pins
    monkeypatch.setattr(office.agent.pins, "_began", time.monotonic() - pins.WAIT - 1)
    office.round()
    assert office.agent.requests.in_force.pins == {}
    office.agent.requests.pin("web1", GIB)
    office.round()
    office.round()
    assert "web1" in office.agent.requests.in_force.pins


def test_what_is_shown_is_safe_for_a_terminal() -> None:
    office = office_with()
    evil = "\x1b[2J\nnext"
    office.round(guests=[explained(reason=evil, actual=GIB)])
    why = office.handlers.why("web1")
    shown = [
        *(value for _, value in view.why_rows(why)),
        *view.guest_row(why.explanation),
        *(view.decision_line(each) for each in why.decisions),
    ]
    assert not any("\x1b" in text or "\n" in text for text in shown)


@pytest.mark.parametrize(
    ("usual", "days", "said"),
    [
        (None, 0, None),
        (Bytes(GIB), 1, "1 GiB at this hour, as on one day before"),
        (Bytes(GIB), 3, "1 GiB at this hour, as on 3 days before"),
    ],
)
def test_what_a_guest_usually_needs_is_said(
    usual: Bytes | None, days: int, said: str | None
) -> None:
    office = office_with()
    office.round(guests=[explained(usual=usual)])
    why = office.handlers.why("web1")
    known = Habit(maximum=Bytes(GIB), usual=usual, days=days)
    rows = dict(view.why_rows(replace(why, reading=replace(why.reading, habit=known))))
    assert rows.get("usually needs") == said


def test_status_shows_holds_pins_and_leases() -> None:
    office = office_with()
    office.handlers.hold(ME, on=True)
    office.handlers.pin("web1", request(600), ME)
    lease = office.agent.requests.reserve("me", Bytes(MIB), 60, time.monotonic())
    office.round()
    rows = dict(view.status_rows(office.handlers.status()))
    assert "until" not in rows["hold"]
    assert rows["pin web1"] == "600 MiB"
    assert rows[f"lease {lease.id}"].startswith("1 MiB for me, ")
    meant = office.agent.requests.reserve("me", Bytes(MIB), 60, time.monotonic(), meant="new1")
    office.round()
    status = office.handlers.status()
    shown = dict(view.status_rows(replace(status, clock=meant.until - 59.7)))
    assert shown[f"lease {meant.id}"] == "1 MiB for me, meant for new1, 1 min 0 s left"
    for left, words in ((59, ", 59 s left"), (0.2, ", 0 s left"), (-5, ", 0 s left")):
        shown = dict(view.status_rows(replace(status, clock=meant.until - left)))
        assert shown[f"lease {meant.id}"].endswith(words)
    assert [lease.meant for lease in status.leases] == [None, "new1"]


def test_a_pin_on_a_guest_that_is_exempt_says_so_and_why() -> None:
    office = office_with()
    assert office.handlers.pin("web1", request(600), ME).exempt is None
    watcher = office.agent.guests["web1"]
    watcher._inquiry.known = replace(
        watcher._inquiry.known, reading=replace(watcher.reading(), state="paused")
    )
    assert office.handlers.pin("web1", request(600), ME).exempt == "it is paused, not running"
    watcher._inquiry.known = replace(
        watcher._inquiry.known, reading=replace(watcher.reading(), state="running")
    )
    for reason, said in (("its memory is locked", "its memory is locked"), (NOT_SEEN, None)):
        office.round(guests=[Explanation(guest="web1", verdict="exempt", reason=reason)])
        assert office.handlers.pin("web1", request(600), ME).exempt == said


def test_guests_left_below_their_maximum_are_named_up_to_some() -> None:
    readings = [
        GuestReading(id=f"g{n}", state="running", maximum=GIB, actual=GIB) for n in range(9)
    ]
    assert not view.left_line(readings)
    small = [replace(reading, actual=Bytes(512 * MIB)) for reading in readings]
    assert view.left_line([*readings, *small[:1]]) == (
        "left below their maximum: g0 (512 MiB of 1 GiB)"
    )
    assert view.left_line(small).endswith("g4 (512 MiB of 1 GiB) and 4 more")


def test_guests_that_hang_are_shown_as_last_seen_without_a_wait() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        clock = asyncio.get_running_loop().time
        handlers = Handlers(seen.agent, RecentRounds(), lambda _: None)
        for name in HANGS:
            host.guests[name].hang()
        await seen.until(lambda: len(seen.agent.guests) == 4)
        began = clock()
        shown = await handlers.guests()
        assert [each.state for each in shown[:2]] == ["unreachable"] * 2
        assert clock() - began == pytest.approx(FIRST_LOOK, abs=0.02)  # not seen yet
        await seen.until(lambda: is_seen(seen, "c", "d"))
        await seen.until(lambda: not any(seen.agent.guests[each].is_new for each in HANGS))
        began = clock()
        shown = await handlers.guests()
        assert clock() == began
        assert [each.state for each in shown] == ["unreachable"] * 2 + ["running"] * 2
        host.guests["c"].hang()
        assert [each.state for each in await handlers.guests()] == [each.state for each in shown]
        assert clock() == began

    play(scene, "a", "b", "c", "d")
