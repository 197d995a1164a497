"""A guest that the agent holds, used as `qmpmem.guests.guest.DirectGuest` is.

Theory of operation:
    A QMP socket has one client at a time, and while an agent runs that is the agent. A size that is
    set here is a pin: the policy goes there in its own steps, and keeps it until it is unpinned.
"""

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Final, Self

from qmpmem.api import async_client
from qmpmem.api.client import Client
from qmpmem.api.messages import question, quoted
from qmpmem.api.records import PinRequest, PinResult, Why
from qmpmem.errors import (
    AgentUnreachable,
    ConfigError,
    GuestUnreachable,
    NotReached,
    QmpmemError,
)
from qmpmem.guests.guest import Resized, approach, arrival, not_reached, sizeless
from qmpmem.model import halts
from qmpmem.model.guest import GuestEvent, GuestView
from qmpmem.model.halts import Standing
from qmpmem.model.names import SAFE_ID, pick
from qmpmem.units import Bytes, Change, Delta, resolve, write_change
from qmpmem.wire.errors import WITHOUT_SESSION

POLL: Final = 0.1
"""Seconds between two questions to the agent, which looks at a guest once a second or on events."""


class AgentGuest:
    """A guest, by way of the agent.

    Args:
        client: asks the agent.
        seen: the guest, as the agent last saw it.
    """

    def __init__(self, client: Client, seen: GuestView) -> None:
        self._client = client
        self._seen = seen
        self._pinned: PinResult | None = None

    @property
    def id(self) -> str:
        """Return the guest's id."""
        return self._seen.id

    @property
    def name(self) -> str:
        """Return the guest's name, which its owner chose; any text."""
        return self._seen.name

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    async def snapshot(self) -> GuestView:
        """Ask what the agent last saw."""
        self._seen = await async_client.get(self._client, self._path, GuestView)
        return self._seen

    async def maximum(self) -> Bytes:
        """Ask what an empty balloon leaves the guest with."""
        return (await self._sizes())[1]

    async def actual(self) -> Bytes:
        """Ask what the guest has now.

        Raises:
            GuestUnreachable: the agent cannot talk to it.
            GuestRefused: no balloon device, or the guest claims a size that cannot be.
        """
        return (await self._sizes())[0]

    async def target_of(self, change: Change) -> Bytes:
        """Return which size a change means for this guest, without changing anything."""
        actual, maximum = await self._sizes()
        return resolve(
            change, actual=actual if isinstance(change, Delta) else Bytes(0), maximum=maximum
        )

    async def check(self, target: Bytes, *, force: bool = False) -> None:
        """Refuse what `set` would refuse, without changing anything."""
        await self._pin(target, force=force, query="?dry_run=true")

    async def set(self, target: Bytes, *, force: bool = False) -> None:
        """Pin the guest to a size. Returns at once; `wait` says when it is there."""
        self._pinned = await self._pin(target, force=force)

    async def resize(
        self, change: Change, *, force: bool = False, dry_run: bool = False
    ) -> Resized:
        """Have the agent work out a change, and pin the guest there; one question to the agent."""
        query = "?dry_run=true" if dry_run else ""
        done = await self._pin(write_change(change), force=force, query=query)
        if done.size is None or done.actual is None:
            text = f"guest {self.id}: the agent answers without a size"
            raise AgentUnreachable(text, reason="protocol")
        if not dry_run:
            self._pinned = done
        standing = Standing(state=done.state, pinned=not dry_run, exempt=done.exempt)
        return Resized(before=done.actual, target=done.size, standing=standing)

    def progress(self, target: Bytes, *, timeout: float) -> AsyncIterator[Bytes]:
        """Yield the guest's size until it is at the target or the time is over."""
        return approach(self, target, timeout, poll=POLL)

    async def wait(self, target: Bytes, *, timeout: float) -> Bytes:  # noqa: ASYNC109 - as above
        """Wait until the guest is at the target.

        Raises:
            NotReached: it is not there in time.
        """
        return await arrival(self, target, timeout)

    async def not_reached(self, actual: Bytes, target: Bytes, timeout: float) -> NotReached:  # noqa: ASYNC109 - as above
        """Return how far the guest came, and what held the agent back."""
        standing = await self.standing()
        plain = not_reached(self.id, actual, target, timeout, standing)
        if standing.state != halts.RUNNING:
            return plain
        try:
            why = await async_client.get(self._client, f"{self._path}/why", Why)
        except QmpmemError:
            return plain
        told = why.explanation
        words = f"{told.verdict}: {told.reason}" if told.verdict != "normal" else told.reason
        if told.verdict == "exempt":
            return NotReached(plain.message, hint=f"the agent leaves it alone: {told.reason}")
        what = "has no room for it now" if told.bound == "spare" else "goes on towards it"
        return NotReached(plain.message, hint=f"the agent {what} (limit: {told.bound}; {words})")

    async def unpin(self) -> bool:
        """Let the agent move the guest again; whether it was pinned."""
        done = await async_client.ask(
            self._client, question("DELETE", f"{self._path}/pin"), PinResult
        )
        return done.changed

    async def events(self) -> AsyncIterator[GuestEvent]:
        """Yield QEMU's events that matter here, as the agent hears them.

        Raises:
            GuestUnreachable: the guest has ended.
            AgentUnreachable: the agent has.
        """
        async for event in async_client.follow(self._client, f"{self._path}/events", GuestEvent):
            yield event
        raise await async_client.ended(self._client, self.id)

    async def standing(self) -> Standing:
        """Ask what decides whether the guest moves."""
        seen = await self.snapshot()
        pinned = self._pinned
        return Standing(
            state=seen.state,
            pinned=pinned is not None,
            exempt=None if pinned is None else pinned.exempt,
        )

    @property
    def _path(self) -> str:
        return f"guests/{quoted(self.id)}"

    async def _sizes(self) -> tuple[Bytes, Bytes]:
        seen = await self.snapshot()
        if seen.state in WITHOUT_SESSION:
            problem = seen.problem or f"guest {seen.id}: {seen.state}"
            raise GuestUnreachable(problem, reason="state")
        if seen.actual is None or seen.maximum is None:
            raise sizeless(seen)
        return seen.actual, seen.maximum

    async def _pin(self, size: Bytes | str, *, force: bool, query: str = "") -> PinResult:
        request = PinRequest(size=size, force=force)
        path = f"{self._path}/pin{query}"
        return await async_client.ask(self._client, question("PUT", path, request), PinResult)


def find(client: Client, name: str) -> GuestView | None:
    """Find a guest that the agent knows, by its id or its unique name; None: it knows none.

    Raises:
        AgentUnreachable: there is no agent, or it does not answer.
        ConfigError: several guests have this name.
    """
    if SAFE_ID.fullmatch(name):
        try:
            return client.get(f"guests/{quoted(name)}", GuestView)
        except ConfigError:
            pass
    return _named(name, client.get("guests", list[GuestView]))


async def look_up(client: Client, name: str) -> GuestView | None:
    """Look a guest up, as `find` does, from inside an event loop."""
    if SAFE_ID.fullmatch(name):
        try:
            return await async_client.get(client, f"guests/{quoted(name)}", GuestView)
        except ConfigError:
            pass
    return _named(name, await async_client.get(client, "guests", list[GuestView]))


def _named(name: str, guests: Sequence[GuestView]) -> GuestView | None:
    seen = {each.id: each for each in guests}
    guest = pick(name, {each.id: each.name for each in guests})
    return None if guest is None else seen[guest]
