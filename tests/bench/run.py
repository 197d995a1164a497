"""The figures, each measured beside another way of doing the same, as one table.

    python tests/bench             about two minutes
    python tests/bench --quick     a look whether it works; few runs, so the figures mean little

Guests, sockets and records live in directories of the bench's own, and are gone at the end, also
after Ctrl-C.
"""

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from launchers.guest.errors import TinyguestError
from tests.bench import commands, launcher, script, table, waiting
from tests.bench.table import Figure
from tests.bench.timing import Effort
from tests.rig.qemu import EMULATOR, paused, short_directory

GUESTS: Final = tuple(f"vm{number:02}" for number in range(1, 51))


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    start: Effort
    short: Effort
    long: Effort
    lines: int
    """Of the script."""
    waits: int


FULL: Final = Size(
    start=Effort(rounds=4, runs=15),
    short=Effort(rounds=5, runs=8),
    long=Effort(rounds=3, runs=2),
    lines=40,
    waits=12,
)
QUICK: Final = Size(
    start=Effort(rounds=1, runs=3),
    short=Effort(rounds=1, runs=2),
    long=Effort(rounds=1, runs=2),
    lines=4,
    waits=2,
)


def measure(size: Size) -> Iterator[Figure]:
    """Measure every figure, saying what is being done."""
    say("launcher")
    yield launcher.measure(size.start)
    say(f"{len(GUESTS)} paused QEMUs: set, list, script")
    with short_directory() as run, paused(run, *GUESTS):
        yield from commands.measure(size.short, run, GUESTS[len(GUESTS) // 2])
        yield from script.measure(size.long, run, GUESTS, size.lines)
    say("a real guest: set --wait")
    yield waiting.measure(size.waits)


def machine() -> Iterator[str]:
    """Describe what it was measured on."""
    version = subprocess.run([EMULATOR, "--version"], capture_output=True, text=True, check=True)
    yield version.stdout.splitlines()[0]
    yield f"Python {platform.python_version()}, {platform.system()} {platform.release()}"
    load, *_ = os.getloadavg()
    yield f"{os.cpu_count()} cores, load average {load:.1f}"


def say(text: str) -> None:
    """Talk to the user, on stderr."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main(words: list[str]) -> int:
    """Measure and print; 0 where everything was measured, whatever the figures are."""
    parser = argparse.ArgumentParser("bench", description="Measure, and print a table of figures.")
    parser.add_argument("--quick", action="store_true", help="few runs: only to see that it works")
    size = QUICK if parser.parse_args(words).quick else FULL
    if shutil.which("hyperfine") is None:
        say("missing: hyperfine; `make bench` installs it")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    before = list(machine())
    try:
        figures = list(measure(size))
    except KeyboardInterrupt:
        return 130
    except subprocess.CalledProcessError as error:
        say(f"failed: {error}: {error.stderr or ''}")
        return 1
    except (AssertionError, TinyguestError) as error:
        say(f"failed: {error}")
        return 1
    print("\n".join((*before, "", *table.lines(figures))))
    return 0
