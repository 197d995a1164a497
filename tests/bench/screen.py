"""What `qmpmem top` costs: its processor time, what it sends to the terminal, its first paint.

Theory of operation:
    A real agent looks after scripted guests, and the screen is on a terminal in memory that counts
    what is written to it, as ssh would have to send it. Sizes of scripted guests differ from report
    to report, so that each round has something to draw.
"""

import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qmpmem.api import addresses
from qmpmem.api.client import Client
from tests.bench import agent
from tests.bench.table import AtMost, AtMostMore, Figure
from tests.rig.command import PROGRAM, plain_environment
from tests.rig.qemu import short_directory
from tests.rig.terminal import Terminal, on_screen

CPU: Final = 3.0
"""Percent of a core."""
SENT: Final = 10.0
"""KiB in a second."""
PAINT: Final = 1000.0
"""Milliseconds until guests are on the screen."""
MORE: Final = 100.0
"""Milliseconds that `top --once` may take longer than `list`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    guests: int = 500
    settle: float = 20.0
    """Seconds before it counts: the agent has seen all guests, the screen has read its journal."""
    seconds: float = 60.0
    runs: int = 9
    """Of commands that are timed."""


FULL: Final = Size()
QUICK: Final = Size(guests=20, settle=1.0, seconds=3.0, runs=3)


def measure(size: Size, say: Callable[[str], None]) -> list[Figure]:
    """Measure the screen on a small and on a large terminal, and what is printed once."""
    say(f"top: {size.guests} scripted guests")
    figures: list[Figure] = []
    with (
        short_directory() as run,
        agent.scripted_guests(run, size.guests, 0),
        agent.started(run),
    ):
        environ = agent.settings(run)
        client = Client(addresses.socket_path(plain_environment() | environ, run), 20.0)
        agent.wait_for(client, size.guests)
        time.sleep(size.settle)
        for columns, lines in ((80, 24), (200, 60)):
            figures += _screen(size, run, (columns, lines), environ)
        figures.append(_once(size, environ))
    return figures


def _screen(
    size: Size, run: Path, terminal: tuple[int, int], environ: dict[str, str]
) -> list[Figure]:
    what = f"top, {size.guests} guests, {terminal[0]}x{terminal[1]}"
    began = time.monotonic()
    with on_screen("top", run=run, size=terminal, environ=environ) as screen:
        screen.expect(f"{size.guests} guests", seconds=60)
        painted = 1000 * (time.monotonic() - began)
        time.sleep(size.settle)
        cpu, sent = _watched(screen, size.seconds)
        memory = agent._peak(screen.child.pid)
        screen.press("q")
        screen.wait()
    return [
        Figure(what=f"{what}: CPU", unit="% of a core", ours=cpu, goal=AtMost(amount=CPU)),
        Figure(what=f"{what}: sent", unit="KiB/s", ours=sent, goal=AtMost(amount=SENT)),
        Figure(what=f"{what}: first paint", unit="ms", ours=painted, goal=AtMost(amount=PAINT)),
        Figure(what=f"{what}: memory", unit="MiB", ours=memory, goal=AtMost(amount=96)),
    ]


def _watched(screen: Terminal, seconds: float) -> tuple[float, float]:
    before, sent, began = agent.cpu(screen.child.pid), screen.written, time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - began
    used = agent.cpu(screen.child.pid) - before
    return 100 * used / elapsed, (screen.written - sent) / 1024 / elapsed


def _once(size: Size, environ: dict[str, str]) -> Figure:
    once, listed = (
        statistics.median(_timed(words, environ) for _ in range(size.runs))
        for words in (["top", "--once"], ["list"])
    )
    return Figure(
        what=f"qmpmem top --once, {size.guests} guests, beside list",
        unit="ms",
        ours=once,
        reference=listed,
        goal=AtMostMore(amount=MORE),
    )


def _timed(words: list[str], environ: dict[str, str]) -> float:
    began = time.monotonic()
    subprocess.run(
        [PROGRAM, *words],
        env=plain_environment() | environ,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return 1000 * (time.monotonic() - began)
