"""Every scenario of this folder under every policy, in the simulator; and where ours loses.

    python tests/bench scenarios                  some minutes on two cores
    python tests/bench scenarios liar zram        these scenarios
    python tests/bench scenarios --policy mom     ours and these; else all
    python tests/bench scenarios --seeds 1        by one chance instead of three
    python tests/bench scenarios --file new.toml  a file of one's own
    python -m tests.bench.compare                 is the simulator to be believed?
    python tests/bench scenarios --json           a JSON document instead of tables

Each scenario is run with its seed and the next two. In these others also its lists of demands come
5 % earlier or later and are 5 % smaller or larger, by chance: a policy must not win by a number.

Exit code 1: the rule of verdict.py is broken.
"""

import argparse
import json
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Final

from qmpmem.configuration.files import read_file
from qmpmem.errors import ConfigError
from qmpmem.model.config import Config
from qmpmem.records import replace
from qmpmem.simulate import policy_table, results, scenario
from qmpmem.simulate.loads import Load, Steady, Steps
from qmpmem.simulate.spec import World
from qmpmem.units import MIB, Bytes
from qmpmem.view.rows import columns
from tests.bench import verdict
from tests.bench.verdict import Outcome, Row

FOLDER: Final = Path(__file__).parent / "scenarios"
SEEDS: Final = 3
VARIED: Final = 0.05
"""How much lists of demands differ from what they say."""
HEADERS: Final = (
    *("SCENARIO", "POLICY", "DEVICES", "UNMET MiB·s", "GUEST OOM", "HOST OOM"),
    *("TURNS", "IN 30 s", "COMMANDS", "HOST SWAP-IN MiB"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run: a file, a chance, and a row."""

    path: Path
    shift: int
    row: int
    """Of all rows that there are."""


def world(path: Path, shift: int) -> World:
    """Read a scenario as it is by a chance, of which 0 is what the file says."""
    found = scenario.read(read_file(path), Config(), shift=shift)
    if not shift:
        return found
    random = Random(f"{path.stem} {shift}")  # noqa: S311 - repeatable on purpose
    guests = (replace(guest, load=_varied(guest.load, random)) for guest in found.guests)
    return replace(found, guests=tuple(guests))


def _varied(load: Load, random: Random) -> Load:
    if not isinstance(load, Steps):
        return load
    time, size = (random.uniform(1 - VARIED, 1 + VARIED) for _ in range(2))
    return Steps(points=tuple((at * time, Bytes(int(wanted * size))) for at, wanted in load.points))


def is_constant(of: World) -> bool:
    """Whether no demand changes."""
    loads = (of.host.own, *(guest.load for guest in of.guests))
    return all(isinstance(load, Steady) for load in loads) and not any(
        guest.events for guest in of.guests
    )


def play(run: Run) -> results.Results:
    """Play one run to its end."""
    return results.measure(world(run.path, run.shift), policy_table.rows()[run.row])


def outcomes(paths: Sequence[Path], seeds: int, policies: Sequence[str]) -> Iterator[Outcome]:
    """Play all runs on all cores, and yield each scenario when it is done."""
    names = {*policies, verdict.OURS} if policies else set(policy_table.RIVALS)
    rows = [number for number, row in enumerate(policy_table.rows()) if row.name in names]
    runs = [
        Run(path=path, shift=shift, row=row)
        for path in paths
        for row in rows
        for shift in range(seeds)
    ]
    with multiprocessing.Pool() as pool:
        reports = pool.imap(play, runs)
        for path in paths:
            found = tuple(_row([next(reports) for _ in range(seeds)]) for _ in rows)
            yield Outcome(name=path.stem, is_constant=is_constant(world(path, 0)), rows=found)


def _row(reports: Sequence[results.Results]) -> Row:
    number = len(reports)
    causes = sum((Counter(dict(report.causes)) for report in reports), Counter[str]())
    return Row(
        policy=reports[0].policy,
        devices=reports[0].devices,
        unmet=sum(report.unmet for report in reports) / number,
        guest_kills=sum(report.guest_kills for report in reports),
        host_kills=sum(report.host_kills for report in reports),
        turns=sum(report.turns for report in reports),
        reversals=sum(report.reversals for report in reports),
        causes=dict(causes.most_common()),
        commands=sum(report.commands for report in reports),
        late=sum(report.late for report in reports),
        swap_in=sum(report.host_swap_in for report in reports) / MIB / number,
    )


def lines(found: Sequence[Outcome]) -> Iterator[str]:
    """Write the rows, best first, and below them where ours loses."""
    cells = [
        (
            *(outcome.name, row.policy, row.devices, f"{row.unmet:.0f}"),
            *(str(row.guest_kills), str(row.host_kills), str(row.turns), str(row.reversals)),
            *(str(row.commands), f"{row.swap_in:.0f}"),
        )
        for outcome in found
        for row in sorted(outcome.rows, key=lambda row: (row.kills, row.unmet))
    ]
    yield from columns(HEADERS, cells)
    yield ""
    for outcome in found:
        words = list(verdict.lost(outcome))
        how = "best" if outcome.is_won() else "not the best, and near it"
        yield f"{outcome.name}: {'; '.join(words) if words else how}"
    yield f"best in {verdict.wins(found)} of {len(found)} scenarios"


def document(found: Sequence[Outcome]) -> str:
    """Write the same as JSON."""
    return json.dumps(
        {
            "scenarios": [
                asdict(outcome) | {"won": outcome.is_won(), "lost": list(verdict.lost(outcome))}
                for outcome in found
            ],
            "wins": verdict.wins(found),
            "holds": verdict.holds(found),
        }
    )


def main(words: list[str]) -> int:
    """Play and print; 1 where our policy breaks the rule."""
    asked = _arguments(words)
    names = {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}
    unknown = [name for name in asked.names if name not in names]
    if unknown:
        print(f"bench: no scenario {unknown[0]}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    chosen = asked.names or ([] if asked.file else list(names))
    paths = [*(names[name] for name in chosen), *asked.file]
    try:
        found = [
            _told(outcome, len(paths)) for outcome in outcomes(paths, asked.seeds, asked.policy)
        ]
    except ConfigError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    print(document(found) if asked.json else "\n".join(lines(found)))
    return 0 if verdict.holds(found) else 1


def _told(outcome: Outcome, number: int) -> Outcome:
    if number > 1:
        print(f"bench: {outcome.name}", file=sys.stderr, flush=True)
    return outcome


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "bench scenarios", description="Simulate, and say where ours loses."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a scenario; else all")
    parser.add_argument("--file", type=Path, action="append", default=[], help="another scenario")
    parser.add_argument(
        "--policy",
        action="append",
        default=[],
        choices=list(policy_table.RIVALS),
        help="beside ours",
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"else {SEEDS}")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    asked = parser.parse_args(words)
    if asked.seeds < 1:
        parser.error("--seeds: at least 1")
    return asked
