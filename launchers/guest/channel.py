"""The host's end of the command channel; `launchers/guest/agent` is the guest's.

Theory of operation:
    QEMU listens on a unix socket and serves one client at a time; the next one waits in connect's
    backlog. Every exchange has a nonce, and whatever does not carry it is of an earlier exchange,
    or half a line, or noise of a booting guest, and is passed over.
"""

import base64
import binascii
import os
import secrets
import socket
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from launchers.guest.errors import ChannelError, ChannelTimeoutError

LONGEST_COMMAND: Final = 24 * 1024
"""Bytes. A Linux tty keeps 64 KiB for a slow reader, and drops the rest (tty_buffer.c)."""

LOOK_AGAIN: Final = 0.02
"""Seconds between two attempts to reach a socket that is not there yet."""

PING_AGAIN: Final = 1.0
"""Seconds; the first ping may fall to a guest that is still setting up its serial port."""

BOOT_SECONDS: Final = 180.0
"""A boot takes 5 s of one core, so the bound is for a machine on which dozens share one."""
LONGEST_LINE: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a command in the guest ended, and what it wrote to stdout and stderr."""

    code: int
    output: bytes


class Deadline:
    """A point in time, and what is waited for until then."""

    def __init__(self, seconds: float, what: str) -> None:
        self._at = time.monotonic() + seconds
        self.late = f"{what}: no answer within {seconds:g} s"

    def remaining(self) -> float:
        """Return how many seconds are left.

        Raises:
            ChannelTimeoutError: none are.
        """
        left = self._at - time.monotonic()
        if left <= 0:
            raise ChannelTimeoutError(self.late)
        return left


class Lines:
    """Cuts what comes in into lines without their ends; an overlong line is passed over."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes; empty ones are left out."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            self._rest = b""
        return [stripped for line in lines if (stripped := line.strip(b"\r"))]


class Transcript:
    """What the guest said of one exchange, picked from the stream of lines."""

    def __init__(self, nonce: bytes) -> None:
        self._nonce = nonce
        self.begun = False
        self.restarted = False
        self.refused = False
        self.code: int | None = None
        self._encoded: list[bytes] = []

    def take(self, line: bytes) -> None:
        """Read one line; only those of this exchange count."""
        if line == b"hello":
            self.restarted = True
        elif line == b"refused " + self._nonce:
            self.refused = True
        elif line == b"begin " + self._nonce:
            self.begun = True
            self._encoded.clear()
        elif line.startswith(b"end " + self._nonce + b" "):
            code = line.rpartition(b" ")[2]
            self.code = int(code) if code.isdigit() else None
        elif self.begun:
            self._encoded.append(line)

    def output(self) -> bytes:
        """Decode what the command wrote.

        Raises:
            ChannelError: part of it was lost on the way.
        """
        try:
            return base64.b64decode(b"".join(self._encoded), validate=True)
        except binascii.Error as error:
            raise ChannelError(f"the command's output came through damaged: {error}") from error


def request(nonce: str, command: str) -> bytes:
    """Write the message that runs a command.

    Raises:
        ChannelError: the command is too long, or cannot be written on a line of the guest's.
    """
    raw = command.encode("utf-8", "surrogateescape")
    if len(raw) > LONGEST_COMMAND or b"\0" in raw:
        raise ChannelError(f"a command has at most {LONGEST_COMMAND} bytes, and no zero byte")
    encoded = base64.b64encode(raw)
    return b"\nrun %b %d %b\n" % (nonce.encode(), len(encoded), encoded)


def wait(
    path: Path, *, seconds: float = BOOT_SECONDS, alive: Callable[[], bool] = lambda: True
) -> None:
    """Return when the guest says a positive word. The socket need not exist yet.

    Args:
        path: the channel's socket.
        seconds: how long to wait.
        alive: whether QEMU is still there, for as long as the socket is not.

    Raises:
        ChannelTimeoutError: it did not in time.
        ChannelError: QEMU ended the connection.
    """
    deadline = Deadline(seconds, f"guest at {path}")
    with _connected(path, deadline, alive) as connection:
        nonce = secrets.token_hex(4)
        ping = f"\nping {nonce}\n".encode()
        positive = {b"hello", f"pong {nonce}".encode()}
        for line in _lines(connection, deadline, again=lambda: _ping(connection, ping)):
            if line in positive:
                return


