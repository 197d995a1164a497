"""A guest's session, which clients of the agent use while the agent has one."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from qmpmem.errors import GuestRefused, GuestUnreachable
from qmpmem.proxy.shared_session import SharedSession
from qmpmem.wire.channel import Channel
from qmpmem.wire.qmp import Session

PATIENCE: Final = 5.0
"""Seconds that a client waits for a session with a guest that is not held, or not yet."""
LAST_WORDS: Final = 0.3
"""Seconds that a session in use may take to end before it is cut."""


class SessionLending:
    """The session of one guest, for clients.

    Args:
        guest: its id, for messages.
        nudge: called when a client wants the session, or none uses it any more.
    """

    def __init__(self, guest: str, nudge: Callable[[], None]) -> None:
        self._guest = guest
        self._nudge = nudge
        self._channel: Channel | None = None
        self._share: SharedSession | None = None
        self._claims = 0
        self._arrived: asyncio.Event | None = None  # there is one only while a client waits

    @property
    def is_wanted(self) -> bool:
        """Tell whether a client uses the session, or waits for it."""
        return bool(self._claims or (self._share is not None and self._share.clients))

    @asynccontextmanager
    async def having(self, channel: Channel) -> AsyncGenerator[None]:
        """Lend a session until the context is left.

        It may be left because the guest's process was seen to end: what QEMU sent last is still to
        be read then, such as its answer to ``quit``.
        """
        self._channel = channel
        if self._arrived is not None:
            self._arrived.set()
        try:
            yield
        finally:
            share, self._channel, self._share, self._arrived = self._share, None, None, None
            if share is not None and share.clients:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LAST_WORDS):
                        await share.heard_out()

    async def take(self, problem: Callable[[], str | None]) -> SharedSession:
        """Return the session for a client, which must begin to use it at once.

        Args:
            problem: returns why there is none.

        Raises:
            GuestRefused: the guest has only a human monitor.
            GuestUnreachable: there is no session with it.
        """
        channel = self._channel or await self._wait(problem)
        if not isinstance(channel, Session):
            raise no_qmp(self._guest)
        if self._share is None:
            self._share = SharedSession(channel, idle=self._nudge)
        return self._share

    async def _wait(self, problem: Callable[[], str | None]) -> Channel:
        self._claims += 1
        self._nudge()
        try:
            async with asyncio.timeout(PATIENCE):
                while self._channel is None:
                    self._arrived = self._arrived or asyncio.Event()
                    await self._arrived.wait()
                return self._channel
        except TimeoutError as error:
            text = problem() or f"guest {self._guest}: there is no session with it"
            raise GuestUnreachable(text, reason="state") from error
        finally:
            self._claims -= 1


def no_qmp(guest: str) -> GuestRefused:
    """Return the error for a guest that does not speak QMP."""
    text = f"guest {guest}: there is only a human monitor, no QMP"
    return GuestRefused(text, error_class="NoQmp")
