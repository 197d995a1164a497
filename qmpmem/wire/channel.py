"""A session with a guest's monitor of either kind."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Protocol

from qmpmem.wire import addresses, human_monitor, qmp
from qmpmem.wire.events import Event
from qmpmem.wire.limits import Deadlines
from qmpmem.wire.messages import Arguments
from qmpmem.wire.receiver import Statistics
from qmpmem.wire.unix_socket import Peer


class Channel(Protocol):
    """What commands go over: `qmp.Session` or `human_monitor.HumanSession`.

    Attributes:
        guest: the guest's id, for messages.
        peer: the process that listens on the socket.
        grain: bytes of which a balloon's target is a multiple.
        lacks: what this kind of monitor does not tell, for people; None: nothing.
    """

    guest: str
    peer: Peer
    grain: int
    lacks: str | None

    @property
    def statistics(self) -> Statistics:
        """Return what went wrong so far and did not end the session."""
        ...

    async def query(self, command: str, arguments: Arguments | None = None) -> object:
        """Run a command that changes nothing."""
        ...

    async def change(self, command: str, arguments: Arguments | None = None) -> object:
        """Run a command that changes something."""
        ...

    def events(self) -> AsyncIterator[Event]:
        """Yield events as they come."""
        ...

    def listen(self, hear: Callable[[], None]) -> None:
        """Have a function called whenever events may have come."""
        ...

    def take_events(self) -> Iterator[Event]:
        """Yield the events that wait."""
        ...


@asynccontextmanager
async def connect_human(
    address: str, *, guest: str, expect_pid: int | None = None, deadlines: Deadlines | None = None
) -> AsyncGenerator[Channel]:
    """Open a session with a human monitor; as `qmp.connect`.

    Raises:
        GuestUnreachable: on entering the context.
    """
    try:
        connection, found = await addresses.connected(address, guest, expect_pid)
    except BlockingIOError as error:
        raise await qmp.no_room(address, guest) from error
    with connection:
        context = human_monitor.session_over(
            connection, address, found, guest, deadlines or Deadlines()
        )
        async with context as session:
            yield session
