"""How much of the event loop the clients of all sessions may have. Pure.

Theory of operation:
    One event loop takes apart what all clients send, and has other work: rounds, a broker's guests.
    A short message takes it some 15 us, one of 256 KiB up to 150 ms. So the time that messages took
    is counted, and while it is too much, long ones wait; short ones of other clients do not.
"""

from typing import Final

RATE: Final = 0.25
"""Part of the event loop's time that may be spent."""
BURST: Final = 0.05
"""Seconds that may be spent at once."""
SMALL: Final = 4096
"""Bytes that are looked at in any case: they take 2 ms at the most."""


class FairShare:
    """Counts the time that was spent."""

    def __init__(self) -> None:
        self._debt = 0.0
        self._then = float("-inf")

    def spend(self, seconds: float, now: float) -> None:
        """Count.

        Args:
            seconds: of a processor.
            now: a monotonic clock, in seconds.
        """
        self._debt = self._left(now) + seconds
        self._then = now

    def wait(self, now: float) -> float:
        """Return for how many seconds long messages have to wait."""
        return max(0.0, self._left(now) - BURST) / RATE

    def _left(self, now: float) -> float:
        return max(0.0, self._debt - max(0.0, now - self._then) * RATE) if self._debt else 0.0
