"""An open session with a server that answers wrongly, late, twice, too much or not at all.

Rows F05 and F06 (silence), F08 and F09 (wrong answers), F10 and F13 (wrong lines), F19 (cut).
"""

import asyncio
import json
import socket

import pytest

from qmpmem.errors import GuestRefused, GuestUnreachable
from qmpmem.wire.limits import LINE
from qmpmem.wire.qmp import PROBE, Deadlines, Session, session_over
from tests.rig.clock import VirtualLoop
from tests.rig.fakeqmp import (
    OLD_GREETING,
    Step,
    answer,
    close,
    drip,
    event,
    expect,
    greet,
    half_close,
    hang,
    negotiate,
    pause,
    refuse,
    reset,
    say,
    send,
    serve,
    small_buffer,
    times,
    together,
)
from tests.rig.hostile import balloon_twice, meet, standing, status

OPEN = together(greet(), negotiate())
ASKED = together(OPEN, expect("query-status"))
PROBED = together(expect(PROBE), refuse("CommandNotFound"))
ACTUAL = {"actual": 268435456}
OK = '{"return": "ok", "id": $ID}'

SILENT: dict[str, tuple[list[Step], str, float]] = {
    "never": ([OPEN, expect(), hang()], "timeout", 4.0),
    "never-but-reads": ([OPEN], "timeout", 4.0),
    "busy": ([ASKED, PROBED], "busy", 3.0),
    "busy-slow-probe": ([ASKED, expect(PROBE), pause(0.9), refuse()], "busy", 3.9),
    "busy-probe-returns": ([ASKED, expect(PROBE), answer(1)], "busy", 3.0),
    "probe-too-late": ([ASKED, expect(PROBE), pause(1.1), refuse()], "timeout", 4.0),
    "no-oob": ([send(OLD_GREETING), negotiate(), expect()], "timeout", 3.0),
    "dies-while-probed": ([ASKED, expect(PROBE), close()], "closed", 3.0),
    "drips": ([ASKED, drip(b'{"return": {}, "id": "$T2"}' + b" " * 90, 0.2)], "timeout", 4.0),
    "answers-others": ([ASKED, times(50, say('{"return": 1, "id": "z"}'))], "timeout", 4.0),
    "events-only": ([ASKED, times(50, event("STOP"), pause(0.2))], "timeout", 4.0),
    "number-id": ([ASKED, say('{"return": 1, "id": 2}')], "timeout", 4.0),
    "no-id": ([ASKED, say('{"return": 1}')], "timeout", 4.0),
    "null-id": ([ASKED, say('{"return": 1, "id": null}')], "timeout", 4.0),
    "list-id": ([ASKED, say('{"return": 1, "id": ["2"]}')], "timeout", 4.0),
    "object-id": ([ASKED, say('{"return": 1, "id": {"2": 2}}')], "timeout", 4.0),
    "error-of-others": ([ASKED, say('{"error": {}, "id": "z"}')], "timeout", 4.0),
    "answer-in-an-event": ([ASKED, say('{"event": "A", "return": 1, "id": $ID}')], "timeout", 4.0),
}

ANSWERED: dict[str, list[Step]] = {
    "at-last": [ASKED, pause(2.9), say(OK)],
    "after-strays": [
        ASKED,
        say("{}"),
        say('{"return": 1}'),
        say('{"return": 2, "id": "$T1"}'),
        say(OK),
    ],
    "after-events": [ASKED, times(50, event("STOP")), say(OK)],
    "twice": [ASKED, say(OK), say('{"return": "no", "id": $ID}')],
    "a-thousand-times": [ASKED, say(OK), times(1000, say('{"return": "no", "id": $ID}'))],
    "then-an-error": [ASKED, say(OK), say('{"error": {"class": "A", "desc": "b"}, "id": $ID}')],
    "before-asked": [OPEN, say('{"return": "no", "id": "$T2"}'), expect("query-status"), say(OK)],
    "in-one-write": [
        ASKED,
        send(b'{"event": "STOP"}\r\n{"return": "ok", "id": "$T2"}\r\n{"a": 1}\n'),
    ],
    "in-two-writes": [ASKED, send(b'{"return": "ok", "'), pause(1), send(b'id": "$T2"}\r\n')],
    "id-first": [ASKED, say('{"id": $ID, "return": "ok", "more": [1, {}]}')],
    "then-closes": [ASKED, say(OK), close()],
    "then-half-closes": [ASKED, say(OK), half_close()],
    "blanks-around": [ASKED, say("  \t" + OK + "   ")],
}

