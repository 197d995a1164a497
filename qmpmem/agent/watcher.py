"""One guest: its session, its events, what it was last seen to be, and what it is told.

Theory of operation:
    Each guest has a task, a connection and a deadline of its own, and at most one command in
    flight, so one that is slow, stuck or hostile delays nobody. The rounds of the agent never wait
    for a guest: they take the reading that its watcher last had, and leave an order with it.

    An event is a reason to look, never a fact: what it says may be old when it is read. Only that
    there was one counts, as for the epoch. QEMU tells when a size changes (BALLOON_CHANGE), so a
    guest at rest is asked for its size every ten seconds, not every one: a question costs both
    sides some 0.4 ms, and there may be thousands of guests.

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

from qmpmem.agent import epochs, starting_size
from qmpmem.agent.cgroup_usage import CgroupUse
from qmpmem.agent.disk_reads import DiskReader
from qmpmem.agent.session_lending import SessionLending, no_qmp
from qmpmem.errors import GuestError, GuestRefused, GuestUnreachable
from qmpmem.guests import inventory, read_guest
from qmpmem.guests.inventory import LiveGuest
from qmpmem.model import obstacles, sanitise
from qmpmem.model.guest import BalloonDevice, GuestStats, GuestView
from qmpmem.model.observation import Beginning, GuestReading
from qmpmem.model.round import Outcome
from qmpmem.policy import cadence
from qmpmem.proxy.shared_session import SharedSession
from qmpmem.records import replace
from qmpmem.units import Bytes
from qmpmem.wire import addresses, commands, errors, guest_devices, replies, sock_diag
from qmpmem.wire.channel import Channel
from qmpmem.wire.guest_devices import GuestDevices
from qmpmem.wire.kernel.processes import Memory

if TYPE_CHECKING:
    from qmpmem.model.sizes import Sizes

if TYPE_CHECKING:
    from qmpmem.wire.events import Event

FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts to connect, doubled each time."""

HARMLESS: Final = frozenset({"busy", "timeout"})
"""Reasons after which the session goes on."""
SIZES: Final = frozenset({"BALLOON_CHANGE"})
"""Events that tell of a new size, and of nothing else."""

RECHECK: Final = 10.0
"""Seconds after which a guest's size is asked again: memory may be plugged in."""
UNDER_WAY: Final = 10.0
"""Seconds after an order in which a guest's size is asked each time: an event may be lost."""
PATIENCE: Final = 2.0
"""Seconds without an answer after which a guest is not to be counted on: two rounds. An idle QEMU
answers within 1 ms; the deadline of the question itself is longer, for the starved ones."""
ANSWER: Final = 0.1
"""Seconds after which the report has come that a guest was asked for at once: its driver takes
milliseconds, and one that takes longer is read the next time."""
LEAVING: Final = 1.0
"""Seconds that putting a guest's polling back may take."""
WAKE_UP: Final = 3
"""Reports that stayed out, after which polling is set again: somebody may have turned it off, or
plugged another device (QEMU keeps the interval with the device)."""

AWAY: Final = 30.0
"""Seconds between two looks at a guest that is not held: a balloon may be plugged in."""
OLD: Final = 2.0
"""Seconds after which what was seen of such a guest is looked at again for those who ask."""
SURVEY: Final = 60.0
"""Seconds after which a guest's devices, disks and memory backends are looked at again. What a
passed-through device pins, the kernel shows at once."""

