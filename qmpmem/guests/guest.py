"""One guest, over its own QMP socket: the way where no agent runs.

Theory of operation:
    A QMP socket has one client at a time, so a DirectGuest holds its guest's socket from entering
    the context to leaving it. QEMU accepts any target: it has no floor, and silently cuts down a
    target above the maximum. So both limits are checked here. The target cannot be read back.
"""

import asyncio
import os
import shlex
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from qmpmem.errors import ConfigError, GuestRefused, NotReached
from qmpmem.guests import access, inventory, read_guest
from qmpmem.guests.inventory import LiveGuest
from qmpmem.guests.rundir import GuestRecord
from qmpmem.model import bounds, halts, names, obstacles, sanitise
from qmpmem.model.guest import GuestEvent, GuestStats, GuestView
from qmpmem.model.halts import Standing
from qmpmem.model.sizes import Sizes
from qmpmem.records import Record
from qmpmem.units import Bytes, Change, Delta, format_size, resolve
from qmpmem.wire import commands
from qmpmem.wire.channel import Channel
from qmpmem.wire.qmp import Deadlines

POLL: Final = 0.05
"""Seconds between two questions about a moving balloon. BALLOON_CHANGE comes at most once a second
(QEMU: monitor/monitor.c, monitor_qapi_event_conf), too seldom to tell when a guest got there."""


def find(name: str, run: Path | None = None) -> LiveGuest:
    """Find one live guest by its id or, where that is unique, by its name.

    Raises:
        ConfigError: there is none, or more than one of that name.
    """
    directory = run or default_run_directory()
    known = inventory.look_up(directory, name)
    if known is not None:
        return known
    found = {each.record.id: each for each in inventory.take(directory).guests}
    guest = names.pick(name, {each.record.id: each.record.name for each in found.values()})
    if guest is None:
        hint = access.hidden_roots(os.getuid()) if run is None else None
        raise ConfigError(f"guest {name}: no such guest", hint=hint or "`qmpmem list` shows all")
    return found[guest]


def default_run_directory() -> Path:
    """Return the run directory whose guests this user sees.

    Raises:
        ConfigError: there is no place for it.
    """
    return access.directory(os.environ, os.getuid())


class Resized(Record, frozen=True):
    """A guest that was told to go to a size, or would be."""

    before: Bytes
    """What it had."""
    target: Bytes
    standing: Standing
    """What decides whether it goes there."""


class ResizableGuest(Protocol):
    """A guest whose memory can be moved: a `DirectGuest`, or one that an agent holds."""

    @property
    def id(self) -> str:
        """Return its id."""
        ...

    @property
    def name(self) -> str:
        """Return what its owner called it: any text."""
        ...

    async def snapshot(self) -> GuestView:
        """Ask for all that can be seen of it."""
        ...

    async def actual(self) -> Bytes:
        """Ask what it has now."""
        ...

    async def maximum(self) -> Bytes:
        """Ask what it has with an empty balloon."""
        ...

    async def target_of(self, change: Change) -> Bytes:
        """Return the size that a change means."""
        ...

    async def check(self, target: Bytes, *, force: bool = False) -> None:
        """Refuse what `set` would refuse."""
        ...

    async def set(self, target: Bytes, *, force: bool = False) -> None:
        """Ask it to go to a size."""
        ...

    async def resize(
        self, change: Change, *, force: bool = False, dry_run: bool = False
    ) -> Resized:
        """Work out a change and ask it to go there; with dry_run, refuse what would be refused."""
        ...

    def progress(self, target: Bytes, *, timeout: float) -> AsyncIterator[Bytes]:
        """Yield its size until it is there or the time is over."""
        ...

    async def wait(self, target: Bytes, *, timeout: float) -> Bytes:  # noqa: ASYNC109 - the guest's time
        """Wait until it is there."""
        ...

    async def not_reached(self, actual: Bytes, target: Bytes, timeout: float) -> NotReached:  # noqa: ASYNC109 - as above
        """Return the error that tells how far it came."""
        ...

    async def standing(self) -> Standing:
        """Ask what decides whether it moves."""
        ...

    async def unpin(self) -> bool:
        """Let an agent move it again."""
        ...

    def events(self) -> AsyncIterator[GuestEvent]:
        """Yield QEMU's events."""
        ...


