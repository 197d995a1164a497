"""The control socket around a running agent.

Theory of operation:
    Everything runs on the agent's own event loop, so an answer is never half of one round and half
    of the next. What goes wrong here is said and started anew: who asks must not end the agent.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from socket import socket

from qmpmem.control import http
from qmpmem.control.connection import Doors
from qmpmem.control.desk import Desk
from qmpmem.control.rights import Rights


@asynccontextmanager
async def serving(
    desk: Desk, listener: socket, rights: Rights, log: Callable[[str], None]
) -> AsyncGenerator[Doors]:
    """Answer on a socket until the context is left.

    Args:
        desk: answers.
        listener: a listening unix socket, which stays the caller's to close.
        rights: who may ask what.
        log: told of changes, and of who was turned away.
    """
    doors = Doors(http.application(desk, log), rights, log)
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(doors.open, sock=listener.dup(), start_serving=False)
    await server.start_serving()
    try:
        yield doors
    finally:
        server.close()
        await doors.close()
        desk.leases.close()