NEVER: Final = float("-inf")
UNKNOWN: Final = Memory(rss=None, swap=None)
UNCOUNTED: Final = CgroupUse()
NOT_SEEN: Final = "the agent has not seen it yet"


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
        self.is_new = True
        """Whether nothing came of the first attempt to look at it yet."""
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
        self._every = 2.0
        self._reading = GuestReading(
            id=found.record.id,
            name=found.record.name,
            state="unreachable",
            epoch=epoch,
            domain=found.record.domain,
            current=found.record.current,
            exempt=NOT_SEEN,
        )
        self._device: BalloonDevice | None = None
        self._machine: str | None = None
        self._accelerator: str | None = None
        self._stats: GuestStats | None = None
        self._run_state = ""
        """As QEMU last told it, whatever became of the session since."""
        self._last: GuestStats | None = None
        """The report before a pause, while there is none after it."""
        self._problem: str | None = NOT_SEEN
        self._was_polling: int | None = None
        self._raw: object = None
        self._changed: float | None = None
        self._reported: Bytes | None = None
        self._stats_due = self._checked = self._sized = self._ordered = self._woken = NEVER
        self._told = 0
        self._hurried, self._is_hurried = NEVER, False
        self._asking: float | None = None
        self._odd = False
        self._sizes: Sizes | None = None
        self._counted: Bytes | None = None
        self._around = GuestDevices()
        self._surveyed = NEVER
        self._asks_disks = True
        self._disks = DiskReader()
        self._costs = UNKNOWN

    @property
    def epoch(self) -> int:
        """Which of its lives the guest is in."""
        return self._reading.epoch

    def reading(self, memory: Memory | None = None, use: CgroupUse | None = None) -> GuestReading:
        """Give what the guest was last seen to be; the age of its report is as of now.

        Args:
            memory: what its process costs.
            use: what its own groups count.
        """
        now = self._clock()
        reading = self._reading
        is_late = self._asking is not None and now - self._asking > PATIENCE
        costs = self._costs = memory or UNKNOWN
        counted = use or UNCOUNTED
        return replace(
            reading,
            up=starting_size.up(self.found.record),
            age=None if self._changed is None else now - self._changed,
            every=self._every,
            available=sanitise.available_by_now(reading.available, self._reported, reading.actual),
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
        stats, reading = self._stats, self._reading
        if stats is not None and stats.last_update is not None:
            since = (time.time() if now is None else now) - stats.last_update
            stats = replace(stats, age=since if since >= 0 else None)
        base = inventory.silent(self.found, rss)
        process = inventory.obstacle(self._costs, self._sizes)
        seen = replace(
            inventory.describe(base, self._sizes, self._counted),
            state=reading.state,
            maximum=reading.maximum,
            actual=reading.actual,
            stats=stats,
            machine=self._machine,
            used=sanitise.used(self._reported, stats),
            accelerator=self._accelerator,
            balloon=self._device,
            unmovable=base.unmovable or process or self._around.obstacle,
            current=reading.current,
        )
        return replace(seen, problem=inventory.remarks(base, seen, self._problem))

    def order(self, target: Bytes) -> None:
        """Tell the guest to go to a size, as soon as it can be told; the last order counts."""
        self._order = target
        self._ordered = self._clock()
        self._nudge()

    def start_with(self, size: Bytes, *, is_told: bool) -> None:
        """Have the guest go to the size that a rule has it start with.

        Args:
            size: that size.
            is_told: it is told something already.
        """
        self._reading = replace(self._reading, current=size)
        if not is_told:
            self.order(size)

    async def settled(self) -> None:
        """Wait until there is no order that the guest was not told."""
        while not self._is_settled():
            self._settling = self._settling or asyncio.Event()
            await self._settling.wait()

    def report_every(self, seconds: float) -> None:
        """Say how often the guest shall report."""
        if seconds == self._every:
            return
        sooner, self._every = seconds < self._every, seconds
        if sooner:
            self._stats_due = NEVER
            self._nudge()

    def report_now(self) -> None:
        """Have the guest report at once, as well: at most once a second."""
        if self._device is not None and self._clock() - self._hurried >= cadence.HURRY:
            self._hurried = self._clock()
            self._is_hurried = True
            self._stats_due = NEVER
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
        return await self._lending.take(lambda: self._problem)

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
        can_move = self._device is not None and record.managed and self._is_managed
        can_move = can_move and not record.human
        return can_move or record.origin != "adopted"

    def _begin(self, device: BalloonDevice | None) -> None:
        self._surveyed = NEVER
        self._device = device
        self._stats = None
        self._raw, self._changed, self._was_polling = None, None, None
        self._stats_due = self._checked = self._sized = self._woken = NEVER

    def _hear(self, session: Channel) -> None:
        """Take in what the guest says unasked; the session's end shows when it is asked again."""
        self._sized = NEVER
        self._nudge()
        for event in session.take_events():
            if self.pass_on is not None:
                self.pass_on(self.found.record.id, event)
            if event.name in SIZES:
                continue
            self._checked = NEVER
            if event.name in epochs.RESETS:
                self._begin_anew("reset")
                self._order = None
                self._tell_if_settled()
                self._news()
            elif event.name in epochs.RESUMES:
                if self._changed is not None:  # else it is of the life before, which is over
                    self._changed, self._last = None, self._stats
                self._news()

    def _begin_anew(self, how: Beginning) -> None:
        """Count another epoch; what was reported before it says nothing."""
        self._reading = replace(self._reading, epoch=self._reading.epoch + 1, began=how)
        self._changed = self._last = None

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
                    self._begin_anew("seen")
                await self._tell(session)
            except GuestUnreachable as error:
                if error.reason not in HARMLESS:
                    raise
                self._reading = replace(self._reading, state=errors.state(error.reason))
                self._problem = error.message
                self._checked = self._sized = NEVER  # when it is back, all of it is asked again
                self._drop_order(error)
            finally:
                self._asking = None
            await self._pause(self._rest())

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

    def _rest(self) -> float:
        """Say how long there is nothing to ask."""
        now = self._clock()
        if self._reading.state in errors.WITHOUT_SESSION:
            return min(1.0, self._every)
        if self._reading.maximum is None:
            return 1.0
        due = self._sized + RECHECK
        if self._is_under_way():
            due = now + min(1.0, self._every)
        if self._device is not None:
            due = min(due, self._stats_due)
        return min(RECHECK, max(0.1, due - now))

    def _is_under_way(self) -> bool:
        return self._clock() - self._ordered < UNDER_WAY

    async def _look(self, session: Channel) -> None:
        now = self._asking = self._clock()
        # Those that are met together are not asked together for ever.
        ago = random.uniform(0, RECHECK) if self.is_new else 0.0  # noqa: S311 - not a secret
        state = self._reading.state
        if now - self._checked >= RECHECK or self._reading.maximum is None:
            state = await self._check(session)
            self._checked = now - ago
        if now - self._sized >= RECHECK or self._is_under_way():
            await self._size(session, state)
            self._sized = now - ago
        # Not before its size is known: a round in between would take a guest for one that lies.
        self._reading = replace(self._reading, state=state)
        if now >= self._stats_due and self._device is not None:
            self._stats_due = now + (ANSWER if self._is_hurried else self._every)
            await self._read_stats(session, self._device)
            reads = await self._disks.read(session, now)
            self._reading = replace(self._reading, reads=reads.size, reads_waited=reads.waited)
        self.looks += 1
        if self.is_new:
            self.is_new = False
            self._reading = replace(self._reading, exempt=self._exempt(), bare=self._is_bare())
        self._asking = None

    async def _size(self, session: Channel, state: str) -> None:
        """Look at what the guest has."""
        claimed = await read_guest.known(commands.balloon_actual(session))
        most = None if self._sizes is None else self._sizes.ballooned
        self._counted = sanitise.balloon_actual(claimed, most)
        if claimed is None:
            self._lose_device()
        self._odd = claimed is not None and self._counted is None
        self._problem = sanitise.balloon_problem(claimed, self._counted, state) or session.lacks
        self._measure()
        self._reading = replace(
            self._reading,
            implausible=self._odd or (self._stats is not None and not self._stats.consistent),
            exempt=self._exempt(),
            bare=self._is_bare(),
        )

    def _lose_device(self) -> None:
        """The balloon was unplugged, or there never was one; the next has its own settings."""
        self._device = self._was_polling = self._stats = None
        self._raw = self._changed = None

    async def _check(self, session: Channel) -> str:
        """Look at what seldom changes; gives the run state."""
        state = await commands.run_state(session)
        if epochs.arrives(self._run_state, state):
            self._begin_anew(epochs.beginning(self._run_state))
        self._run_state = state
        if self._clock() - self._surveyed >= SURVEY:
            self._surveyed = self._clock()
            asks, self._asks_disks = self._asks_disks, False
            self._around = await guest_devices.look(session, disks=asks)
            self._asks_disks = asks  # again, as the session lives
        self._sizes = await read_guest.known(read_guest.given(session, self._around))
        self._measure()
        if self._device is None:
            self._device = await read_guest.known(commands.find_balloon(session))
        self._reading = replace(self._reading, exempt=self._exempt(), bare=self._is_bare())
        if self._machine is None:
            self._machine = await read_guest.known(commands.machine_type(session))
            kvm = await read_guest.known(commands.kvm_enabled(session))
            self._accelerator = None if kvm is None else "kvm" if kvm else "tcg"
        return state

    def _measure(self) -> None:
        """Work out the guest's sizes from what it was given, and from its last report."""
        if self._sizes is None:
            self._reading = replace(self._reading, maximum=None, actual=self._counted)
            return
        sizes = read_guest.sized(self._sizes, self._stats, self._counted, self._device)
        self._sizes = sizes
        self._reading = replace(
            self._reading,
            maximum=sizes.maximum,
            actual=sizes.seen(self._counted),
            beyond=sizes.beyond or None,
            deflates=None if self._device is None else self._device.deflate_on_oom,
        )

    def _is_bare(self) -> bool:
        """Whether the guest has no balloon, and is known to have nothing that pins its memory."""
        record = self.found.record
        if self.is_new or not record.managed or record.human or self._device is not None:
            return False
        return record.unmovable is None and self._around.obstacle is None

    def _exempt(self) -> str | None:
        if self.is_new:
            return NOT_SEEN
        record = self.found.record
        if not record.managed:
            return f"started in mode {record.mode}"
        if record.human:
            return errors.NO_STATISTICS
        reason = record.unmovable or self._around.obstacle
        if self._device is None:
            return obstacles.no_device(record.no_balloon or reason)
        return None if reason is None else obstacles.frees_nothing(reason)

    async def _read_stats(self, session: Channel, device: BalloonDevice) -> None:
        try:
            await self._set_polling(session, device)
            raw = await commands.guest_stats(session, device)
        except GuestRefused:  # unplugged, or an older QEMU
            self._lose_device()
            self._checked = NEVER
            return
        # The first is as old as may be: it was filled when the driver was loaded.
        is_first = self._raw is None
        if raw != self._raw:
            self._raw = raw
            self._changed = None if is_first else self._clock()
            self._reported = None if is_first else self._reading.actual
            if self._clock() - self._hurried < cadence.HURRY:  # it was asked because it is growing
                self._news()
        self._take(raw)
        self._measure()
        if is_first:
            self._last = self._stats
        self._compare()

    def _compare(self) -> None:
        """Look at the first report after a pause: it may be of another life of the guest."""
        if self._stats is None:  # cleared: no report at all (QEMU 10.0, after a reset)
            self._changed = None
        if self._changed is None or self._last is None:
            return
        if epochs.went_back(self._last, self._stats):
            changed = self._changed
            self._begin_anew("arrived")
            self._changed = changed
        self._last = None

    def _take(self, raw: replies.RawStats) -> None:
        stats = sanitise.guest_stats(
            raw.stats,
            raw.last_update,
            maximum=None if self._sizes is None else self._sizes.most,
            now=time.time(),
        )
        known = stats or GuestStats()
        self._stats = stats
        self._reading = replace(
            self._reading,
            implausible=self._odd or not known.consistent,
            available=known.available,
            free=known.free,
            total=known.total,
            disk_caches=known.disk_caches,
            swap_in=known.swap_in,
            swap_out=known.swap_out,
            major_faults=known.major_faults,
            oom_kills=known.oom_kills,
            alloc_stalls=known.alloc_stalls,
        )

    async def _set_polling(self, session: Channel, device: BalloonDevice) -> None:
        wanted = max(1, round(self._every))
        if self._was_polling is None:
            self._was_polling = await commands.polling_interval(session, device)
            self._told = self._was_polling
        is_hurried, self._is_hurried = self._is_hurried, False
        if is_hurried or self._is_silent(wanted):
            # To the same interval, nothing happens, and to another, only when that is over; from
            # none, the guest is asked at once (QEMU: balloon_stats_set_poll_interval).
            await commands.set_polling_interval(session, device, 0)
            self._told, self._woken = 0, self._clock()
        if self._told != wanted:
            await commands.set_polling_interval(session, device, wanted)
            self._told = wanted

    def _is_silent(self, wanted: int) -> bool:
        """Whether a guest that runs does not report, and was not woken lately."""
        if self._woken == NEVER:
            self._woken = self._clock()
        since = max(self._woken, self._changed or NEVER)
        return self._reading.state == "running" and self._clock() - since > WAKE_UP * wanted

    async def _tell(self, session: Channel) -> None:
        target, self._order = self._order, None
        if target is None:
            return
        start, error = self._clock(), None
        self._asking = start
        self._is_telling = True
        try:
            counted = target if self._sizes is None else self._sizes.told(target)
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
        self._reading = replace(self._reading, refused=refused)
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
        if self._device is None or self._was_polling in (None, self._told):
            return
        with suppress(GuestError, TimeoutError):
            async with asyncio.timeout(LEAVING):
                await commands.set_polling_interval(session, self._device, self._was_polling or 0)

    def _lose(self, error: GuestError) -> None:
        reason = error.reason if isinstance(error, GuestUnreachable) else "protocol"
        was_there = self._reading.state not in errors.WITHOUT_SESSION
        self._drop_order(error)
        self._reading = replace(
            self._reading,
            state=errors.state(reason),
            actual=None,
            available=None,
            reads=None,
            reads_waited=None,
            implausible=False,
            refused=error.message,
            exempt=None if self.is_new else self._reading.exempt,
        )
        self._changed = self._stats = None
        self._problem = errors.problem(error)
        self._asking, self._odd = None, False
        self.is_new = False
        if was_there:
            self._news()
