"""What can be asked of a running agent, and the answers.

Rules of this file:
    Nothing here waits for a guest: answers are from the last round. What changes something leaves
    an order with the agent, and a line in the log that says who gave it.
    Records are whole when they are handed out: no lock, and none needed, on one event loop.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from qmpmem.agent import descriptor_limit
from qmpmem.agent.guest_state import NOT_SEEN
from qmpmem.agent.loop import Agent
from qmpmem.agent.watcher import Watcher
from qmpmem.api import leases
from qmpmem.api.fair_places import FairPlaces, for_others
from qmpmem.api.leases import Gone
from qmpmem.api.permissions import Peer
from qmpmem.api.qmp_log import QmpLog, SessionCounts, always
from qmpmem.api.recent_rounds import RecentEvents, RecentRounds
from qmpmem.api.records import (
    HoldResult,
    LeaseEnded,
    LeaseRequest,
    LeaseResult,
    PinRequest,
    PinResult,
    Status,
    Why,
)
from qmpmem.api.session_opening import SessionOpening
from qmpmem.errors import AgentUnreachable, ConfigError, GuestRefused, GuestUnreachable
from qmpmem.guests import guest
from qmpmem.guests.rundir import GuestRecord
from qmpmem.metrics.content_type import Form
from qmpmem.metrics.rendered import RenderedMetrics
from qmpmem.metrics.totals import Totals, follow
from qmpmem.model import bounds, obstacles
from qmpmem.model.guest import GuestEvent, GuestView
from qmpmem.model.halts import Standing
from qmpmem.model.names import pick
from qmpmem.model.observation import OperatorRequests, Snapshot
from qmpmem.model.round import Explanation, Plan, Tick
from qmpmem.policy import decide
from qmpmem.proxy import allowed_commands
from qmpmem.proxy.client_connection import Connection
from qmpmem.records import replace
from qmpmem.units import Bytes, format_size, parse_change, resolve
from qmpmem.wire.errors import WITHOUT_SESSION, one_line
from qmpmem.wire.events import Event

FIRST_LOOK: Final = 0.15
"""Seconds that a list waits for guests that the agent has just found."""
LONGEST_LOOK: Final = 1.0
"""Seconds that a list waits for guests that the agent does not hold: each takes a connection."""
WARNINGS: Final = 20
"""A status shows so many of the last ones."""

BEAT: Final = 15.0
"""Seconds without an event after which a client that follows them gets an empty line: it can tell
a quiet agent from one that hangs."""
LOOK_UP: Final = 1.0
"""Seconds between two looks at whether the guest that a client follows is still there."""

A_RULE: Final = "a rule for this guest, in the agent's configuration, changes that"

Log = Callable[[str], None]


class Handlers:
    """Answers for an agent.

    Args:
        agent: the agent.
        rounds: where its rounds are heard of.
        log: told of every change, in a line.
        version: of this program.
    """

    def __init__(self, agent: Agent, rounds: RecentRounds, log: Log, version: str = "") -> None:
        self.agent = agent
        self.rounds = rounds
        self.events = RecentEvents()
        agent.pass_on = self._pass_on
        self._log = log
        self._version = version
        self._since = time.time()
        self._planned: tuple[int, OperatorRequests, asyncio.Task[Plan]] | None = None
        places = descriptor_limit.sessions()
        self._sessions = FairPlaces(places, for_others(places))
        self._counts = SessionCounts(log)
        self._totals = Totals()
        self._written = RenderedMetrics(None, self._totals, version)
        # A thread of their own: those of the loop are for the rounds.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="questions")

    def close(self) -> None:
        """End what works for questions. Waits for nothing."""
        self._counts.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def publish(self, tick: Tick) -> None:
        """Hear of a round, and wake who waits for one."""
        self.rounds.publish(tick)
        self._totals = follow(self._totals, tick)

    def status(self) -> Status:
        """Return how the agent and its host are."""
        tick, requests = self.rounds.last, self.agent.requests.in_force
        known = Status(
            pid=os.getpid(),
            version=self._version,
            since=self._since,
            number=0 if tick is None else tick.number,
            age=None if tick is None else time.monotonic() - tick.snapshot.time,
            took=None if tick is None else tick.seconds,
            took_most=self.rounds.within(99),
            dry_run=self.agent.dry_run,
            run=str(self.agent.place.run),
            hold=requests.hold,
            pins=requests.pins,
            leases=requests.leases,
            clock=time.monotonic(),
            warnings=tuple(self.agent.warnings[-WARNINGS:]),
        )
        return known if tick is None else _with_round(known, tick)

    async def guests(self) -> list[GuestView]:
        """Return every guest as the agent last saw it, ordered by id."""
        await self._look_at(self.agent.guests.values())
        rss = self._rss()
        return [each.snapshot(rss.get(name)) for name, each in sorted(self.agent.guests.items())]

    async def guest(self, name: str) -> GuestView:
        """Return one guest, by its id or its name.

        Raises:
            ConfigError: there is none, or more than one of that name.
        """
        watcher = self._watcher(name)
        await self._look_at([watcher])
        return watcher.snapshot(self._rss().get(watcher.found.record.id))

    def why(self, name: str) -> Why:
        """Return why a guest has the memory that it has.

        Raises:
            ConfigError: there is none, or more than one of that name.
            AgentUnreachable: the agent has not decided about it yet.
        """
        name = self._watcher(name).found.record.id
        tick = self._tick()
        explanation = _find(tick, name)
        reading = next((each for each in tick.snapshot.guests if each.id == name), None)
        if explanation is None or reading is None:
            raise AgentUnreachable(f"guest {name}: not decided about yet", reason="early")
        maximum = reading.maximum
        return Why(
            guest=name,
            time=tick.snapshot.wall or 0.0,
            state=tick.plan.state,
            reason=tick.plan.reason,
            reading=reading,
            explanation=explanation,
            limits=None
            if maximum is None
            else self.agent.config.limits(name, maximum, reading.name, reading.current),
            pin=self.agent.requests.in_force.pins.get(name),
            decisions=self.rounds.decisions(name),
        )

    async def plan(self) -> Plan:
        """Decide the next round, as things are now, and do nothing. Once for each round."""
        tick, requests = self._tick(), self.agent.requests.in_force
        known = self._planned
        if known is None or known[:2] != (tick.number, requests):
            known = (
                tick.number,
                requests,
                asyncio.create_task(self._decide(tick.snapshot, requests)),
            )
            self._planned = known
        return await asyncio.shield(known[2])

    async def metrics(self, form: Form) -> bytes:
        """Write the last round for Prometheus; once in a round, however often that is asked for."""
        if self._written.tick is not self.rounds.last:
            self._written = RenderedMetrics(self.rounds.last, self._totals, self._version)
        known = self._written.known(form)
        if known is not None:
            return known
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._written.make, form)

    def hold(self, peer: Peer, *, on: bool) -> HoldResult:
        """Have the agent only release, or let it go on."""
        changed = self.agent.requests.in_force.hold != on
        self._note(peer, "hold" if on else "go on")
        self.agent.requests.hold(on=on)
        self.agent.hurry()
        return HoldResult(hold=on, changed=changed)

    def pin(
        self, name: str, request: PinRequest, peer: Peer, *, dry_run: bool = False
    ) -> PinResult:
        """Keep a guest at a size.

        Raises:
            ConfigError: no such guest, no size, or one that the guest cannot have.
            GuestUnreachable: there is no session with it now.
            GuestRefused: it is not to be ballooned.
        """
        watcher = self._watcher(name)
        record = watcher.found.record
        name, seen = record.id, watcher.snapshot(None)
        if seen.state in WITHOUT_SESSION:
            raise GuestUnreachable(seen.problem or f"guest {name}: {seen.state}", reason="state")
        size = self._checked(record, seen, request)
        if not dry_run:
            self._expect_hands()
            self._note(peer, f"pin {name} to {format_size(size)}")
            self.agent.pins.pin(record, size)
            self.agent.hurry()
        return PinResult(
            guest=name,
            name=record.name,
            size=size,
            actual=seen.actual,
            changed=not dry_run,
            exempt=self._exempt(seen),
            state=seen.state,
        )

    def unpin(self, name: str, peer: Peer) -> PinResult:
        """Let the policy move a guest again.

        Raises:
            ConfigError: no such guest.
        """
        watcher = self._watcher(name)
        record, actual = watcher.found.record, watcher.snapshot(None).actual
        name = record.id
        changed = self.agent.pins.unpin(name)
        self._note(peer, f"unpin {name}")
        self.agent.hurry()
        return PinResult(guest=name, name=record.name, size=None, actual=actual, changed=changed)

    async def reserve(self, room: LeaseRequest, peer: Peer, is_gone: Gone) -> LeaseResult:
        """Make room for a guest that is about to start; see `leases.reserve`."""
        self._expect_hands()
        self._note(peer, f"reserve {format_size(room.size)} within {room.timeout:g} s")
        return await leases.reserve(self.agent, self.rounds, room, peer, is_gone)

    def give_back(self, lease: str, peer: Peer) -> LeaseEnded:
        """End a lease."""
        self._note(peer, f"give back lease {one_line(lease)}")
        changed = self.agent.leases.give_back(lease)
        self.agent.hurry()
        return LeaseEnded(lease=lease, changed=changed)

    async def monitor(self, name: str, peer: Peer, is_gone: Gone, *, read_only: bool) -> Connection:
        """Open a QMP session with a guest for a client; its commands are logged.

        Args:
            name: the guest's id or name.
            peer: the client.
            is_gone: whether it has left.
            read_only: whether it may have queries alone.

        Raises:
            ConfigError: no such guest.
            AgentUnreachable: there are too many sessions, or the client has left.
            GuestError: there is no session with it.
        """
        watcher = self._watcher(name)
        guest = watcher.found.record.id
        is_owner = peer.uid in (0, os.geteuid())
        place = self._sessions.take(peer.uid, is_owner=is_owner)
        if place is None:
            words = f"{len(self._sessions)} QMP sessions are open already"
            raise AgentUnreachable(words, reason="busy", hint="`qmpmem qmp --listen` shares one")
        note = partial(self._note_qmp, peer, guest)
        may_tell = always if is_owner else partial(self._counts.may_tell, peer.uid)
        log = QmpLog(note, partial(self._sessions.leave, place), may_tell)
        opening = SessionOpening()
        place.hold(opening, log.lose)
        try:
            share = await opening.unless_gone(watcher.shared(), is_gone)
        except BaseException:
            self._sessions.leave(place)
            raise
        log.begin(read_only=read_only)
        permit = allowed_commands.queries if read_only else allowed_commands.everything
        opened = share.open(permit, log.hear, peer.uid)
        place.hold(opened, log.lose)
        return opened

    def _note_qmp(self, peer: Peer, guest: str, words: str) -> None:
        self._note(peer, f"qmp {guest}: {words}")

    def follow(self, name: str | None = None) -> AsyncIterator[GuestEvent | None]:
        """Yield events from now on; None where there was none for a while.

        Args:
            name: the id or the name of a guest, whose end is the end of this; None: all guests,
                without end.

        Raises:
            ConfigError: no such guest.
        """
        watcher = None if name is None else self._watcher(name)
        guest = None if watcher is None else watcher.found.record.id
        return self._follow(guest, watcher, self.events.count)

    def _pass_on(self, guest: str, event: Event) -> None:
        watcher = self.agent.watcher(guest)
        self.events.publish(guest, event, None if watcher is None else watcher.found.record.name)

    async def _follow(
        self, name: str | None, watcher: Watcher | None, place: int
    ) -> AsyncIterator[GuestEvent | None]:
        clock = asyncio.get_running_loop().time
        said = clock()
        with self.events.followed():
            while True:
                is_over = name is not None and self.agent.watcher(name) is not watcher
                new, place = self.events.since(place, name), self.events.count
                for event in new:
                    yield event
                if is_over:
                    return
                if new:
                    said = clock()
                elif clock() - said >= BEAT:
                    said = clock()
                    yield None
                await self.events.after(place, LOOK_UP)

    def _expect_hands(self) -> None:
        if self.agent.dry_run:
            raise ConfigError("the agent runs with --dry-run, so it changes nothing")

    def _note(self, peer: Peer, words: str) -> None:
        behalf = "" if peer.behalf is None else f" for {peer.behalf}"
        self._log(f"uid {peer.uid} pid {peer.pid}{behalf}: {words}")

    def _tick(self) -> Tick:
        if self.rounds.last is None:
            raise AgentUnreachable("the agent has only just started", reason="early")
        return self.rounds.last

    def _watcher(self, name: str) -> Watcher:
        guests = self.agent.guests
        guest = pick(name, {each: guests[each].found.record.name for each in guests})
        if guest is None:
            raise ConfigError(f"guest {name}: no such guest", hint="`qmpmem list` shows all")
        return guests[guest]

    def _rss(self) -> dict[str, Bytes | None]:
        tick = self.rounds.last
        return {} if tick is None else {each.id: each.rss for each in tick.snapshot.guests}

    async def _look_at(self, watchers: Collection[Watcher]) -> None:
        """Wait a moment for guests that were not seen yet, or not of late as they are not held."""
        for each in watchers:
            each.look_again()
        clock = asyncio.get_running_loop().time
        began = clock()
        while (waited := clock() - began) < LONGEST_LOOK:
            is_new = waited < FIRST_LOOK and any(each.is_new for each in watchers)
            if not is_new and not any(each.is_stale for each in watchers):
                return
            await asyncio.sleep(0.01)

    async def _decide(self, snapshot: Snapshot, requests: OperatorRequests) -> Plan:
        config, period = self.agent.config, self.agent.config.period
        later = replace(
            snapshot,
            time=snapshot.time + period,
            requests=requests,
            guests=tuple(
                each if each.age is None else replace(each, age=each.age + period)
                for each in snapshot.guests
            ),
        )
        loop = asyncio.get_running_loop()
        plan, _ = await loop.run_in_executor(
            self._thread, decide, later, self.agent.history, config
        )
        return plan

    def _checked(self, record: GuestRecord, seen: GuestView, request: PinRequest) -> Bytes:
        """Return the size that is meant.

        What QEMU, the floor or the configuration stand against is refused, as `Guest.set` does.
        """
        if not record.managed:
            raise guest.not_managed(record)
        if seen.maximum is None or seen.actual is None:
            raise guest.sizeless(seen)
        beyond, size = seen.beyond or Bytes(0), request.size
        if isinstance(size, str):
            size = resolve(parse_change(size), actual=seen.actual, maximum=seen.maximum)
        check = partial(
            bounds.check_target, size, guest=record.id, maximum=seen.maximum, beyond=beyond
        )
        check(force=True)
        if seen.unmovable is not None and size < seen.actual:
            refusal = guest.unmovable(record.id, seen.unmovable)
            # With force neither: the agent leaves such a guest alone.
            hint = obstacles.advice(seen.unmovable)
            raise GuestRefused(refusal.message, error_class="Unmovable", hint=hint)
        limits = self.agent.config.limits(record.id, seen.maximum, record.name, seen.current)
        try:
            check(force=request.force)
        except ConfigError as error:
            # --force would not help where the configuration stands against it as well.
            hint = A_RULE if size < limits.minimum else error.hint
            raise ConfigError(error.message, hint=hint) from None
        if not limits.managed:
            raise GuestRefused(
                f"guest {record.id}: not managed, by the agent's configuration",
                error_class="NotManaged",
            )
        if not limits.minimum <= size <= limits.maximum:
            raise ConfigError(
                f"guest {record.id}: {format_size(size)} is not between "
                f"{format_size(limits.minimum)} and {format_size(limits.maximum)}, which the "
                "agent's configuration allows",
                hint=A_RULE,
            )
        return size

    def _exempt(self, seen: GuestView) -> str | None:
        """Return why the policy leaves a guest alone; None where it does not."""
        halted = Standing(state=seen.state).obstacle
        found = None if self.rounds.last is None else _find(self.rounds.last, seen.id)
        if halted is not None or found is None:
            return halted
        # A guest that the last round did not know yet is no longer unknown.
        return found.reason if found.verdict == "exempt" and found.reason != NOT_SEEN else None


def _find(tick: Tick, name: str) -> Explanation | None:
    return next((each for each in tick.plan.guests if each.guest == name), None)


def _with_round(status: Status, tick: Tick) -> Status:
    plan, host = tick.plan, tick.snapshot.host
    return replace(
        status,
        state=plan.state,
        reason=plan.reason,
        total=host.total,
        available=host.available,
        limit=host.limit,
        limited_by=host.limited_by,
        headroom=host.headroom,
        reserve=plan.reserve,
        spare=plan.spare,
        budget=plan.budget,
        debt=plan.debt,
        guests=plan.guests,
    )
