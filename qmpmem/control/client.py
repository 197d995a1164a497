"""Asking the agent: one question, one connection, one deadline.

Theory of operation:
    A question is HTTP/1.0, so the answer ends where the connection ends, and a few lines take it
    apart; an HTTP library takes longer to load than 200 guests to list.
    What a question is about decides which socket it goes to (`Client.ways`): the one to look, or
    the one to change something, which also answers those who may change where the other is full.
    Who listens is asked of the kernel before anything is sent (`qmpmem.control.trust`). The agent
    may be hung, so nothing here waits longer than it is told, apart from the time for which the
    agent waits for a processor (`qmpmem.control.patience`), and what it says to wait (Retry-After).
"""

import os
import re
import socket
import struct
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from qmpmem import access
from qmpmem.control import address
from qmpmem.control.patience import LONGEST, Patience
from qmpmem.control.records import VERSION, Failure, Problem
from qmpmem.control.rights import Peer, peer_of
from qmpmem.control.trust import is_trusted
from qmpmem.errors import (
    AgentUnreachable,
    ConfigError,
    GuestRefused,
    GuestUnreachable,
    KernelError,
    NotReached,
    QmpmemError,
)
from qmpmem.wire.kernel.processes import PROC

T = TypeVar("T")

PATIENCE: Final = 2.0
"""Seconds. An agent that has a processor answers within milliseconds."""
LARGEST: Final = 64 << 20
"""Bytes of an answer: some 60,000 guests."""

HINT: Final = "`qmpmem agent` starts one"

OK: Final = 200
FORBIDDEN: Final = 403
TOO_OFTEN: Final = 429
LONGEST_WAIT: Final = 30.0
"""Seconds for which a client that asks too often waits in all: its questions come in the end."""

_RETRY: Final = re.compile(rb"\r\nretry-after: *([0-9]{1,3})\r?")
_TIMEVAL: Final = struct.Struct("@ll")
"""struct timeval (socket(7))."""
_READ: Final = 64 * 1024
_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
"""What stands for itself in a path (RFC 3986, 2.3)."""

_ERRORS: Final[Mapping[str, type[QmpmemError]]] = {
    kind.__name__: kind for kind in (NotReached, ConfigError, KernelError)
}


