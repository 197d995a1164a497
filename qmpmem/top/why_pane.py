"""Why a guest has what it has: its terms, its last decisions, its plot. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final

from qmpmem.api.records import Decision, Why
from qmpmem.feed.records import Round
from qmpmem.records import replace
from qmpmem.top.bar import word_style
from qmpmem.top.figures import Figures, called
from qmpmem.top.header import clock
from qmpmem.top.history import History
from qmpmem.top.plot import plot
from qmpmem.top.text import Canvas, Line, Span, brief, cells, cut, left, safe
from qmpmem.units import Bytes
from qmpmem.view.agent import why_rows
from qmpmem.view.rows import UNKNOWN

PAST: Final = 600.0
"""Seconds that a plot shows."""
VALUE: Final = 36
"""Columns for a value, where terms are side by side."""
SHORT: Final = 25
"""Columns for a value, where terms would not fit side by side with `VALUE`."""


def pane(guest: Figures, seen: Round, history: History, canvas: Canvas) -> list[Line]:
    """Return in a few lines why a guest has what it has: the reason, the terms, the decisions.

    Args:
        guest: the guest.
        seen: the round that is shown.
        history: what was before it.
        canvas: how much room there is.
    """
    lines: list[Line] = [
        rule(called(guest), canvas),
        (
            Span(f" {guest.word}", word_style(guest)),
            Span(f": {safe(guest.reason)}" if guest.reason else ""),
        ),
        (Span(f" {'  '.join(_terms(guest, seen))}"),),
    ]
    decisions = history.decisions(guest.id, seen.wall)
    room = canvas.height - len(lines)
    lines += [decided(each) for each in decisions[-room:][::-1]] if room > 0 else []
    return lines[: canvas.height]


def full(guest: Figures, seen: Round, history: History, canvas: Canvas) -> list[Line]:
    """Return all that is known of why a guest has what it has, in as many columns as fit."""
    lines = [rule(called(guest), canvas)]
    pairs = list(_all_terms(guest, seen))
    labels = max(len(label) for label, _ in pairs)
    most = canvas.width // (labels + SHORT)
    across = max(1, min(2, most), canvas.width // (labels + VALUE))
    width = canvas.width // across
    height = -(-len(pairs) // across)
    for row in range(height):
        spans: list[Span] = []
        for label, value in pairs[row::height]:
            text = f" {left(label, labels)} {safe(value)}"
            spans.append(Span(left(text, width - 1, canvas.more) + " "))
        lines.append(tuple(spans))
    room = canvas.height - len(lines) - 1
    decisions = history.decisions(guest.id, seen.wall)
    if decisions and room > 0:
        lines.append((Span(" last decisions", "dim"),))
        lines += [decided(each) for each in decisions[-room:][::-1]]
    return lines[: canvas.height]


def plotted(guest: Figures, seen: Round, history: History, canvas: Canvas) -> list[Line]:
    """Draw a guest's last ten minutes."""
    span = (seen.wall - PAST, seen.wall)
    points = history.points(guest.id, *span)
    known = [each.actual for each in points if each.actual is not None]
    top = guest.maximum or (Bytes(max(known)) if known else Bytes(0))
    words = f"{called(guest)}: used, last {PAST / 60:.0f} min"
    sign = ("⠒ has  ┄ told" if canvas.unicode else "- has  ~ told").split("  ")
    title = rule(f"{words} of {brief(top)} at most; {', '.join(sign)}", canvas)
    inner = replace(canvas, height=canvas.height - 1)
    drawn = plot(points, history.decisions(guest.id, seen.wall), span, top, inner)
    return [title, *drawn][: canvas.height]


def rule(title: str, canvas: Canvas) -> Line:
    """Draw a line across, with a title in it."""
    dash = "─" if canvas.unicode else "-"
    title = cut(safe(title), canvas.width - 6, canvas.more)
    rest = canvas.width - cells(title) - 4
    return (Span(dash * 2 + " ", "dim"), Span(title, "bold"), Span(" " + dash * rest, "dim"))


def decided(decision: Decision) -> Line:
    """Write one decision of the past."""
    told = decision.explanation
    move = brief(told.actual) + ("" if told.target is None else f" → {brief(told.target)}")
    return (
        Span(f" {clock(decision.time)} ", "dim"),
        Span(f"{decision.state} {told.verdict}  {move}  "),
        Span(safe(told.reason), "dim"),
    )


def _terms(guest: Figures, seen: Round) -> Iterator[str]:
    if seen.plan is None:
        yield f"state {safe(guest.state)}"
        yield f"costs {brief(guest.cost)}"
        return
    told = next((each for each in seen.plan.guests if each.guest == guest.id), None)
    if told is None:
        return
    yield f"works with {brief(told.working)}"
    yield f"wants {brief(told.demand)}"
    yield f"entitled {brief(told.entitlement)}"
    yield f"minimum {brief(told.minimum)}"
    yield f"costs {brief(guest.cost)}"
    yield f"limit: {told.bound}"


def _all_terms(guest: Figures, seen: Round) -> Iterator[tuple[str, str]]:
    reading = next((each for each in seen.snapshot.guests if each.id == guest.id), None)
    told = None
    if seen.plan is not None:
        told = next((each for each in seen.plan.guests if each.guest == guest.id), None)
    if reading is None or told is None or seen.plan is None:
        yield "state", guest.state
        yield "note", guest.reason or UNKNOWN
        for label, size in _sizes(guest):
            yield label, brief(size)
        return
    why = Why(
        guest=guest.id,
        time=seen.wall,
        state=seen.plan.state,
        reason=seen.plan.reason,
        reading=reading,
        explanation=told,
        pin=guest.pin,
    )
    yield from why_rows(why)


def _sizes(guest: Figures) -> Sequence[tuple[str, Bytes | None]]:
    return (
        ("maximum", guest.maximum),
        ("actual", guest.actual),
        ("used", guest.used),
        ("cache", guest.cache),
        ("free", guest.free),
        ("costs the host", guest.cost),
    )
