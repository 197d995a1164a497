"""Questions to the agent that are asked once in a round, however many visitors want the answer."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


class OncePerRound(Generic[K, T]):
    """Keeps answers for as long as a round lasts.

    Args:
        version: gives another number after each round.
        ask: asks.
    """

    def __init__(
        self, version: Callable[[], int], ask: Callable[[K], Coroutine[Any, Any, T]]
    ) -> None:
        self._version = version
        self._ask = ask
        self._of = version()
        self._kept: dict[K, asyncio.Task[T]] = {}

    async def get(self, key: K) -> T:
        """Return the answer of this round; raises what asking raises, and asks again then."""
        if self._of != self._version():
            self._of, self._kept = self._version(), {}
        known = self._kept.get(key)
        if known is None or (known.done() and (known.cancelled() or known.exception() is not None)):
            known = self._kept[key] = asyncio.create_task(self._ask(key))
            known.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(known)
