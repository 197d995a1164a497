"""One guest on its way to a size: told, watched, and left in an orderly way on Ctrl-C."""

import asyncio
import signal
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final, Protocol

import typer

from qmpmem.cli.app import INTERRUPTED, describe, on_terminal, put_json, put_plain, say
from qmpmem.cli.signals import ENDING
from qmpmem.model.bounds import is_near
from qmpmem.records import Record, replace
from qmpmem.units import Bytes, Change
from qmpmem.view import set_result as view
from qmpmem.view.set_result import SetResult

if TYPE_CHECKING:
    from collections.abc import Generator

    from qmpmem.guests.guest import ResizableGuest, Resized
    from qmpmem.guests.script import Left

INTERRUPT: Final = "Interrupted"


class SetRequest(Record, frozen=True):
    """How a guest is to be moved."""

    change: Change
    waits: bool | None
    """Whether the command waits for the guest. None: it waits where there is a terminal, and the
    guest can move."""
    timeout: float
    """Seconds to wait."""
    force: bool
    dry_run: bool
    json: bool


class Bar(Protocol):
    """Where progress is shown, if anywhere."""

    def __call__(self, actual: Bytes, /) -> None:
        """Show how far the guest came."""


async def move(guest: "ResizableGuest", order: SetRequest, *, terminal: bool) -> None:
    """Move a guest, and say what came of it.

    Raises:
        NotReached: it is not there in time.
        Exit: a signal came while it was on its way, which was said.
    """
    if order.dry_run:
        done = await guest.resize(order.change, force=order.force, dry_run=True)
        moved = _moved(guest, done, dry_run=True)
        _tell(moved, view.asked(moved), json=order.json)
        return
    with interruptible() as signals:
        done = await guest.resize(order.change, force=order.force)
        moved = _moved(guest, done, dry_run=False)
        try:
            signals.cancel_task()
            waits = terminal and moved.obstacle is None if order.waits is None else order.waits
            if not waits or moved.reached:
                await asyncio.sleep(0)  # a signal that has come ends it here
                _tell(moved, view.asked(moved), json=order.json)
                return
            if moved.obstacle is not None:
                say(f"{moved.called}: {view.waiting(moved)}")
            with _bar(moved, shown=terminal and not order.json) as show:
                async for actual in guest.progress(done.target, timeout=order.timeout):
                    moved = replace(moved, actual=actual, reached=is_near(actual, done.target))
                    show(actual)
        except asyncio.CancelledError:
            if not signals.came:
                raise
            _leave_it(moved, json=order.json)
    if moved.reached:
        _tell(moved, view.arrived(moved), json=order.json)
        return
    error = await guest.not_reached(moved.actual, done.target, order.timeout)
    if order.json:
        put_json({**_plain(moved), "error": describe(error)})
    raise error


class Signals:
    """The signals that end a program, for one task.

    A task that is telling a guest something is not interrupted: what was sent would not be known.
    """

    def __init__(self) -> None:
        self.came = False
        """Whether there was one."""
        self._task: asyncio.Task[object] | None = None

    def cancel_task(self) -> None:
        """Cancel this task when the first one comes, or at its next step where it has come."""
        self._task = asyncio.current_task()
        if self.came and self._task is not None:
            self._task.cancel()

    def receive(self) -> None:
        """Take note of one."""
        self.came = True
        if self._task is not None:
            self._task.cancel()


@contextmanager
def interruptible() -> "Generator[Signals]":
    """Take the signals that end a program, except those that are ignored."""
    loop, signals = asyncio.get_running_loop(), Signals()
    mine = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    for number in mine:
        loop.add_signal_handler(number, signals.receive)
    try:
        yield signals
    finally:
        for number in mine:
            loop.remove_signal_handler(number)


def _moved(guest: "ResizableGuest", done: "Resized", *, dry_run: bool) -> SetResult:
    standing = done.standing
    return SetResult(
        id=guest.id,
        name=guest.name,
        before=done.before,
        target=done.target,
        actual=done.before,
        reached=is_near(done.before, done.target),
        state=standing.state,
        pinned=standing.pinned,
        exempt=standing.exempt,
        dry_run=dry_run,
    )


def say_left(left: "Left") -> None:
    """Tell the user how far a guest came when a script was interrupted."""
    standing = left.standing
    moved = SetResult(
        id=left.id,
        name=left.name,
        before=left.before,
        target=left.target,
        actual=left.actual,
        reached=False,
        state=standing.state,
        pinned=standing.pinned,
        exempt=standing.exempt,
    )
    say(view.interrupted(moved))


def _leave_it(moved: SetResult, *, json: bool) -> None:
    words = view.interrupted(moved)
    if json:
        put_json({**_plain(moved), "error": {"kind": INTERRUPT, "message": words}})
    say(words)
    raise typer.Exit(INTERRUPTED)


def _tell(moved: SetResult, words: str, *, json: bool) -> None:
    if json:
        put_json(moved)
    else:
        put_plain(words)


def _plain(moved: SetResult) -> dict[str, object]:
    import msgspec

    plain: dict[str, object] = msgspec.to_builtins(moved)
    return plain


def _bar(moved: SetResult, *, shown: bool) -> AbstractContextManager[Bar]:
    """Open a progress bar on a terminal, nothing elsewhere."""
    if not (shown and on_terminal()):
        return nullcontext(lambda actual: None)  # noqa: ARG005
    from qmpmem.view.progress_bar import progress_bar

    return progress_bar(moved.called, moved.before, moved.target)
