"""From the connection to the end of the negotiation, against servers that do it wrong.

Rows F01 (never greets), F02 (drips), F04 (negotiation gone wrong), and the first line of F10, F13.
"""

import asyncio
import os

import pytest

from qmpmem.errors import GuestUnreachable
from qmpmem.wire.qmp import Deadlines, Session, connect
from tests.rig.clock import VirtualLoop
from tests.rig.fakeqmp import (
    GREETING,
    OLD_GREETING,
    FakeQmp,
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
    times,
)
from tests.rig.hostile import meet, standing, status
from tests.rig.memory import memory_directory

HEALTHY = {"status": "running", "running": True, "singlestep": False}


def version(text: str) -> bytes:
    return b'{"QMP": {"version": {"qemu": ' + text.encode() + b'}, "capabilities": ["oob"]}}\n'


SILENT: dict[str, list[Step]] = {
    "never": [hang()],
    "never-but-reads": [],
    "drip": [drip(GREETING * 3, 0.2)],
    "drip-spaces": [drip(b" " * 1000, 0.2)],
    "drip-empty-objects": [times(300, send(b"{}\n"), pause(0.2))],
    "drip-events": [times(300, event("STOP"), pause(0.2))],
    "greeting-without-line-end": [send(GREETING.rstrip())],
    "greeting-after-6s": [pause(6), greet(), negotiate(), serve()],
    "no-negotiation-without-oob": [send(OLD_GREETING), hang()],
}

GREETED: dict[str, list[Step]] = {
    "no-negotiation": [greet(), hang()],
    "negotiation-drips": [greet(), expect(), drip(b'{"return": {}, "id": "$T1"}', 0.2)],
    "negotiation-wrong-id": [greet(), expect(), say('{"return": {}, "id": "77"}')],
    "negotiation-number-id": [greet(), expect(), say('{"return": {}, "id": 1}')],
    "negotiation-list-id": [greet(), expect(), say('{"return": {}, "id": []}')],
    "negotiation-no-id": [greet(), expect(), say('{"return": {}}')],
    "negotiation-after-6s": [greet(), expect(), pause(6), answer()],
    "greets-again-instead": [greet(), expect(), greet(), greet()],
    "almost-in-time-twice": [pause(3), greet(), expect(), pause(3), answer(), serve()],
}

WRONG: dict[str, tuple[list[Step], str]] = {
    "closes": ([close()], "closed"),
    "closes-half": ([half_close()], "closed"),
    "closes-in-greeting": ([send(GREETING[:40]), close()], "closed"),
    "closes-before-line-end": ([send(GREETING.rstrip()), close()], "closed"),
    "closes-after-greeting": ([greet(), close()], "closed"),
    "resets-after-greeting": ([greet(), reset()], "closed"),
    "closes-after-request": ([greet(), expect(), close()], "closed"),
    "http": ([send(b"HTTP/1.1 400 Bad Request\r\n\r\n")], "protocol"),
    "ssh": ([send(b"SSH-2.0-OpenSSH_9.2\r\n")], "protocol"),
    "blank-line": ([send(b"\r\n")], "protocol"),
    "utf16": ([send(GREETING.decode().encode("utf-16"))], "protocol"),
    "utf8-bom": ([send(b"\xef\xbb\xbf" + GREETING)], "protocol"),
    "bad-utf8": ([send(GREETING.replace(b"Debian", b"\xff\xfe"))], "protocol"),
    "nul": ([send(b"\0" + GREETING)], "protocol"),
    "list": ([send(b"[" + GREETING.rstrip() + b"]\n")], "protocol"),
    "nan-version": ([send(version('{"major": NaN, "minor": 2, "micro": 1}'))], "protocol"),
    "text-version": ([send(version('{"major": "7", "minor": 2, "micro": 1}'))], "protocol"),
    "half-version": ([send(version('{"major": 7.5, "minor": 2, "micro": 1}'))], "protocol"),
    "no-micro": ([send(version('{"major": 7, "minor": 2}'))], "protocol"),
    "no-version": ([send(b'{"QMP": {"capabilities": []}}\n')], "protocol"),
    "no-capabilities": ([send(GREETING.replace(b"capabilities", b"cap"))], "protocol"),
    "capabilities-object": ([send(GREETING.replace(b'["oob"]', b'{"oob": 1}'))], "protocol"),
    "capabilities-text": ([send(GREETING.replace(b'["oob"]', b'"oob"'))], "protocol"),
    "qmp-null": ([send(b'{"QMP": null}\n')], "protocol"),
    "qmp-list": ([send(b'{"QMP": [1]}\n')], "protocol"),
    "error-without-id": ([say('{"error": {"class": "GenericError", "desc": "?"}}')], "protocol"),
    "long-greeting": ([send(GREETING.replace(b"Debian", b"x" * 300_000))], "protocol"),
    "negotiation-refused": ([greet(), expect(), refuse(), serve()], "protocol"),
    "negotiation-number": ([greet(), expect(), say('{"error": 5, "id": $ID}')], "protocol"),
    "negotiation-neither": ([greet(), expect(), say('{"id": $ID}')], "protocol"),
    "negotiation-both": (
        [greet(), expect(), say('{"return": {}, "error": {"class": "a", "desc": "b"}, "id": $ID}')],
        "protocol",
    ),
    "negotiation-garbage": ([greet(), expect(), send(b"{]\n")], "protocol"),
}

