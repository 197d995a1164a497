"""The pages as HTML: the host, one guest, decisions, merging. Pure.

Rules of this file:
    The words are those of the command line and of virt-manager: *current* and *maximum allocation*,
    what the guest uses beside what it costs the host. Nothing is told by colour alone. No element
    has a style of its own: the policy of `fences.POLICY` forbids it. Bars are SVG.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from qmpmem.model.escapes import printable
from qmpmem.serve import small_plots
from qmpmem.serve.host_page import HostPage, Row, Sort, order
from qmpmem.serve.html import Markup, tag
from qmpmem.units import format_size
from qmpmem.view.rows import UNKNOWN, size

HEADERS: Final[Sequence[tuple[str, Sort, str]]] = (
    ("Guest", "name", ""),
    ("State", "attention", ""),
    ("Memory", "attention", "barcell"),
    ("Current allocation", "current", "num"),
    ("Maximum allocation", "maximum", "num"),
    ("Used by guest", "used", "num"),
    ("Costs host", "cost", "num"),
    ("10 min", "attention", "spark"),
)


class Frame:
    """What stands around the content of every page.

    Args:
        host: the host's name.
        files: a word in the addresses of style sheet and script: `shipped.mark`.
        can_change: whether this visitor may change something.
        has_token: whether any visitor may.
    """

    def __init__(self, host: str, files: str, *, can_change: bool, has_token: bool) -> None:
        self.host = host
        self.files = files
        self.can_change = can_change
        self.has_token = has_token

    def page(
        self, title: str, shown: HostPage | None, content: str, *, current: str, mark: str
    ) -> bytes:
        """Write a whole page.

        Args:
            title: for the browser.
            shown: the last round.
            content: below the head.
            current: the path of the page.
            mark: by which the page is sent what is newer.
        """
        head = tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
            tag("title", f"{title} · {self.host} · qmpmem"),
            tag("link", rel="icon", href="/static/icon.svg"),
            tag("link", rel="stylesheet", href=f"/static/page.css?{self.files}"),
            tag("link", rel="stylesheet", href=f"/static/plot.css?{self.files}"),
            tag("script", src=f"/static/page.js?{self.files}", defer=True),
        )
        body = tag(
            "body",
            tag("a", "To the content", class_="skip", href="#content"),
            self._header(shown, current),
            tag("main", content, id="content", data_mark=mark, data_path=current),
        )
        text = f"<!doctype html>{tag('html', head, body, lang='en')}"
        return text.encode("utf-8", "replace")

    def _header(self, shown: HostPage | None, current: str) -> Markup:
        links = (
            ("/", "Guests"),
            ("/host", "Host"),
            ("/decisions", "Decisions"),
            ("/ksm", "Merging"),
            ("/try", "Try a policy"),
        )
        access = tag("a", "Sign in", href="/login") if self.has_token else None
        if self.can_change:
            access = post("/logout", tag("button", "Sign out", class_="plain"))
        return tag(
            "header",
            tag("h1", self.host),
            top(shown),
            tag(
                "nav",
                *(
                    tag("a", words, href=path, aria_current="page" if path == current else None)
                    for path, words in links
                ),
                aria_label="Pages",
            ),
            tag("span", "not live: without JavaScript", id="live", class_="live"),
            self._hold(shown) if self.can_change else None,
            access,
        )

    def _hold(self, shown: HostPage | None) -> Markup:
        holds = shown is not None and shown.hold
        words, path = ("Go on", "/release") if holds else ("Hold", "/hold")
        about = "Let the agent take memory again" if holds else "Take nothing from any guest"
        return post(path, tag("button", words, class_="plain", title=about))


def post(path: str, *content: str) -> Markup:
    """Write a form that changes something."""
    return tag("form", *content, method="post", action=path, class_="inline")


def notice(words: str, *content: str) -> Markup:
    """Write what was refused, and why; it is read out as the page is opened."""
    return tag("section", tag("p", printable(words), role="alert"), *content, class_="notice")


def top(shown: HostPage | None) -> Markup:
    """Write the host's state, which is read out when it changes."""
    state = "unknown" if shown is None or shown.state is None else shown.state
    return tag(
        "div",
        tag("span", state, id="state", class_=f"chip {state}", aria_live="polite"),
        tag("span", *_top_words(shown), class_="dim"),
        id="top",
    )


def _top_words(shown: HostPage | None) -> Iterator[str]:
    if shown is None:
        yield "no round has been seen yet"
        return
    if shown.problem is not None:
        yield f"{printable(shown.problem)}; shown is what the guests say"
    if shown.available is not None and shown.reserve:
        yield f"{shown.available / shown.reserve:.2f} times the reserve is available"
    if shown.hold:
        yield " · held: nothing is taken from any guest"
    if shown.dry_run:
        yield " · dry run: nothing is changed"


def tiles(shown: HostPage) -> Markup:
    """Write the answers that people come for."""
    return tag(
        "div",
        _tile("Room", *_room(shown)),
        _tile(
            "Available / reserve",
            f"{size(shown.available)} / {size(shown.reserve)}",
            f"for guests {size(shown.budget)} · they have {format_size(shown.held)}",
        ),
        _tile("Pressure", *_pressure(shown)),
        _tile("Merged", *_merged(shown)),
        id="tiles",
        class_="tiles",
    )


