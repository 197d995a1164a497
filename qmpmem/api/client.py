"""Asking the agent: one question, one connection, one deadline.

Theory of operation:
    A question is HTTP/1.0, so the answer ends where the connection ends, and a few lines take it
    apart (`qmpmem.api.messages`). An HTTP library takes longer to load than 200 guests to list.
    `qmpmem.api.socket_choice` decides which socket a question goes to, and to which next. Before
    anything is sent, the kernel is asked which process listens (`qmpmem.api.server_identity`). The
    agent may hang, so nothing here waits longer than it is told, apart from the time for which the
    agent waits for a processor or a disk (`qmpmem.api.deadlines`), and what the agent asks to wait
    (Retry-After).
"""

import os
import socket
import struct
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

from qmpmem.api import addresses, messages
from qmpmem.api.deadlines import LONGEST, AnswerDeadline
from qmpmem.api.messages import Retries, question
from qmpmem.api.permissions import Peer, peer_of
from qmpmem.api.server_identity import is_trusted
from qmpmem.api.socket_choice import Answer, Attempt, advance, walk
from qmpmem.errors import AgentUnreachable, KernelError, QmpmemError
from qmpmem.guests import access
from qmpmem.wire.kernel.processes import PROC

T = TypeVar("T")

PATIENCE: Final = 2.0
"""Seconds. An agent that has a processor answers within milliseconds."""
LARGEST: Final = 64 << 20
"""Bytes of an answer: some 60,000 guests."""

HEAD: Final = 256 * 1024
"""Bytes up to the end of an answer's head, with what comes in the same pieces."""

HINT: Final = "`qmpmem agent` starts one"

_TIMEVAL: Final = struct.Struct("@ll")
"""struct timeval (socket(7))."""
_READ: Final = 64 * 1024


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
        content, again = question(method, path, body), Retries(time.monotonic())
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
        steps, content = walk(self.path, "GET"), question("GET", path)
        step = advance(steps)
        while isinstance(step, Attempt):
            with socket.socket(socket.AF_UNIX) as connection:
                try:
                    self._connect(connection, step)
                except OSError as error:
                    step = advance(steps, error)
                    continue
                self._send(connection, content)
                pieces = self._pieces(connection, None)
                buffer = self._until(b"\r\n\r\n", bytearray(), pieces, HEAD)
                head, rest = messages.split(bytes(buffer))
                if messages.code_of(head) == messages.OK:
                    yield from self._lines(pieces, rest, kind)
                    return
                self._until(None, buffer, pieces, LARGEST)
                step = advance(steps, bytes(buffer))
        self.answer(self.result(step), kind)

    def _lines(self, pieces: Iterator[bytes], rest: bytes, kind: type[T]) -> Iterator[T]:
        buffer = bytearray(rest)
        while b"\n" in self._until(b"\n", buffer, pieces, LARGEST):
            *lines, left = buffer.split(b"\n")
            buffer[:] = left
            yield from (self.decode(bytes(line), kind) for line in lines if line)

    def _until(
        self, end: bytes | None, buffer: bytearray, pieces: Iterator[bytes], most: int
    ) -> bytearray:
        """Add pieces to a buffer until this end is in it, or there are no more; returns it.

        Args:
            end: None: until there are no more.
            buffer: what was read before.
            pieces: what comes.
            most: bytes that the buffer may have.

        Raises:
            AgentUnreachable: it would have more.
        """
        searched = 0
        while end is None or buffer.find(end, max(0, searched - len(end))) < 0:
            searched = len(buffer)
            if not (piece := next(pieces, b"")):
                break
            buffer += piece
            if len(buffer) > most:
                raise self._endless()
        return buffer

    def _endless(self) -> AgentUnreachable:
        return AgentUnreachable(f"{self.path}: answers without end", reason="protocol")

    def _ask_once(self, method: str, content: bytes, seconds: float) -> bytes:
        """Ask at each socket that this process may ask, until one has a place.

        Raises:
            AgentUnreachable: there is no agent, or it is busy.
            KernelError: this process may ask at neither.
        """
        steps = walk(self.path, method)
        step = advance(steps)
        while isinstance(step, Attempt):
            with socket.socket(socket.AF_UNIX) as connection:
                try:
                    self._connect(connection, step)
                except OSError as error:
                    step = advance(steps, error)
                    continue
                patience = AnswerDeadline(peer_of(connection).pid, seconds, proc=self.proc)
                self._send(connection, content)
                step = advance(steps, b"".join(self._pieces(connection, patience)))
        return self.result(step)

    def result(self, answer: Answer) -> bytes:
        """Return what an agent has answered.

        Raises:
            AgentUnreachable: there is no agent, or it is busy.
            KernelError: this process may ask at neither socket.
        """
        if isinstance(answer, bytes):
            return answer
        raise self.no_connection(answer)

    def _connect(self, connection: socket.socket, attempt: Attempt) -> None:
        """Connect, and wait for a place in the queue of the socket where the attempt says so.

        In line with others, by a timeout of the kernel's: with one of Python's, which makes the
        socket non-blocking, nothing is waited for (unix(7): SO_SNDTIMEO; connect(2): EAGAIN).

        Raises:
            AgentUnreachable: the process that listens is not to be trusted.
            OSError: as connect(2).
        """
        seconds = self.patience if attempt.waits else 0.0
        connection.setblocking(seconds > 0)
        timeout = _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        connection.connect(str(attempt.path))
        self.expect_trusted(peer_of(connection), attempt.path)
        connection.settimeout(self.patience)

    def expect_trusted(self, peer: Peer, path: Path) -> None:
        """Refuse to ask a process of another user than root, this one, and the agent's.

        Raises:
            AgentUnreachable: another user's process listens there.
        """
        if not is_trusted(peer.uid, path):
            raise AgentUnreachable(
                f"{path}: uid {peer.uid} listens there, expected root, this user, "
                "or the user to whom root gave that directory",
                reason="protocol",
            )

    def no_connection(self, errors: Mapping[Path, OSError]) -> QmpmemError:
        """Return the error that tells why there is no connection to any of the sockets."""
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
        """Return the error for a user who may not connect: what gives it the right."""
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

    def _pieces(
        self, connection: socket.socket, patience: AnswerDeadline | None
    ) -> Iterator[bytes]:
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
                raise self._endless()
            yield piece

    def _receive(self, connection: socket.socket, patience: AnswerDeadline | None) -> bytes:
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
            AgentUnreachable: it is not an answer of the agent's.
            QmpmemError: as the agent says.
        """
        return self.decode(messages.body_of(content, self.path), kind)

    def decode(self, content: bytes, kind: type[T]) -> T:
        """Read a record.

        Raises:
            AgentUnreachable: it is not of this kind.
        """
        return messages.decode(content, kind, self.path)


def client(environ: Mapping[str, str], *, patience: float = PATIENCE) -> Client:
    """Make a client of the agent of this user.

    Raises:
        ConfigError: there is no place for its socket.
    """
    run = access.directory(environ, os.getuid())
    return Client(addresses.socket_path(environ, run), patience)


def silent(peer: Peer, patience: AnswerDeadline | None = None) -> AgentUnreachable:
    """Return the error of an agent that does not answer."""
    waits = patience is not None and patience.is_used_up
    return AgentUnreachable(
        f"the agent, pid {peer.pid}, does not answer",
        reason="timeout",
        hint=f"it waited for a processor or a disk for {LONGEST:g} s" if waits else None,
    )
