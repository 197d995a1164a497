"""The control sockets around a running agent.

Theory of operation:
    Everything runs on the agent's own event loop, so an answer is never half of one round and half
    of the next. What goes wrong here is said and started anew: a question must not end the agent.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial

from qmpmem.agent import capacity
from qmpmem.control import http
from qmpmem.control.connection import Doors
from qmpmem.control.desk import Desk
from qmpmem.control.entrance import Entrance
from qmpmem.control.listener import Listeners
from qmpmem.control.rights import Rights


@asynccontextmanager
async def serving(
    desk: Desk, listeners: Listeners, rights: Rights, log: Callable[[str], None]
) -> AsyncGenerator[Doors]:
    """Answer on both sockets until the context is left.

    Args:
        desk: answers.
        listeners: unix sockets that listen, which stay the caller's to close.
        rights: what each user may ask.
        log: told of changes, and of clients that were turned away.
    """
    doors = Doors(http.application(desk, log), rights, log, capacity.clients())
    entrances = (
        Entrance(listeners.look, partial(doors.receive, "look"), doors.warn),
        Entrance(listeners.change, partial(doors.receive, "change"), doors.warn),
    )
    for entrance in entrances:
        entrance.open()
    try:
        yield doors
    finally:
        for entrance in entrances:
            entrance.close()
        await doors.close()
        desk.close()
