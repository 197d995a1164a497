"""Clients that have gone while nothing is read from them.

Theory of operation:
    The end of a connection is read after all that came before it, so a client that is not read from
    is not seen to leave. epoll(7) tells of that without reading: EPOLLHUP is reported of a unix
    socket once its other end has closed both directions (net/unix/af_unix.c: unix_poll), and not
    where it only sends no more, as a pipe that has ended does. Each event loop has one epoll of
    this kind, which asks for nothing but that, and is itself waited for by the loop.
"""

import asyncio
import select
from collections.abc import Callable
from weakref import WeakKeyDictionary


class HangUps:
    """The connections of one event loop that are watched."""

    def __init__(self) -> None:
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._epoll: select.epoll | None = None

    def watch(self, descriptor: int, gone: Callable[[], None]) -> None:
        """Have a function called, once, when the other end of a connection has gone.

        What came before and can be read now is read first.
        """
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._look)
        self._epoll.register(descriptor, select.EPOLLONESHOT)  # EPOLLHUP need not be asked for
        self._callbacks[descriptor] = gone

    def forget(self, descriptor: int) -> None:
        """Watch a connection no more; it must still be open."""
        if self._callbacks.pop(descriptor, None) is None or self._epoll is None:
            return
        self._epoll.unregister(descriptor)
        if not self._callbacks:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _look(self) -> None:
        for descriptor, _ in self._epoll.poll(0) if self._epoll is not None else ():
            gone = self._callbacks.get(descriptor)
            # Later: what the connection has to be read is in the same look at all descriptors.
            asyncio.get_running_loop().call_soon(self._tell, descriptor, gone)

    def _tell(self, descriptor: int, gone: Callable[[], None] | None) -> None:
        # By now the descriptor may have been closed, and be another connection's.
        if gone is not None and self._callbacks.get(descriptor) is gone:
            gone()


_OF: "WeakKeyDictionary[asyncio.AbstractEventLoop, HangUps]" = WeakKeyDictionary()


def of_this_loop() -> HangUps:
    """Return those of the running event loop."""
    return _OF.setdefault(asyncio.get_running_loop(), HangUps())
