"""A wait of one task that others can end."""

import asyncio
import random


class Pause:
    """Waits between two looks at a guest."""

    def __init__(self) -> None:
        self._waiting: asyncio.Future[None] | None = None
        self._is_over = False

    async def wait(self, seconds: float) -> None:
        """Wait so long or a tenth less; not at all where `end` was called since the last wait."""
        # Not all at the same time: what is asked of thousands at once holds up the loop.
        if not self._is_over:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            rest = seconds * random.uniform(0.9, 1.0)  # noqa: S311 - not a secret
            timer = loop.call_later(rest, self.end)
            try:
                await self._waiting
            finally:
                timer.cancel()
                self._waiting = None
        self._is_over = False

    def end(self) -> None:
        """End the wait there is, or leave out the next."""
        self._is_over = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
