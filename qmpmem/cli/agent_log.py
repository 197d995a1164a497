"""What the agent, the broker and the page write to stdout and stderr.

A thread writes it, since the process that should read it may not.

Theory of operation:
    The program logs by `logging`, into a bounded queue. A thread writes the lines to the
    descriptors. Python's own buffer holds a lock while it writes, and the end of the program
    flushes that buffer, as `logging` takes the lock of each handler there: an agent whose reader
    has stopped would never end. So the thread uses neither a stream's buffer nor a handler.

    Where stderr goes to systemd's journal, each line begins with its level (sd-daemon(3)), so that
    `journalctl -p warning` finds the warnings. Lines of data are for programs: they have none.
"""

import logging
import os
import queue
import sys
from collections.abc import Mapping
from contextlib import suppress
from logging.handlers import QueueHandler, QueueListener
from typing import Final, TextIO

from qmpmem.cli.app import shown
from qmpmem.cli.output import is_journal, journal_prefix

LINES: Final = 1000
"""Lines that are kept for a reader that is slow. Further lines are dropped, and counted."""
LAST_WORDS: Final = 1.0
"""Seconds that the program's end waits for lines that are not written yet."""

_DATA: Final = "qmpmem.data"


class AgentLog:
    """Writes lines to stdout and stderr, and never waits for them.

    Args:
        environ: its QMPMEM_DEBUG has what is logged at the level DEBUG shown as well; its
            JOURNAL_STREAM says whether stderr is the journal.

    Attributes:
        log: takes lines of each level. No line of it begins with its level on a terminal: `warn`
            is for those that do.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        lines: queue.Queue[logging.LogRecord] = queue.Queue(LINES)
        self._writer = _Writer(lines, environ)
        self._writer.start()
        self._entrance = _Entrance(lines)
        level = logging.DEBUG if environ.get("QMPMEM_DEBUG") else logging.INFO
        self.log = _logger("qmpmem", level, self._entrance)
        self._data = _logger(_DATA, logging.INFO, self._entrance)

    def put(self, line: str) -> None:
        """Write a line of data."""
        self._data.info(line)

    def say(self, text: str) -> None:
        """Write one line for the user, to stderr."""
        self.log.info(text)

    def warn(self, text: str) -> None:
        """Write a warning for the administrator, to stderr."""
        self.log.warning("warning: %s", text)

    def close(self) -> None:
        """Write what is left, if that takes no time."""
        self._writer.close()


class _Entrance(QueueHandler):
    """Takes what is logged, and counts what there is no place for."""

    def __init__(self, lines: queue.Queue[logging.LogRecord]) -> None:
        super().__init__(lines)
        self._lines = lines
        self._dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put a record into the queue, and before it how many were dropped. Under a lock."""
        if self._dropped and not self._lines.full():
            words = f"{self._dropped} lines were dropped: nothing read stderr"
            self._dropped = 0
            self._offer(logging.LogRecord("qmpmem", logging.WARNING, "", 0, words, None, None))
        self._offer(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002 - logging's name
        """Count a line that cannot be written: logging would write to stderr, and wait for it."""
        self._dropped += 1

    def _offer(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self._dropped += 1


class _Writer(QueueListener):
    """Writes, in a thread of its own."""

    def __init__(self, lines: queue.Queue[logging.LogRecord], environ: Mapping[str, str]) -> None:
        super().__init__(lines)
        self._stdout, self._stderr = sys.stdout, sys.stderr
        self._is_journal = is_journal(sys.stderr, environ)

    def handle(self, record: logging.LogRecord) -> None:
        """Write one line.

        What a terminal might obey is escaped here: a client or a guest's owner may have chosen it.
        """
        stream, line = self._stdout, record.getMessage()
        if record.name != _DATA:
            prefix = journal_prefix(record.levelno) if self._is_journal else ""
            stream, line = self._stderr, f"{prefix}qmpmem: {shown(' '.join(line.splitlines()))}"
        with suppress(OSError, ValueError):  # no process reads: the agent goes on
            _write_all(stream.fileno(), _encoded(line, stream))

    def close(self) -> None:
        """Have the thread end, and wait for it no longer than `LAST_WORDS`."""
        with suppress(queue.Full):
            self.enqueue_sentinel()
        if self._thread is not None:
            self._thread.join(LAST_WORDS)


def _logger(name: str, level: int, entrance: logging.Handler) -> logging.Logger:
    """Make a logger that is none of `logging`'s tree, where others could listen and hold it up."""
    logger = logging.Logger(name, level)  # noqa: LOG001 - just that is meant
    logger.addHandler(entrance)
    return logger


def _encoded(line: str, stream: TextIO) -> bytes:
    return f"{line}\n".encode(stream.encoding, stream.errors or "strict")


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
