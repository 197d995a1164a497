"""A QMP session with a guest, by way of the agent that holds its monitor.

Theory of operation:
    The question asks for another protocol (RFC 9110, 7.8: Upgrade). After the answer 101 the
    connection is QMP's: the agent greets as QEMU would, and what follows is the guest's.
"""

import asyncio
import random
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final

from qmpmem.agent.session_lending import PATIENCE as LENDING
from qmpmem.api import async_client
from qmpmem.api.client import Client
from qmpmem.api.messages import code_of, quoted
from qmpmem.api.permissions import peer_of
from qmpmem.api.records import VERSION, Status
from qmpmem.errors import AgentUnreachable
from qmpmem.wire.limits import Deadlines
from qmpmem.wire.qmp import Session, session_over

SWITCHED: Final = 101
HEAD: Final = 16 * 1024
AGAIN: Final = 0.1
"""Seconds, more or less, before an agent without a place is asked once more."""
NO_PLACE: Final = "agent"
"""Stands for the socket's path where QEMU's own would: no file of the host has it."""


@asynccontextmanager
async def session(client: Client, guest: str, *, read_only: bool) -> AsyncGenerator[Session]:
    """Open a session with a guest; leaving the context closes it.

    Args:
        client: the agent's address.
        guest: the guest's id.
        read_only: whether the session lets queries through alone.

    Raises:
        AgentUnreachable: there is no agent, or it does not answer.
        KernelError: this user may not have one.
        GuestError: there is no session with the guest.
    """
    with await _switched(client, guest, read_only=read_only) as connection:
        async with session_over(connection, NO_PLACE, guest, Deadlines()) as opened:
            yield opened


async def _switched(client: Client, guest: str, *, read_only: bool) -> socket.socket:
    """Ask until there is a place: those that begin at the same moment have it one by one."""
    clock = asyncio.get_running_loop().time
    until = clock() + client.patience
    while True:
        connection = await async_client.connect(client, "POST")
        try:
            await _ask(client, connection, guest, read_only=read_only)
        except BaseException as error:
            connection.close()
            is_busy = isinstance(error, AgentUnreachable) and error.reason == "busy"
            if not is_busy or clock() >= until:
                raise
        else:
            return connection
        await asyncio.sleep(AGAIN * random.uniform(0.5, 1.5))  # noqa: S311 - not a secret


async def _ask(client: Client, connection: socket.socket, guest: str, *, read_only: bool) -> None:
    peer = peer_of(connection)
    question = (
        f"POST /{VERSION}/guests/{quoted(guest)}/qmp?read_only={str(read_only).lower()} "
        "HTTP/1.1\r\nHost: qmpmem\r\nConnection: upgrade\r\nUpgrade: qmp\r\n"
        "Content-Length: 0\r\n\r\n"
    )
    with suppress(ConnectionError):  # turned away; why, is in what it sent before
        await asyncio.get_running_loop().sock_sendall(connection, question.encode())
    limit = client.patience + LENDING
    head = await async_client.in_time(_head(connection), client, peer, limit)
    if code_of(head) != SWITCHED:
        rest = await async_client.in_time(_rest(connection), client, peer, limit)
        client.answer(head + rest, Status)
        raise AgentUnreachable(f"{client.path}: no session was opened", reason="protocol")


async def _head(connection: socket.socket) -> bytes:
    """Read up to the empty line and no byte more: what follows is QMP."""
    loop = asyncio.get_running_loop()
    head = b""
    while not head.endswith(b"\r\n\r\n") and len(head) < HEAD:
        try:
            piece = await loop.sock_recv(connection, 1)
        except ConnectionError:
            piece = b""
        if not piece:
            break
        head += piece
    return head


async def _rest(connection: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    content = b""
    while len(content) < HEAD:
        try:
            piece = await loop.sock_recv(connection, HEAD)
        except ConnectionError:
            break
        if not piece:
            break
        content += piece
    return content
