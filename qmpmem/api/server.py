"""The control sockets around a running agent.

Theory of operation:
    Everything runs on the agent's own event loop, so an answer is never half of one round and half
    of the next. What goes wrong here is logged, and begins anew: no question ends the agent.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from qmpmem.agent import descriptor_limit
from qmpmem.api import application
from qmpmem.api.accepting import Acceptor
from qmpmem.api.connection import ConnectionPool
from qmpmem.api.handlers import Handlers
from qmpmem.api.permissions import Permissions
from qmpmem.api.sockets import Listeners


@asynccontextmanager
async def serving(
    handlers: Handlers, listeners: Listeners, permissions: Permissions, log: logging.Logger
) -> AsyncGenerator[ConnectionPool]:
    """Answer on both sockets until the context is left.

    Args:
        handlers: answers.
        listeners: unix sockets that listen, which stay the caller's to close.
        permissions: what each user may ask.
        log: gets lines about clients that were turned away, and about mistakes of ours.
    """
    pool = ConnectionPool(
        application.application(handlers, log), permissions, log, descriptor_limit.clients()
    )
    entrances = (
        Acceptor(listeners.look, partial(pool.receive, "look"), pool.warn),
        Acceptor(listeners.change, partial(pool.receive, "change"), pool.warn),
    )
    for entrance in entrances:
        entrance.open()
    try:
        yield pool
    finally:
        for entrance in entrances:
            entrance.close()
        await pool.close()
        handlers.close()
