"""The size that one guest is to be told, until it was told, and what came of it.

Theory of operation:
    An order is worth something only while it is fresh. One that a guest could not be told in time
    is dropped, and reported as failed: no client expects it to be carried out minutes later.
"""

import asyncio

from qmpmem.model.round import Outcome
from qmpmem.units import Bytes


class PendingOrder:
    """The order for one guest; the last one counts.

    Args:
        guest: its id.
    """

    def __init__(self, guest: str) -> None:
        self._guest = guest
        self.target: Bytes | None = None
        """None: there is no order that the guest is not being told already."""
        self._is_being_told = False
        self._outcomes: list[Outcome] = []
        self._settling: asyncio.Event | None = None

    def take(self) -> Bytes | None:
        """Return what to tell the guest now; `told` must follow."""
        target, self.target = self.target, None
        self._is_being_told = target is not None
        return target

    def told(self) -> None:
        """Note that the telling is over, whatever came of it."""
        self._is_being_told = False

    def report(self, refused: str | None, seconds: float | None = None) -> None:
        """Keep what came of an order.

        Args:
            refused: why the guest was not told; None: it was.
            seconds: how long it took.
        """
        done = refused is None
        self._outcomes.append(Outcome(guest=self._guest, done=done, error=refused, seconds=seconds))
        self._wake_if_settled()

    def withdraw(self) -> None:
        """Forget the order, of which nothing is to be said."""
        self.target = None
        self._wake_if_settled()

    def outcomes(self) -> tuple[Outcome, ...]:
        """Return what came of the orders since the last call."""
        done, self._outcomes = tuple(self._outcomes), []
        return done

    async def settled(self) -> None:
        """Wait until there is no order that the guest was not told."""
        while not self._is_settled:
            self._settling = self._settling or asyncio.Event()
            await self._settling.wait()

    @property
    def _is_settled(self) -> bool:
        return self.target is None and not self._is_being_told

    def _wake_if_settled(self) -> None:
        if self._settling is not None and self._is_settled:
            self._settling.set()
            self._settling = None