GOES_ON: dict[str, list[Step]] = {
    "plain": [greet(), negotiate(), serve()],
    "late-greeting": [pause(4.9), greet(), negotiate(), serve()],
    "dripped-greeting": [drip(GREETING, 0.03), negotiate(), serve()],
    "event-before-greeting": [event("STOP"), greet(), negotiate(), serve()],
    "old-answer-before-greeting": [say('{"return": {}, "id": "9"}'), greet(), negotiate(), serve()],
    "greets-twice": [greet(), greet(), negotiate(), serve()],
    "negotiates-twice": [greet(), negotiate(), answer(), serve()],
    "event-in-negotiation": [greet(), expect(), event("RESUME"), answer(), serve()],
    "wrong-id-then-right": [greet(), expect(), say('{"return": 1, "id": "x"}'), answer(), serve()],
    "all-in-one-write": [
        send(event_line := b'{"event": "STOP"}\n' + GREETING + b'{"event": "RESUME"}\n'),
        negotiate(),
        serve(),
    ],
    "unix-line-ends": [send(GREETING.replace(b"\r\n", b"\n")), negotiate(), serve()],
    "more-capabilities": [
        send(GREETING.replace(b'"oob"', b'"new", 5, {}, "oob"')),
        negotiate(),
        serve(),
    ],
}


@pytest.mark.parametrize("script", SILENT.values(), ids=SILENT)
def test_the_whole_handshake_has_one_deadline(script: list[Step]) -> None:
    met = meet(script)
    assert met.reason == "handshake-timeout"
    assert met.seconds == pytest.approx(5.0)


@pytest.mark.parametrize("script", GREETED.values(), ids=GREETED)
def test_a_greeting_without_negotiation_is_a_blocked_main_loop(script: list[Step]) -> None:
    met = meet(script)
    assert met.reason == "busy"
    assert met.seconds == pytest.approx(5.0)
    assert met.error is not None
    assert "sent" not in (met.error.hint or "")  # nothing was, so nothing will be carried out


@pytest.mark.parametrize(("script", "reason"), WRONG.values(), ids=WRONG)
def test_what_is_no_qemu_is_left_at_once(script: list[Step], reason: str) -> None:
    met = meet(script)
    assert met.reason == reason
    assert met.seconds < 0.1


@pytest.mark.parametrize("script", GOES_ON.values(), ids=GOES_ON)
def test_what_does_no_harm_is_passed_over(script: list[Step]) -> None:
    met = meet(script)
    assert (met.reason, met.value) == ("ok", HEALTHY)
    assert met.conversation.commands == ["qmp_capabilities", "query-status"]


def test_the_version_is_known() -> None:
    async def ask(session: Session) -> object:
        return session.version, session.peer.pid == os.getpid(), session.peer.uid == os.getuid()

    assert meet([greet(), negotiate()], ask).value == ((7, 2, 22), True, True)


@pytest.mark.parametrize(("greeting", "enabled"), [(GREETING, ["oob"]), (OLD_GREETING, None)])
def test_oob_is_enabled_where_there_is_oob(greeting: bytes, enabled: list[str] | None) -> None:
    met = meet([send(greeting), negotiate(), serve()])
    arguments = met.conversation.requests[0].get("arguments", {})
    assert isinstance(arguments, dict)
    assert arguments.get("enable") == enabled


def test_a_deadline_of_the_caller_holds() -> None:
    met = meet([hang()], status, Deadlines(handshake=0.25))
    assert met.reason == "handshake-timeout"
    assert met.seconds == pytest.approx(0.25)


def test_the_deadline_holds_on_a_real_clock() -> None:
    async def wait(path: str) -> tuple[str, float]:
        clock = asyncio.get_running_loop().time
        start = clock()
        with pytest.raises(GuestUnreachable) as caught:
            async with connect(path, guest="g", deadlines=Deadlines(handshake=0.2)):
                pass
        return caught.value.reason, clock() - start

    async def run(path: str) -> tuple[str, float]:
        async with FakeQmp(directory / "q", [hang()]):
            return await wait(path)

    with memory_directory() as directory, standing():
        reason, seconds = asyncio.run(run(str(directory / "q")))
    assert reason == "handshake-timeout"
    assert 0.2 <= seconds < 2.0


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.6, 3.0])
def test_a_cancelled_connect_leaves_nothing(moment: float) -> None:
    async def run() -> float:
        clock = asyncio.get_running_loop().time
        async with FakeQmp(directory / "q", [pause(1), greet(), hang()]):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(moment), connect(str(directory / "q"), guest="g"):
                    pass
            return clock()

    with (
        memory_directory() as directory,
        standing(),
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
    ):
        assert runner.run(run()) == pytest.approx(moment)


@pytest.mark.parametrize("steps", range(8))
def test_a_client_that_is_cancelled_while_leaving_still_leaves(steps: int) -> None:
    async def visit(leaving: asyncio.Event) -> None:
        async with connect(str(directory / "q"), guest="g"):
            leaving.set()

    async def run() -> bool:
        async with FakeQmp(directory / "q", [greet(), negotiate(), hang()]) as fake:
            leaving = asyncio.Event()
            visitor = asyncio.create_task(visit(leaving))
            await leaving.wait()
            for _ in range(steps):
                await asyncio.sleep(0)
            visitor.cancel()
            await asyncio.wait((visitor,))
            assert asyncio.all_tasks() <= {asyncio.current_task(), *fake.serving}
            return visitor.cancelled()

    with (
        standing(),
        memory_directory() as directory,
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
    ):
        cancelled = runner.run(run())
    assert cancelled or steps > 2  # it had left by then
