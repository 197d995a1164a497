"""One guest: its session, its events, what it was last seen to be, and what it is told.

Theory of operation:
    Each guest has a task, a connection and a deadline of its own, and at most one command in
    flight, so one that is slow, stuck or hostile delays nobody. The rounds of the agent never wait
    for a guest: they take the reading that its watcher last had, and leave an order with it.

    An event is a reason to look, never a fact: what it says may be old when it is read. Only that
    there was one counts, as for the epoch.

    What an answer makes of what is known stands in `qmpmem.agent.guest_state`, and what is asked
    when in `qmpmem.agent.schedule`. Both are pure. Here is what needs the loop: to connect, to ask,
    to tell and to wait.

    An adopted guest's socket is its user's as well, and serves one client at a time. It is held
    only while that is of use: of a guest that has no balloon, or is not managed, it is let go after
    each look, and where another client is attached, nobody is queued behind it.

    The session is shared with those who ask for it (`shared`); a guest that is not held is held as
    long as they use it. What they command there is another program's word, as on any monitor.

    An order is worth something only while it is fresh. One that a guest could not be told in time
    is dropped, and said to have failed: carried out minutes later it would be somebody's surprise.

Rules of this file:
    Whatever goes wrong with a guest becomes its state. Nothing but cancellation leaves `run`.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from qmpmem.agent import epochs, guest_state, schedule, starting_size
from qmpmem.agent.cgroup_usage import CgroupUse
from qmpmem.agent.disk_reads import DiskReader
from qmpmem.agent.guest_state import NOT_SEEN, GuestState, Launched
from qmpmem.agent.schedule import NEVER, Schedule
from qmpmem.agent.session_lending import SessionLending, no_qmp
from qmpmem.errors import GuestError, GuestRefused, GuestUnreachable
from qmpmem.guests import inventory, read_guest
from qmpmem.guests.inventory import LiveGuest
from qmpmem.model import sanitise
from qmpmem.model.guest import BalloonDevice, GuestView
from qmpmem.model.observation import GuestReading
from qmpmem.model.round import Outcome
from qmpmem.proxy.shared_session import SharedSession
from qmpmem.records import replace
from qmpmem.units import Bytes
from qmpmem.wire import addresses, commands, errors, guest_devices, sock_diag
from qmpmem.wire.channel import Channel
from qmpmem.wire.kernel.processes import Memory

if TYPE_CHECKING:
    from qmpmem.wire.events import Event

FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts to connect, doubled each time."""

HARMLESS: Final = frozenset({"busy", "timeout"})
"""Reasons after which the session goes on."""

PATIENCE: Final = 2.0
"""Seconds without an answer after which a guest is not to be counted on: two rounds. An idle QEMU
answers within 1 ms; the deadline of the question itself is longer, for the starved ones."""
LEAVING: Final = 1.0
"""Seconds that putting a guest's polling back may take."""

AWAY: Final = 30.0
"""Seconds between two looks at a guest that is not held: a balloon may be plugged in."""
OLD: Final = 2.0
"""Seconds after which what was seen of such a guest is looked at again for those who ask."""

UNKNOWN: Final = Memory(rss=None, swap=None)
UNCOUNTED: Final = CgroupUse()


