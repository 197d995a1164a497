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
    """What uses a place before there is a session.

    Args:
        opened: gives the session.
    """

    def __init__(self, opened: Coroutine[Any, Any, SharedSession]) -> None:
        self._opening = asyncio.ensure_future(opened)
        self._given: str | None = None

    @property
    def is_idle(self) -> bool:
        """Tell that it has nothing to do for the client yet."""
        return True

    def dismiss(self, words: str) -> None:
        """Wait no more; the client is told why."""
        self._given = words
        self._opening.cancel()

    async def unless_gone(self, is_gone: Gone) -> SharedSession:
        """Return the session.

        Args:
            is_gone: whether the client has left.

        Raises:
            AgentUnreachable: the client has left, or the place was given to another.
            GuestError: there is no session.
        """
        try:
            while not self._opening.done():
                await asyncio.wait((self._opening,), timeout=LOOK)
                if not self._opening.done() and await is_gone():
                    self.dismiss("the client has left")
            if self._given is not None:
                raise AgentUnreachable(self._given, reason="busy")
            return self._opening.result()
        finally:
            self._opening.cancel()
