"""A guest's QMP session for many clients: the work of `qmpmem qmp`.

Theory of operation:
    This process has one session with the guest and shares it between its own clients, be they one
    or a thousand. That session is with the agent where one holds the guest, with the broker where
    the agent has only a part of QMP, and with the guest's own monitor where there is neither.
"""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import typer

from qmpmem.agent import descriptor_limit
from qmpmem.agent.session_lending import no_qmp
from qmpmem.api import agent_guest as held
from qmpmem.api import async_client, qmp_session
from qmpmem.api.client import Client
from qmpmem.cli import output
from qmpmem.cli.app import INTERRUPTED, put, put_json, say, warn
from qmpmem.cli.signals import ENDING
from qmpmem.errors import AgentUnreachable, GuestUnreachable, KernelError
from qmpmem.guests import read_guest, rundir
from qmpmem.guests.guest import find
from qmpmem.guests.rundir import GuestRecord
from qmpmem.library import client_of
from qmpmem.model.guest import GuestView
from qmpmem.proxy import allowed_commands, client_session, client_socket
from qmpmem.proxy.allowed_commands import Permit
from qmpmem.proxy.shared_session import MOST, SharedSession
from qmpmem.records import Record
from qmpmem.units import format_duration
from qmpmem.wire.errors import NO_STATISTICS
from qmpmem.wire.qmp import Session, connect

OWN: Final = 32 + client_socket.BACKLOG
"""Descriptors of this process, and of clients that are accepted at once before they are counted."""


class SessionRequest(Record, frozen=True):
    """What a call asks for."""

    name: str
    command: str | None
    arguments: tuple[str, ...]
    timeout: float
    """Seconds that the command may take."""
    is_listening: bool
    path: Path | None
    """Where the socket is made; None: in a new directory."""
    read_only: bool
    json: bool


class _Source(Record, frozen=True):
    """The session that is shared."""

    guest: str
    """The guest's id."""
    session: Session
    share: SharedSession
    client: Client | None = None
    """The client of the agent that the session is with; None: the session is with QEMU itself."""


async def share(request: SessionRequest) -> None:
    """Do what a call asks for.

    Raises:
        QmpmemError: there is no session, or it ended otherwise than by the guest's end.
    """
    arguments = client_session.read_arguments(request.arguments)
    async with _opened(request) as source:
        make = partial(source.share.open, _permit(request))
        if request.command is not None:
            await _ask(request, source, arguments)
        elif request.is_listening:
            await _listen(request, source)
        else:
            descriptors = _input(), sys.stdout.fileno()
            await client_session.pass_through(source.share, make, *descriptors, source.guest)
            if source.share.has_ended:
                await _say_end(source)


def _input() -> int:
    """Return the descriptor of stdin; where that is closed, of a file that has nothing."""
    closed: object = sys.stdin  # None then, which its type does not say
    return os.open(os.devnull, os.O_RDONLY) if closed is None else sys.stdin.fileno()


@asynccontextmanager
async def _opened(request: SessionRequest) -> AsyncGenerator[_Source]:
    client, seen = await _held(request.name)
    if client is None or seen is None:
        async with _directly(request.name) as source:
            yield source
        return
    guest, record = seen.id, await asyncio.to_thread(_brokered, seen)
    if record is not None:
        opening = connect(record.socket, guest=guest, expect_pid=record.listener, serves_many=True)
        async with opening as session:
            yield _Source(
                guest=guest, session=session, share=SharedSession(session, most=_places())
            )
        return
    async with qmp_session.session(client, guest, read_only=request.read_only) as session:
        share = SharedSession(session, most=_places())
        yield _Source(guest=guest, session=session, share=share, client=client)


def _brokered(seen: GuestView) -> GuestRecord | None:
    """Return the record that a broker of this user shows of a guest, where it does.

    Its agent has no more than a session that moves memory and reads; this user's own is with the
    broker. What the agent says of the socket counts only where this user made the record.
    """
    record = rundir.read_record(Path(seen.socket).parent)
    if not isinstance(record, GuestRecord) or record.uid != os.geteuid():
        return None
    return record if record.shared and record.socket == seen.socket else None


