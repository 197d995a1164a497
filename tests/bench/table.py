"""The figures as a table: ratios, goals, and whether they are met. Pure.

Rules of this file:
    What was not measured is a dash and meets no goal; it is never a 0.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from qmpmem.view import rows

HEADERS: Final = ("WHAT", "OURS", "REFERENCE", "RATIO", "GOAL", "MET")


@dataclass(frozen=True, slots=True, kw_only=True)
class AtMostTimes:
    """At most so many times the reference."""

    factor: float

    def __str__(self) -> str:
        return f"<= {self.factor:g} x"


@dataclass(frozen=True, slots=True, kw_only=True)
class AtLeastTimes:
    """At least so many times the reference."""

    factor: float

    def __str__(self) -> str:
        return f">= {self.factor:g} x"


@dataclass(frozen=True, slots=True, kw_only=True)
class AtMostMore:
    """At most so much more than the reference, in the figure's unit."""

    amount: float

    def __str__(self) -> str:
        return f"<= +{self.amount:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AtMost:
    """At most so much, in the figure's unit."""

    amount: float

    def __str__(self) -> str:
        return f"<= {self.amount:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AtLeast:
    """At least so much, in the figure's unit."""

    amount: float

    def __str__(self) -> str:
        return f">= {self.amount:g}"


Goal = AtMostTimes | AtLeastTimes | AtMostMore | AtMost | AtLeast


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One thing that was measured: medians, side by side."""

    what: str
    unit: str
    """``ms`` (less is better) or ``/s``."""
    ours: float | None
    reference: float | None = None
    goal: Goal | None = None
    note: str = ""
    """Instead of a reference: why there is none."""
    commands: Sequence[str] = ()
    """What was measured, to be typed again."""


def ratio(figure: Figure) -> float | None:
    """Say how many times the reference ours is."""
    if figure.ours is None or not figure.reference:
        return None
    return figure.ours / figure.reference


def met(figure: Figure) -> bool | None:
    """Say whether the goal is met; None without a goal, or without what it is measured by."""
    times = ratio(figure)
    match figure.goal:
        case AtMost(amount=amount) if figure.ours is not None:
            return figure.ours <= amount
        case AtLeast(amount=amount) if figure.ours is not None:
            return figure.ours >= amount
        case AtMostTimes(factor=factor) if times is not None:
            return times <= factor
        case AtLeastTimes(factor=factor) if times is not None:
            return times >= factor
        case AtMostMore(amount=amount) if figure.ours is not None and figure.reference is not None:
            return figure.ours - figure.reference <= amount
        case _:
            return None


def lines(figures: Sequence[Figure]) -> Iterator[str]:
    """Write the table, and below it what was run for each line."""
    yield from rows.columns(HEADERS, [_cells(figure) for figure in figures])
    for figure in (each for each in figures if each.commands):
        yield ""
        yield f"{figure.what}:"
        yield from (f"    {command}" for command in figure.commands)


def _cells(figure: Figure) -> tuple[str, ...]:
    times, reached = ratio(figure), met(figure)
    goal = rows.UNKNOWN if figure.goal is None else str(figure.goal)
    if isinstance(figure.goal, AtMostMore | AtMost | AtLeast):
        goal += f" {figure.unit}"
    return (
        figure.what,
        _amount(figure.ours, figure.unit),
        figure.note or _amount(figure.reference, figure.unit),
        rows.UNKNOWN if times is None else f"{times:.2f}",
        goal,
        rows.UNKNOWN if reached is None else "yes" if reached else "no",
    )


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return rows.UNKNOWN
    return f"{value:.0f}{unit}" if unit.startswith("/") else f"{value:.1f} {unit}".rstrip()


def losses(kills: int | None, lost: int, swapped: int) -> Iterator[tuple[str, str]]:
    """Write the columns that every load of guests ends with.

    Args:
        kills: programs that the guests' kernels killed; None: a guest does not say, or is gone.
        lost: guests that the host's kernel killed.
        swapped: MiB that the host swapped in.
    """
    yield "GUEST KILLS", "?" if kills is None else str(kills)
    yield "GUESTS LOST", str(lost)
    yield "HOST SWAP-IN", f"{swapped} MiB"
