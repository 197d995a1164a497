"""The chapters of the manual as text for a terminal, and as Markdown for manual pages. Pure.

Theory of operation:
    The chapters are Markdown, as GitHub shows it: headings, paragraphs, lists, tables, fenced code.
    `parse` knows no more than that, and a test checks that the chapters have no more. A table whose
    rows fit the width stays a table. A wider one becomes a list of terms, with the other columns
    below each.
"""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from qmpmem.records import Record

WIDTH: Final = 80
"""Most columns, as on a terminal of the usual size."""
INDENT: Final = 4

_FENCE: Final = "```"
_BREAK: Final = "  \n  "
"""The end of a line within a paragraph of Markdown."""
_CELLS: Final = re.compile(r"(?<!\\)\|")
_RULE: Final = re.compile(r"\|(?:-+\|)+")
_LINK: Final = re.compile(r"!?\[([^\]]*)\]\(([^)]*)\)")
_ASIDE: Final = re.compile(r"\(\[[^\]]*\]\((\w+)\.md\)\)")
"""A link to a chapter, and nothing else, in parentheses."""


class Heading(Record, frozen=True):
    """A heading; level 1 is the chapter's title."""

    level: int
    text: str


class Paragraph(Record, frozen=True):
    """Text, in one line."""

    text: str


class Bullets(Record, frozen=True):
    """A list; each item is one line."""

    items: tuple[str, ...]


class Code(Record, frozen=True):
    """Lines that stay as they are."""

    lines: tuple[str, ...]


class Table(Record, frozen=True):
    """A table, as cells without the blanks around them."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Block = Heading | Paragraph | Bullets | Code | Table


def summary(source: str) -> str:
    """Return the first paragraph of a chapter: what it is about, in one line."""
    return next(block.text for block in parse(source) if isinstance(block, Paragraph))


def parse(source: str) -> Iterator[Block]:
    """Split a chapter into its blocks; comments and pictures are left out."""
    lines = source.splitlines()
    while lines:
        if not lines[0].strip():
            del lines[0]
        elif lines[0].startswith(_FENCE):
            end = lines.index(_FENCE, 1)
            yield Code(lines=tuple(lines[1:end]))
            del lines[: end + 1]
        else:
            end = next((n for n, line in enumerate(lines) if _ends(line)), len(lines))
            yield from _block(lines[:end])
            del lines[:end]


def _ends(line: str) -> bool:
    """Tell whether a block of text ends before this line."""
    return not line.strip() or line.startswith(_FENCE)


def _block(lines: Sequence[str]) -> Iterator[Block]:
    first = lines[0]
    if first.startswith("#"):
        marks, _, text = first.partition(" ")
        yield Heading(level=len(marks), text=text)
    elif first.startswith("* "):
        items = re.split(r"(?:^|\n)\* ", "\n".join(lines))[1:]
        yield Bullets(items=tuple(_line(item) for item in items))
    elif first.startswith("|"):
        head, rule, *rows = lines
        if not _RULE.fullmatch(rule):
            raise ValueError(f"expected a rule of a table such as |---|---|, got {rule!r}")
        yield Table(head=_cells(head), rows=tuple(map(_cells, rows)))
    elif not first.startswith(("<!--", "![")):
        yield Paragraph(text=_line("\n".join(lines)))


def _line(text: str) -> str:
    return " ".join(text.split())


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip().replace("\\|", "|") for cell in _CELLS.split(line)[1:-1])


def as_text(source: str, *, width: int = WIDTH, bold: bool = False) -> str:
    """Write a chapter for a terminal.

    Args:
        source: the chapter, as Markdown.
        width: columns; code is never broken, and may be wider.
        bold: whether headings are marked, as a terminal shows it.
    """
    parts = ("\n".join(_text(block, width, bold=bold)) for block in parse(source))
    return "\n\n".join(parts) + "\n"


def _text(block: Block, width: int, *, bold: bool) -> Iterator[str]:
    match block:
        case Heading(level=level, text=text):
            shown = text.upper() if level == 1 else text
            yield f"\x1b[1m{shown}\x1b[0m" if bold else shown
            if not bold:
                yield ("=" if level == 1 else "-") * len(shown)
        case Paragraph(text=text):
            yield _wrapped(text, width)
        case Bullets(items=items):
            for item in items:
                yield _wrapped(item, width, first="  * ", rest="    ")
        case Code(lines=lines):
            fits = max(map(len, lines), default=0) + INDENT <= width
            yield from (f"{' ' * INDENT * fits}{line}".rstrip() for line in lines)
        case Table():
            yield from _table(block, width)


def _table(table: Table, width: int) -> Iterator[str]:
    if _fits(_widths(table), width):
        yield from _side_by_side(table)
        return
    for count, row in enumerate(table.rows):
        if count:
            yield ""
        yield _wrapped(row[0], width)
        margin = " " * INDENT
        for text in _described(table.head, row):
            yield _wrapped(text, width, first=margin, rest=margin)


def _widths(table: Table) -> tuple[int, ...]:
    """Return how wide each column is when no cell is broken."""
    return tuple(
        max(len(_plain(cell)) for cell in column)
        for column in zip(table.head, *table.rows, strict=True)
    )


def _fits(columns: Sequence[int], width: int) -> bool:
    return sum(columns) + 2 * (len(columns) - 1) <= width


def _side_by_side(table: Table) -> Iterator[str]:
    columns = _widths(table)
    rule = tuple("-" * each for each in columns)
    for row in (table.head, rule, *table.rows):
        yield "  ".join(map(str.ljust, map(_plain, row), columns)).rstrip()


def _described(head: Sequence[str], row: Sequence[str]) -> Iterator[str]:
    """Yield a row's other cells, which describe the first; several have their headings."""
    names = (f"{_plain(name)}: " if len(row) > 2 else "" for name in head[1:])  # noqa: PLR2004
    yield from (f"{name}{cell}" for name, cell in zip(names, row[1:], strict=True) if cell)


