"""The Python library: one guest, and the agent.

    async with Guest("db1") as guest:
        await guest.set(Bytes(512 * MIB))
        await guest.wait(Bytes(512 * MIB), timeout=30)

    agent = Agent()
    print((await agent.status()).reason)

Theory of operation:
    A QMP socket has one client at a time. Where an agent runs, that client is the agent, so a
    `Guest` goes by way of it; without one it connects to the guest's own socket. The choice is made
    when the context is entered.

Rules of this file:
    Every failure is a `QmpmemError`. Every call has a deadline: an agent that does not answer in
    `Agent.patience` seconds is an `AgentUnreachable`. Time for which the agent waits for a
    processor or a disk does not count (`qmpmem.api.deadlines`).
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from qmpmem.api import addresses, async_client
from qmpmem.api import agent_guest as held
from qmpmem.api.client import PATIENCE, Client
from qmpmem.api.messages import question, quoted
from qmpmem.api.records import (
    Constant,
    HoldResult,
    LeaseEnded,
    LeaseRequest,
    LeaseResult,
    PinRequest,
    PinResult,
    Status,
    Why,
)
from qmpmem.errors import AgentUnreachable, ConfigError, GuestUnreachable, KernelError, NotReached
from qmpmem.guests import access
from qmpmem.guests.guest import DirectGuest, ResizableGuest, Resized, find
from qmpmem.guests.inventory import LiveGuest
from qmpmem.model.guest import GuestEvent, GuestStats, GuestView
from qmpmem.model.halts import Standing
from qmpmem.model.round import Plan, Tick
from qmpmem.units import Bytes, Change
from qmpmem.wire.errors import NO_STATISTICS
from qmpmem.wire.limits import Deadlines

JUST_BEGUN: Final = 2.0
"""Seconds. To find a monitor taken takes half of one; an agent that hangs has longer to answer."""


class Guest:
    """A guest whose memory can be seen and changed, by way of the agent where one runs.

    Args:
        guest: an id, a unique name, or what `qmpmem.guests.guest.find` returned.
        run: the run directory; the one whose guests this user sees by default.
        deadlines: how long QEMU may take to answer, where no agent runs.
        warn: called with a line when there is an agent that does not answer or may not be asked,
            before the guest's own socket is tried.

    Raises:
        ConfigError: on entering the context: no such guest.
        GuestUnreachable: on entering the context, or in any call when QEMU goes away.
        AgentUnreachable: in any call, when the agent goes away.
    """

    def __init__(
        self,
        guest: str | LiveGuest,
        *,
        run: Path | None = None,
        deadlines: Deadlines | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._guest = guest
        self._run = run
        self._deadlines = deadlines
        self._warn = warn or _ignore
        self._stack = AsyncExitStack()
        self._inner: ResizableGuest | None = None

    @property
    def id(self) -> str:
        """Return the guest's id: a word that is safe in paths and on command lines."""
        return self._open.id

    @property
    def name(self) -> str:
        """Return the guest's name, which its owner chose: any text, and not unique."""
        return self._open.name

    async def __aenter__(self) -> Self:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            self._inner = await self._held() or await self._direct()
        except GuestUnreachable as error:
            # An agent that has just begun took the monitor after we had asked for one. One that
            # did not answer is not asked twice.
            is_new = error.reason == "taken" and clock() - began < JUST_BEGUN
            self._inner = await self._held() if is_new else None
            if self._inner is None:
                raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inner = None
        await self._stack.aclose()

    async def snapshot(self) -> GuestView:
        """Look at everything there is to see. By way of an agent: what it saw last."""
        return await self._open.snapshot()

    async def actual(self) -> Bytes:
        """Ask what the guest has now.

        Raises:
            GuestRefused: no balloon device, or the guest claims a size that cannot be.
        """
        return await self._open.actual()

    async def maximum(self) -> Bytes:
        """Ask what an empty balloon leaves the guest with."""
        return await self._open.maximum()

    async def stats(self) -> GuestStats | None:
        """Ask what the guest reports; None where it reports nothing."""
        return (await self.snapshot()).stats

    async def target_of(self, change: Change) -> Bytes:
        """Return the size that a change means for this guest, without changing anything."""
        return await self._open.target_of(change)

    async def check(self, target: Bytes, *, force: bool = False) -> None:
        """Refuse what `set` would refuse, without changing anything."""
        await self._open.check(target, force=force)

    async def set(self, target: Bytes, *, force: bool = False) -> None:
        """Ask the guest to go to a size. Returns at once; `wait` returns when it is there.

        An agent keeps the guest at that size until `unpin`.

        Raises:
            ConfigError: above the maximum, or below the floor without force.
            GuestRefused: no balloon device, or this guest is not to be ballooned.
            KernelError: this user may only look.
        """
        await self._open.set(target, force=force)

    async def resize(
        self, change: Change, *, force: bool = False, dry_run: bool = False
    ) -> Resized:
        """Work out a change, and ask the guest to go there; returns at once.

        Args:
            change: what shall become of its size, as `qmpmem.units.parse_change` reads it.
            force: also below the floor.
            dry_run: change nothing, and refuse what would be refused.

        Raises:
            QmpmemError: as `set`.
        """
        return await self._open.resize(change, force=force, dry_run=dry_run)

    async def unpin(self) -> bool:
        """Let the agent move the guest again; whether it was pinned. Without an agent: False."""
        return await self._open.unpin()

    def progress(self, target: Bytes, *, timeout: float) -> AsyncIterator[Bytes]:
        """Yield the guest's size until it is at the target or `timeout` seconds are over."""
        return self._open.progress(target, timeout=timeout)

    async def wait(self, target: Bytes, *, timeout: float) -> Bytes:  # noqa: ASYNC109 - the guest's time, not this call's
        """Wait until the guest is at the target.

        Returns:
            Its size, within `bounds.NEAR` of the target.

        Raises:
            NotReached: it is not there in time.
        """
        return await self._open.wait(target, timeout=timeout)

    async def not_reached(self, actual: Bytes, target: Bytes, timeout: float) -> NotReached:  # noqa: ASYNC109 - as above
        """Make the error that says how far the guest came."""
        return await self._open.not_reached(actual, target, timeout)

    async def standing(self) -> Standing:
        """Ask what decides whether the guest moves: its state, and the agent."""
        return await self._open.standing()

    def events(self) -> AsyncIterator[GuestEvent]:
        """Yield QEMU's events that matter here, from now on.

        Raises:
            GuestUnreachable: the guest has ended.
        """
        return self._open.events()

    @property
    def _open(self) -> ResizableGuest:
        if self._inner is None:
            raise RuntimeError("use `async with Guest(...)`")
        return self._inner

    async def _held(self) -> ResizableGuest | None:
        """Return the guest as the agent has it; None where no agent does."""
        name = self._guest.record.id if isinstance(self._guest, LiveGuest) else self._guest
        try:
            client = await asyncio.to_thread(client_of, self._run)
            seen = None if client is None else await held.look_up(client, name)
        except AgentUnreachable as error:
            if error.reason != "none":
                self._warn(error.message)
            return None
        except KernelError as error:  # this user may not ask it
            self._warn(f"agent: {error.message}")
            return None
        if client is None or seen is None or seen.problem == NO_STATISTICS:
            return None  # a human monitor is left alone by the agent, pins as well
        return held.AgentGuest(client, seen)

    async def _direct(self) -> ResizableGuest:
        known = self._guest
        found = (
            known
            if isinstance(known, LiveGuest)
            else await asyncio.to_thread(find, known, self._run)
        )
        direct = DirectGuest(found, deadlines=self._deadlines)
        return await self._stack.enter_async_context(direct)


