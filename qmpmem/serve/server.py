"""Listens, and puts the page together."""

import asyncio
import logging
import os
import signal
import socket
import stat
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from qmpmem.agent.systemd_notify import Notifier
from qmpmem.api import async_client
from qmpmem.api.accepting import Acceptor
from qmpmem.api.client import Client
from qmpmem.errors import ConfigError, KernelError, QmpmemError
from qmpmem.feed import Round, live, round_of
from qmpmem.files import sockets
from qmpmem.model.round import Tick
from qmpmem.records import Record
from qmpmem.serve import journal_start, request_checks, static_files
from qmpmem.serve.agent_follower import AgentFollower
from qmpmem.serve.application import application
from qmpmem.serve.past import Past
from qmpmem.serve.responses import Site
from qmpmem.serve.tokens import Tokens
from qmpmem.serve.visitor_connection import ConnectionPool

LISTEN: Final = "127.0.0.1:9178"
"""The address and port by default. No other exporter uses this port: those for libvirt have
9177."""
BACKLOG: Final = 64
SHARED: Final = 0o660
LOOPBACK: Final = {"127.0.0.1": socket.AF_INET, "::1": socket.AF_INET6, "localhost": socket.AF_INET}
PORTS: Final = 65535


class Options(Record, frozen=True):
    """How the page is to be served."""

    listen: tuple[str, int] | None
    """A loopback address and a port; None: not over TCP."""
    unix: Path | None
    token: str | None
    hosts: frozenset[str]
    """Names by which the server is known beside those of the loopback address, as behind a
    proxy."""
    host: str
    """The name of the host, for people."""
    run: Path
    """The run directory."""
    journal: Path


def address(text: str) -> tuple[str, int]:
    """Read ``127.0.0.1:9178`` or ``[::1]:9178``.

    Raises:
        ConfigError: it is none, or not of the loopback interface.
    """
    name, colon, port = text.rpartition(":")
    host = name.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > PORTS:
        raise ConfigError(f"--listen {text!r}: expected an address and a port, as in {LISTEN}")
    if host not in LOOPBACK:
        raise ConfigError(
            f"--listen {text!r}: expected 127.0.0.1, [::1] or localhost: what is sent is in clear",
            hint="for others, put a proxy with TLS in front (--host NAME), or use ssh -L",
        )
    return host, int(port)


def serve(options: Options, client: Client, log: logging.Logger) -> None:
    """Serve the page until SIGTERM or Ctrl-C.

    Args:
        options: how.
        client: asks the agent.
        log: gets lines about where it listens, who signed in, and what was changed.

    Raises:
        ConfigError: the place is taken by something else.
        KernelError: no socket can be made there.
    """
    static_files.mark()  # reads them, before there is an event loop
    with ExitStack() as stack:
        listeners: list[socket.socket] = []
        if options.listen is not None:
            listeners.append(stack.enter_context(tcp(*options.listen)))
        if options.unix is not None:
            listeners.append(stack.enter_context(unix(options.unix)))
        asyncio.run(_serve(options, client, log, listeners))


async def _serve(
    options: Options, client: Client, log: logging.Logger, listeners: list[socket.socket]
) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with serving(options, client, log, listeners) as following:
        following.add_done_callback(lambda _: ended.set())
        for each in listeners:
            log.info("the page is at %s", _where(each))
        Notifier(os.environ).tell("READY=1")
        await ended.wait()
        if following.done():
            following.result()  # what it raised


@asynccontextmanager
async def serving(
    options: Options, client: Client, log: logging.Logger, listeners: list[socket.socket]
) -> AsyncGenerator[asyncio.Task[None]]:
    """Serve the page on these sockets until the context is left; yields what follows the agent."""
    loop = asyncio.get_running_loop()
    follower = AgentFollower(loop.time)
    site = Site(
        follower=follower,
        client=client,
        keys=Tokens(options.token, loop.time),
        past=Past(options.journal, time.time),
        host=options.host,
        hosts=request_checks.HOSTS | options.hosts,
        log=log,
    )
    places = ConnectionPool(application(site))
    entrances = [Acceptor(each, places.receive, log.warning) for each in listeners]
    rounds = live(options.run, follow=lambda _: _of_agent(client))
    following = asyncio.create_task(follower.run(rounds))
    remembering = asyncio.create_task(_remember(follower, options.journal))
    for entrance in entrances:
        entrance.open()
    try:
        yield following
    finally:
        for entrance in entrances:
            entrance.close()
        following.cancel()
        remembering.cancel()
        await asyncio.wait((following, remembering))
        await places.close()


async def _remember(follower: AgentFollower, journal: Path) -> None:
    """Show the last minutes of the journal; without a journal they begin now."""
    with suppress(QmpmemError):
        follower.remember(await asyncio.to_thread(journal_start.read, journal, time.time()))


async def _of_agent(client: Client) -> AsyncGenerator[Round]:
    async for tick in async_client.follow(client, "ticks", Tick):
        yield round_of(tick, "agent", time.time())


@contextmanager
def tcp(host: str, port: int) -> Generator[socket.socket]:
    """Listen at a loopback address.

    Raises:
        KernelError: that cannot be.
    """
    connection = socket.socket(LOOPBACK[host], socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            connection.bind(("127.0.0.1" if host == "localhost" else host, port))
            connection.listen(BACKLOG)
        except OSError as error:
            raise KernelError(
                f"{host} port {port}: {error.strerror}", hint="--listen takes another"
            ) from error
        yield connection


@contextmanager
def unix(path: Path) -> Generator[socket.socket]:
    """Listen at a path, for this user and its group.

    Raises:
        ConfigError: something else is there.
        KernelError: that cannot be.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with connection:
        try:
            _make_way(path)
            sockets.bind(connection, str(path), mode=SHARED)
            connection.listen(BACKLOG)
            mine = path.lstat().st_ino
        except OSError as error:
            raise KernelError(f"{path}: {error.strerror}") from error
        try:
            yield connection
        finally:
            with suppress(OSError):
                if path.lstat().st_ino == mine:
                    path.unlink()


def _make_way(path: Path) -> None:
    """Remove a socket on which nothing listens any more.

    Raises:
        ConfigError: something listens there, or it is no socket.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"{path}: expected a socket, or nothing", hint="--unix takes another")
    with socket.socket(socket.AF_UNIX) as other:
        try:
            other.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise ConfigError(f"{path}: a process listens there", hint="--unix takes another")


def _where(connection: socket.socket) -> str:
    if connection.family == socket.AF_UNIX:
        return str(connection.getsockname())
    host, port, *_ = connection.getsockname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
