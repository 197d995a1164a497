"""An event loop whose clock jumps: a minute of waiting takes no time, and always the same steps.

Theory of operation:
    Both ends of every socket live in the same loop, so when nothing is ready to be read, nothing
    will be until a timer fires: the clock may jump to that timer. Work for a thread is done on the
    spot, for the clock must not jump past it; as in a thread, no loop runs meanwhile. Its result
    may come later, as on a host where a thread waits for a processor.
"""

import asyncio
import selectors
from collections.abc import Callable
from functools import partial
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Jumping(selectors.DefaultSelector):
    """A selector that passes time instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise AssertionError("all tasks wait for each other: no timer runs, nothing is ready")
        self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop for peers in one process, where waiting takes no time.

    Args:
        work: seconds of this clock that a thread takes for its work.
        selector: another than that for sockets.
    """

    def __init__(self, work: float = 0.0, selector: "Jumping | None" = None) -> None:
        self._jumping = selector or Jumping()
        self._work = work
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def run_in_executor(
        self,
        executor: object,  # noqa: ARG002 - the signature is asyncio's
        func: Callable[[*Ts], T],
        *args: *Ts,
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        asyncio._set_running_loop(None)  # as in a thread: no loop runs there, so it may block
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001 - the caller's, as an executor hands it on
            self._later(future, partial(future.set_exception, error))
        else:
            self._later(future, partial(future.set_result, result))
        finally:
            asyncio._set_running_loop(self)
        return future

    def _later(self, future: asyncio.Future[T], finish: Callable[[], None]) -> None:
        if self._work:
            self.call_later(self._work, lambda: None if future.done() else finish())
        else:
            finish()
