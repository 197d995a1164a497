"""Events: which are let in, how many, and what a storm of them does (rows F14, F16, F17)."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from qmpmem.errors import GuestUnreachable
from qmpmem.wire import events, limits
from qmpmem.wire.qmp import TURN, Event, Session
from tests.rig.fakeqmp import (
    STAMP,
    FakeQmp,
    Step,
    answer,
    close,
    event,
    expect,
    greet,
    hang,
    negotiate,
    pause,
    say,
    send,
    serve,
    times,
    together,
)
from tests.rig.hostile import connected, meet, standing
from tests.rig.memory import memory_directory

OPEN = together(greet(), negotiate())
LINE = f'{{{STAMP}, "event": "STOP"}}\r\n'.encode()

IGNORED = {
    "balloon-minus-one": ("BALLOON_CHANGE", '{"actual": -1}'),
    "balloon-zero": ("BALLOON_CHANGE", '{"actual": 0}'),
    "balloon-2^63": ("BALLOON_CHANGE", '{"actual": 9223372036854775808}'),
    "balloon-fraction": ("BALLOON_CHANGE", '{"actual": 1.5}'),
    "balloon-true": ("BALLOON_CHANGE", '{"actual": true}'),
    "balloon-text": ("BALLOON_CHANGE", '{"actual": "12"}'),
    "balloon-null": ("BALLOON_CHANGE", '{"actual": null}'),
    "balloon-list": ("BALLOON_CHANGE", '{"actual": [1]}'),
    "balloon-nothing": ("BALLOON_CHANGE", "{}"),
    "data-list": ("BALLOON_CHANGE", "[1]"),
    "data-null": ("STOP", "null"),
    "data-number": ("STOP", "5"),
    "data-long": ("STOP", '{"why": "' + "x" * 5000 + '"}'),
}


async def first(session: Session) -> object:
    """Talk: wait for the first event that gets through."""
    async for seen in session.events():
        return seen
    return None


async def all_of_them(session: Session) -> object:
    """Talk: collect the events until the session ends."""
    seen: list[str] = []
    try:
        async for each in session.events():
            seen.append(each.name)  # noqa: PERF401 - what came before the error counts
    except GuestUnreachable as error:
        return seen, error.reason
    return seen, "no end"


def test_an_event_is_handed_on() -> None:
    met = meet([OPEN, event("BALLOON_CHANGE", '{"actual": 1073741824}')], first)
    assert met.value == Event(
        name="BALLOON_CHANGE", data={"actual": 1073741824}, when=1700000000.25
    )


@pytest.mark.parametrize("name", sorted(events.ALLOWED - {"BALLOON_CHANGE"}))
def test_what_says_something_about_a_guest_is_let_in(name: str) -> None:
    met = meet([OPEN, event("VNC_CONNECTED"), event(name), close()], all_of_them)
    assert met.value == ([name], "closed")


@pytest.mark.parametrize(("name", "data"), IGNORED.values(), ids=IGNORED)
def test_an_event_of_another_shape_is_counted_and_ignored(name: str, data: str) -> None:
    met = meet([OPEN, event(name, data), event("RESET"), close()], all_of_them)
    assert met.value == (["RESET"], "closed")
    assert met.statistics is not None
    assert met.statistics.malformed_events == 1


@pytest.mark.parametrize("line", ['{"event": 5}', '{"event": null}', '{"event": ["STOP"]}'])
def test_an_event_without_a_name_is_ignored(line: str) -> None:
    assert meet([OPEN, say(line), event("RESET"), close()], all_of_them).value == (
        ["RESET"],
        "closed",
    )


@pytest.mark.parametrize(
    "stamp",
    [
        *("null", "5", "{}", '{"seconds": -1, "microseconds": -1}', '{"seconds": "1"}'),
        *('{"seconds": 1e300, "microseconds": 0}', '{"seconds": 1, "microseconds": 9999999}'),
    ],
)
def test_a_time_that_is_none_is_unknown(stamp: str) -> None:
    met = meet([OPEN, say(f'{{"timestamp": {stamp}, "event": "STOP"}}')], first)
    assert met.value == Event(name="STOP", data={}, when=None)


def test_events_come_before_the_end_is_told() -> None:
    met = meet([OPEN, event("POWERDOWN"), event("SHUTDOWN"), close()], all_of_them)
    assert met.value == (["POWERDOWN", "SHUTDOWN"], "closed")


def test_a_waiting_reader_learns_of_the_end() -> None:
    met = meet([OPEN, pause(30), close()], all_of_them)
    assert met.value == ([], "closed")
    assert met.seconds == pytest.approx(30.0)


def test_a_storm_is_thinned_and_counted() -> None:
    """SHUTDOWN, RESET, STOP, RESUME, MIGRATION at 1 kHz for 4 s."""
    names = ("SHUTDOWN", "RESET", "STOP", "RESUME", "MIGRATION")
    storm = [step for name in names for step in (event(name), pause(0.001))]
    met = meet([OPEN, times(800, *storm), close()], all_of_them)
    assert isinstance(met.value, tuple)
    expected = events.BURST + events.RATE * 4
    assert len(met.value[0]) == pytest.approx(expected, rel=0.1)
    assert met.statistics is not None
    assert met.statistics.dropped_events == 4000 - len(met.value[0])


def test_events_that_no_task_reads_take_little_memory() -> None:
    async def ignore(session: Session) -> object:
        await asyncio.sleep(100)
        return len(session._receiver.events)

    slowly = times(1000, event("STOP"), pause(0.05))
    met = meet([OPEN, slowly, event("RESET")], ignore)
    assert met.value == events.WAITING
    assert met.statistics is not None
    assert met.statistics.dropped_events == 1001 - events.WAITING


def test_the_newest_events_are_kept() -> None:
    async def late(session: Session) -> object:
        await asyncio.sleep(100)
        return await all_of_them(session)

    met = meet([OPEN, times(1000, event("STOP"), pause(0.05)), event("RESET"), close()], late)
    assert isinstance(met.value, tuple)
    assert met.value[0][-1] == "RESET"


def test_unread_events_do_not_delay_an_answer() -> None:
    async def ask(session: Session) -> object:
        return await session.query("query-balloon")

    met = meet([OPEN, expect(), send(LINE * 5000), answer(), hang()], ask)
    assert met.reason == "ok"


def race(script: Sequence[Step]) -> tuple[str, float, int]:
    """Ask while a storm blows, on a real clock.

    Returns:
        How it ended; seconds of this thread's CPU time to the answer (both ends run in here, and
        other programs slow the wall clock down); and how often others got their turn meanwhile.
    """

    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def run() -> tuple[str, float]:
        async with FakeQmp(directory / "q", script) as fake, connected(fake) as session:
            counting = asyncio.create_task(count())
            start = time.thread_time()
            try:
                await session.query("query-balloon")
                end = "ok"
            except GuestUnreachable as error:
                end = error.reason
            counting.cancel()
            return end, time.thread_time() - start

    with memory_directory() as directory, standing():
        end, seconds = asyncio.run(run())
    return end, seconds, turns


def test_an_answer_comes_through_thousands_of_events() -> None:
    end, seconds, turns = race([OPEN, expect(), send(LINE * 10_000), answer(), send(LINE * 20_000)])
    assert end == "ok"
    assert seconds < 0.5
    assert turns > 10_000 * len(LINE) // TURN


def test_an_answer_comes_while_events_never_stop() -> None:
    storm = times(100, send(LINE * 1000), pause(0.001))
    end, seconds, turns = race([OPEN, expect(), send(LINE * 5000), answer(), storm, serve()])
    assert end == "ok"
    assert seconds < 0.5
    assert turns > 5000 * len(LINE) // TURN


FLOODS = {
    "events": LINE * 1000,
    "nothing": b"{}\n" * 1000,
    "lists": b'{"a": [' + b"[]," * 80_000 + b"[]]}\n",
    "answers": b'{"return": {}, "id": "77"}\n' * 1000,
}


@pytest.mark.parametrize("kind", ["events", "nothing", "answers"])
def test_a_flood_ends_the_session(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    burst = limits.FLOOD_BURST // 10  # ten times as much takes ten times as long, and no other way
    monkeypatch.setattr(limits, "FLOOD_BURST", burst)
    flood = FLOODS[kind]
    size = _size(flood)
    just = [OPEN, expect(), times(burst // size - 1, send(flood)), answer()]
    assert meet(just).reason == "ok"
    assert meet([OPEN, expect(), times(burst // size + 1, send(flood))]).reason == "flood"


def test_a_hundred_thousand_events_at_once_are_no_flood() -> None:
    assert _size(LINE * 100_000) < limits.FLOOD_BURST


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_never_keeps_the_loop_to_itself(flood: bytes) -> None:
    size = _size(flood)
    count = (1 << 20) // size
    end, _, turns = race([OPEN, expect(), times(count, send(flood)), answer()])
    assert end == "ok"
    assert turns > count * size // max(TURN, len(flood.partition(b"\n")[0])) // 2


def _size(flood: bytes) -> int:
    """Count bytes as the flood gauge does."""
    return len(flood) + limits.FLOOD_LINE * flood.count(b"\n")