BROKEN: dict[str, tuple[list[Step], str]] = {
    "closes": ([ASKED, close()], "closed"),
    "closes-half": ([ASKED, half_close()], "closed"),
    "closes-in-answer": ([ASKED, send(b'{"return": {}, "id": "$T2"'), close()], "closed"),
    "closes-before-line-end": ([ASKED, send(b'{"return": {}, "id": "$T2"}'), close()], "closed"),
    "resets": ([OPEN, reset()], "closed"),
    "neither": ([ASKED, say('{"id": $ID}')], "protocol"),
    "error-number": ([ASKED, say('{"error": 5, "id": $ID}')], "protocol"),
    "error-null": ([ASKED, say('{"error": null, "id": $ID}')], "protocol"),
    "error-list": ([ASKED, say('{"error": ["a"], "id": $ID}')], "protocol"),
    "error-empty": ([ASKED, say('{"error": {}, "id": $ID}')], "protocol"),
    "error-without-desc": ([ASKED, say('{"error": {"class": "A"}, "id": $ID}')], "protocol"),
    "error-desc-number": (
        [ASKED, say('{"error": {"class": "A", "desc": 5}, "id": $ID}')],
        "protocol",
    ),
    "error-class-list": (
        [ASKED, say('{"error": {"class": [], "desc": "b"}, "id": $ID}')],
        "protocol",
    ),
    "error-number-and-return": ([ASKED, say('{"return": 1, "error": 5, "id": $ID}')], "protocol"),
    "error-without-id": ([ASKED, say('{"error": {"class": "A", "desc": "b"}}')], "protocol"),
    "bad-utf8": ([ASKED, send(b'{"return": "\xff", "id": "$T2"}\n')], "protocol"),
    "utf16": ([ASKED, send('{"return": 1, "id": "$T2"}\n'.encode("utf-16"))], "protocol"),
    "utf16-le": ([ASKED, send('{"return": 1, "id": "$T2"}\n'.encode("utf-16-le"))], "protocol"),
    "nul": ([ASKED, send(b'{"return": 1, "id": "$T2"}\0\n')], "protocol"),
    "lone-surrogate": ([ASKED, say('{"return": "\\ud800", "id": $ID}')], "protocol"),
    "nan": ([ASKED, say('{"return": NaN, "id": $ID}')], "protocol"),
    "infinity": ([ASKED, say('{"return": -Infinity, "id": $ID}')], "protocol"),
    "1e999": ([ASKED, say('{"return": 1e999, "id": $ID}')], "protocol"),
    "5000-digits": ([ASKED, say('{"return": %s, "id": $ID}' % ("1" * 5000))], "protocol"),
    "1000-deep": ([ASKED, say("[" * 1000 + "]" * 1000)], "protocol"),
    "100000-deep": ([ASKED, say('{"return": %s1' % ("[" * 100_000))], "protocol"),
    "not-an-object": ([ASKED, say('["return", 1]')], "protocol"),
    "python": ([ASKED, say("{'return': 1, 'id': $ID}")], "protocol"),
    "binary": ([ASKED, send(bytes(range(256)) * 4)], "protocol"),
}


@pytest.mark.parametrize(("script", "reason", "seconds"), SILENT.values(), ids=SILENT)
def test_silence_has_a_deadline_and_a_name(script: list[Step], reason: str, seconds: float) -> None:
    met = meet(script)
    assert met.reason == reason
    assert met.seconds == pytest.approx(seconds)
    assert met.conversation.mistakes == []


@pytest.mark.parametrize("script", ANSWERED.values(), ids=ANSWERED)
def test_the_first_matching_answer_counts(script: list[Step]) -> None:
    met = meet(script)
    assert (met.reason, met.value) == ("ok", "ok")


