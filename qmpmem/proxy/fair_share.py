"""How much of the event loop the clients of all sessions may have. Pure.

Theory of operation:
    One event loop takes apart what all clients send, and has other work: rounds, a broker's guests.
    A short message takes it 15 us to 2 ms, one of 256 KiB up to 150 ms. So the time that each
    user's messages took is counted, that of reading them included: sent byte by byte, they cost
    more to read than to judge. While that is too much, this user's messages wait, in however many
    sessions they are, and no more are read. Users that owe time share what is paid back; one that
    used little owes nothing, and waits for no other.

    Short messages and long ones are counted apart, so that a user's scripts do not wait for a long
    message that a program of the same user sends, nor that one for theirs.
"""

from collections.abc import Hashable
from typing import Final

RATE: Final = 0.25
"""Part of the event loop's time that may be spent on short messages, and on long ones."""
BURST: Final = 0.05
"""Seconds that one user may spend at once."""
SMALL: Final = 4096
"""Bytes up to which what a client has sent counts as short."""


class FairShare:
    """Counts the time that was spent for each user."""

    def __init__(self) -> None:
        self._short = _Debts()
        self._long = _Debts()

    def spend(self, user: Hashable, size: int, seconds: float, now: float) -> None:
        """Count.

        Args:
            user: the user whose messages these were.
            size: bytes that they had.
            seconds: of a processor.
            now: a monotonic clock, in seconds.
        """
        self._of(size).add(user, seconds, now)

    def wait(self, user: Hashable, size: int, now: float) -> float:
        """Return for how many seconds messages of a user have to wait that have so many bytes."""
        return self._of(size).wait(user, now)

    def _of(self, size: int) -> "_Debts":
        return self._short if size <= SMALL else self._long


class _Debts:
    """The seconds that each user owes; a user that owes none is forgotten."""

    def __init__(self) -> None:
        self._debts: dict[Hashable, float] = {}
        self._then = float("-inf")

    def add(self, user: Hashable, seconds: float, now: float) -> None:
        self._pay(now)
        self._debts[user] = self._debts.get(user, 0.0) + seconds

    def wait(self, user: Hashable, now: float) -> float:
        self._pay(now)
        over = self._debts.get(user, 0.0) - BURST
        return max(0.0, over) * len(self._debts) / RATE

    def _pay(self, now: float) -> None:
        if self._debts and now > self._then:
            paid = (now - self._then) * RATE / len(self._debts)
            self._debts = {user: owed - paid for user, owed in self._debts.items() if owed > paid}
        self._then = max(self._then, now)