async def _held(name: str) -> tuple[Client | None, GuestView | None]:
    """Find the agent that holds a guest, and the guest; None: no agent does."""
    client = await asyncio.to_thread(client_of)
    try:
        seen = None if client is None else await held.look_up(client, name)
    except AgentUnreachable as error:
        if error.reason != "none":
            warn(f"{error.message}; asking QEMU itself")
        return None, None
    except KernelError as error:  # this user may not ask it
        warn(f"agent: {error.message}; asking QEMU itself")
        return None, None
    if seen is None or seen.problem == NO_STATISTICS:
        return None, None  # a human monitor is left alone by the agent
    return client, seen


@asynccontextmanager
async def _directly(name: str) -> AsyncGenerator[_Source]:
    found = await asyncio.to_thread(find, name)
    async with read_guest.open_session(found) as session:
        if not isinstance(session, Session):
            raise no_qmp(found.record.id)
        share = SharedSession(session, most=_places())
        yield _Source(guest=found.record.id, session=session, share=share)


def _permit(request: SessionRequest) -> Permit:
    return allowed_commands.queries if request.read_only else allowed_commands.everything


def _places() -> int:
    """Return how many clients there are descriptors for."""
    descriptor_limit.make_room()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if most == resource.RLIM_INFINITY else max(1, min(MOST, most - OWN))


async def _ask(request: SessionRequest, source: _Source, arguments: dict[str, object]) -> None:
    make = partial(source.share.open, _permit(request))
    command = request.command or ""
    try:
        async with asyncio.timeout(request.timeout):
            value = await client_session.ask(make, command, arguments, source.guest)
    except TimeoutError as error:
        raise GuestUnreachable(
            f"guest {source.guest}: no answer to {command} in {format_duration(request.timeout)}",
            reason="timeout",
            hint="it may still be carried out; --timeout waits longer",
        ) from error
    if request.json:
        put_json(value)
    else:
        import json

        put(output.with_json_escapes(json.dumps(value, indent=2, ensure_ascii=False)))


async def _listen(request: SessionRequest, source: _Source) -> None:
    make = partial(source.share.open, _permit(request))
    with client_socket.listening(request.path, os.environ) as listener, _stopping() as stopped:
        path = str(listener.getsockname())
        async with client_socket.serving(listener, make):
            if request.json:
                put_json({"id": source.guest, "socket": path, "read_only": request.read_only})
            else:
                put(path)
            ended = asyncio.ensure_future(source.share.ended())
            await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
    if source.share.has_ended:
        await _say_end(source)
    elif stopped.result() == signal.SIGINT:
        raise typer.Exit(INTERRUPTED)


@contextmanager
def _stopping() -> Generator["asyncio.Future[int]"]:
    """Yield what is settled with the number of the first signal that asks this process to end."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[int] = loop.create_future()

    def stop(number: int) -> None:
        if not stopped.done():
            stopped.set_result(number)

    mine = [each for each in ENDING if signal.getsignal(each) != signal.SIG_IGN]
    for each in mine:
        loop.add_signal_handler(each, stop, each)
    try:
        yield stopped
    finally:
        for each in mine:
            loop.remove_signal_handler(each)


async def _say_end(source: _Source) -> None:
    """Tell the user that the guest has ended, which ends its sessions in order.

    Raises:
        AgentUnreachable: it is the agent that has ended.
        GuestUnreachable: the session ended for another reason.
    """
    error = source.session.over()
    if error.reason != "closed":
        raise error
    if source.client is not None:
        why = await async_client.ended(source.client, source.guest)
        if isinstance(why, AgentUnreachable):
            raise why
    say(f"guest {source.guest}: QEMU closed the connection")