def _plain(text: str) -> str:
    """Return a text in which each link has its words, and the chapter to which it leads."""
    return _LINK.sub(_named, _ASIDE.sub(r"(qmpmem help \1)", text))


def _named(link: re.Match[str]) -> str:
    text, target = link.groups()
    topic, is_chapter, _ = target.partition(".md")
    if is_chapter and "/" not in topic:
        return f"{text} (qmpmem help {topic})"
    return f"{text} ({target})" if "://" in target else text


def _wrapped(text: str, width: int, *, first: str = "", rest: str = "") -> str:
    return textwrap.fill(
        _plain(text),
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def as_page(source: str, name: str, section: int, pages: Iterable[tuple[str, str]]) -> str:
    """Return a chapter as the Markdown of which go-md2man makes a manual page.

    Args:
        source: the chapter.
        name: the name of the page, such as ``qmpmem-agent``.
        section: the section of the manual.
        pages: each other chapter's topic, and the name of its page, as in ``qmpmem-ksm(1)``.
    """
    called = dict(pages)
    _, about, *blocks = parse(source)
    parts = [f"% {name} {section}", f"# NAME\n\n{name} - {_paged(_about(about), called)}"]
    if blocks and not isinstance(blocks[0], Heading):
        parts.append("# DESCRIPTION")
    parts += [_paged(_markdown(block), called) for block in blocks]
    parts.append("# SEE ALSO\n\n" + ", ".join(f"**{each}**" for each in sorted(called.values())))
    return "\n\n".join(parts) + "\n"


def _about(block: Block) -> str:
    if not isinstance(block, Paragraph):
        raise TypeError("expected a paragraph that says what the chapter is about")
    return block.text.removesuffix(".")


def _markdown(block: Block) -> str:
    match block:
        case Heading(level=level, text=text):
            return f"{'#' * (level - 1)} {text}"
        case Paragraph(text=text):
            return text
        case Bullets(items=items):
            return "\n".join(f"* {item}" for item in items)
        case Code(lines=lines):
            return "\n".join((_FENCE, *lines, _FENCE))
        case Table() if _fits(_widths(block), WIDTH - 8):
            return "\n".join((_FENCE, *_side_by_side(block), _FENCE))
        case Table(head=head, rows=rows):
            terms = (f"{row[0]}\n: " + _BREAK.join(_described(head, row)) for row in rows)
            return "\n\n".join(terms)


def _paged(text: str, called: dict[str, str]) -> str:
    """Have links to chapters name their pages."""

    def named(link: re.Match[str]) -> str:
        words, target = link.groups()
        page = called.get(target.partition(".md")[0])
        return f"{words} (see {page})" if page else words

    return _LINK.sub(named, _ASIDE.sub(lambda link: f"(see {called[link[1]]})", text))
