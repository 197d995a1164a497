"""The terminal: the only module that imports textual.

Theory of operation:
    One widget shows the lines of a `Frame` (textual's line API). What differs of a line from what
    is there is sent to the terminal, so a host on which little happens costs little, however
    many guests it has: textual's DataTable costs as much as there are cells, seen or not.
"""

import asyncio
from collections.abc import Coroutine, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final

from rich.segment import Segment
from rich.style import Style as Look
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from qmpmem.errors import ConfigError
from qmpmem.records import replace
from qmpmem.top import keys, settings
from qmpmem.top.change_dialog import Order
from qmpmem.top.changes import changed
from qmpmem.top.keys import Check, Command, Do, Jump, Live, Pause, Quit, Save, Step
from qmpmem.top.screen import Frame, frame
from qmpmem.top.session import Session, Sources
from qmpmem.top.text import Canvas, Line, Style
from qmpmem.top.view_state import View

PULSE: Final = 1.0
"""Seconds after which the clock on the screen goes on, where no round comes."""
DEBOUNCE: Final = 0.2
"""Seconds without a key after which the agent is asked about what was typed."""

COLOURED: Final[Mapping[Style, str]] = {
    "plain": "",
    "bold": "bold",
    "dim": "dim",
    "good": "green",
    "warn": "yellow",
    "bad": "bold red",
    "cache": "blue",
    "free": "cyan",
    "mark": "bold magenta",
    "head": "bold underline",
    "chosen": "reverse",
    "past": "bold reverse",
}
"""Looks of styles, of the 16 colours of a terminal, which its own theme sets."""


class Options:
    """How a screen begins.

    Args:
        sources: where rounds are from.
        view: what is shown at first.
        path: the file that keeps the settings.
        unicode: whether the terminal has block elements and braille.
        at: a time of the past to begin with, as people write it; None: now.
    """

    def __init__(
        self, sources: Sources, view: View, path: Path, *, unicode: bool, at: str | None = None
    ) -> None:
        self.sources = sources
        self.view = view
        self.path = path
        self.unicode = unicode
        self.at = at


class Lines(ScrollView):
    """The screen: lines that are drawn elsewhere."""

    DEFAULT_CSS = """
    Lines { overflow: hidden; background: ansi_default; color: ansi_default; }
    """
    can_focus = True

    def __init__(self) -> None:
        super().__init__()
        self.lines: tuple[Line, ...] = ()

    def put(self, lines: tuple[Line, ...]) -> None:
        """Show other lines; columns that are the same are left alone."""
        before, self.lines = self.lines, lines
        if len(before) != len(lines):
            self.refresh()
            return
        pairs = enumerate(zip(before, lines, strict=True))
        differ = [(y, changed(old, new, self.size.width)) for y, (old, new) in pairs if old != new]
        regions = [Region(begin, y, end - begin, 1) for y, found in differ for begin, end in found]
        if regions:  # without any, all of it would be drawn
            self.refresh(*regions)

    def render_line(self, y: int) -> Strip:
        """Return one line for textual."""
        line = self.lines[y] if y < len(self.lines) else ()
        segments = [Segment(text, LOOKS[style]) for text, style in line]
        return Strip(segments).adjust_cell_length(self.size.width)


LOOKS: Final[Mapping[Style, Look]] = {
    style: Look.parse(words) if words else Look() for style, words in COLOURED.items()
}


