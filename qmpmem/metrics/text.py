r"""A round as text: Prometheus's own format and OpenMetrics, which differ in the heads alone.

Source: prometheus.io, "Exposition formats"; OpenMetrics 1.0. In both a label's value has ``\``,
``"`` and the end of a line escaped. Names are any text of their owners: here they are one line of
characters that can be seen, and not longer than `LONGEST`.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from qmpmem.metrics import families
from qmpmem.metrics.families import Family, GuestPoint, Value
from qmpmem.metrics.totals import BUCKETS, Totals
from qmpmem.model.escapes import printable
from qmpmem.model.round import STATES, Explanation, Tick
from qmpmem.records import Record

LONGEST: Final = 128
"""Characters of a label's value; a longer value is cut."""

_ENDING: Final = {"counter": "_total", "info": "_info"}
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Block(Record, frozen=True):
    """A family with its samples, a line each."""

    family: Family
    lines: str


Blocks = Sequence[Block]


def blocks(tick: Tick | None, totals: Totals, version: str) -> Blocks:
    """Write all samples of a round; families without any are left out.

    Args:
        tick: the last round; None: there was none yet.
        totals: the sums after it.
        version: of the agent.
    """
    found = [*_always(totals, version)]
    if tick is not None:
        found += [_single(each.family, each.value(tick, totals)) for each in families.HOST]
        found.append(_states(families.STATE, "state", STATES, tick.plan.state))
        found += _guests(tick, totals)
    return [block for block in found if block.lines]


def down() -> Blocks:
    """Write what is known where no agent answers."""
    return [_single(families.UP, 0)]


def plain(found: Iterable[Block]) -> bytes:
    """Write the text format, version 0.0.4."""
    return "".join(
        f"# HELP {block.family.name} {block.family.help}\n"
        f"# TYPE {block.family.name} {_plain_kind(block.family)}\n{block.lines}"
        for block in found
    ).encode("utf-8", "replace")


def open_metrics(found: Iterable[Block]) -> bytes:
    """Write OpenMetrics, version 1.0."""
    body = "".join(
        f"# HELP {_short(block.family)} {block.family.help}\n"
        f"# TYPE {_short(block.family)} {block.family.kind}\n{block.lines}"
        for block in found
    )
    return f"{body}# EOF\n".encode("utf-8", "replace")


def label(value: str) -> str:
    """Write a label's value, with its quotes."""
    text = printable(value[:LONGEST])[:LONGEST]
    return f'"{text.translate(_ESCAPES)}"'


def _plain_kind(family: Family) -> str:
    return "gauge" if family.kind == "info" else family.kind


def _short(family: Family) -> str:
    return family.name.removesuffix(_ENDING.get(family.kind, ""))


def _always(totals: Totals, version: str) -> Iterator[Block]:
    yield _single(families.UP, 1)
    name = families.BUILD.name
    yield Block(family=families.BUILD, lines=f"{name}{{version={label(version)}}} 1\n")
    yield _histogram(families.DURATION, totals)
    name = families.COMMANDS.name
    yield Block(
        family=families.COMMANDS,
        lines="".join(
            f'{name}{{direction="{direction}",result="{result}"}} {count}\n'
            for (direction, result), count in totals.commands.items()
        ),
    )
    name = families.DECISIONS.name
    yield Block(
        family=families.DECISIONS,
        lines="".join(
            f'{name}{{bound="{bound}"}} {count}\n' for bound, count in totals.decisions.items()
        ),
    )


def _single(family: Family, value: Value) -> Block:
    return Block(family=family, lines="" if value is None else f"{family.name} {value}\n")


def _histogram(family: Family, totals: Totals) -> Block:
    sums = list(accumulate(totals.durations))
    names = [*map(repr, BUCKETS), "+Inf"]
    buckets = "".join(
        f'{family.name}_bucket{{le="{name}"}} {count}\n'
        for name, count in zip(names, sums, strict=True)
    )
    return Block(
        family=family,
        lines=f"{buckets}{family.name}_sum {totals.seconds}\n{family.name}_count {sums[-1]}\n",
    )


def _states(family: Family, name: str, values: Sequence[str], now: str) -> Block:
    lines = "".join(f'{family.name}{{{name}="{each}"}} {int(each == now)}\n' for each in values)
    return Block(family=family, lines=lines)


def _guests(tick: Tick, totals: Totals) -> Iterator[Block]:
    said = {each.guest: each for each in tick.plan.guests}
    points = [
        GuestPoint(
            reading=reading,
            said=said.get(reading.id) or Explanation(guest=reading.id),
            target=None if (told := totals.told.get(reading.id)) is None else told.target,
        )
        for reading in tick.snapshot.guests
    ]
    names = [f"guest={label(point.reading.id)}" for point in points]
    yield Block(
        family=families.GUEST,
        lines="".join(map(_info, points)),
    )
    for each in families.GUESTS:
        name, value = each.family.name, each.value
        lines = "".join(
            f"{name}{{{guest}}} {found}\n"
            for guest, point in zip(names, points, strict=True)
            if (found := value(point)) is not None
        )
        yield Block(family=each.family, lines=lines)
    yield Block(family=families.VERDICT, lines=_verdicts(names, points))


def _info(point: GuestPoint) -> str:
    reading = point.reading
    others = f"name={label(reading.name or reading.id)},domain={label(reading.domain or '')}"
    return f"{families.GUEST.name}{{guest={label(reading.id)},{others}}} 1\n"


def _verdicts(names: Sequence[str], points: Sequence[GuestPoint]) -> str:
    return "".join(
        _OF_VERDICT[point.said.verdict].replace(_HERE, guest)
        for guest, point in zip(names, points, strict=True)
    )


_HERE: Final = "\0"
"""The character in whose place the label of a guest is put; no label has it."""
_OF_VERDICT: Final = {
    now: _states(families.VERDICT, f"{_HERE},verdict", families.VERDICTS, now).lines
    for now in families.VERDICTS
}
"""By verdict: the lines of a guest with it. They are more than all other lines together."""
