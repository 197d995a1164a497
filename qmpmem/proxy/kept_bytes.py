"""How many bytes of their clients' all sessions of a process keep. Pure.

Theory of operation:
    A client has one command at a time that waits for QEMU, and what it sent after that. While all
    clients together have more than `MOST` bytes there, a client that has a command waiting is not
    read from. One that has none is, up to a whole message, so each gets on: the sum stays below
    `MOST` and one message of each client.
"""

from typing import Final

MOST: Final = 16 << 20
"""Bytes. 64 messages of the longest; the sessions that may not do everything have 4 MiB in all."""


class KeptBytes:
    """One count for all."""

    def __init__(self) -> None:
        self._total = 0

    @property
    def is_much(self) -> bool:
        """Tell whether it is more than `MOST`."""
        return self._total > MOST

    def change(self, by: int) -> None:
        """Count bytes that a client has more, or fewer."""
        self._total += by
