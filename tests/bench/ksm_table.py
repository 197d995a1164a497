"""What merging saves and costs, second by second, as figures and a table. Pure.

Rules of this file:
    What was not measured is None and shown as a dash, as where a row was cut short of 5 minutes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qmpmem.view import rows
from tests.bench.table import AtLeastTimes, AtMostTimes, Figure

QUIET: Final = "preset quiet"
EAGER: Final = "preset eager"
BASE: Final = "kernel's defaults"

MOST: Final = 0.9
"""Of the final saving: what counts as there, since the last few pages may take any time."""
EQUAL: Final = 0.99
"""Of the most: less of a difference between two rows is a matter of luck."""
ENOUGH: Final = 0.95
CHEAP: Final = 0.25
WORTH_A_RATIO: Final = 0.05
"""CPU-seconds below which a ratio says nothing: five ticks of ksmd's clock."""

HEADERS: Final = ("KSM", "1 MIN", "END", "PROFIT", "KSMD CPU", "PER CPU-S", "90 % AFTER", "SCANS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """KSM at one moment of a row."""

    at: float
    """Seconds since the row's settings were written."""
    saved: float
    """MiB: pages_sharing."""
    profit: float | None
    """MiB: general_profit, where the kernel has it (6.4)."""
    cpu: float
    """Seconds that ksmd ran since then."""
    scans: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One setting, and what came of it."""

    name: str
    samples: Sequence[Sample]
    note: str = ""
    """What it did: settings, or why there is nothing."""


def sample_at(row: Row, seconds: float) -> Sample | None:
    """Find the first sample of that time or later."""
    return next((sample for sample in row.samples if sample.at >= seconds), None)


def end(row: Row) -> Sample | None:
    """Give the last sample."""
    return row.samples[-1] if row.samples else None


def per_cpu_second(row: Row) -> float | None:
    """Say how many MiB each of ksmd's CPU-seconds saved; None where it hardly ran."""
    last = end(row)
    return None if last is None or last.cpu < WORTH_A_RATIO else last.saved / last.cpu


def time_to(row: Row, share: float) -> float | None:
    """Say after how many seconds a share of the final saving was there; None without a saving."""
    last = end(row)
    if last is None or last.saved <= 0:
        return None
    return next(sample.at for sample in row.samples if sample.saved >= share * last.saved)


def best(measured: Sequence[Row]) -> Row | None:
    """Find the row that saved most at the end, and of equal ones the one that did it soonest.

    None where nothing saved anything.
    """
    most = max((last.saved for row in measured if (last := end(row))), default=0.0)
    equal = [row for row in measured if (last := end(row)) and last.saved >= EQUAL * most > 0]
    return max(equal, key=_mean, default=None)


def is_near(row: Row, most: Row) -> bool:
    """Whether a row got to about where the best got."""
    return bool(row.samples) and row.samples[-1].saved >= ENOUGH * most.samples[-1].saved


def figures(measured: Sequence[Row]) -> Iterator[Figure]:
    """Measure the presets against the other rows."""
    named = {row.name: row for row in measured}
    others = [row for row in measured if row.name != QUIET]
    yield from _quiet(named.get(QUIET), best(others))
    yield _beside_cheapest(named.get(QUIET), others)
    yield _eager(named.get(EAGER), [row for row in measured if row.name != EAGER])


def _quiet(quiet: Row | None, reference: Row | None) -> Iterator[Figure]:
    than = [f"beside the row that saves most: {reference.name}"] if reference else []
    yield Figure(
        what="ksm quiet, saved",
        unit="MiB",
        ours=_saved(quiet),
        reference=_saved(reference),
        goal=AtLeastTimes(factor=ENOUGH),
        commands=than,
    )
    yield Figure(
        what="ksm quiet, ksmd's CPU",
        unit="s",
        ours=_cpu(quiet),
        reference=_cpu(reference),
        goal=AtMostTimes(factor=CHEAP),
        commands=than,
    )


def _beside_cheapest(quiet: Row | None, others: Sequence[Row]) -> Figure:
    """Say beside what else quiet would be cheap, so that the best row cannot be a lucky choice."""
    most = best(others)
    same = [row for row in others if most and is_near(row, most)]
    cheapest = min(same, key=lambda row: row.samples[-1].cpu, default=None)
    return Figure(
        what="ksm quiet, beside the cheapest",
        unit="s",
        ours=_cpu(quiet),
        reference=_cpu(cheapest),
        commands=[f"the least CPU of all that save nearly as much: {cheapest.name}"]
        if cheapest
        else [],
    )


def _eager(eager: Row | None, others: Sequence[Row]) -> Figure:
    """Beside the fastest of those that got anywhere near the best: little is saved quickly."""
    most = best([*others, *([eager] if eager else [])])
    rivals = [row for row in others if most and is_near(row, most)]
    fastest = min(rivals, key=lambda row: time_to(row, MOST) or 0, default=None)
    return Figure(
        what="ksm eager, to 90 % of its saving",
        unit="s",
        ours=time_to(eager, MOST) if eager else None,
        reference=time_to(fastest, MOST) if fastest else None,
        goal=AtMostTimes(factor=1.0),
        commands=[f"beside the fastest other row: {fastest.name}"] if fastest else [],
    )


def lines(measured: Sequence[Row]) -> Iterator[str]:
    """Write the table, and below it what each row was."""
    yield from rows.columns(HEADERS, [_cells(row) for row in measured])
    yield ""
    yield from (f"{row.name}: {row.note}" for row in measured if row.note)


def summary(row: Row) -> str:
    """Write a row as a line of its own."""
    _, *cells = _cells(row)
    return ", ".join(
        f"{header.lower()} {cell}" for header, cell in zip(HEADERS[1:], cells, strict=True)
    )


def settings_note(settings: Mapping[str, str | int]) -> str:
    """Write settings as one would write them to a shell."""
    return " ".join(f"{name}={value}" for name, value in settings.items())


def _cells(row: Row) -> tuple[str, ...]:
    minute, last = sample_at(row, 60), end(row)
    there = time_to(row, MOST)
    return (
        row.name,
        _mib(None if minute is None else minute.saved),
        _mib(_saved(row)),
        _mib(None if last is None else last.profit),
        rows.UNKNOWN if last is None else f"{last.cpu:.2f} s",
        _mib(per_cpu_second(row)),
        rows.UNKNOWN if there is None else f"{there:.0f} s",
        rows.UNKNOWN if last is None else str(last.scans),
    )


def _mib(value: float | None) -> str:
    return rows.UNKNOWN if value is None else f"{value:.0f} MiB"


def _mean(row: Row) -> float:
    return sum(sample.saved for sample in row.samples) / len(row.samples)


def _saved(row: Row | None) -> float | None:
    last = None if row is None else end(row)
    return None if last is None else last.saved


def _cpu(row: Row | None) -> float | None:
    last = None if row is None else end(row)
    return None if last is None else last.cpu
