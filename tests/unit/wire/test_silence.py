"""Commands whose answers stay out: what is sent after them, and what a late answer does.

Rows F05 and F06 (silence, late answers), F08 (swapped), F19 (a server that does not read).
"""

import asyncio

import pytest

from qmpmem.errors import GuestUnreachable
from qmpmem.wire.qmp import PROBE, Session
from tests.rig.fakeqmp import (
    Conversation,
    answer,
    close,
    expect,
    greet,
    hang,
    negotiate,
    pause,
    refuse,
    say,
    serve,
    times,
    together,
)
from tests.rig.hostile import balloon_twice, meet

OPEN = together(greet(), negotiate())
ACTUAL = {"actual": 268435456}


@pytest.mark.parametrize("seconds", [3.5, 5.9])
def test_a_late_answer_is_counted_and_not_taken_for_the_next(seconds: float) -> None:
    late = together(
        expect(), expect(PROBE), refuse(), pause(seconds - 3), say('{"return": 1, "id": $BEFORE}')
    )
    met = meet([OPEN, late, expect("query-balloon"), answer()], balloon_twice)
    assert met.value == ("busy", ACTUAL)
    assert met.seconds == pytest.approx(seconds)
    assert met.statistics is not None
    assert (met.statistics.late, met.statistics.stray) == (1, 0)


def test_an_answer_after_a_minute_is_still_known() -> None:
    async def patient(session: Session) -> object:
        seen: list[str] = []
        for _ in range(100):
            try:
                return seen, await session.query("query-balloon")
            except GuestUnreachable as error:
                seen.append(error.reason)
        return None

    met = meet(
        [
            OPEN,
            expect(),
            expect(PROBE),
            pause(59),
            refuse(),
            say('{"return": 1, "id": $BEFORE}'),
            serve(),
        ],
        patient,
    )
    assert met.reason == "ok"
    assert met.value == (["timeout"] * 15, ACTUAL)
    assert met.conversation.commands == [
        "qmp_capabilities",
        "query-balloon",
        PROBE,
        "query-balloon",
    ]


def test_a_probe_that_is_never_answered_holds_up_nothing() -> None:
    late = together(expect(PROBE), pause(2), say('{"return": 1, "id": $BEFORE}'))
    met = meet([OPEN, expect(), late, expect("query-balloon"), answer()], balloon_twice)
    assert met.value == ("timeout", ACTUAL)


def test_nothing_is_sent_behind_a_lost_command() -> None:
    """A stopped QEMU gets two requests in all, however often it is asked: it would do them all."""

    async def stubborn(session: Session) -> None:
        for _ in range(50):
            with pytest.raises(GuestUnreachable) as caught:
                await session.change("balloon", {"value": 1 << 30})
            assert caught.value.reason == "timeout"

    met = meet([OPEN], stubborn)
    assert met.conversation.commands == ["qmp_capabilities", "balloon", PROBE]


def test_what_was_sent_to_a_busy_qemu_may_still_be_carried_out() -> None:
    async def twice(session: Session) -> list[str]:
        hints: list[str] = []
        for _ in range(2):
            with pytest.raises(GuestUnreachable) as caught:
                await session.change("balloon", {"value": 1 << 30})
            assert caught.value.reason == "busy"
            hints.append(caught.value.hint or "")
        return hints

    met = meet([OPEN, expect(), expect(PROBE), refuse(), expect(PROBE), refuse()], twice)
    assert isinstance(met.value, list)
    assert ["carried out" in hint for hint in met.value] == [True, False]  # the second stayed here


def test_swapped_answers_go_where_they_belong() -> None:
    """The answer to the lost command comes after that to the next would; ids tell them apart."""
    swap = together(
        say('{"return": "old", "id": $BEFORE}'), expect(), say('{"return": "new", "id": $ID}')
    )
    met = meet([OPEN, expect(), expect(PROBE), refuse(), swap], balloon_twice)
    assert met.value == ("busy", "new")


def test_a_cancelled_command_is_a_lost_one() -> None:
    async def impatient(session: Session) -> object:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await session.query("query-status")
        return await session.query("query-balloon")

    met = meet([OPEN, expect(), pause(2), answer(), serve()], impatient)
    assert met.value == ACTUAL
    assert met.seconds == pytest.approx(2.0)
    assert met.statistics is not None
    assert met.statistics.late == 1


def test_commands_of_several_tasks_take_turns() -> None:
    async def crowd(session: Session) -> object:
        return await asyncio.gather(*(session.query("query-balloon") for _ in range(20)))

    turn = together(expect("query-balloon"), pause(0.5), answer())
    met = meet([OPEN, times(20, turn)], crowd)
    assert met.value == [ACTUAL] * 20
    assert met.seconds == pytest.approx(10.0)


def test_all_commands_that_wait_learn_that_the_session_ended() -> None:
    async def crowd(session: Session) -> object:
        asked = [session.query("query-balloon") for _ in range(5)]
        return [
            error.reason
            for error in await asyncio.gather(*asked, return_exceptions=True)
            if isinstance(error, GuestUnreachable)
        ]

    assert meet([OPEN, expect(), pause(1), close()], crowd).value == ["closed"] * 5


def test_leaving_while_a_command_is_out_ends_it() -> None:
    out = asyncio.Event()

    async def note(_: Conversation) -> None:
        out.set()

    async def leave(session: Session) -> object:
        asked = asyncio.ensure_future(session.query("query-status"))
        await out.wait()
        return asked

    met = meet([OPEN, expect(), note, hang()], leave)
    assert isinstance(met.value, asyncio.Future)
    with pytest.raises(GuestUnreachable, match="the session was closed"):
        met.value.result()


def test_a_server_that_never_reads_gets_little() -> None:
    async def talk(session: Session) -> object:
        for _ in range(20):
            with pytest.raises(GuestUnreachable):
                await session.query("query-status")
        return session._client._writer.transport.get_write_buffer_size()  # type: ignore[union-attr]

    assert meet([OPEN, hang()], talk).value == 0


def test_unread_requests_do_not_hold_up_leaving() -> None:
    """As when QEMU is stopped and its socket's buffer full: what is written cannot be sent."""

    async def talk(session: Session) -> object:
        writer = session._client._writer
        assert writer is not None
        while writer.transport.get_write_buffer_size() < 1 << 16:
            writer.write(b" " * 4096)
        with pytest.raises(GuestUnreachable) as caught:
            await session.query("query-status")
        return caught.value.reason

    met = meet([OPEN, hang()], talk)
    assert met.value == "timeout"
    assert met.seconds == pytest.approx(4.0)