class Watcher:
    """Watches one guest.

    Args:
        found: the guest.
        news: called when something happened that should not wait for the next round.
        clock: seconds of a steady clock.
        epoch: what to begin counting at.
        delay: seconds before it is first spoken to.
    """

    _moving: asyncio.Future[None] | None = None
    """There is one while the next attempt to connect is waited for."""

    def __init__(
        self,
        found: LiveGuest,
        news: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        *,
        epoch: int = 0,
        delay: float = 0.0,
    ) -> None:
        self.found = found
        self._delay = delay
        self.looks = 0
        """How often the guest answered: a measure of progress, for whoever watches the watcher."""
        self.pass_on: Callable[[str, Event], None] | None = None
        """Called with the guest's id and each event of it; must not raise."""
        self.may_start_small = True
        """Whether it was not decided yet with which size it starts."""
        self.is_stale = False
        """Whether a look was asked for that has not come yet."""
        self._is_managed, self._is_away = True, False
        self._looked = NEVER
        self._news = news
        self._clock = clock
        self._resting: asyncio.Future[None] | None = None
        self._is_woken = False
        self._lending = SessionLending(found.record.id, self._nudge)
        self._settling: asyncio.Event | None = None
        self._order: Bytes | None = None
        self._is_telling = False
        self._outcomes: list[Outcome] = []
        self._known = unseen(found, epoch)
        self._asked = Schedule()
        self._asking: float | None = None
        self._asks_disks = True
        self._disks = DiskReader()
        self._costs = UNKNOWN

    @property
    def epoch(self) -> int:
        """Which of its lives the guest is in."""
        return self._known.reading.epoch

    @property
    def is_new(self) -> bool:
        """Whether nothing came of the first attempt to look at it yet."""
        return self._known.is_new

    def reading(self, memory: Memory | None = None, use: CgroupUse | None = None) -> GuestReading:
        """Give what the guest was last seen to be; the age of its report is as of now.

        Args:
            memory: what its process costs.
            use: what its own groups count.
        """
        now = self._clock()
        known, reading = self._known, self._known.reading
        is_late = self._asking is not None and now - self._asking > PATIENCE
        costs = self._costs = memory or UNKNOWN
        counted = use or UNCOUNTED
        return replace(
            reading,
            up=starting_size.up(self.found.record),
            age=None if known.changed is None else now - known.changed,
            every=self._asked.every,
            available=sanitise.available_by_now(reading.available, known.reported, reading.actual),
            state=errors.state("timeout") if is_late else reading.state,
            rss=costs.rss,
            swap=costs.swap if counted.swap is None else counted.swap,
            cost=costs.rss if counted.held is None else counted.held,
            stalled=counted.stalled,
            refaults=counted.refaults,
        )

    def snapshot(self, rss: Bytes | None, now: float | None = None) -> GuestView:
        """Give the same as a guest's object in ``--json``.

        Args:
            rss: what its process costs.
            now: seconds since 1970.
        """
        known, reading, stats = self._known, self._known.reading, self._known.stats
        if stats is not None and stats.last_update is not None:
            since = (time.time() if now is None else now) - stats.last_update
            stats = replace(stats, age=since if since >= 0 else None)
        base = inventory.silent(self.found, rss)
        process = inventory.obstacle(self._costs, known.sizes)
        seen = replace(
            inventory.describe(base, known.sizes, known.counted),
            state=reading.state,
            maximum=reading.maximum,
            actual=reading.actual,
            stats=stats,
            machine=known.machine,
            used=sanitise.used(known.reported, stats),
            accelerator=known.accelerator,
            balloon=known.device,
            unmovable=base.unmovable or process or known.devices.obstacle,
            current=reading.current,
        )
        return replace(seen, problem=inventory.remarks(base, seen, known.problem))

    def order(self, target: Bytes) -> None:
        """Tell the guest to go to a size, as soon as it can be told; the last order counts."""
        self._order = target
        self._asked = schedule.ordered(self._asked, self._clock())
        self._nudge()

    def start_with(self, size: Bytes, *, is_told: bool) -> None:
        """Have the guest go to the size that a rule has it start with.

        Args:
            size: that size.
            is_told: it is told something already.
        """
        self._known = guest_state.started_with(self._known, size)
        if not is_told:
            self.order(size)

    async def settled(self) -> None:
        """Wait until there is no order that the guest was not told."""
        while not self._is_settled():
            self._settling = self._settling or asyncio.Event()
            await self._settling.wait()

    def report_every(self, seconds: float) -> None:
        """Say how often the guest shall report."""
        before, self._asked = self._asked, schedule.reported_every(self._asked, seconds)
        if seconds < before.every:
            self._nudge()

    def report_now(self) -> None:
        """Have the guest report at once, as well: at most once a second."""
        before = self._asked
        if self._known.device is not None:
            self._asked = schedule.hurried(before, self._clock())
        if self._asked is not before:
            self._nudge()

    def outcomes(self) -> tuple[Outcome, ...]:
        """Give what came of the orders since the last call."""
        done, self._outcomes = tuple(self._outcomes), []
        return done

    def manage(self, managed: bool) -> None:  # noqa: FBT001 - the value is the subject
        """Hear whether the configuration lets the guest's memory be changed."""
        if managed and not self._is_managed and self._is_away:
            self._nudge()
        self._is_managed = managed

    def look_again(self) -> None:
        """Have a guest that is not held looked at, where the last look is old."""
        if self._is_away and self._clock() - self._looked > OLD:
            self.is_stale = True
            self._nudge()

    def move(self, found: LiveGuest) -> None:
        """Hear that another broker shows the guest, which is the same process."""
        self.found = found
        if self._moving is not None and not self._moving.done():
            self._moving.set_result(None)

    def fail(self, problem: str) -> None:
        """Hear that a mistake of ours ended `run`: nothing that was seen counts any more."""
        self._lose(GuestUnreachable(problem, reason="closed"))

    async def shared(self) -> SharedSession:
        """Return the guest's session, for other clients to use as well.

        Raises:
            GuestRefused: it has only a human monitor.
            GuestUnreachable: there is no session with it.
        """
        if self.found.record.human:
            raise no_qmp(self.found.record.id)
        return await self._lending.take(lambda: self._known.problem)

    async def run(self) -> None:
        """Watch until cancelled."""
        pause = FIRST_PAUSE
        await asyncio.sleep(self._delay)
        while True:
            before = self.looks
            try:
                await self._expect_free()
                async with read_guest.open_session(self.found) as session:
                    await self._serve(session)
            except GuestError as error:
                self._lose(error)
            self.is_stale = False
            pause = FIRST_PAUSE if self.looks > before else min(LONGEST_PAUSE, 2 * pause)
            if self._is_away:
                await self._pause(AWAY)
            else:
                await self._back_off(pause * random.uniform(0.75, 1.25))  # noqa: S311 - not a secret

    async def _back_off(self, seconds: float) -> None:
        """Wait before the next attempt to connect, unless there is another socket to connect to."""
        self._moving = asyncio.get_running_loop().create_future()
        await asyncio.wait((self._moving,), timeout=seconds)
        self._moving = None

    async def _expect_free(self) -> None:
        """Queue behind nobody for a socket that is not ours alone: who leaves stays in the queue.

        Raises:
            GuestUnreachable: another client is attached.
        """
        record = self.found.record
        if record.origin == "adopted" and not record.shared:
            with suppress(OSError):  # connecting finds the words
                held = await asyncio.to_thread(addresses.holder, record.socket)
                if held is not None:
                    raise sock_diag.taken(record.socket, record.id, held)

    async def _serve(self, session: Channel) -> None:
        async with self._lending.having(session):
            self._begin(await read_guest.known(commands.find_balloon(session)))
            session.listen(lambda: self._hear(session))
            await self._attend_all(session)

    async def _attend_all(self, session: Channel) -> None:
        was_away, self._is_away = self._is_away, False
        try:
            await self._attend(session, was_away=was_away)
        finally:
            await self._leave_as_found(session)

    def _is_of_use(self) -> bool:
        """Whether to hold the guest's socket: our own always, another only to move its memory.

        And as long as others use it by way of us.
        """
        if self._lending.is_wanted:
            return True
        record = self.found.record
        can_move = self._known.device is not None and record.managed and self._is_managed
        can_move = can_move and not record.human
        return can_move or record.origin != "adopted"

    def _begin(self, device: BalloonDevice | None) -> None:
        self._known = guest_state.session_begun(self._known, device)
        self._asked = schedule.session_begun(self._asked)

    def _hear(self, session: Channel) -> None:
        """Take in what the guest says unasked; the session's end shows when it is asked again."""
        self._nudge()
        events = tuple(session.take_events())
        self._asked = schedule.heard(self._asked, (event.name for event in events))
        for event in events:
            if self.pass_on is not None:
                self.pass_on(self.found.record.id, event)
            self._known = guest_state.event_heard(self._known, event.name)
            if event.name in epochs.RESETS:
                self._order = None
                self._tell_if_settled()
            if event.name in epochs.RESETS | epochs.RESUMES:
                self._news()

    async def _attend(self, session: Channel, *, was_away: bool) -> None:
        """Look, tell, wait; again and again, as long as that is of use."""
        while True:
            try:
                await self._look(session)
                if not self._is_of_use():
                    self._is_away, self._looked = True, self._clock()
                    self._order = None
                    self._tell_if_settled()
                    return
                if was_away:  # what happened meanwhile was not heard
                    was_away = False
                    self._known = guest_state.begun_anew(self._known, "seen")
                await self._tell(session)
            except GuestUnreachable as error:
                if error.reason not in HARMLESS:
                    raise
                self._known = guest_state.unanswered(self._known, error)
                self._asked = schedule.unanswered(self._asked)
                self._drop_order(error)
            finally:
                self._asking = None
            await self._pause(schedule.rest(self._asked, self._known, self._clock()))

    async def _pause(self, seconds: float) -> None:
        # Not all at the same time: what is asked of thousands at once holds up the loop.
        if not self._is_woken:
            loop = asyncio.get_running_loop()
            self._resting = loop.create_future()
            rest = seconds * random.uniform(0.9, 1.0)  # noqa: S311 - not a secret
            timer = loop.call_later(rest, self._nudge)
            try:
                await self._resting
            finally:
                timer.cancel()
                self._resting = None
        self._is_woken = False

    def _nudge(self) -> None:
        """End the pause there is, or leave out the next."""
        self._is_woken = True
        if self._resting is not None and not self._resting.done():
            self._resting.set_result(None)

    async def _look(self, session: Channel) -> None:
        now = self._asking = self._clock()
        # Those that are met together are not asked together for ever.
        ago = random.uniform(0, schedule.RECHECK) if self.is_new else 0.0  # noqa: S311 - not a secret
        if schedule.is_check_due(self._asked, self._known, now):
            await self._check(session)
            self._asked = schedule.checked(self._asked, now - ago)
        if schedule.is_size_due(self._asked, now):
            claimed = await read_guest.known(commands.balloon_actual(session))
            self._known = guest_state.size_read(self._known, claimed, session.lacks)
            self._asked = schedule.sized(self._asked, now - ago)
        self._known = guest_state.answering(self._known)
        device = self._known.device
        if device is not None and now >= self._asked.report_due:
            self._asked = schedule.report_begun(self._asked, now)
            await self._read_stats(session, device)
            reads = await self._disks.read(session, now)
            self._known = guest_state.reads_read(self._known, reads.size, reads.waited)
        self.looks += 1
        self._known = guest_state.looked_at(self._known)
        self._asking = None

    async def _check(self, session: Channel) -> None:
        """Look at what seldom changes."""
        state = await commands.run_state(session)
        self._known = guest_state.run_state_read(self._known, state)
        if schedule.is_survey_due(self._asked, now := self._clock()):
            self._asked = schedule.surveyed(self._asked, now)
            asks, self._asks_disks = self._asks_disks, False
            devices = await guest_devices.look(session, disks=asks)
            self._known = guest_state.devices_read(self._known, devices)
            self._asks_disks = asks  # again, as the session lives
        sizes = await read_guest.known(read_guest.given(session, self._known.devices))
        self._known = guest_state.given_read(self._known, sizes)
        device = self._known.device or await read_guest.known(commands.find_balloon(session))
        self._known = guest_state.device_read(self._known, device)
        if self._known.machine is None:
            machine = await read_guest.known(commands.machine_type(session))
            kvm = await read_guest.known(commands.kvm_enabled(session))
            self._known = guest_state.machine_read(self._known, machine, kvm=kvm)

    async def _read_stats(self, session: Channel, device: BalloonDevice) -> None:
        try:
            await self._set_polling(session, device)
            raw = await commands.guest_stats(session, device)
        except GuestRefused:  # unplugged, or an older QEMU
            self._known = guest_state.device_lost(self._known)
            self._asked = schedule.device_lost(self._asked)
            return
        now, is_other = self._clock(), raw != self._known.raw
        self._known = guest_state.report_read(self._known, raw, now, time.time())
        if is_other and schedule.was_hurried(self._asked, now):  # asked because it is growing
            self._news()

    async def _set_polling(self, session: Channel, device: BalloonDevice) -> None:
        wanted = schedule.polling(self._asked)
        if self._known.polled_before is None:
            seconds = await commands.polling_interval(session, device)
            self._known = guest_state.polling_read(self._known, seconds)
        now = self._clock()
        asked = schedule.polling_seen(self._asked, now)
        again = schedule.is_to_be_woken(asked, self._known, now)
        self._asked = schedule.hurry_taken(asked)
        for seconds in guest_state.polling_to_set(self._known, wanted, again=again):
            await commands.set_polling_interval(session, device, seconds)
            self._known = guest_state.polling_set(self._known, seconds)
            if not seconds:
                self._asked = schedule.woken(self._asked, self._clock())

    async def _tell(self, session: Channel) -> None:
        target, self._order = self._order, None
        if target is None:
            return
        start, error = self._clock(), None
        self._asking = start
        self._is_telling = True
        try:
            sizes = self._known.sizes
            counted = target if sizes is None else sizes.told(target)
            await commands.set_balloon(session, counted)
        except GuestError as failure:
            error = failure
        finally:
            self._is_telling = False
        self._report(error, self._clock() - start)
        if isinstance(error, GuestUnreachable):
            raise error

    def _report(self, error: GuestError | None, seconds: float | None = None) -> None:
        """Say what came of an order."""
        refused = None if error is None else error.message
        self._outcomes.append(
            Outcome(guest=self.found.record.id, done=error is None, error=refused, seconds=seconds)
        )
        self._known = guest_state.order_told(self._known, refused)
        self._tell_if_settled()

    def _drop_order(self, error: GuestError) -> None:
        order, self._order = self._order, None
        if order is not None:
            self._report(error)

    def _tell_if_settled(self) -> None:
        if self._settling is not None and self._is_settled():
            self._settling.set()
            self._settling = None

    def _is_settled(self) -> bool:
        return self._order is None and not self._is_telling

    async def _leave_as_found(self, session: Channel) -> None:
        device, seconds = self._known.device, guest_state.polling_to_put_back(self._known)
        if device is None or seconds is None:
            return
        with suppress(GuestError, TimeoutError):
            async with asyncio.timeout(LEAVING):
                await commands.set_polling_interval(session, device, seconds)

    def _lose(self, error: GuestError) -> None:
        was_there = self._known.reading.state not in errors.WITHOUT_SESSION
        self._drop_order(error)
        self._known = guest_state.session_lost(self._known, error)
        self._asking = None
        if was_there:
            self._news()


def unseen(found: LiveGuest, epoch: int) -> GuestState:
    """Return what is known of a guest before the first look at it.

    Args:
        found: the guest.
        epoch: what to begin counting at.
    """
    record = found.record
    reading = GuestReading(
        id=record.id,
        name=record.name,
        state="unreachable",
        epoch=epoch,
        domain=record.domain,
        current=record.current,
        exempt=NOT_SEEN,
    )
    launched = Launched(
        mode=record.mode,
        managed=record.managed,
        human=record.human,
        no_balloon=record.no_balloon,
        unmovable=record.unmovable,
    )
    return GuestState(reading=reading, launched=launched)
