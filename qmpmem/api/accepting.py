"""Accepting clients on a socket: a limited number at a time, and never at the cost of the rounds.

Theory of operation:
    A client that connects and leaves again costs an accept(2) and nothing else that lasts, but many
    of those in a row would take the event loop for themselves. So the number that is accepted at
    once is limited, and the number in one second. The others wait in the kernel's queue, which has
    a fixed length and belongs to this socket alone. asyncio's own server would log six lines for
    each accept that fails.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from qmpmem.wire.limits import TokenBucket

AT_ONCE: Final = 8
"""Clients that are accepted before the loop does something else."""
RATE: Final = 500.0
BURST: Final = 100.0
"""Clients that are accepted in a second, and at once. One that is turned away takes some 30 us."""
PAUSE: Final = 0.05
"""Seconds for which no more are accepted after that."""
EXHAUSTED: Final = 1.0
"""Seconds after an accept(2) that failed for lack of descriptors or memory."""


class Acceptor:
    """Accepts clients on one socket, from `open` until `close`.

    Args:
        listener: a unix socket that listens, and does not block; the caller's to close.
        receive: given each client that was accepted.
        say: told, in a line, that no client can be accepted.
    """

    def __init__(
        self,
        listener: socket.socket,
        receive: Callable[[socket.socket], None],
        say: Callable[[str], None],
    ) -> None:
        self._listener = listener
        self._receive = receive
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._gauge = TokenBucket(self._loop.time(), burst=BURST, rate=RATE)
        self._pause: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Accept clients from now on."""
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Accept none any more."""
        self._loop.remove_reader(self._listener.fileno())
        if self._pause is not None:
            self._pause.cancel()

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            if not self._gauge.take(1.0, self._loop.time()):
                self._wait(PAUSE)
                return
            try:
                connection = self._listener.accept()[0]
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # EMFILE, ENFILE, ENOBUFS, ENOMEM: accept(2)
                self._say(f"no client can be accepted now: {error.strerror}")
                self._wait(EXHAUSTED)
                return
            connection.setblocking(False)  # noqa: FBT003 - its only argument
            self._receive(connection)

    def _wait(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._pause = self._loop.call_later(seconds, self.open)