class Client:
    """Asks the agent that looks after a run directory.

    Args:
        path: its socket to look; that for changes is beside it.
        patience: seconds that an answer may take where the agent has a processor.
        proc: where /proc is.
    """

    def __init__(self, path: Path, patience: float = PATIENCE, *, proc: Path = PROC) -> None:
        self.path = path
        self.patience = patience
        self.proc = proc

    def ways(self, method: str) -> tuple[Path, ...]:
        """Return the sockets to try for a question, in this order.

        At the socket to look, a change is refused, with the reason, and logged.
        """
        admin = address.admin_path(self.path)
        return (self.path, admin) if method == "GET" else (admin, self.path)

    def get(self, path: str, kind: type[T]) -> T:
        """Ask for something, as in ``get("status", Status)``.

        Raises:
            AgentUnreachable: there is no agent, or it does not answer.
            QmpmemError: as the agent says.
        """
        return self.ask("GET", path, kind)

    def ask(
        self, method: str, path: str, kind: type[T], body: object = None, *, seconds: float = 0.0
    ) -> T:
        """Ask for something to be done.

        Args:
            method: of HTTP.
            path: below the version.
            kind: what the answer is.
            body: a record to send along.
            seconds: how much longer than usual the answer may take.

        Raises:
            AgentUnreachable: there is no agent, or it does not answer.
            QmpmemError: as the agent says.
        """
        content, again = question(method, path, body), Again(time.monotonic())
        answer = self._ask_once(method, content, self.patience + seconds)
        while pause := again.after(answer, time.monotonic()):
            time.sleep(pause)
            answer = self._ask_once(method, content, self.patience + seconds)
        return self.answer(answer, kind)

    def lines(self, path: str, kind: type[T]) -> Generator[T]:
        """Follow a stream of lines until it ends.

        Raises:
            AgentUnreachable: there is no agent, or it falls silent.
        """
        content, answer = question("GET", path), b""
        with ExitStack() as stack:
            for connection in self._connected("GET", stack):
                self._send(connection, content)
                pieces: Iterator[bytes] = self._pieces(connection, None)
                buffer: bytes = b""
                while b"\r\n\r\n" not in buffer and (piece := next(pieces, b"")):
                    buffer += piece
                head, _, rest = buffer.partition(b"\r\n\r\n")
                if code_of(head) == OK:
                    yield from self._lines(pieces, rest, kind)
                    return
                answer = better(answer, buffer + b"".join(pieces))
                if not is_busy(answer):
                    break
            self.answer(answer, kind)

    def _lines(self, pieces: Iterator[bytes], buffer: bytes, kind: type[T]) -> Iterator[T]:
        while True:
            *lines, buffer = buffer.split(b"\n")
            yield from (self.decode(line, kind) for line in lines if line)
            if not (piece := next(pieces, b"")):
                return
            buffer += piece

    def _ask_once(self, method: str, content: bytes, seconds: float) -> bytes:
        """Ask at each socket that this process may ask, until one has a place."""
        answer = b""
        with ExitStack() as stack:
            for connection in self._connected(method, stack):
                patience = Patience(peer_of(connection).pid, seconds, proc=self.proc)
                self._send(connection, content)
                answer = better(answer, b"".join(self._pieces(connection, patience)))
                if not is_busy(answer):
                    break
        return answer

    def _connected(self, method: str, stack: ExitStack) -> Iterator[socket.socket]:
        """Connect, one after the other, to the sockets that this process may ask.

        Raises:
            AgentUnreachable: there is no agent, or it is busy.
            KernelError: this process may ask neither.
        """
        has_asked, errors = False, dict[Path, OSError]()
        for seconds in (0.0, self.patience):  # at first without waiting for one that is full
            for path in self.ways(method):
                if seconds and not isinstance(errors.get(path), BlockingIOError):
                    continue
                connection = stack.enter_context(socket.socket(socket.AF_UNIX))
                try:
                    _connect(connection, path, seconds)
                except OSError as error:
                    errors[path] = error
                    if stops(method, error):
                        break
                    continue
                self.expect_trusted(peer_of(connection), path)
                connection.settimeout(self.patience)
                has_asked = True
                yield connection
                if method != "GET":
                    return
            if has_asked:
                return
        raise self.no_connection(errors)

    def expect_trusted(self, peer: Peer, path: Path) -> None:
        """Refuse to ask a process of another user than root, this one, and the agent's.

        Raises:
            AgentUnreachable: it is one.
        """
        if not is_trusted(peer.uid, path):
            raise AgentUnreachable(
                f"{path}: uid {peer.uid} listens there, expected root, this user, "
                "or the user to whom root gave that directory",
                reason="protocol",
            )

    def no_connection(self, errors: Mapping[Path, OSError]) -> QmpmemError:
        """Make the error that says why there is no connection to any of the sockets."""
        for path, error in errors.items():
            if isinstance(error, TimeoutError | BlockingIOError):
                return AgentUnreachable(f"{path}: the agent is busy", reason="timeout")
        for path, error in errors.items():
            if isinstance(error, PermissionError):
                return self._forbidden(path, error)
        for path, error in errors.items():
            if not isinstance(
                error, FileNotFoundError | ConnectionRefusedError | NotADirectoryError
            ):
                return KernelError(f"{path}: {error.strerror}")
        return AgentUnreachable("no agent runs", reason="none", hint=HINT)

    def _forbidden(self, path: Path, error: OSError) -> QmpmemError:
        """Say who may ask, where this process may not."""
        readers = access.group_id(access.READERS)
        if not os.path.exists(path):  # noqa: PTH110 - also where we may not look
            hint = f"is this user in group {access.READERS}?"
            return KernelError(f"{path}: {error.strerror}", hint=hint)
        return KernelError(access.NO_LOOK, hint=access.joining(access.READERS, readers))

    def _send(self, connection: socket.socket, content: bytes) -> None:
        """Send a question, which the kernel takes at once: it is short (unix(7): SO_SNDBUF)."""
        try:
            connection.sendall(content)
        except TimeoutError as error:
            raise silent(peer_of(connection)) from error
        except OSError:  # turned away; why, is in what it sent before
            pass

    def _pieces(self, connection: socket.socket, patience: Patience | None) -> Iterator[bytes]:
        """Yield what comes, until the end; `patience` is None for a stream, which has no end."""
        left = LARGEST
        while True:
            try:
                piece = self._receive(connection, patience)
            except ConnectionResetError:  # it did not read all of the question: it has answered
                return
            left -= len(piece) if patience is not None else 0
            if not piece:
                return
            if left < 0:
                raise AgentUnreachable(f"{self.path}: answers without end", reason="protocol")
            yield piece

    def _receive(self, connection: socket.socket, patience: Patience | None) -> bytes:
        while seconds := max(60.0, self.patience) if patience is None else patience.left():
            connection.settimeout(seconds)
            try:
                return connection.recv(_READ)
            except TimeoutError:
                if patience is None:
                    break
        raise silent(peer_of(connection), patience)

    def answer(self, content: bytes, kind: type[T]) -> T:
        """Take an answer apart.

        Raises:
            AgentUnreachable: it is none.
            QmpmemError: as the agent says.
        """
        head, _, body = content.partition(b"\r\n\r\n")
        if code_of(head) == OK:
            return self.decode(body, kind)
        raise error_of(self.decode(body, Failure).error)

    def decode(self, content: bytes, kind: type[T]) -> T:
        """Read a record.

        Raises:
            AgentUnreachable: it is none of this kind.
        """
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise AgentUnreachable(
                f"{self.path}: what answers there is no agent of this version: {error}",
                reason="protocol",
            ) from error


