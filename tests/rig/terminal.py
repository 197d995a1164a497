"""A terminal in memory, in which a program runs: keys go in, a screen can be looked at.

Theory of operation:
    The program has a pty as its terminal. A thread reads what it writes, so it never waits for this
    process, and gives that to a terminal's state machine (pyte), which keeps the screen as cells.
"""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pyte

from tests.rig.command import PROGRAM, plain_environment
from tests.rig.patience import patient
from tests.rig.qemu import until

KEYS: Final[Mapping[str, str]] = {
    "enter": "\r",
    "escape": "\x1b",
    "up": "\x1b[A",
    "down": "\x1b[B",
    "right": "\x1b[C",
    "left": "\x1b[D",
    "end": "\x1b[F",
    "home": "\x1b[H",
    "pagedown": "\x1b[6~",
    "ctrl+c": "\x03",
}
"""What a terminal sends for keys that are no characters (xterm, ctlseqs)."""


class Terminal:
    """A program on a terminal of its own.

    Attributes:
        child: the program.
        written: all that it has written, in bytes.
    """

    def __init__(
        self, words: Sequence[str], environ: Mapping[str, str], size: tuple[int, int]
    ) -> None:
        columns, lines = size
        self._main, other = pty.openpty()
        self.before = termios.tcgetattr(other)
        self._set_size(columns, lines)
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self.written = 0
        self.raw = b""
        self.child = subprocess.Popen(
            words,
            env=environ,
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - it calls the kernel alone
        )
        self._other = other  # kept open, so that the mode that the program leaves can be seen
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def text(self) -> str:
        """Return what the screen shows, a line for each of its lines."""
        with self._lock:
            return "\n".join(line.rstrip() for line in self._screen.display)

    def line(self, word: str) -> str:
        """Return the first line of the screen in which a word is; empty: none."""
        return next((line for line in self.text().splitlines() if word in line), "")

    def press(self, *keys: str) -> None:
        """Press keys: names of `KEYS`, or text."""
        for key in keys:
            os.write(self._main, KEYS.get(key, key).encode())

    def expect(self, *words: str, seconds: float = 10.0) -> None:
        """Wait until the screen shows some words; fail with what it shows."""
        try:
            until(lambda: all(word in self.text() for word in words), seconds=seconds)
        except AssertionError:
            raise AssertionError(f"expected {words}, the screen shows:\n{self.text()}") from None

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size, and tell the program, as the kernel does."""
        with self._lock:
            self._screen.resize(lines, columns)
            self._screen.reset()
        self._set_size(columns, lines)
        self.child.send_signal(signal.SIGWINCH)

    def wait(self) -> int:
        """Wait for the end of the program, and return its exit code."""
        return self.child.wait(timeout=patient(20))

    def is_sane(self) -> bool:
        """Whether the program left the terminal in the mode in which it found it."""
        return termios.tcgetattr(self._other) == self.before

    def close(self) -> None:
        """End the program, if it has not ended."""
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        for each in (self._main, self._other):
            os.close(each)
        self._reader.join(timeout=patient(5))

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._main, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self) -> None:
        with suppress(OSError):  # the terminal is closed
            while piece := os.read(self._main, 1 << 16):
                with self._lock:
                    self.written += len(piece)
                    self.raw += piece
                    self._stream.feed(piece)


@contextmanager
def on_screen(
    *words: str,
    run: Path,
    size: tuple[int, int] = (80, 24),
    environ: Mapping[str, str] | None = None,
) -> Iterator[Terminal]:
    """Run qmpmem on a terminal.

    Args:
        words: the call.
        run: its run directory; its home is there as well.
        size: columns and lines.
        environ: what is added to the environment.
    """
    known = plain_environment() | {
        "QMPMEM_RUN_DIR": str(run),
        "HOME": str(run),
        "XDG_CONFIG_HOME": str(run / ".config"),
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
    }
    for name in ("COLUMNS", "LINES", "NO_COLOR", "LC_ALL", "LC_CTYPE"):
        known.pop(name, None)
    terminal = Terminal([str(PROGRAM), *words], known | dict(environ or {}), size)
    try:
        yield terminal
    finally:
        terminal.close()
