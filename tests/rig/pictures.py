"""The pictures of README.md, made again by ``make pictures``: the page, and `qmpmem top`.

Both show the host of `tests.rig.fleet` at the end of its story. The page is as Chromium draws it;
the terminal's screen is written as SVG here, out of the lines of the program.
"""

import asyncio
import html
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qmpmem.feed import Round, round_of
from qmpmem.top.screen import frame
from qmpmem.top.text import Canvas, Line, Style, cells
from qmpmem.top.view_state import Settings, View
from tests.rig import fleet, picture
from tests.rig.agent import Office, own_listener
from tests.rig.browser import browser, window
from tests.rig.page import served
from tests.rig.qemu import short_directory
from tests.rig.screens import scene

DIRECTORY: Final = Path(__file__).parents[1] / "data"
PAGE: Final = DIRECTORY / "page.png"
TOP: Final = DIRECTORY / "top.svg"
LARGEST: Final = 150 * 1024
"""Bytes of a picture."""
WIDTH: Final = 1180
"""Pixels of the window of the page."""
HEIGHT: Final = 590

END: Final = 1_800_007_200.0
"""When the story ends on the screen of `qmpmem top`: ten o'clock in UTC."""
SCREEN: Final = Canvas(width=96, height=22)
CELL: Final = 8.4
"""Pixels of a letter of 14 pixels, in most monospaced fonts."""
LINE: Final = 18
MARGIN: Final = 12
PAPER: Final = "#161b24"
INK: Final = "#e3e8f0"
COLOURS: Final[dict[Style, str]] = {
    "dim": "#98a4b7",
    "good": "#5fd08f",
    "warn": "#f0b357",
    "bad": "#ff8a90",
    "cache": "#5b93f0",
    "free": "#4cb8c4",
    "mark": "#ff6b9a",
    "chosen": PAPER,
}
BOLD: Final[frozenset[Style]] = frozenset({"bold", "bad", "mark", "head"})


def top() -> str:
    """Draw the screen of `qmpmem top`; its clock is that of the time zone of this process."""
    rounds = [_round(tick_at) for tick_at in range(-598, 1, 2)]
    lines = frame(scene(rounds), View(settings=Settings(pane="why")), SCREEN).lines
    width, height = 2 * MARGIN + CELL * SCREEN.width, 2 * MARGIN + LINE * len(lines)
    shapes = (shape for row, line in enumerate(lines) for shape in _line(row, line))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}"'
        f' width="{width:.0f}" height="{height}" role="img" aria-label="qmpmem top"'
        ' font-family="ui-monospace,monospace" font-size="14" xml:space="preserve">'
    )
    paper = f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>'
    return "\n".join((head, paper, *shapes, "</svg>\n"))


def _round(at: int) -> Round:
    tick = fleet.tick_at(float(at), number=300 + at // 2, wall=END + at)
    return round_of(tick, "agent", END + at)


def _line(row: int, line: Line) -> Iterator[str]:
    column, top_ = 0, MARGIN + LINE * row
    for text, style in line:
        x, width = MARGIN + CELL * column, CELL * cells(text)
        column += cells(text)
        if style == "chosen":
            yield f'<rect x="{x:.1f}" y="{top_}" width="{width:.1f}" height="{LINE}" fill="{INK}"/>'
        if not text.strip():
            continue
        bold = ' font-weight="bold"' if style in BOLD else ""
        under = ' text-decoration="underline"' if style == "head" else ""
        yield (
            f'<text x="{x:.1f}" y="{top_ + 14}" fill="{COLOURS.get(style, INK)}"{bold}{under} '
            f'textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs">{html.escape(text)}</text>'
        )


async def page() -> bytes:
    """Take a picture of the page, as PNG."""
    with short_directory() as directory, own_listener(directory) as listener:
        office, journal = Office(Path("/proc/none")), directory / "journal.db"
        await asyncio.to_thread(fleet.write, journal, time.time())
        fleet.go_on(office)
        async with (
            office.open(listener) as client,
            served(client, journal=journal) as place,
            browser() as program,
            window(program, viewport={"width": WIDTH, "height": HEIGHT}) as seen,
        ):
            await seen.page.goto(f"http://localhost:{place.port}/")
            await seen.holds("document.querySelectorAll('#guests polyline').length > 3")
            fleet.go_on(office)
            await seen.holds("document.getElementById('live').textContent.startsWith('live')")
            return await seen.page.screenshot()


def main() -> None:
    """Write all of them."""
    os.environ["TZ"] = "UTC"
    time.tzset()
    TOP.write_text(top())
    picture.main()
    PAGE.write_bytes(asyncio.run(page()))


if __name__ == "__main__":
    main()