async def approach(
    guest: ResizableGuest,
    target: Bytes,
    timeout: float,  # noqa: ASYNC109 - the guest's time, not this call's
    *,
    poll: float,
) -> AsyncIterator[Bytes]:
    """Yield a guest's size until it is at a target, or so many seconds are over.

    Args:
        guest: the guest.
        target: where it shall get to.
        timeout: seconds.
        poll: seconds between two questions.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout
    while True:
        actual = await guest.actual()
        yield actual
        if bounds.is_near(actual, target) or clock() >= deadline:
            return
        await asyncio.sleep(min(poll, max(0.0, deadline - clock())))


async def arrival(guest: ResizableGuest, target: Bytes, timeout: float) -> Bytes:  # noqa: ASYNC109 - as above
    """Wait until a guest is at a target, and return its size.

    Raises:
        NotReached: it is not there in time.
    """
    actual = Bytes(0)
    async for seen in guest.progress(target, timeout=timeout):
        actual = seen
    if not bounds.is_near(actual, target):
        raise await guest.not_reached(actual, target, timeout)
    return actual


class DirectGuest:
    """A guest whose memory can be seen and changed, over its own QMP socket.

    Args:
        guest: an id, a unique name, or what `find` returned.
        run: the run directory; this user's by default.
        deadlines: how long QEMU may take to answer.

    Raises:
        ConfigError: there is no such guest.
        GuestUnreachable: on entering the context, or in any call when QEMU ends.
    """

    def __init__(
        self, guest: str | LiveGuest, *, run: Path | None = None, deadlines: Deadlines | None = None
    ) -> None:
        self._found = guest if isinstance(guest, LiveGuest) else find(guest, run)
        self._deadlines = deadlines
        self._stack = AsyncExitStack()
        self._session: Channel | None = None
        self._sizes: Sizes | None = None
        self._obstacle: str | None = None

    @property
    def id(self) -> str:
        """Return the guest's id: a word that is safe in paths and on command lines."""
        return self._found.record.id

    @property
    def name(self) -> str:
        """Return what its owner called it: any text, and not unique."""
        return self._found.record.name

    async def __aenter__(self) -> Self:
        context = read_guest.open_session(self._found, self._deadlines)
        self._session = await self._stack.enter_async_context(context)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session = None
        await self._stack.aclose()

    async def snapshot(self) -> GuestView:
        """Ask for all that can be seen of the guest, with a fresh report by itself."""
        return await read_guest.look(self._open, inventory.unseen(self._found), detail=True)

    async def maximum(self) -> Bytes:
        """Ask what an empty balloon leaves the guest with."""
        return (await self._measure()).maximum

    async def actual(self) -> Bytes:
        """Ask what the guest has now.

        Raises:
            GuestRefused: there is no balloon device, or the guest claims an impossible size.
        """
        sizes = await self._measure()
        claimed = await commands.balloon_actual(self._open)
        actual = sizes.seen(sanitise.balloon_actual(claimed, sizes.ballooned))
        if actual is None:
            raise no_size(self._found.record, claimed)
        return actual

    async def stats(self) -> GuestStats | None:
        """Ask the guest for a report; None where it sends none."""
        return (await self.snapshot()).stats

    async def target_of(self, change: Change) -> Bytes:
        """Return the size that a change means for this guest, without changing anything."""
        actual = await self.actual() if isinstance(change, Delta) else Bytes(0)
        target = resolve(change, actual=actual, maximum=await self.maximum())
        return Bytes(target - target % self._open.grain)  # what QEMU would round it to

    async def check(self, target: Bytes, *, force: bool = False) -> None:
        """Refuse what `set` would refuse, without changing anything.

        Raises:
            ConfigError: it is above the maximum, or below the floor without force.
            GuestRefused: this guest is not to be ballooned, or nothing of it would be freed.
        """
        sizes = await self._measure()
        bounds.check_target(
            target, guest=self.id, maximum=sizes.maximum, beyond=sizes.beyond, force=force
        )
        if not self._found.record.managed:
            raise not_managed(self._found.record)
        if self._obstacle is not None and not force and target < await self.actual():
            raise unmovable(self.id, self._obstacle)

    async def set(self, target: Bytes, *, force: bool = False) -> None:
        """Ask the guest to go to a size. Returns at once; `wait` waits until it is there.

        Raises:
            ConfigError: it is above the maximum, or below the floor without force.
            GuestRefused: there is no balloon device, or this guest is not to be ballooned.
        """
        await self.check(target, force=force)
        try:
            await commands.set_balloon(self._open, (await self._measure()).told(target))
        except GuestRefused as error:
            if error.error_class != "DeviceNotActive":
                raise
            raise no_size(self._found.record, None) from error

    async def resize(
        self, change: Change, *, force: bool = False, dry_run: bool = False
    ) -> Resized:
        """Work out a change, and ask the guest to go there; returns at once.

        Args:
            change: what shall become of its size.
            force: also below the floor.
            dry_run: change nothing, and refuse what would be refused.

        Raises:
            ConfigError: as `set`.
            GuestRefused: as `set`.
        """
        before, target = await self.actual(), await self.target_of(change)
        await (self.check if dry_run else self.set)(target, force=force)
        return Resized(before=before, target=target, standing=await self.standing())

    def progress(self, target: Bytes, *, timeout: float) -> AsyncIterator[Bytes]:
        """Yield the guest's size until it is at the target or the time is over.

        Args:
            target: where it shall get to.
            timeout: seconds.
        """
        return approach(self, target, timeout, poll=POLL)

    async def wait(self, target: Bytes, *, timeout: float) -> Bytes:  # noqa: ASYNC109 - as above
        """Wait until the guest is at the target.

        Returns:
            Its size, within `bounds.NEAR` of the target.

        Raises:
            NotReached: it is not there in time.
        """
        return await arrival(self, target, timeout)

    async def not_reached(self, actual: Bytes, target: Bytes, timeout: float) -> NotReached:  # noqa: ASYNC109 - as above
        """Return the error that tells how far the guest came, and why no further if known."""
        return not_reached(self.id, actual, target, timeout, await self.standing())

    async def standing(self) -> Standing:
        """Ask what decides whether the guest moves."""
        return Standing(state=await commands.run_state(self._open))

    async def unpin(self) -> bool:
        """Do nothing: only an agent keeps a guest at a size. Returns False: it was not pinned."""
        return False

    async def events(self) -> AsyncIterator[GuestEvent]:
        """Yield QEMU's events that matter here.

        Raises:
            GuestUnreachable: the guest has ended.
        """
        dropped = 0
        async for event in self._open.events():
            lost = self._open.statistics.dropped_events
            yield GuestEvent(
                id=self.id,
                event=event.name,
                data=event.data,
                time=time.time() if event.when is None else event.when,
                dropped=lost - dropped,
                name=self.name,
            )
            dropped = lost

    async def _measure(self) -> Sizes:
        """Ask once for the guest's memory, and for what else decides what its balloon frees."""
        if self._sizes is None:
            self._sizes, self._obstacle = await read_guest.measure(self._open, self._found)
        return self._sizes

    @property
    def _open(self) -> Channel:
        if self._session is None:
            raise RuntimeError(f"guest {self.id}: use `async with DirectGuest(...)`")
        return self._session