@pytest.mark.parametrize(("script", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_session_ends_at_once(script: list[Step], reason: str) -> None:
    async def twice(session: Session) -> None:
        with pytest.raises(GuestUnreachable) as caught:
            await session.query("query-status")
        assert caught.value.reason == reason
        await session.query("query-status")  # and it stays ended, for the same reason

    met = meet(script, twice)
    assert met.reason == reason
    assert met.seconds < 0.1


def test_an_error_is_a_refusal_and_the_session_goes_on() -> None:
    async def talk(session: Session) -> object:
        with pytest.raises(GuestRefused, match="guest g: query-status: it is not") as caught:
            await session.query("query-status")
        return caught.value.error_class, await session.query("query-balloon")

    met = meet([ASKED, refuse("DeviceNotActive", "it is not"), serve()], talk)
    assert met.value == ("DeviceNotActive", ACTUAL)


def test_return_and_error_together_are_an_error() -> None:
    both = '{"return": {}, "error": {"class": "A", "desc": "b"}, "id": $ID}'
    assert meet([ASKED, say(both)]).reason == "A"


def test_what_an_error_says_is_shown_in_one_short_line() -> None:
    met = meet([ASKED, refuse("A\nB", "no\n\x1b[31m" + "x" * 10_000)])
    assert met.error is not None
    assert met.error.message.isprintable()
    assert len(met.error.message) < 300
    assert met.reason == "A\\nB"


@pytest.mark.parametrize("arguments", [{"path": "x" * 10_000}, {"path": "\udcff"}])
def test_a_request_that_would_end_the_session_is_not_sent(arguments: dict[str, str]) -> None:
    async def talk(session: Session) -> object:
        with pytest.raises(GuestUnreachable) as caught:
            await session.query("qom-get", arguments)
        return caught.value.reason, await session.query("query-balloon")

    met = meet([OPEN, serve()], talk)
    assert met.value == ("protocol", ACTUAL)
    assert met.conversation.commands == ["qmp_capabilities", "query-balloon"]


def test_requests_are_short() -> None:
    met = meet([OPEN, serve()], balloon_twice)
    request = met.conversation.requests[-1]
    assert request.keys() == {"execute", "id"}
    assert len(str(request["id"])) == 3


def test_ids_are_not_those_of_the_client_before() -> None:
    """QEMU 7.2 has been seen to hand a late answer to the client that connected next."""
    ids = {meet([OPEN, serve()]).conversation.requests[-1]["id"] for _ in range(8)}
    assert len(ids) > 4


@pytest.mark.parametrize("extra", [-1, 0])
def test_a_line_at_the_limit_is_read(extra: int) -> None:
    frame = '{"return": "", "id": "$T2"}'  # as long as it will be: an id has three characters
    line = frame.replace('""', '"' + "x" * (LINE + extra - len(frame)) + '"')
    met = meet([ASKED, send(line.encode() + b"\n")])
    assert met.value == "x" * (LINE + extra - len(frame))


@pytest.mark.parametrize(
    "size", [LINE + 1, LINE + 2, 11 << 20, 64 << 20], ids=["+1", "+2", "11MiB", "64MiB"]
)
def test_a_longer_line_is_cut_off_and_hardly_read(size: int) -> None:
    line = b'{"return": "' + b"x" * size
    met = meet([small_buffer(), ASKED, send(line), send(b'", "id": "$T2"}\n')])
    assert met.reason == "protocol"
    assert met.conversation.sent <= 512 * 1024 + 16 * 1024  # the last, left in the kernel's buffer


def test_a_healthy_server_is_just_that() -> None:
    met = meet([OPEN, serve()], status)
    assert met.reason == "ok"


def test_a_task_that_was_forgotten_fails_a_meeting() -> None:
    async def forget() -> None:
        async def wait() -> None:
            me = asyncio.current_task()  # a cycle, which only the garbage collector frees
            await asyncio.get_running_loop().create_future()
            assert me

        asyncio.create_task(wait())  # noqa: RUF006 - forgotten on purpose
        await asyncio.sleep(0)

    loop = VirtualLoop()
    with pytest.raises(AssertionError, match="destroyed but it is pending"), standing():
        loop.run_until_complete(forget())
    loop.close()


class Other:
    """The second user of a session, with one command."""

    is_awaiting = True

    def __init__(self) -> None:
        self.answers: list[bytes] = []

    def take_answer(self, line: bytes) -> bool:
        self.answers.append(line)
        return True

    def take_event(self, line: bytes) -> None:
        raise AssertionError(line)

    def end(self) -> None:
        pass


async def test_the_last_answer_of_a_qemu_is_heard_though_another_command_follows() -> None:
    """Row F93: it ends after `quit`, and the agent may ask it something before it has read that."""
    ours, qemu = socket.socketpair()
    for each in (ours, qemu):
        each.setblocking(False)  # noqa: FBT003 - its only argument
    loop = asyncio.get_running_loop()

    async def negotiating() -> None:
        qemu.send(OLD_GREETING)
        asked = json.loads(await loop.sock_recv(qemu, 4096))
        qemu.send(json.dumps({"return": {}, "id": asked["id"]}).encode() + b"\r\n")

    other, last = Other(), b'{"return": {}, "id": 1}\r\n'
    server = asyncio.create_task(negotiating())
    async with session_over(ours, "/s", "web1", Deadlines()) as session:
        await server
        session.share(other)
        session.write(b'{"execute": "quit", "id": 1}\n')
        with qemu:
            assert b"quit" in qemu.recv(4096)
            qemu.send(last)
        with pytest.raises(GuestUnreachable, match="closed the connection"):
            await session.query("query-status")
    assert other.answers == [last]
