"""The figures, each measured beside another way of doing the same, as one table.

    python tests/bench               hours: 50 minutes are KSM's, 12 the agent's, the rest those of
                                     the loads, of which --help has the names
    python tests/bench --only ksm    the rows of KSM alone; or commands, decide, agent, top,
                                     page, or a load
    python tests/bench --only squeeze --policy ours --policy minimum
                                     these rows of a load; `none/launcher` is one row of a policy
                                     that is measured with several kinds of balloons
    python tests/bench --row 60      seconds of a row of KSM, instead of five minutes
    python tests/bench --way "preset quiet"    only this row of KSM
    python tests/bench --quick       a look whether it works; few runs, so the figures mean little
    python tests/bench scenarios     every scenario of this folder under every policy, simulated,
                                     and where ours loses; takes names of scenarios, and --help
    python tests/bench --json        one JSON document instead of tables; of a load, its rows

Guests, sockets and records live in directories of the bench's own, and are gone at the end, also
after Ctrl-C; KSM is then as it was. Where the bench is killed its guests end with it, and the next
one removes what else it left.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from launchers.guest.errors import TinyguestError
from qmpmem.errors import KernelError
from tests.bench import (
    agent,
    commands,
    database,
    deciding,
    ksm,
    ksm_table,
    launcher,
    limits,
    packing,
    page,
    reboots,
    screen,
    script,
    shares,
    squeeze,
    stacks,
    storm,
    swapping,
    table,
    thrash,
    waiting,
)
from tests.bench.ksm_table import Row
from tests.bench.load import Load, Measured
from tests.bench.table import Figure
from tests.bench.timing import Effort
from tests.rig import interrupts
from tests.rig.qemu import EMULATOR, paused, short_directory

COMMANDS, DECIDE, AGENT, TOP, PAGE = "commands", "decide", "agent", "top", "page"
KSM = "ksm"
LOADS: Final[tuple[Load[Any, Any], ...]] = (
    *(squeeze.LOAD, packing.LOAD, database.LOAD, *swapping.LOADS),
    *(shares.LOAD, reboots.LOAD, storm.LOAD, thrash.LOAD),
)
"""Of guests under a limit, in the order in which they are measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    guests: int
    """Paused ones, for the commands."""
    start: Effort
    short: Effort
    long: Effort
    lines: int
    """Of the script."""
    waits: int
    rounds: int
    """That are decided on."""
    agent: agent.Size
    top: screen.Size
    page: page.Size
    ksm: ksm.Size


FULL: Final = Size(
    guests=50,
    start=Effort(rounds=4, runs=15),
    short=Effort(rounds=5, runs=8),
    long=Effort(rounds=3, runs=2),
    lines=40,
    waits=12,
    rounds=60,
    agent=agent.FULL,
    top=screen.FULL,
    page=page.FULL,
    ksm=ksm.FULL,
)
QUICK: Final = Size(
    guests=10,
    start=Effort(rounds=1, runs=3),
    short=Effort(rounds=1, runs=2),
    long=Effort(rounds=1, runs=2),
    lines=4,
    waits=2,
    rounds=2,
    agent=agent.QUICK,
    top=screen.QUICK,
    page=page.QUICK,
    ksm=ksm.QUICK,
)


