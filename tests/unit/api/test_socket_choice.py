"""Which socket a question goes to, and to which next; without a socket."""

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.api import socket_choice
from qmpmem.api.socket_choice import Attempt, Outcome

LOOK = Path("/run/agent.sock")
PATHS = {"look": LOOK, "admin": Path("/run/agent-admin.sock")}
DONE = b"HTTP/1.0 200 OK\r\n\r\n{}"
BUSY = b'HTTP/1.0 503 No\r\n\r\n{"error":{"reason":"busy"}}'
OFTEN = b'HTTP/1.0 429 No\r\n\r\n{"error":{"reason":"busy"}}'
FORBIDDEN = b'HTTP/1.0 403 No\r\n\r\n{"error":{}}'
WORDS: dict[str, Outcome] = {
    "done": DONE,
    "busy": BUSY,
    "often": OFTEN,
    "forbidden": FORBIDDEN,
    "ended": b"",
    "none": FileNotFoundError(errno.ENOENT, "none"),
    "refused": ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
    "kept-out": PermissionError(errno.EACCES, "kept out"),
    "full": BlockingIOError(errno.EAGAIN, "full"),
    "late": TimeoutError(errno.ETIMEDOUT, "late"),
}


def walked(method: str, outcomes: list[Outcome]) -> tuple[list[Attempt], socket_choice.Answer]:
    """Walk with these outcomes; returns the attempts and what came of all."""
    steps, attempts, left = socket_choice.walk(LOOK, method), list[Attempt](), iter(outcomes)
    step = socket_choice.advance(steps)
    while isinstance(step, Attempt):
        attempts.append(step)
        step = socket_choice.advance(steps, next(left))
    assert next(left, None) is None, "all were asked for"
    return attempts, step


@pytest.mark.parametrize(
    ("method", "tale"),
    [
        ("GET", "look:done"),
        ("GET", "look:busy admin:done"),
        ("GET", "look:often admin:done"),
        ("GET", "look:busy admin:forbidden"),
        ("GET", "look:forbidden"),
        ("GET", "look:ended"),
        ("GET", "look:kept-out admin:done"),
        ("GET", "look:kept-out admin:kept-out"),
        ("GET", "look:none"),
        ("GET", "look:refused"),
        ("GET", "look:full admin:done"),
        ("GET", "look:full admin:kept-out look,waits:done"),
        ("GET", "look:full admin:full look,waits:late admin,waits:done"),
        ("GET", "look:busy admin:full"),
        ("POST", "admin:done"),
        ("POST", "admin:busy"),
        ("POST", "admin:kept-out look:forbidden"),
        ("POST", "admin:kept-out look:kept-out"),
        ("POST", "admin:full admin,waits:done"),
        ("POST", "admin:full admin,waits:late"),
        ("POST", "admin:none"),
    ],
)
def test_where_a_question_goes(method: str, tale: str) -> None:
    told = [step.partition(":") for step in tale.split()]
    attempts, answer = walked(method, [WORDS[word] for _, _, word in told])
    assert attempts == [
        Attempt(path=PATHS[place.removesuffix(",waits")], waits=place.endswith(",waits"))
        for place, _, _ in told
    ]
    last = WORDS[told[-1][2]]
    if isinstance(answer, bytes):
        busy = any(word in ("busy", "often") for _, _, word in told)
        assert answer == (last if last in (DONE, b"") or not busy else BUSY)
    else:
        assert answer[attempts[-1].path] is last


@given(
    method=st.sampled_from(["GET", "POST"]),
    words=st.lists(st.sampled_from(sorted(WORDS)), min_size=4, max_size=4),
)
def test_it_always_ends(method: str, words: list[str]) -> None:
    """After at most two attempts at each socket, and a change is never asked twice."""
    steps, outcomes, asked = (
        socket_choice.walk(LOOK, method),
        iter(WORDS[word] for word in words),
        0,
    )
    step = socket_choice.advance(steps)
    while isinstance(step, Attempt):
        outcome = next(outcomes)
        asked += isinstance(outcome, bytes)
        step = socket_choice.advance(steps, outcome)
    assert asked <= (2 if method == "GET" else 1)
    assert isinstance(step, bytes) or step
