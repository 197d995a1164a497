"""Wrong tokens: answered slowly, one after the other, and never at the cost of the right one.

Theory of operation:
    Any user of the host may send tokens. Were the right one to wait behind wrong ones, any user
    could keep it out; so only a token that was found to be wrong comes here. What keeps guesses out
    is the length of the token. What is done here bounds the lines of the log, and the work.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from qmpmem.api.request_body import RequestError

WRONG: Final = 1.0
"""Seconds that the answer to a wrong token waits."""
WAITING: Final = 8
"""Wrong tokens that wait for their answer at once; visitors beyond these are told to come later."""


class TokenGuesses:
    """Has visitors with wrong tokens wait for their turn."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def wait(self, tell: Callable[[], None]) -> None:
        """Wait before the answer to a wrong token.

        Args:
            tell: called when it is this one's turn, so once in `WRONG` seconds.

        Raises:
            OddError: too many wait already.
        """
        if self._waiting >= WAITING:
            raise RequestError(429, "too many wrong tokens; try again in some seconds")
        self._waiting += 1
        try:
            async with self._turn:
                await asyncio.sleep(WRONG)
                tell()
        finally:
            self._waiting -= 1
