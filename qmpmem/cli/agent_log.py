"""What the agent says while it runs: in a thread, since whoever should read may not.

Theory of operation:
    The thread writes to the descriptor. Python's own buffer holds a lock while it writes, and the
    end of the program flushes that buffer: an agent whose reader has stopped would never end.
"""

import contextlib
import os
import queue
import sys
import threading
from typing import Final, TextIO

from qmpmem.cli.app import shown

LINES: Final = 1000
"""Kept for a reader that is slow; what is more is dropped, and counted."""
LAST_WORDS: Final = 1.0
"""Seconds that the end waits for what is not written yet."""


class AgentLog:
    """Writes lines to stdout and stderr, and never waits for them."""

    def __init__(self) -> None:
        self._lines: queue.Queue[tuple[TextIO, str] | None] = queue.Queue(LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="voice", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Write a line of data."""
        self._offer(sys.stdout, line)

    def say(self, text: str) -> None:
        """Talk to the user, on stderr, in one line.

        What a terminal might obey is escaped here: a client or a guest's owner may have chosen it.
        """
        self._offer(sys.stderr, f"qmpmem: {shown(' '.join(text.splitlines()))}")

    def warn(self, text: str) -> None:
        """Say what an administrator should know."""
        self.say(f"warning: {text}")

    def close(self) -> None:
        """Write what is left, if that takes no time."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(LAST_WORDS)

    def _offer(self, stream: TextIO, line: str) -> None:
        if self._dropped and not self._lines.full():
            words = f"qmpmem: {self._dropped} lines were dropped: nobody took them"
            self._dropped = 0
            self._offer(sys.stderr, words)
        try:
            self._lines.put_nowait((stream, line))
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        while (entry := self._lines.get()) is not None:
            stream, line = entry
            with contextlib.suppress(OSError, ValueError):  # nobody reads: the agent goes on
                _write_all(stream.fileno(), _encoded(line, stream))


def _encoded(line: str, stream: TextIO) -> bytes:
    return f"{line}\n".encode(stream.encoding, stream.errors or "strict")


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
