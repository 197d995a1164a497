"""A QMP session that a client waits for.

Theory of operation:
    Where the agent has no session with a guest, as with one that hangs, a client waits some seconds
    for it. It has a place meanwhile. That is given to another user as any other place is, and free
    as soon as the client has left.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from qmpmem.api.leases import Gone
from qmpmem.errors import AgentUnreachable
from qmpmem.proxy.shared_session import SharedSession

LOOK: Final = 0.25
"""Seconds between two looks whether the client has left."""


class SessionOpening:
    """What uses a place before there is a session."""

    def __init__(self) -> None:
        self._waiting: asyncio.Task[object] | None = None
        self._given: str | None = None

    @property
    def is_idle(self) -> bool:
        """Tell that it has nothing to do for the client yet."""
        return True

    def dismiss(self, words: str) -> None:
        """Wait no more; the client is told why."""
        self._given = words
        if self._waiting is not None:
            self._waiting.cancel()

    async def unless_gone(
        self, opened: Coroutine[Any, Any, SharedSession], is_gone: Gone
    ) -> SharedSession:
        """Return the session. No other task comes in between: it is used, or given back, at once.

        Args:
            opened: gives the session.
            is_gone: whether the client has left.

        Raises:
            AgentUnreachable: the client has left, or the place was given to another.
            GuestError: there is no session.
        """
        self._waiting = asyncio.current_task()
        watching = asyncio.ensure_future(self._watch(is_gone))
        try:
            return await opened
        except asyncio.CancelledError:
            if self._given is None or self._waiting is None:
                raise
            self._waiting.uncancel()
            raise AgentUnreachable(self._given, reason="busy") from None
        finally:
            self._waiting = None
            watching.cancel()

    async def _watch(self, is_gone: Gone) -> None:
        while True:
            await asyncio.sleep(LOOK)
            if await is_gone():
                self.dismiss("the client has left")
                return
