"""The kinds of addresses at which a monitor can be, and what each tells of the other end.

/run/q          a unix socket's file
@name           an abstract unix socket
tcp:HOST:PORT   on this host's loopback
"""

import socket
from contextlib import suppress
from typing import Final

from qmpmem.wire import loopback, sock_diag, unix_socket
from qmpmem.wire.errors import unreachable
from qmpmem.wire.sock_diag import Holder
from qmpmem.wire.unix_socket import Peer

CONNECT: Final = 1.0
"""Most seconds for a TCP connection on one host: where the backlog is full, no answer comes."""

AGAIN: Final = 0.01
"""Seconds between two attempts to connect where a backlog is full. A broker that is flooded makes
room for 25 clients each 50 ms, for some milliseconds."""

LOOK: Final = 5.0
"""Most seconds to find a holder: it takes milliseconds on an idle host, and seconds on a loaded
one."""


def holder(address: str, *, besides: int | None = None) -> Holder | None:
    """Find the process that is attached at an address; see `sock_diag.holder`.

    Raises:
        OSError: the socket is gone, or the kernel does not tell.
    """
    if loopback.is_tcp(address):
        return loopback.holder(address, besides)
    return sock_diag.holder(address, besides=besides)


async def find_holder(address: str, *, besides: int | None = None) -> Holder | None:
    """Find the process that is attached at an address, as `holder`, from inside an event loop.

    Returns:
        None also where the kernel does not tell, or not within `LOOK` seconds.
    """
    import asyncio  # noqa: PLC0415 - a list of guests needs none of it, and starts sooner

    with suppress(OSError):  # TimeoutError is one
        async with asyncio.timeout(LOOK):
            return await asyncio.to_thread(holder, address, besides=besides)
    return None


def listener(address: str) -> int | None:
    """Find the socket that listens at an address; see `sock_diag.listener`.

    Raises:
        OSError: the file is gone, or the kernel does not tell.
    """
    return loopback.listener(address) if loopback.is_tcp(address) else sock_diag.listener(address)


async def connected(
    address: str, guest: str, expect_pid: int | None = None, patience: float = 0.0
) -> tuple[socket.socket, Peer]:
    """Connect to an address, and find the process that listens there.

    Args:
        address: where.
        guest: the guest's id, for messages.
        expect_pid: the process that must be listening there, if known.
        patience: seconds to wait where the backlog of a unix socket is full.

    Raises:
        GuestUnreachable: nothing listens, it may not be connected to, or another process listens.
        BlockingIOError: the backlog is full.
    """
    import asyncio  # noqa: PLC0415 - a list of guests needs none of it, and starts sooner

    if not loopback.is_tcp(address):
        connection = await _unix(address, guest, patience)
        found = unix_socket.peer_of(connection)
    else:
        connection = await _tcp(address, guest)
        try:
            # After connecting, so that a process that took the port since is seen.
            found = await asyncio.to_thread(loopback.peer_of, address, guest, expect_pid)
        except BaseException:
            connection.close()
            raise
    if expect_pid not in (None, found.pid):
        connection.close()
        text = f"{address}: process {found.pid} listens there, expected {expect_pid}"
        raise unreachable(guest, "wrong-peer", text)
    return connection, found


async def _unix(address: str, guest: str, patience: float) -> socket.socket:
    """Connect to a unix socket; where its backlog is full, again and again.

    The kernel would wait in line (unix(7): SO_SNDTIMEO), but takes a thread for each guest.
    """
    import asyncio  # noqa: PLC0415 - a list of guests needs none of it, and starts sooner

    clock = asyncio.get_running_loop().time
    until = clock() + patience
    while True:
        try:
            return unix_socket.open_socket(address, guest)
        except BlockingIOError:
            if clock() >= until:
                raise
        await asyncio.sleep(AGAIN)


async def _tcp(address: str, guest: str) -> socket.socket:
    import asyncio  # noqa: PLC0415 - a list of guests needs none of it, and starts sooner

    connection, end = loopback.open_socket(address)
    try:
        async with asyncio.timeout(CONNECT):
            await asyncio.get_running_loop().sock_connect(connection, end)
    except TimeoutError as error:
        connection.close()
        text = f"{address}: clients wait, and none is served: stopped or hung"
        raise unreachable(guest, "handshake-timeout", text) from error
    except OSError as error:
        connection.close()
        raise unreachable(guest, "gone", f"{address}: no process listens on it any more") from error
    except BaseException:
        connection.close()
        raise
    return connection