def _connect(connection: socket.socket, path: Path, seconds: float) -> None:
    """Connect, and wait for so long where the queue of the socket is full.

    In line with others, by a timeout of the kernel's: with one of Python's, which makes the socket
    non-blocking, nothing is waited for (unix(7): SO_SNDTIMEO; connect(2): EAGAIN).
    """
    connection.setblocking(seconds > 0)
    timeout = _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
    connection.connect(str(path))


class Again:
    """Says whether to ask again, where a user asks more often than it may.

    Args:
        now: a monotonic clock, in seconds.
    """

    def __init__(self, now: float) -> None:
        self._until = now + LONGEST_WAIT

    def after(self, answer: bytes, now: float) -> float:
        """Return after how many seconds to ask again; 0.0: the answer is the answer."""
        head = answer.partition(b"\r\n\r\n")[0].lower()
        if code_of(head) != TOO_OFTEN or now >= self._until:
            return 0.0
        found = _RETRY.search(head)
        return min(float(found[1]) if found else 1.0, max(0.05, self._until - now))


def stops(method: str, error: OSError) -> bool:
    """Whether a socket that takes no connection is the end of a question.

    A socket that is full says nothing against this user: a change waits for it, and does not go to
    the other, where it would be refused.
    """
    if method == "GET":
        return not isinstance(error, PermissionError | BlockingIOError | TimeoutError)
    return not isinstance(error, PermissionError)


def client(environ: Mapping[str, str], *, patience: float = PATIENCE) -> Client:
    """Make a client of the agent of this user.

    Raises:
        ConfigError: there is no place for its socket.
    """
    run = access.directory(environ, os.getuid())
    return Client(address.socket_path(environ, run), patience)


def quoted(word: str) -> str:
    """Write a word so that it can stand in a path."""
    return "".join(
        chr(byte) if byte in _SAFE else f"%{byte:02X}"
        for byte in word.encode(errors="surrogateescape")
    )


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


def question(method: str, path: str, body: object = None) -> bytes:
    """Write a question as HTTP/1.0, so that the answer ends with the connection."""
    content = b"" if body is None else msgspec.json.encode(body)
    head = (
        f"{method} /{VERSION}/{path} HTTP/1.0\r\nHost: qmpmem\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def silent(peer: Peer, patience: Patience | None = None) -> AgentUnreachable:
    """Make the error that says that an agent does not answer."""
    waits = patience is not None and patience.left_out >= LONGEST
    return AgentUnreachable(
        f"the agent, pid {peer.pid}, does not answer",
        reason="timeout",
        hint=f"it waited for a processor for {LONGEST:g} s" if waits else None,
    )


def is_busy(answer: bytes) -> bool:
    """Whether an answer says that there is no place, or that this user asks too often."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return code_of(head) in (TOO_OFTEN, 503) and b'"busy"' in body


def better(answer: bytes, other: bytes) -> bytes:
    """Return what two sockets say together: that the first has no place, or what the second says.

    The second may be for those alone who may change something, and this user none of them.
    """
    return answer if answer and code_of(other) == FORBIDDEN else other


def code_of(head: bytes) -> int:
    """Return the status of an answer; 0 where there is none."""
    words = head.split(b"\r\n", 1)[0].split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
