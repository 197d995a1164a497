"""Where an agent can be killed: named points in the program, each before, midway or after a call.

Rules of this file:
    The program knows nothing of this. The process that is to die wraps one function of it, right
    before it runs the agent, so what is killed is the program as it is.
"""

import asyncio
import functools
import inspect
import os
import signal
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, Literal, NamedTuple

When = Literal["before", "midway", "after"]
Cause = Literal["start", "pin", "reload", "stop"]

LET_RUN: Final = 3
"""Turns of the event loop that a call gets before it is cut off midway: it has begun to write."""


def always(*_: object) -> bool:
    return True


class Point(NamedTuple):
    """A call that is the last, or the last but for its result.

    Attributes:
        target: ``module:Class.function``.
        when: which side of the call.
        call: which of the calls, from 1.
        only: which calls count, by their arguments.
        cause: what makes the agent get there.
    """

    target: str
    when: When
    call: int = 1
    only: Callable[..., bool] = always
    cause: Cause = "start"


def found(target: str) -> tuple[Any, str, Callable[..., Any]]:
    """Return where a function is, its name there, and the function itself."""
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, import_module(module))
    return owner, name, getattr(owner, name)


def arm(point: Point) -> None:
    """Have this process die there."""
    owner, name, original = found(point.target)
    wrap = _around_coroutine if inspect.iscoroutinefunction(original) else _around
    setattr(owner, name, functools.wraps(original)(wrap(original, point)))


def _around(original: Callable[..., Any], point: Point) -> Callable[..., Any]:
    is_it = _counter(point)

    def call(*args: Any, **named: Any) -> Any:  # noqa: ANN401 - any function's
        last = is_it(*args)
        if last and point.when == "before":
            _die()
        result = original(*args, **named)
        if last:
            _die()
        return result

    return call


def _around_coroutine(original: Callable[..., Any], point: Point) -> Callable[..., Any]:
    is_it = _counter(point)

    async def call(*args: Any, **named: Any) -> Any:  # noqa: ANN401 - any function's
        last = is_it(*args)
        if last and point.when == "before":
            _die()
        if last and point.when == "midway":
            begun = asyncio.ensure_future(original(*args, **named))
            for _ in range(LET_RUN):
                await asyncio.sleep(0)
            begun.cancel()
            _die()
        result = await original(*args, **named)
        if last:
            _die()
        return result

    return call


def _counter(point: Point) -> Callable[..., bool]:
    left = point.call

    def is_it(*args: object) -> bool:
        nonlocal left
        left -= bool(point.only(*args))
        return left == 0

    return is_it


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _shrinks(watcher: Any, *_: object) -> bool:  # noqa: ANN401 - a Watcher, which is not to be loaded here
    order, has = watcher._order.target, watcher._inquiry.known.reading.actual
    return order is not None and has is not None and order < has


def _grows(watcher: Any, *_: object) -> bool:  # noqa: ANN401 - as above
    order, has = watcher._order.target, watcher._inquiry.known.reading.actual
    return order is not None and has is not None and order > has


def _named(start: str) -> Callable[..., bool]:
    return lambda path, *_: isinstance(path, str) and path.startswith(start)


def _puts_back(name: str, value: str, *_: object) -> bool:
    return (name, value) == ("run", "0")


def _says(word: str) -> Callable[..., bool]:
    return lambda _, state: state == word


_FIND = "qmpmem.agent.finder:Finder.find"
_READ = "qmpmem.agent.host_reader:HostReader.read"
_DECIDE = "qmpmem.agent.loop:decide"
_APPLY = "qmpmem.agent.loop:Agent._apply"
_NOTIFY = "qmpmem.agent.systemd_notify:Notifier.tell"
_TELL = "qmpmem.agent.watcher:Watcher._tell"
_POLLING = "qmpmem.wire.commands:set_polling_interval"
_LEAVE = "qmpmem.agent.inquiry:Inquiry.leave_as_found"
_LEDGER = "qmpmem.ksm.ledger:save"
_KSM = "qmpmem.wire.kernel.ksm:write"
_RENAME = "os:rename"
_COSTS = "qmpmem.agent.process_memory:ProcessMemory.read"
_RESTORE = "qmpmem.ksm.apply:KsmWriter.restore"
_OPEN = "qmpmem.journal.writer:Journal._open"
_ADD = "qmpmem.journal.store:Store._add"
_ORDERS = "qmpmem.agent.requests:RequestStore._set"
_KEPT = "qmpmem.agent.requests:RequestStore.kept"
_RELOAD = "qmpmem.agent.loop:Agent.reload"