def measure(size: Size) -> Iterator[Figure]:
    """Measure the figures of commands, saying what is being done."""
    say("launcher")
    yield launcher.measure(size.start)
    say(f"{size.guests} paused QEMUs: set, list, script")
    guests = [f"vm{number:02}" for number in range(1, size.guests + 1)]
    with short_directory() as run, paused(run, *guests):
        yield from commands.measure(size.short, run, guests[size.guests // 2])
        yield from script.measure(size.long, run, guests, size.lines)
    say("a real guest: set --wait")
    yield waiting.measure(size.waits)


def merge(size: ksm.Size, name: str | None) -> Iterator[Row]:
    """Measure each way to run KSM, and say at once how it went: all of them take an hour.

    Args:
        size: of the guests, and of a row.
        name: of the only way to measure; None: all.
    """
    chosen = [way for way in ksm.ways() if name in (None, way.name)]
    reason = ksm.why_not()
    if reason is not None:
        yield from (Row(name=way.name, samples=(), note=reason) for way in chosen)
        return
    for row in ksm.measure(size, say, chosen):
        say(f"{row.name}: {ksm_table.summary(row)}")
        yield row


def loads(*, quick: bool, only: str | None, policies: list[str]) -> Iterator[Measured]:
    """Measure the rows of loads on guests under a limit, where this host can have one."""
    meant = [load for load in LOADS if only in (None, load.name)]
    if meant and can_limit():
        for load in meant:
            yield load.show(quick=quick, words=policies, say=say)


def can_limit() -> bool:
    """Whether this host can limit guests; says why not."""
    reason = limits.why_not()
    if reason is not None:
        say(f"no guests under a limit: {reason}")
    return reason is None


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
    asked = _arguments(words)
    size = QUICK if asked.quick else FULL
    rows_size = replace(size.ksm, seconds=asked.row) if asked.row else size.ksm
    if asked.only in (None, COMMANDS) and shutil.which("hyperfine") is None:
        say("missing: hyperfine; `make bench` installs it")
        return 2
    interrupts.receive()
    try:
        before = list(machine())
        figures = list(measure(size)) if asked.only in (None, COMMANDS) else []
        figures += deciding.measure(size.rounds) if asked.only in (None, DECIDE) else []
        figures += agent.measure(size.agent, say) if asked.only in (None, AGENT) else []
        figures += screen.measure(size.top, say) if asked.only in (None, TOP) else []
        figures += page.measure(size.page, say) if asked.only in (None, PAGE) else []
        measured = list(loads(quick=asked.quick, only=asked.only, policies=asked.policy))
        merged = list(merge(rows_size, asked.way)) if asked.only in (None, KSM) else []
    except KeyboardInterrupt:
        return 130
    except subprocess.CalledProcessError as error:
        say(f"failed: {error}: {error.stderr or ''}")
        return 1
    except (AssertionError, TimeoutError, KernelError, TinyguestError) as error:
        say(f"failed: {error}")
        return 1
    figures += [figure for each in measured for figure in each.figures]
    figures += ksm_table.figures(merged) if merged else ()
    print(
        _document(before, figures, measured)
        if asked.json
        else _text(before, figures, measured, merged)
    )
    return 0


def _text(
    before: list[str], figures: list[Figure], measured: list[Measured], merged: list[Row]
) -> str:
    sections = (
        before,
        table.lines(figures),
        *(each.table for each in measured),
        ksm_table.lines(merged) if merged else (),
    )
    return "\n\n".join("\n".join(section) for section in sections).rstrip()


def _document(before: list[str], figures: list[Figure], measured: list[Measured]) -> str:
    return json.dumps(
        {
            "machine": before,
            "figures": [
                asdict(figure) | {"ratio": table.ratio(figure), "met": table.met(figure)}
                for figure in figures
            ],
            "loads": {each.name: each.document for each in measured},
        }
    )


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench", description="Measure, and print a table of figures.")
    parser.add_argument("--quick", action="store_true", help="few runs: only to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    names = (COMMANDS, DECIDE, AGENT, TOP, PAGE, *(load.name for load in LOADS), KSM)
    parser.add_argument("--only", choices=names, help="not the whole")
    rows = {word: None for each in stacks.EVERY for word in (each.policy, each.key)}
    parser.add_argument(
        "--policy",
        action="append",
        default=[],
        choices=list(rows),
        metavar="POLICY",
        help=f"only these rows of a load: {', '.join(rows)}",
    )
    parser.add_argument("--row", type=int, metavar="SECONDS", help="of KSM; 300 where not given")
    ways = [way.name for way in ksm.ways()]
    parser.add_argument("--way", choices=ways, help="of KSM; all where not given")
    return parser.parse_args(words)
