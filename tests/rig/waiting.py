"""Waiting in an event loop for what other processes do."""

import asyncio
import inspect
from collections.abc import Callable

from tests.rig.patience import patient


async def until(
    holds: Callable[[], object],
    *,
    seconds: float = 10.0,
    what: str = "",
    said: Callable[[], str] = str,
) -> float:
    """Wait until something holds, looking often; gives the seconds that it took.

    Args:
        holds: looks; may be a coroutine function.
        seconds: how long to wait.
        what: for the message of a failure.
        said: more for that message, as of then.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    limit = patient(seconds)
    while True:
        found = holds()
        if await found if inspect.isawaitable(found) else found:
            return clock() - began
        assert clock() - began < limit, f"not so after {limit} s: {what}: {said()}"
        await asyncio.sleep(0.01)
