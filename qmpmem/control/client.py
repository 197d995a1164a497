"""Asking the agent: one question, one connection, one deadline.

Theory of operation:
    A question is HTTP/1.0, so the answer ends where the connection ends, and a few lines take it
    apart; an HTTP library takes longer to load than 200 guests to list.
    Who listens is asked of the kernel before anything is sent: root, or this user. The agent may be
    hung, so nothing here waits longer than it is told, apart from the time for which the agent
    waits for a processor (`qmpmem.control.patience`).
"""

import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from qmpmem import access
from qmpmem.control import address
from qmpmem.control.patience import LONGEST, Patience
from qmpmem.control.records import VERSION, Failure, Problem
from qmpmem.control.rights import Peer, peer_of
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

_READ: Final = 64 * 1024
_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
"""What stands for itself in a path (RFC 3986, 2.3)."""

_ERRORS: Final[Mapping[str, type[QmpmemError]]] = {
    kind.__name__: kind for kind in (NotReached, ConfigError, KernelError)
}


class Client:
    """Asks the agent that looks after a run directory.

    Args:
        path: its socket.
        patience: seconds that an answer may take where the agent has a processor.
        proc: where /proc is.
    """

    def __init__(self, path: Path, patience: float = PATIENCE, *, proc: Path = PROC) -> None:
        self.path = path
        self.patience = patience
        self.proc = proc

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
        with self._connect() as connection:
            limit = self.patience + seconds
            patience = Patience(peer_of(connection).pid, limit, proc=self.proc)
            self._send(connection, method, path, body)
            pieces = list(self._pieces(connection, patience))
        return self.answer(b"".join(pieces), kind)

    def lines(self, path: str, kind: type[T]) -> Iterator[T]:
        """Follow a stream of lines until it ends.

        Raises:
            AgentUnreachable: there is no agent, or it falls silent.
        """
        with self._connect() as connection:
            self._send(connection, "GET", path, None)
            buffer: bytes = b""
            begun = False
            for piece in self._pieces(connection, None):
                buffer += piece
                if not begun and b"\r\n\r\n" in buffer:
                    head, _, rest = buffer.partition(b"\r\n\r\n")
                    if code_of(head) != OK:
                        continue
                    begun, buffer = True, rest
                while begun and b"\n" in buffer:
                    line, _, buffer = buffer.partition(b"\n")
                    if line:
                        yield self.decode(line, kind)
            if not begun:
                self.answer(buffer, kind)

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self.patience)
        try:
            connection.connect(str(self.path))
            peer = peer_of(connection)
            self.expect_trusted(peer)
        except OSError as error:
            connection.close()
            raise self.no_connection(error) from error
        except AgentUnreachable:
            connection.close()
            raise
        return connection

    def expect_trusted(self, peer: Peer) -> None:
        """Refuse to ask a process of another user than root and this one.

        Raises:
            AgentUnreachable: it is one.
        """
        if peer.uid not in (0, os.geteuid()):
            raise AgentUnreachable(
                f"{self.path}: uid {peer.uid} listens there, expected root or this user",
                reason="protocol",
            )

    def no_connection(self, error: OSError) -> QmpmemError:
        """Make the error that says why there is no connection."""
        if isinstance(error, FileNotFoundError | ConnectionRefusedError | NotADirectoryError):
            return AgentUnreachable("no agent runs", reason="none", hint=HINT)
        if isinstance(error, TimeoutError | BlockingIOError):
            return AgentUnreachable(f"{self.path}: the agent is busy", reason="timeout")
        return KernelError(f"{self.path}: {error.strerror}", hint="is this user in group qmpmem?")

    def _send(self, connection: socket.socket, method: str, path: str, body: object) -> None:
        """Send a question, which the kernel takes at once: it is short (unix(7): SO_SNDBUF)."""
        try:
            connection.sendall(question(method, path, body))
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


def code_of(head: bytes) -> int:
    """Return the status of an answer; 0 where there is none."""
    words = head.split(b"\r\n", 1)[0].split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