class Agent:
    """The agent that looks after a run directory.

    Nothing is kept open between two calls, but by `events`, `rounds` and `lease`.

    Args:
        run: the run directory; the one whose guests this user sees by default.
        patience: seconds that an answer may take where the agent has a processor.

    Raises:
        AgentUnreachable: in any call: there is no agent, or it does not answer.
        KernelError: in any call: this user may not ask that.
        ConfigError: in any call: no such guest, or what is asked for makes no sense.
    """

    def __init__(self, run: Path | None = None, *, patience: float = PATIENCE) -> None:
        directory = run or access.directory(os.environ, os.getuid())
        self.patience = patience
        self._client = Client(addresses.socket_path(os.environ, directory), patience)

    async def status(self) -> Status:
        """Ask how the agent and its host are."""
        return await async_client.get(self._client, "status", Status)

    async def guests(self) -> list[GuestView]:
        """Ask for every guest, as the agent saw it last."""
        return await async_client.get(self._client, "guests", list[GuestView])

    async def guest(self, name: str) -> GuestView:
        """Ask for one guest, by its id or its unique name."""
        seen = await held.look_up(self._client, name)
        if seen is None:
            raise ConfigError(f"guest {name}: no such guest", hint="`qmpmem list` shows all")
        return seen

    async def why(self, name: str) -> Why:
        """Ask why a guest has the memory that it has."""
        return await async_client.get(self._client, f"{await self._path(name)}/why", Why)

    async def plan(self) -> Plan:
        """Ask what the next round would decide, as things are now."""
        return await async_client.get(self._client, "plan", Plan)

    async def policy(self) -> list[Constant]:
        """Ask for the numbers that decisions rest on."""
        return await async_client.get(self._client, "policy", list[Constant])

    async def pin(
        self, name: str, size: Bytes | str, *, force: bool = False, dry_run: bool = False
    ) -> PinResult:
        """Keep a guest at a size, within its limits, until `unpin`. Returns at once.

        Raises:
            ConfigError: a size that it cannot have.
            GuestUnreachable: the agent cannot talk to it now.
            GuestRefused: it is not to be ballooned.
        """
        path = f"{await self._path(name)}/pin{'?dry_run=true' if dry_run else ''}"
        request = PinRequest(size=size, force=force)
        return await async_client.ask(self._client, question("PUT", path, request), PinResult)

    async def set(self, name: str, size: Bytes | str, *, force: bool = False) -> PinResult:
        """Pin a guest, as `pin` does: what `qmpmem set` does while an agent runs."""
        return await self.pin(name, size, force=force)

    async def unpin(self, name: str) -> PinResult:
        """Let the agent move a guest again."""
        return await async_client.ask(
            self._client, question("DELETE", f"{await self._path(name)}/pin"), PinResult
        )

    async def hold(self) -> HoldResult:
        """Have the agent take nothing from any guest, until `release`."""
        return await async_client.ask(self._client, question("PUT", "hold"), HoldResult)

    async def release(self) -> HoldResult:
        """End a hold."""
        return await async_client.ask(self._client, question("DELETE", "hold"), HoldResult)

    async def reserve(
        self,
        size: Bytes,
        *,
        timeout: float = 30.0,  # noqa: ASYNC109 - the host's time, not this call's
        keep: float = 60.0,
        guest: str | None = None,
    ) -> LeaseResult:
        """Make room for a guest that is about to start. Returns when it is there.

        Args:
            size: how much.
            timeout: seconds in which the room must be there.
            keep: seconds that it is kept after that.
            guest: the id or the name of the guest that it is for.

        Raises:
            NotReached: it is not there in time; says which guests could not give what.
        """
        room = LeaseRequest(size=size, timeout=timeout, keep=keep, guest=guest)
        return await async_client.ask(
            self._client, question("POST", "leases", room), LeaseResult, seconds=timeout
        )

    async def give_back(self, lease: str) -> LeaseEnded:
        """End a lease that `reserve` made."""
        return await async_client.ask(
            self._client, question("DELETE", f"leases/{quoted(lease)}"), LeaseEnded
        )

    @asynccontextmanager
    async def lease(
        self,
        size: Bytes,
        *,
        timeout: float = 30.0,  # noqa: ASYNC109 - as above
        keep: float = 60.0,
        guest: str | None = None,
    ) -> AsyncGenerator[LeaseResult]:
        """Reserve memory, as `reserve` does, and give it back when the context is left."""
        made = await self.reserve(size, timeout=timeout, keep=keep, guest=guest)
        try:
            yield made
        finally:
            await self.give_back(made.lease)

    async def events(self, name: str | None = None) -> AsyncIterator[GuestEvent]:
        """Yield QEMU's events from now on: of all guests, or of one until it ends.

        A reader that is too slow misses the oldest ones, and `GuestEvent.dropped` counts them; one
        that does not read for 5 s is cut off.

        Raises:
            GuestUnreachable: the guest that was followed has ended.
            AgentUnreachable: the agent has.
        """
        seen = None if name is None else await self.guest(name)
        path = "events" if seen is None else f"guests/{quoted(seen.id)}/events"
        async for event in async_client.follow(self._client, path, GuestEvent):
            yield event
        raise await async_client.ended(self._client, None if seen is None else seen.id)

    async def rounds(self) -> AsyncIterator[Tick]:
        """Yield the last round and each that follows; a reader that is slow misses some.

        Raises:
            AgentUnreachable: the agent has ended.
        """
        async for tick in async_client.follow(self._client, "ticks", Tick):
            yield tick
        raise await async_client.ended(self._client, None)

    async def _path(self, name: str) -> str:
        return f"guests/{quoted((await self.guest(name)).id)}"


def client_of(run: Path | None = None) -> Client | None:
    """Make a client of the agent of a run directory; None where there is no socket of one.

    Args:
        run: the run directory; the one whose guests this user sees by default.

    Raises:
        ConfigError: QMPMEM_AGENT_SOCKET or QMPMEM_RUN_DIR makes no sense.
    """
    directory = run or access.directory(os.environ, os.getuid())
    path = addresses.existing_socket(os.environ, directory)
    return None if path is None else Client(path)


def _ignore(_: str) -> None:
    """Drop a line."""
