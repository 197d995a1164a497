"""The page of one guest, and lists of decisions and of values, as HTML. Pure."""

import time
from collections.abc import Iterable, Iterator

from qmpmem.api.records import Why
from qmpmem.feed.records import Round
from qmpmem.ksm import verdict
from qmpmem.model.escapes import printable
from qmpmem.records import Record
from qmpmem.serve import pages, small_plots
from qmpmem.serve.host_page import Row
from qmpmem.serve.html import Markup, join, tag
from qmpmem.serve.recent_past import Decision
from qmpmem.units import MIB, format_size
from qmpmem.view.agent import why_rows
from qmpmem.view.rows import number, size


class Told(Record, frozen=True):
    """What the page of a guest shows beside its row."""

    why: Why | None = None
    problem: str | None = None
    """Why there is no `why`."""
    can_change: bool = False
    size: str = ""
    """What stands in the field for the size."""
    says: str = ""
    """What would come of the size, or of what was asked for last."""
    checked: bool = False
    """Whether the size may be asked for now."""


def content(row: Row, told: Told, past: Markup) -> Markup:
    """Write a guest's own page.

    Args:
        row: the guest now.
        told: what else is known.
        past: its plot.
    """
    return join(
        tag(
            "section",
            tag("h2", printable(row.name), " ", pages.chip(row)),
            tag("p", printable(row.reason), class_="why") if row.reason else None,
            pages.bar_of(row),
            _facts(row),
            id="guest",
            class_="follows",
        ),
        tag(
            "div",
            tag("div", past, _last(told.why)),
            tag("div", form(row, told) if told.can_change else None, _reasons(told)),
            class_="columns",
        ),
    )


def _facts(row: Row) -> Markup:
    """Write a guest's sizes, in the words of the table of all guests."""
    current = (size(row.actual), pages.told(row), pages.pinned(row))
    found: tuple[tuple[str, tuple[str | None, ...]], ...] = (
        ("Current allocation", current),
        ("Maximum allocation", (size(row.maximum),)),
        ("Used by guest", tuple(pages.used(row))),
        ("Costs host", (size(row.cost),)),
    )
    facts = (tag("div", tag("dt", name), tag("dd", *words)) for name, words in found)
    return tag("dl", *facts, class_="facts")


def _reasons(told: Told) -> Markup:
    return tag(
        "section", tag("h2", "Why"), *_why(told.why, told.problem), id="why", class_="follows"
    )


def _last(why: Why | None) -> Markup:
    return tag(
        "section", tag("h2", "Last decisions"), *_decided(why), id="decided", class_="follows"
    )


def form(row: Row, told: Told) -> Markup:
    """Write what may be changed: the button that changes works after a look.

    The slider is for a script, which has it and the field say the same.
    """
    said = told.why
    floor = None if said is None else said.explanation.minimum
    entitled = None if said is None else said.explanation.entitlement
    known = [("minimum", floor), ("entitled to", entitled), ("maximum", row.maximum)]
    marks = [(f"{name} {format_size(each)}", each) for name, each in known if each is not None]
    size_now = told.size or ("" if row.actual is None else f"{row.actual // MIB}M")
    path = f"/guest/{row.id}"
    return tag(
        "section",
        tag("h2", "Change"),
        tag(
            "form",
            tag("label", "Current allocation", for_="size"),
            tag(
                "div",
                tag(
                    "div",
                    tag(
                        "input",
                        type="range",
                        id="slider",
                        min=0,
                        max=(row.maximum or 0) // MIB,
                        value=(row.actual or 0) // MIB,
                        aria_label="Current allocation in MiB",
                    ),
                    small_plots.scale(marks, row.maximum),
                    id="slide",
                    hidden=True,
                ),
                tag("input", type="text", id="size", name="size", value=size_now, required=True),
                class_="row",
            ),
            tag("p", ", ".join(words for words, _ in marks), id="marks", class_="dim"),
            tag(
                "p",
                told.says,
                id="says",
                class_="says old" if told.says and not told.checked else "says",
                role="status",
            ),
            tag(
                "div",
                tag("button", "What would happen?", class_="plain", formaction=f"{path}/check"),
                tag("button", "Pin", id="pin", formaction=f"{path}/pin", disabled=not told.checked),
                None
                if row.pin is None
                else tag(
                    "button",
                    "Unpin",
                    class_="plain",
                    formaction=f"{path}/unpin",
                    formnovalidate=True,
                ),
                class_="row",
            ),
            method="post",
            action=f"{path}/check",
            id="change",
        ),
    )


def _why(why: Why | None, problem: str | None) -> Iterator[Markup]:
    if why is None:
        yield tag("p", printable(problem or "not known"))
        return
    yield tag(
        "dl",
        *(
            tag(name, text)
            for pair in why_rows(why)
            for name, text in zip(("dt", "dd"), pair, strict=True)
        ),
    )


def _decided(why: Why | None) -> Iterator[Markup]:
    found = () if why is None else why.decisions
    if not found:
        yield tag("p", "none yet", class_="dim")
        return
    yield tag(
        "ol",
        *(
            tag(
                "li",
                moment(each.time),
                f" {each.state} {each.explanation.verdict}: {size(each.explanation.actual)}",
                ""
                if each.explanation.target is None
                else f" → {format_size(each.explanation.target)}",
                f": {printable(each.explanation.reason)}",
            )
            for each in reversed(found)
        ),
        class_="log",
    )


def decisions(found: Iterable[Decision]) -> Markup:
    """Write the last decisions about all guests, the latest first."""
    lines = [
        tag(
            "li",
            moment(each.wall),
            f" {each.state} ",
            tag("a", printable(each.name), href=f"/guest/{each.guest}"),
            f" {size(each.before)} → {format_size(each.target)}: {printable(each.reason)}",
        )
        for each in found
    ]
    empty = tag("p", "none yet", class_="dim")
    return tag(
        "section",
        tag("h2", "Decisions"),
        tag("ol", *reversed(lines), class_="log") if lines else empty,
        id="decisions",
        class_="follows",
    )


def pairs(title: str, found: Iterable[tuple[str, str]]) -> Markup:
    """Write labels and values."""
    cells = (
        tag(name, text) for pair in found for name, text in zip(("dt", "dd"), pair, strict=True)
    )
    return tag("section", tag("h2", title), tag("dl", *cells), id="values", class_="follows")


def merging(seen: Round) -> Iterator[tuple[str, str]]:
    """Yield what merging of equal pages does for the host: pairs of label and value."""
    state = seen.snapshot.ksm
    if state is None:
        return
    found = verdict.judge(state)
    yield "verdict", f"{found.word}: {found.why}"
    yield "saved", format_size(verdict.saved(state))
    yield "after costs", format_size(verdict.profit(state))
    if seen.plan is not None:
        yield "comes back if all is written to", format_size(seen.plan.debt)
    yield "full scans", number(state.full_scans)
    yield "pages kept for many (pages_shared)", number(state.pages_shared)
    yield "pages saved by those (pages_sharing)", number(state.pages_sharing)
    yield "pages with no equal (pages_unshared)", number(state.pages_unshared)
    yield "pages that change too often (pages_volatile)", number(state.pages_volatile)
    if seen.snapshot.ksmd is not None:
        yield "processor time of ksmd", f"{seen.snapshot.ksmd:.0f} s"


def moment(wall: float) -> Markup:
    """Write a time of the day, which a script may write in the reader's own time zone."""
    local = time.localtime(wall)
    return tag(
        "time",
        time.strftime("%H:%M:%S", local),
        datetime=time.strftime("%Y-%m-%dT%H:%M:%S%z", local),
    )
