"""When the garbage collector looks at everything: not while the guests stay the same.

Theory of operation:
    Python's collector looks at all that lives, again and again: with 2000 guests that is some
    200 ms in which no round goes on. What lives for as long as a guest need not be looked at while
    the guests stay the same (gc.freeze). When a guest ends, what it leaves has to be found again.
"""

import gc
from collections.abc import Callable
from typing import Final

from qmpmem.model.round import Tick

SETTLED: Final = 30
"""Rounds with the same guests after which the collector rests."""


class Collector:
    """Has the collector rest while the guests stay the same.

    Args:
        freeze: called when they have been the same for `SETTLED` rounds.
        unfreeze: called when they no longer are.
    """

    def __init__(
        self, freeze: Callable[[], None] | None = None, unfreeze: Callable[[], None] = gc.unfreeze
    ) -> None:
        self._freeze = freeze or _freeze
        self._unfreeze = unfreeze
        self._guests: frozenset[str] = frozenset()
        self._rounds = 0

    def publish(self, tick: Tick) -> None:
        """Take in a round."""
        guests = frozenset(guest.id for guest in tick.snapshot.guests)
        if guests != self._guests:
            if self._rounds >= SETTLED:
                self._unfreeze()
            self._guests, self._rounds = guests, 0
            return
        self._rounds += 1
        if self._rounds == SETTLED:
            self._freeze()


def _freeze() -> None:
    gc.collect()
    gc.freeze()