class Top(App[None]):
    """`qmpmem top` on a terminal.

    Args:
        options: how it begins.
    """

    CSS = "Screen { background: ansi_default; }"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", show=False, priority=True),
    ]

    def __init__(self, options: Options) -> None:
        super().__init__(ansi_color=True)
        self._options = options
        self.session = Session(options.sources, self.draw)
        self.view = options.view
        self._lines = Lines()
        self._frame = Frame(lines=())
        self._travels: asyncio.Queue[Step | Jump | Live | Pause] = asyncio.Queue()
        self._check: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.failure: BaseException | None = None
        """What ended the program; None: the user did."""

    def compose(self) -> ComposeResult:
        """Yield the widgets for textual."""
        yield self._lines

    def on_mount(self) -> None:
        """Begin: rounds, the clock, journeys in time."""
        self._lines.focus()
        self._begin(self.session.run())
        self._begin(self.session.read_history())
        self._begin(self._travel())
        if self._options.at is not None:
            self._travels.put_nowait(Jump(text=self._options.at))
        self.set_interval(PULSE, self.session.tick)
        self.draw()

    def draw(self) -> None:
        """Show the present state."""
        if self.is_running and self.failure is None:
            with self._supervised():
                self._draw()

    @contextmanager
    def _supervised(self) -> Generator[None]:
        """End after a mistake of ours in one line; textual would show all values that it meets."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the one boundary around what a key may do
            self.failure = error
            self.exit()

    def _draw(self) -> None:
        size = self.size
        canvas = Canvas(width=size.width, height=size.height, unicode=self._options.unicode)
        self._frame = frame(self.session.scene, self.view, canvas)
        self.view = replace(self.view, first=self._frame.first)
        self._lines.virtual_size = Size(size.width, size.height)
        self._lines.put(self._frame.lines)

    def on_resize(self, _event: events.Resize) -> None:
        """Draw for another size."""
        self.draw()

    def on_key(self, event: events.Key) -> None:
        """Take a key."""
        event.stop()
        event.prevent_default()
        key = event.character if event.is_printable and event.character else event.key
        self.press(key)

    def on_click(self, event: events.Click) -> None:
        """Choose the guest that was clicked on."""
        guest = self._frame.guests.get(event.screen_y)
        if guest is not None:
            self.view = keys.clicked(self.view, guest)
            self.draw()

    def on_mouse_scroll_down(self, _event: events.MouseScrollDown) -> None:
        """Go down the guests."""
        self.press("down")

    def on_mouse_scroll_up(self, _event: events.MouseScrollUp) -> None:
        """Go up the guests."""
        self.press("up")

    def press(self, key: str) -> None:
        """Do what a key does."""
        with self._supervised():
            self._press(key)

    def _press(self, key: str) -> None:
        scene = replace(self.session.scene, page=self._frame.page)
        self.view, command = keys.press(self.view, key, scene)
        self.draw()
        if command is not None:
            self._run(command)

    def _run(self, command: Command) -> None:
        match command:
            case Quit():
                self.exit()
            case Save():
                self._begin(self._save())
            case Check(order=order):
                if self._check is not None:
                    self._check.cancel()
                self._check = self._begin(self._ask(order))
            case Do(order=order):
                self._begin(self._do(order))
            case _:
                self._travels.put_nowait(command)

    async def _travel(self) -> None:
        """Go through time, one journey after the other; steps that wait become one."""
        while True:
            where = await self._travels.get()
            while isinstance(where, Step) and not self._travels.empty():
                following = self._travels.get_nowait()
                if isinstance(following, Step) and bool(where.rounds) == bool(following.rounds):
                    where = Step(
                        rounds=where.rounds + following.rounds,
                        seconds=where.seconds + following.seconds,
                    )
                else:
                    where = following
            said = await self.session.travel(where)
            self._say(said, is_error=False)

    async def _ask(self, order: Order) -> None:
        await asyncio.sleep(DEBOUNCE)
        said, is_refused = await self.session.check(order)
        self.view = keys.checked(self.view, order, said, is_refused=is_refused)
        self.draw()

    async def _do(self, order: Order) -> None:
        if order.kind == "reserve":
            self._say("making room ...", is_error=False)
        said, is_error = await self.session.do(order)
        self._say(said, is_error=is_error)

    async def _save(self) -> None:
        try:
            await asyncio.to_thread(settings.save, self._options.path, self.view.settings)
        except ConfigError as error:
            self._say(error.message, is_error=True)
        else:
            self._say(f"kept in {self._options.path}", is_error=False)

    def _say(self, text: str, *, is_error: bool) -> None:
        if text:
            self.view = replace(self.view, message=text, is_error=is_error)
        self.draw()

    def _begin(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Start a task; its failure ends the program."""
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = error
            self.exit()