def execute(path: Path, command: str, *, seconds: float = 30.0) -> Answer:
    """Run a shell command in the guest, until it and all that it left writing have ended.

    Raises:
        ChannelTimeoutError: it took longer; the guest is told to end the command.
        ChannelError: the guest cannot be reached, ended, or restarted meanwhile.
    """
    deadline = Deadline(seconds, f"guest at {path}")
    nonce = secrets.token_hex(4)
    message = request(nonce, command)
    transcript = Transcript(nonce.encode())
    with _connected(path, deadline) as connection:
        _send(connection, message, deadline)
        try:
            for line in _lines(connection, deadline):
                transcript.take(line)
                if transcript.code is not None:
                    return Answer(code=transcript.code, output=transcript.output())
                if transcript.refused:
                    raise ChannelError(f"guest at {path}: the command came through damaged")
                if transcript.restarted:
                    raise ChannelError(f"guest at {path}: it restarted")
        except ChannelTimeoutError:
            _ping(connection, f"\nstop {nonce}\n".encode())
            raise
    raise AssertionError  # the lines end by an error only


def poweroff(path: Path, *, seconds: float = 30.0) -> None:
    """Power the guest off, and return when its QEMU has closed the channel.

    Raises:
        ChannelTimeoutError: it did not (as under -no-shutdown).
        ChannelError: the guest cannot be reached.
    """
    deadline = Deadline(seconds, f"guest at {path}")
    nonce = secrets.token_hex(4)
    transcript = Transcript(nonce.encode())
    with _connected(path, deadline) as connection:
        _send(connection, request(nonce, "poweroff -f"), deadline)
        try:
            for line in _lines(connection, deadline):
                transcript.take(line)
        except ChannelTimeoutError:
            raise
        except ChannelError:
            if not transcript.begun:
                raise


@contextmanager
def _connected(
    path: Path, deadline: Deadline, alive: Callable[[], bool] = lambda: False
) -> Generator[socket.socket, None, None]:
    with socket.socket(socket.AF_UNIX) as connection:
        while True:
            connection.settimeout(deadline.remaining())
            try:
                connection.connect(os.fspath(path))
                break
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if not alive():
                    raise ChannelError(f"guest at {path}: {error.strerror}") from error
            except BlockingIOError:  # a full backlog: others are waiting too
                pass
            except OSError as error:
                raise ChannelError(f"guest at {path}: {error}") from error
            time.sleep(min(LOOK_AGAIN, deadline.remaining()))
        yield connection


def _send(connection: socket.socket, message: bytes, deadline: Deadline) -> None:
    try:
        connection.settimeout(deadline.remaining())
        connection.sendall(message)
    except TimeoutError:
        raise ChannelTimeoutError(deadline.late) from None
    except OSError as error:
        raise ChannelError(f"the channel broke: {error}") from error


def _ping(connection: socket.socket, message: bytes) -> None:
    """Send what may be lost: QEMU takes nothing more while the guest does not read."""
    try:
        connection.settimeout(PING_AGAIN)
        connection.sendall(message)
    except TimeoutError:
        pass
    except OSError as error:
        raise ChannelError(f"the channel broke: {error}") from error


def _lines(
    connection: socket.socket, deadline: Deadline, *, again: Callable[[], None] | None = None
) -> Iterator[bytes]:
    lines = Lines()
    quiet = 0.0
    while True:
        left = deadline.remaining()
        if again is not None and time.monotonic() - quiet >= PING_AGAIN:
            again()
            quiet = time.monotonic()
        connection.settimeout(min(left, PING_AGAIN) if again else left)
        try:
            data = connection.recv(1 << 16)
        except TimeoutError:
            continue
        except OSError as error:
            raise ChannelError(f"the channel broke: {error}") from error
        if not data:
            raise ChannelError("the guest's QEMU ended")
        yield from lines.feed(data)