def not_managed(record: GuestRecord | GuestView) -> GuestRefused:
    """Return the error that a guest is never ballooned."""
    return GuestRefused(
        f"guest {record.id}: started in mode {record.mode}, never ballooned",
        error_class="NotManaged",
        hint="start it with QMPMEM_MODE=balloon",
    )


def unmovable(guest: str, reason: str) -> GuestRefused:
    """Return the error that a balloon would move and free nothing."""
    todo = obstacles.advice(reason)
    return GuestRefused(
        f"guest {guest}: {obstacles.frees_nothing(reason)}",
        error_class="Unmovable",
        hint=f"{todo}; " * (todo is not None) + "--force moves the balloon all the same",
    )


def no_size(record: GuestRecord | GuestView, claimed: object) -> GuestRefused:
    """Return the error that tells why a guest has no size.

    Args:
        record: the guest's record, or what was seen of it.
        claimed: what it claims; None without a balloon device.
    """
    if claimed is None and not record.managed:
        return not_managed(record)
    if claimed is None:
        why = record.no_balloon or record.unmovable
        return GuestRefused(
            f"guest {record.id}: {obstacles.no_device(why)}",
            error_class="DeviceNotActive",
            hint=obstacles.advice(why)
            or "start it through the launcher; an adopted one can be given a balloon: "
            f"`qmpmem adopt {record.id} {shlex.quote(record.socket)} --add-balloon`",
        )
    return GuestRefused(
        f"guest {record.id}: claims an impossible size: {claimed!r:.40}",
        error_class="Implausible",
        hint="its balloon driver is broken or lies; nothing was changed",
    )


def sizeless(seen: GuestView) -> GuestRefused:
    """Return why a guest that answers has no size."""
    if seen.balloon is None:
        return no_size(seen, None)
    return GuestRefused(
        f"guest {seen.id}: {seen.problem or 'its size is not known'}",
        error_class="Implausible",
        hint="its balloon driver is broken or lies; nothing was changed",
    )


def not_reached(
    guest: str, actual: Bytes, target: Bytes, timeout: float, standing: Standing
) -> NotReached:
    """Return the error that tells how far a guest came."""
    came = f"at {format_size(actual)} after {timeout:g} s, expected {format_size(target)}"
    if standing.state != halts.RUNNING:
        return NotReached(
            f"guest {guest}: {standing.state}, {came}", hint=halts.advice(standing.state)
        )
    return NotReached(
        f"guest {guest}: {came}",
        hint="a guest without the virtio_balloon driver, or short of memory itself, stays behind",
    )
