"""What the screen shows now, and where that is from: takes in rounds and keys, and sends changes.

Theory of operation:
    Live rounds are taken in all the time, also while the screen stays at one of them or shows the
    past. So to go back to now, the last one is shown. A round of the past is read from the journal
    in a thread, and what was before it, for plots and decisions, after it is shown.
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Final

from qmpmem.api import addresses
from qmpmem.errors import ConfigError, QmpmemError
from qmpmem.feed import Lost, Past, Round, live
from qmpmem.guests import access
from qmpmem.journal.times import parse_moment
from qmpmem.library import Agent, Guest
from qmpmem.records import Record, replace
from qmpmem.top.change_dialog import KEPT, Order
from qmpmem.top.figures import Classes, shown
from qmpmem.top.header import Names, Where, clock
from qmpmem.top.history import History
from qmpmem.top.keys import Jump, Live, Pause, Step
from qmpmem.top.text import brief
from qmpmem.top.view_state import Scene
from qmpmem.units import Bytes

BEFORE: Final = 600.0
"""Seconds before a round that are read for its plot."""
AFTER: Final = 120.0
"""Seconds after a round that are read for its plot, so that a step on needs no reading anew."""
MOST: Final = 40_000
"""Most guests times rounds that are read for a plot: about half a second of one processor."""
FRESH: Final = 0.9
"""Seconds for which a screen need not be drawn again for its clock alone."""
NEAR: Final = 60.0
"""Seconds from the time that was asked for: a round farther away is not shown for it."""
NO_AGENT: Final = "no agent runs, so nothing keeps it; `qmpmem agent` starts one"

Feed = Callable[[], AsyncGenerator[Round | Lost]]
Travel = Step | Jump | Live | Pause


class Sources(Record, frozen=True):
    """Where a session has its rounds from."""

    feed: Feed
    past: Past | None = None
    """The past; None: there is no journal to be read."""
    no_past: str = "there is no journal"
    """Why there is no past."""
    classes: Classes | None = None
    read_only: bool = False


class Session:
    """What the screen shows, and how that changes.

    Args:
        sources: where rounds are from.
        changed: called when there is something else to be shown.
    """

    def __init__(self, sources: Sources, changed: Callable[[], None] = lambda: None) -> None:
        self._sources = sources
        self._changed = changed
        self._history = History()
        self._waiting: list[Round] | None = []
        """Rounds that came while those before them are read; None: they were read."""
        self._last: Round | None = None
        self._agent: str | None = None
        self._may_change = False
        self._past_history = History()
        self._window: tuple[float, float] | None = None
        self._begun = asyncio.Event()
        self.scene = Scene(
            history=self._history,
            where=Where(now=time.time()),
            names=Names(host=socket.gethostname()),
        )

    async def run(self) -> None:
        """Take in rounds, without end."""
        async with aclosing(self._sources.feed()) as news:
            async for each in news:
                if isinstance(each, Lost):
                    self._note_lost(each)
                else:
                    await self._note_round(each)

    def tick(self) -> None:
        """Let the clock of the screen go on, where no round has just done so."""
        if time.time() - self.scene.where.now < FRESH:
            return
        self._show(replace(self.scene, where=replace(self.scene.where, now=time.time())))

    async def travel(self, where: Travel) -> str:
        """Show another time.

        Returns:
            A message about that; empty: there is none.
        """
        if isinstance(where, Live) or (isinstance(where, Pause) and not self.scene.where.is_live):
            self._go_live()
            return ""
        if isinstance(where, Pause):
            self._stay(self.scene.seen)
            return "" if self.scene.seen else "there is nothing to stay at yet"
        if self._sources.past is None:
            return self._sources.no_past
        try:
            return await self._go(where, self._sources.past)
        except QmpmemError as error:
            return error.message

    async def check(self, order: Order) -> tuple[str, bool]:
        """Ask whether an order would be taken; change nothing.

        Returns:
            What the agent answers, and whether it refuses.
        """
        try:
            if order.kind not in ("set", "pin") or order.guest is None or order.size is None:
                return "", False
            if not self._by_agent:
                async with Guest(order.guest) as guest:
                    await guest.check(order.size)
                return "it would be set", False
            done = await (await _agent()).pin(order.guest, order.size, dry_run=True)
        except QmpmemError as error:
            return _said(error), True
        if done.exempt is not None:
            return f"it would be kept, but the agent leaves it alone: {done.exempt}", True
        return "the agent would take it", False

    async def do(self, order: Order) -> tuple[str, bool]:
        """Make a change.

        Returns:
            The result, and whether it is a failure.
        """
        try:
            if self._by_agent:
                return await _ordered(order), False
            if order.kind != "set" or order.guest is None or order.size is None:
                return NO_AGENT, True
            async with Guest(order.guest) as guest:
                await guest.set(order.size)
            return f"{order.guest} was told to go to {brief(order.size)}", False
        except QmpmemError as error:
            return _said(error), True

    @property
    def _by_agent(self) -> bool:
        return self._last is not None and self._last.source == "agent"

    async def _note_round(self, seen: Round) -> None:
        is_new = seen.source == "agent" and not self._by_agent
        every = 0.0 if self._last is None else seen.wall - self._last.wall
        self._last = seen
        self._history.add(seen)
        self._begun.set()
        if self._waiting is not None:
            self._waiting.append(seen)
        if is_new:
            await self._ask_agent()
        changes = seen.source == "guests" or self._may_change
        may_write = changes and not self._sources.read_only
        where = replace(self.scene.where, lost=None, now=time.time(), every=every)
        names = replace(self.scene.names, agent=self._agent if self._by_agent else None)
        scene = replace(self.scene, where=where, names=names, may_write=may_write)
        if where.is_live:
            scene = self._with(scene, seen, self._history)
        self._show(scene)

    async def _ask_agent(self) -> None:
        """Ask a new agent for its version, and the kernel whether we may change something there."""
        self._agent = None
        self._may_change = await asyncio.to_thread(may_change)
        try:
            self._agent = (await (await _agent()).status()).version
        except QmpmemError:
            return

    def _note_lost(self, lost: Lost) -> None:
        self._agent = None
        where = replace(self.scene.where, lost=lost.problem, now=time.time())
        self._show(replace(self.scene, where=where, may_write=False))

    async def read_history(self) -> None:
        """Read what was before the first round that came: plots do not begin with the screen."""
        await self._begun.wait()
        past, last = self._sources.past, self._last
        if past is not None and last is not None:
            since = last.wall - _span(last)
            try:
                history = await asyncio.to_thread(_read, past, since, last.wall)
            except QmpmemError:  # that is reported where the past is asked for
                history = None
            if history is not None:
                for each in self._waiting or ():
                    history.add(each)
                self._history = history
                if self.scene.where.is_live and self._last is not None:
                    self._show(self._with(self.scene, self._last, history))
        self._waiting = None

    def _go_live(self) -> None:
        where = replace(self.scene.where, is_live=True, now=time.time())
        scene = replace(self.scene, where=where)
        self._show(scene if self._last is None else self._with(scene, self._last, self._history))

    def _stay(self, seen: Round | None) -> None:
        if seen is not None:
            history = self._past_history if seen.source == "journal" else self.scene.history
            where = replace(self.scene.where, is_live=False, now=time.time())
            self._show(self._with(replace(self.scene, where=where), seen, history))

    async def _go(self, where: Travel, past: Past) -> str:
        now = self.scene.seen
        wall = time.time() if now is None else now.wall
        match where:
            case Jump(text=words):
                moment = parse_moment(words, datetime.now().astimezone())
                found = await asyncio.to_thread(past.at, moment)
            case Step(rounds=rounds, seconds=seconds) if rounds:
                moment = wall
                found = await asyncio.to_thread(_step, past, now, wall, rounds)
            case Step(seconds=seconds):
                moment = wall + seconds
                found = await asyncio.to_thread(past.at, moment)
            case _:
                raise AssertionError("live and paused are handled before")
        if found is None:
            if isinstance(where, Step) and where.rounds > 0:
                self._go_live()
                return ""
            return "the journal has no round there"
        if isinstance(where, Step) and where.seconds > 0 and found.wall <= wall:
            self._go_live()
            return ""
        self._stay(found)
        await self._load(past, found)
        if isinstance(where, Jump) and abs(found.wall - moment) > NEAR:
            return f"nothing was written down at {clock(moment)}; this is the nearest before"
        return ""

    async def _load(self, past: Past, seen: Round) -> None:
        """Read what was before a round, if that was not read yet, and show it."""
        span = _span(seen)
        known = self._window
        if known is None or not known[0] + span / 2 <= seen.wall <= known[1]:
            window = (seen.wall - span, seen.wall + span * AFTER / BEFORE)
            self._past_history = await asyncio.to_thread(_read, past, *window)
            self._window = window
        self._stay(seen)

    def _with(self, scene: Scene, seen: Round, history: History) -> Scene:
        drawn = shown(seen, history, self._sources.classes)
        return replace(scene, seen=seen, history=history, shown=drawn)

    def _show(self, scene: Scene) -> None:
        self.scene = scene
        self._changed()


def may_change() -> bool:
    """Tell whether this process may change something by way of the agent; blocks.

    The kernel decides who may connect to that socket (unix(7)).
    """
    try:
        run = access.directory(os.environ, os.getuid())
        path = addresses.existing_socket(os.environ, run)
    except ConfigError:
        return False
    return path is not None and os.access(addresses.admin_path(path), os.W_OK)


def rounds(run: Path | None = None) -> Feed:
    """Return what gives live rounds of a run directory."""
    return lambda: live(run)


async def _agent() -> Agent:
    """Return the agent, from a thread, because files tell which guests this user sees."""
    return await asyncio.to_thread(Agent)


async def _ordered(order: Order) -> str:
    agent = await _agent()
    match order:
        case Order(kind="set" | "pin", guest=str() as guest, size=int() as size):
            done = await agent.pin(guest, Bytes(size))
            but = f", but the agent leaves it alone: {done.exempt}" if done.exempt else ""
            return f"{guest} is pinned to {brief(Bytes(size))}{but}"
        case Order(kind="unpin", guest=str() as guest):
            done = await agent.unpin(guest)
            return f"{guest} is {'not pinned any more' if done.changed else 'was not pinned'}"
        case Order(kind="hold"):
            await agent.hold()
            return "nothing is taken from any guest"
        case Order(kind="release"):
            await agent.release()
            return "the agent goes on"
        case Order(kind="reserve", size=int() as size):
            made = await agent.reserve(Bytes(size), keep=KEPT)
            return f"lease {made.lease}: {brief(made.size)} kept for {made.keep:.0f} s"
        case _:
            raise ConfigError(f"{order.kind}: the guest or the size is missing")


def _said(error: QmpmemError) -> str:
    return error.message if error.hint is None else f"{error.message}; {error.hint}"


def _span(seen: Round) -> float:
    """Return how many seconds of such rounds are read for a plot."""
    return min(BEFORE, MOST / max(1, len(seen.snapshot.guests)))


def _read(past: Past, since: float, until: float) -> History:
    history = History()
    for each in past.between(since, until):
        history.add(each)
    return history


def _step(past: Past, now: Round | None, wall: float, count: int) -> Round | None:
    """Find the round so many after the one that is shown, which may not be in the journal."""
    if now is not None and now.place is not None:
        return past.step(now.place, count)
    here = past.at(wall)
    if here is None or here.place is None:
        return None
    # The last rounds are not written down yet: the one before them is the one before this.
    gone = count + 1 if here.wall < wall and count < 0 else count
    return past.step(here.place, gone)