def _tile(name: str, words: str, small: str = "") -> Markup:
    return tag("section", tag("h2", name), tag("p", words, tag("small", small) if small else None))


def _room(shown: HostPage) -> tuple[str, str]:
    room = shown.room
    if room is None:
        return UNKNOWN, "no agent says what there is to spare"
    guests = "guest" if room.now == 1 else "guests"
    words = f"{room.now} more {guests} of {format_size(room.size)}"
    leased = (
        f" · {format_size(shown.leased)} kept for guests about to start" if shown.leased else ""
    )
    return words, f"{room.could} with what the others could give{leased}"


def _pressure(shown: HostPage) -> tuple[str, str]:
    swap = f"swap {size(shown.swap_used)} of {size(shown.swap_total)}"
    if not shown.swap_total:
        swap = "no swap"
    if shown.some is None:
        return UNKNOWN, f"this kernel does not tell · {swap}"
    full = "" if shown.full is None else f" · {shown.full:.1f} % all"
    return f"{shown.some:.1f} % some{full}", f"of the time, tasks wait for memory · {swap}"


def _merged(shown: HostPage) -> tuple[str, str]:
    if shown.saved is None:
        return UNKNOWN, "this kernel does not merge pages"
    return f"{format_size(shown.saved)} saved", f"{shown.merges} · after costs {size(shown.profit)}"


def table(shown: HostPage, rows: Iterable[Markup], by: Sort) -> Markup:
    """Write the guests."""
    heads = (_head(words, key, class_, by) for words, key, class_ in HEADERS)
    legend = (tag("span", tag("i", class_=name), words) for name, words in small_plots.PARTS)
    return tag(
        "section",
        tag(
            "div",
            tag(
                "label",
                "Show guests with ",
                tag(
                    "input",
                    id="filter",
                    type="search",
                    placeholder="a name or a state",
                    disabled=True,
                ),
            ),
            class_="tools",
        ),
        tag(
            "table",
            tag("caption", "Guests and their memory", class_="hidden"),
            tag("thead", tag("tr", *heads)),
            tag("tbody", *rows, id="guests"),
        ),
        tag(
            "div",
            *legend,
            tag("span", tag("i", class_="tick"), "told to go there"),
            tag("span", count(shown), id="count"),
            class_="legend",
        ),
        class_="guests",
    )


def count(shown: HostPage) -> str:
    """Write how many guests there are."""
    guests = "guest" if len(shown.rows) == 1 else "guests"
    return f"{len(shown.rows)} {guests} · a bar is the guest's maximum"


def _head(words: str, key: Sort, class_: str, by: Sort) -> Markup:
    is_link = words not in ("Memory", "10 min")
    sorts = None
    if is_link and key == by:
        sorts = "ascending" if by in ("name", "attention") else "descending"
    link = tag("a", words, href=f"/?sort={key}") if is_link else words
    return tag("th", link, scope="col", class_=class_ or None, aria_sort=sorts)


def guest_row(row: Row, points: Sequence[float | None]) -> Markup:
    """Write one guest as a row of the table."""
    return tag(
        "tr",
        tag("th", tag("a", printable(row.name), href=f"/guest/{row.id}"), scope="row"),
        tag("td", chip(row)),
        tag("td", bar_of(row), class_="barcell"),
        _cell("Current allocation", tag("span", size(row.actual), told(row), pinned(row))),
        _cell("Maximum allocation", size(row.maximum), class_="num dim"),
        _cell("Used by guest", *used(row)),
        _cell("Costs host", size(row.cost), class_="num dim"),
        tag("td", small_plots.spark(points), class_="spark"),
        id=f"guest-{row.id}",
        data_words=printable(f"{row.name} {row.id} {row.verdict or ''} {row.state}").lower(),
    )


def _cell(label: str, *content: str | None, class_: str = "num") -> Markup:
    return tag("td", *content, class_=class_, data_label=label)


def chip(row: Row) -> Markup:
    """Write what the agent takes a guest for, with the reason."""
    word = row.state if row.verdict is None or row.state != "running" else row.verdict
    return tag("span", printable(word), class_=f"chip {_safe(word)}", title=printable(row.reason))


def _safe(word: str) -> str:
    return word if word.isascii() and word.replace("-", "").isalnum() else "other"


def told(row: Row) -> Markup | None:
    """Write where a guest is told to go; None: it is told nothing."""
    if row.target is None:
        return None
    return tag("span", f" → {format_size(row.target)}", class_="to")


def pinned(row: Row) -> Markup | None:
    """Write that a guest is pinned; None: it is not."""
    return None if row.pin is None else tag("span", " pinned", class_="dim")


def used(row: Row) -> Iterator[str]:
    """Write what a guest uses, or why that is not known."""
    if row.silent is not None:
        yield tag("span", f"silent {row.silent:.0f} s", class_="old")
    elif row.waits:
        yield tag("span", "waiting", class_="dim")
    else:
        yield size(row.used)


def bar_of(row: Row) -> Markup:
    """Draw a guest's bar, or say why there is none."""
    if row.bar is None:
        words = "does not report" if row.silent is not None else "not known"
        return tag("div", words, class_="bar unknown")
    return small_plots.bar(row.bar)


def ordered(shown: HostPage, by: Sort) -> list[str]:
    """Return the ids of guests as the table has them."""
    return [each.id for each in order(list(shown.rows.values()), by)]
