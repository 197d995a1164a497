"""What stands in the agent's place is not the agent any more: no client believes it too much.

An agent that was installed with `--separate` has a user of its own. What takes it over answers
root's commands.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
import pytest

from qmpmem.api.addresses import admin_path
from qmpmem.api.records import LeaseEnded, LeaseResult, PinResult, Status
from qmpmem.model.guest import GuestView
from qmpmem.model.round import Explanation
from qmpmem.units import GIB
from tests.rig.command import Ran, called
from tests.rig.qemu import short_directory

pytestmark = pytest.mark.timeout(120)

EVIL: Final = "\x1b]0;x\x07\x1b[31m\u202e\n\x9b2J"
"""Sets a terminal's title and colour, and turns the direction of what follows."""
RAW: Final = ("\x1b", "\x07", "\u202e", "\x9b")

Answer = Callable[[socket.socket, bytes], None]


@contextmanager
def answering(answer: Answer) -> Iterator[Path]:
    """Answer at both sockets of an agent; yields the run directory."""
    with short_directory() as directory:
        listeners = []
        for path in (directory / "agent.sock", admin_path(directory / "agent.sock")):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            listener.listen()
            listeners.append(listener)
            threading.Thread(target=serve, args=(listener, answer), daemon=True).start()
        try:
            yield directory
        finally:
            for each in listeners:
                each.shutdown(socket.SHUT_RDWR)
                each.close()


def serve(listener: socket.socket, answer: Answer) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, suppress(OSError):
            answer(connection, connection.recv(65536))


def ask(run: Path, *words: str) -> Ran:
    return called(*words, run=run, environ={"QMPMEM_AGENT_SOCKET": str(run / "agent.sock")})


def refusing(connection: socket.socket, _: bytes) -> None:
    problem = {"kind": "ConfigError", "message": f"no {EVIL}", "hint": EVIL, "reason": EVIL}
    body = json.dumps({"error": problem}).encode()
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + body)


def granting(connection: socket.socket, asked: bytes) -> None:
    """Give records of the right kinds, with texts that no agent of ours makes."""
    _, path, *_ = asked.decode().split(" ")
    guest = GuestView(
        id=EVIL,
        name=EVIL,
        pid=1,
        state=EVIL,
        maximum=GIB,
        actual=GIB,
        rss=None,
        stats=None,
        socket=EVIL,
        machine=EVIL,
        managed=True,
        problem=EVIL,
        no_balloon=EVIL,
        unmovable=EVIL,
    )
    told = Explanation(guest=EVIL, name=EVIL, reason=EVIL)
    status = Status(
        pid=1,
        version=EVIL,
        since=0.0,
        number=1,
        age=1.0,
        took=1.0,
        took_most=1.0,
        dry_run=False,
        run=EVIL,
        state="SOFT",
        reason=EVIL,
        limited_by=EVIL,
        pins={EVIL: GIB},
        guests=(told,),
        warnings=(EVIL,),
    )
    answers: dict[str, object] = {
        "/v1/guests": [guest],
        "/v1/guests/x": guest,
        "/v1/status": status,
        "/v1/guests/x/pin": PinResult(guest=EVIL, size=GIB, actual=GIB, exempt=EVIL, name=EVIL),
        "/v1/leases": LeaseResult(lease=EVIL, size=GIB, seconds=1.0, keep=1.0),
        "/v1/leases/x": LeaseEnded(lease=EVIL, changed=True),
    }
    body = msgspec.json.encode(answers.get(path))
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + body)


COMMANDS: Final = (
    ("list",),
    ("info", "x"),
    ("agent", "status"),
    ("agent", "reserve", "1G"),
    ("agent", "unreserve", "x"),
    ("agent", "hold"),
    ("agent", "why", "x"),
    ("unpin", "x"),
    ("set", "x", "1G"),
    ("events",),
)


@pytest.mark.parametrize("answer", [refusing, granting])
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_word_of_it_gets_to_a_terminal_as_it_is(words: tuple[str, ...], answer: Answer) -> None:
    with answering(answer) as run:
        ran = ask(run, *words)
    assert ran.out or ran.err
    assert not [sign for sign in RAW if sign in ran.out + ran.err]


def head_without_end(connection: socket.socket, _: bytes) -> None:
    while True:
        connection.sendall(b"x" * 65536)


def line_without_end(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b" " * 65536)


def refusal_without_end(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    while True:
        connection.sendall(b" " * 65536)


@pytest.mark.parametrize("answer", [head_without_end, line_without_end, refusal_without_end])
@pytest.mark.parametrize("words", [("agent", "status", "--watch"), ("agent", "status")])
def test_an_answer_has_an_end(words: tuple[str, ...], answer: Answer) -> None:
    with answering(answer) as run:
        ran = ask(run, *words)
    assert ran.code == 5
    assert "answers without end" in ran.err
