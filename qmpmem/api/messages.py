"""What the agent is asked and what it answers, as bytes.

Rules of this file:
    Pure: bytes and records go in and come out.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from qmpmem.api.records import VERSION, Failure, Problem
from qmpmem.errors import (
    AgentUnreachable,
    ConfigError,
    GuestRefused,
    GuestUnreachable,
    KernelError,
    NotReached,
    QmpmemError,
)

T = TypeVar("T")

BEHALF: Final = "Qmpmem-For"
"""The header that names the person for whom a process asks."""
OK: Final = 200
FORBIDDEN: Final = 403
TOO_OFTEN: Final = 429
NO_PLACE: Final = 503
LONGEST_WAIT: Final = 30.0
"""Seconds for which a client that asks too often waits in all: its questions come in the end."""

_END: Final = b"\r\n\r\n"
"""What the head of an answer ends with."""
_RETRY: Final = re.compile(rb"\r\nretry-after: *([0-9]{1,3})\r?")
_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
"""What stands for itself in a path (RFC 3986, 2.3)."""
_ERRORS: Final[Mapping[str, type[QmpmemError]]] = {
    kind.__name__: kind for kind in (NotReached, ConfigError, KernelError)
}


def question(method: str, path: str, body: object = None, *, behalf: str | None = None) -> bytes:
    """Write a question as HTTP/1.0, so that the answer ends with the connection.

    Args:
        method: of HTTP.
        path: below the version.
        body: a record to send along.
        behalf: the person for whom it is asked, in printable ASCII, for the agent's log.
    """
    content = b"" if body is None else msgspec.json.encode(body)
    named = "" if behalf is None else f"{BEHALF}: {behalf}\r\n"
    head = (
        f"{method} /{VERSION}/{path} HTTP/1.0\r\nHost: qmpmem\r\n{named}"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def method_of(asked: bytes) -> str:
    """Return the method of a question."""
    return asked.partition(b" ")[0].decode()


def quoted(word: str) -> str:
    """Write a word so that it can stand in a path."""
    return "".join(
        chr(byte) if byte in _SAFE else f"%{byte:02X}"
        for byte in word.encode(errors="surrogateescape")
    )


def split(answer: bytes) -> tuple[bytes, bytes]:
    """Split an answer into its head and its body."""
    head, _, body = answer.partition(_END)
    return head, body


def code_of(head: bytes) -> int:
    """Return the status of an answer; 0 where there is none."""
    words = head.split(b"\r\n", 1)[0].split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def is_busy(answer: bytes) -> bool:
    """Tell whether an answer says that there is no place, or that this user asks too often."""
    head, body = split(answer)
    return code_of(head) in (TOO_OFTEN, NO_PLACE) and b'"busy"' in body


def better(answer: bytes, other: bytes) -> bytes:
    """Return what two sockets say together: that the first has no place, or what the second says.

    The second may be only for users who may change something.
    """
    return answer if answer and code_of(other) == FORBIDDEN else other


def body_of(answer: bytes, path: Path) -> bytes:
    """Take the body out of an answer.

    Args:
        answer: all of it.
        path: the agent's socket.

    Raises:
        AgentUnreachable: it is not an answer of the agent's.
        QmpmemError: as the agent says.
    """
    head, body = split(answer)
    if code_of(head) == OK:
        return body
    raise error_of(decode(body, Failure, path).error)


def decode(content: bytes, kind: type[T], path: Path) -> T:
    """Read a record.

    Raises:
        AgentUnreachable: it is not of this kind.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AgentUnreachable(
            f"{path}: what answers there is no agent of this version: {error}", reason="protocol"
        ) from error


def error_of(problem: Problem) -> QmpmemError:
    """Make the error again that the agent met."""
    reason = problem.reason or "protocol"
    match problem.kind:
        case "GuestUnreachable":
            return GuestUnreachable(problem.message, reason=reason, hint=problem.hint)
        case "GuestRefused":
            return GuestRefused(problem.message, error_class=reason, hint=problem.hint)
        case "AgentUnreachable":
            return AgentUnreachable(problem.message, reason=reason, hint=problem.hint)
        case kind:
            return _ERRORS.get(kind, QmpmemError)(problem.message, hint=problem.hint)


def problem_of(error: QmpmemError) -> Problem:
    """Describe an error, so that `error_of` can make it again."""
    reason = getattr(error, "reason", None) or getattr(error, "error_class", None)
    return Problem(kind=type(error).__name__, message=error.message, hint=error.hint, reason=reason)


class Retries:
    """Decides whether to ask again, where a user asks more often than it may.

    Args:
        now: a monotonic clock, in seconds.
    """

    def __init__(self, now: float) -> None:
        self._until = now + LONGEST_WAIT

    def after(self, answer: bytes, now: float) -> float:
        """Return after how many seconds to ask again; 0.0: the answer is the answer."""
        head = split(answer)[0].lower()
        if code_of(head) != TOO_OFTEN or now >= self._until:
            return 0.0
        found = _RETRY.search(head)
        return min(float(found[1]) if found else 1.0, max(0.05, self._until - now))
