"""A load: a course of events that every row's guests go through, and what is made of its rows."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from qmpmem.view import rows as view
from tests.bench import limits
from tests.bench.stacks import DEVICES, STACKS, Stack, chosen
from tests.bench.table import Figure

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S")
R = TypeVar("R", bound="DataclassInstance")

HEADERS: Final = ("POLICY", "BALLOONS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Played(Generic[R]):
    """A row: what became of the guests under one policy."""

    stack: Stack
    row: R
    load: float = 0.0
    """The load average of its last minute: emulated guests feel what other programs do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A load's rows, ready to be shown."""

    name: str
    table: Sequence[str]
    figures: Sequence[Figure]
    document: Sequence[dict[str, object]]
    """An object for each row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load(Generic[S, R]):
    """A load, and how its rows are written. `R` is a dataclass."""

    name: str
    full: S
    quick: S
    """Few guests and short: to see that it works."""
    play: Callable[[Stack, S], R]
    cells: Callable[[R], Iterable[tuple[str, str]]]
    """Names and contents of the columns after those of the policy."""
    figures: Callable[[Sequence[Played[R]]], Iterable[Figure]]
    stacks: Sequence[Stack] = STACKS

    def measure(
        self, size: S, say: Callable[[str], None], stacks: Sequence[Stack]
    ) -> list[Played[R]]:
        """Measure one row after the other, and say at once how it went."""
        limits.remove_left()
        played: list[Played[R]] = []
        for stack in stacks:
            say(f"{self.name}: {stack.key}")
            row = self.play(stack, size)
            words = ", ".join(f"{name.lower()} {word}" for name, word in self.cells(row))
            say(f"{self.name}: {stack.key}: {words}")
            played.append(Played(stack=stack, row=row, load=os.getloadavg()[0]))
        return played

    def show(self, *, quick: bool, words: Sequence[str], say: Callable[[str], None]) -> Measured:
        """Measure the rows that are meant, and write them down.

        Args:
            quick: few guests, and short.
            words: as of `stacks.chosen`.
            say: told how far it is.
        """
        size = self.quick if quick else self.full
        return self.written(self.measure(size, say, chosen(words, self.stacks)))

    def written(self, played: Sequence[Played[R]]) -> Measured:
        """Write rows as a table, as figures and as a document."""
        return Measured(
            name=self.name,
            table=list(self._table(played)),
            figures=list(self.figures(played)),
            document=[_object(each, asdict(each.row)) for each in played],
        )

    def _table(self, played: Sequence[Played[R]]) -> Iterable[str]:
        if not played:
            return ()
        headers = (*HEADERS, *(name for name, _ in self.cells(played[0].row)), "LOAD")
        lines = [
            (
                *(each.stack.title, DEVICES[each.stack.devices]),
                *(word for _, word in self.cells(each.row)),
                f"{each.load:.0f}",
            )
            for each in played
        ]
        return view.columns(headers, lines)


def _object(played: Played[R], row: dict[str, object]) -> dict[str, object]:
    balloons = DEVICES[played.stack.devices]
    return {"policy": played.stack.key, "balloons": balloons, "load": played.load} | row


def ours(played: Sequence[Played[R]]) -> R | None:
    """Return our row; None: it was not measured."""
    return next((each.row for each in played if each.stack.policy == "ours"), None)


def others(played: Sequence[Played[R]]) -> list[R]:
    """Return the rows of others on the same host."""
    return [each.row for each in played if each.stack.policy != "ours" and each.stack.times == 1]