POINTS: Final[Mapping[str, Point]] = {
    "start, it has the lock": Point("qmpmem.api.sockets:_lock", "after"),
    "start, the old socket is gone": Point("qmpmem.api.sockets:_make_way", "after"),
    "round, no guest was looked for": Point(_FIND, "before"),
    "round, guests were found": Point(_FIND, "after"),
    "round, costs were read": Point(
        "qmpmem.agent.process_memory:ProcessMemory.read", "after", call=2
    ),
    "round, before the host is read": Point(_READ, "before"),
    "round, the host was read": Point(_READ, "after", call=2),
    "round, nothing is decided yet": Point(_DECIDE, "before", call=3),
    "round, it is decided": Point(_DECIDE, "after", call=3),
    "round, nothing was applied": Point(_APPLY, "before", call=3),
    "round, it is applied halfway": Point(_APPLY, "midway"),
    "round, it was applied": Point(_APPLY, "after", call=3),
    "round, before systemd hears of the first": Point(_NOTIFY, "before"),
    "round, systemd has heard of it": Point(_NOTIFY, "after", call=2),
    "guest, the session has begun": Point("qmpmem.agent.inquiry:Inquiry.begin", "after"),
    "guest, before its polling is set": Point(_POLLING, "before"),
    "guest, its polling is being set": Point(_POLLING, "midway"),
    "guest, its polling was set": Point(_POLLING, "after"),
    "shrink, not told yet": Point(_TELL, "before", only=_shrinks),
    "shrink, being told": Point(_TELL, "midway", only=_shrinks),
    "shrink, told": Point(_TELL, "after", only=_shrinks),
    "shrink, the second of them told": Point(_TELL, "after", call=2, only=_shrinks),
    "growth, not told yet": Point(_TELL, "before", only=_grows),
    "growth, being told": Point(_TELL, "midway", only=_grows),
    "growth, told": Point(_TELL, "after", only=_grows),
    "KSM, before the ledger is written": Point(_LEDGER, "before"),
    "KSM, the ledger is not in its place": Point(_RENAME, "before", only=_named(".ledger")),
    "KSM, the ledger was written": Point(_LEDGER, "after"),
    "KSM, before the first write": Point(_KSM, "before"),
    "KSM, after the first write": Point(_KSM, "after"),
    "KSM, after the second write": Point(_KSM, "after", call=2),
    "KSM, before the last write": Point(_KSM, "before", call=3),
    "KSM, after the last write": Point(_KSM, "after", call=3),
    "KSM, before the ledger is settled": Point(_LEDGER, "before", call=2),
    "KSM, the ledger is settled": Point(_LEDGER, "after", call=2),
    "KSM, before all is put back": Point(
        "qmpmem.ksm.apply:KsmWriter.restore", "before", call=2, cause="stop"
    ),
    "KSM, before it is switched off again": Point(_KSM, "before", only=_puts_back, cause="stop"),
    "KSM, it was switched off again": Point(_KSM, "after", only=_puts_back, cause="stop"),
    "KSM, all was put back": Point(
        "qmpmem.ksm.apply:KsmWriter.restore", "after", call=2, cause="stop"
    ),
    "journal, it is not open yet": Point(_OPEN, "before"),
    "journal, it has its tables": Point(_OPEN, "after"),
    "journal, in a transaction": Point("qmpmem.journal.deltas:Encoder.change", "after", call=3),
    "journal, a round is written": Point(_ADD, "after", call=4),
    "journal, what is old is forgotten": Point("qmpmem.journal.store:Store.forget", "after"),
    "state, before a pin is written": Point(_ORDERS, "before", cause="pin"),
    "state, the pins are not in their place": Point(
        _RENAME, "before", only=_named(".agent.orders"), cause="pin"
    ),
    "state, a pin is in force": Point(_ORDERS, "after", cause="pin"),
    "state, a pin was written": Point(_KEPT, "after", cause="pin"),
    "settings, before they are read again": Point(
        "qmpmem.configuration:read_again", "before", cause="reload"
    ),
    "settings, before they hold": Point(_RELOAD, "before", cause="reload"),
    "settings, they hold": Point(_RELOAD, "after", cause="reload"),
    "stop, it was said": Point(_NOTIFY, "after", only=_says("STOPPING=1"), cause="stop"),
    "stop, guests are let go": Point("qmpmem.agent.loop:parting", "after", cause="stop"),
    "stop, before polling is put back": Point(_LEAVE, "before", cause="stop"),
    "stop, polling was put back": Point(_LEAVE, "after", cause="stop"),
}
"""Groups of names: what comes before the comma."""
