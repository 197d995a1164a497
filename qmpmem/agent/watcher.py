"""One guest: its session, its events, what it was last seen to be, and what it is told.

Theory of operation:
    Each guest has a task, a connection and a deadline of its own, and at most one command in
    flight, so one that is slow, stuck or hostile delays no other. The agent's rounds never wait
    for a guest: they take the reading that its watcher last had, and leave an order with it.

    An event is a reason to look, never a fact: what it says may be old when it is read. Only that
    there was one counts, as for the epoch.

    What there is to ask, and what is known of it, is kept by `qmpmem.agent.inquiry`. Here is what
    a session is for: when there is one, what the guest is told by it, and what it says unasked.

    An adopted guest's socket is its user's as well, and serves one client at a time. It is held
    only while that is of use: of a guest that has no balloon, or is not managed, it is let go after
    each look, and where another client is attached, the agent does not queue behind it.

    The session is shared with those who ask for it (`shared`); a guest that is not held is held as
    long as they use it. What they command there is another program's word, as on any monitor.

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
from qmpmem.agent.guest_view import unseen, view
from qmpmem.agent.inquiry import Inquiry
from qmpmem.agent.pause import Pause
from qmpmem.agent.pending_order import PendingOrder
from qmpmem.agent.schedule import NEVER
from qmpmem.agent.session_lending import SessionLending, no_qmp
from qmpmem.errors import GuestError, GuestUnreachable
from qmpmem.guests import read_guest
from qmpmem.guests.inventory import LiveGuest
from qmpmem.model import sanitise
from qmpmem.model.guest import GuestView
from qmpmem.model.observation import GuestReading
from qmpmem.model.round import Outcome
from qmpmem.proxy.shared_session import SharedSession
from qmpmem.records import replace
from qmpmem.units import Bytes
from qmpmem.wire import addresses, commands, errors, sock_diag
from qmpmem.wire.channel import Channel
from qmpmem.wire.kernel.processes import Memory

if TYPE_CHECKING:
    from qmpmem.wire.events import Event

FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts to connect, doubled each time."""

HARMLESS: Final = frozenset({"busy", "timeout"})
"""Reasons after which the session goes on."""

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
        self._inquiry = Inquiry(unseen(found, epoch), clock, news)
        self._order = PendingOrder(found.record.id)
        self._pause = Pause()
        self._lending = SessionLending(found.record.id, self._pause.end)
        self._costs = UNKNOWN

    @property
    def epoch(self) -> int:
        """Which of its lives the guest is in."""
        return self._inquiry.known.reading.epoch

    @property
    def is_new(self) -> bool:
        """Whether nothing came of the first attempt to look at it yet."""
        return self._inquiry.known.is_new

    @property
    def looks(self) -> int:
        """Return how often the guest answered: a measure of this watcher's progress."""
        return self._inquiry.looks

    def reading(self, memory: Memory | None = None, use: CgroupUse | None = None) -> GuestReading:
        """Return what the guest was last seen to be; the age of its report is as of now.

        Args:
            memory: what its process costs.
            use: what its own groups count.
        """
        now = self._clock()
        inquiry, known = self._inquiry, self._inquiry.known
        reading, stats = known.reading, known.reading.stats
        by_now = sanitise.available_by_now(stats.available, known.reported, reading.actual)
        costs = self._costs = memory or UNKNOWN
        counted = use or UNCOUNTED
        return replace(
            reading,
            up=starting_size.up(self.found.record),
            age=None if known.changed is None else now - known.changed,
            every=inquiry.asked.every,
            stats=replace(stats, available=by_now),
            state=errors.state("timeout") if inquiry.is_late(now) else reading.state,
            rss=costs.rss,
            swap=costs.swap if counted.swap is None else counted.swap,
            cost=costs.rss if counted.held is None else counted.held,
            stalled=counted.stalled,
            refaults=counted.refaults,
        )

    def snapshot(self, rss: Bytes | None, now: float | None = None) -> GuestView:
        """Return what the guest was last seen to be, as a guest's object in ``--json``.

        Args:
            rss: what its process costs.
            now: seconds since 1970.
        """
        known = self._inquiry.known
        return view(self.found, known, self._costs, rss, time.time() if now is None else now)

    def order(self, target: Bytes) -> None:
        """Tell the guest to go to a size, as soon as it can be told; the last order counts."""
        self._order.target = target
        self._inquiry.asked = schedule.ordered(self._inquiry.asked, self._clock())
        self._pause.end()

    def start_with(self, size: Bytes, *, is_told: bool) -> None:
        """Have the guest go to the size that a rule has it start with.

        Args:
            size: that size.
            is_told: it is told something already.
        """
        self._inquiry.known = guest_state.started_with(self._inquiry.known, size)
        if not is_told:
            self.order(size)

    async def settled(self) -> None:
        """Wait until there is no order that the guest was not told."""
        await self._order.settled()

    def report_every(self, seconds: float) -> None:
        """Set how often the guest shall report."""
        before = self._inquiry.asked
        self._inquiry.asked = schedule.reported_every(before, seconds)
        if seconds < before.every:
            self._pause.end()

    def report_now(self) -> None:
        """Have the guest report at once, as well: at most once a second."""
        inquiry, before = self._inquiry, self._inquiry.asked
        if inquiry.known.device is not None:
            inquiry.asked = schedule.hurried(before, self._clock())
        if inquiry.asked is not before:
            self._pause.end()

    def outcomes(self) -> tuple[Outcome, ...]:
        """Return what came of the orders since the last call."""
        return self._order.outcomes()

    def manage(self, managed: bool) -> None:  # noqa: FBT001 - the value is the subject
        """Hear whether the configuration lets the guest's memory be changed."""
        if managed and not self._is_managed and self._is_away:
            self._pause.end()
        self._is_managed = managed

    def look_again(self) -> None:
        """Have a guest that is not held looked at, where the last look is old."""
        if self._is_away and self._clock() - self._looked > OLD:
            self.is_stale = True
            self._pause.end()

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
        return await self._lending.take(lambda: self._inquiry.known.problem)

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
                await self._pause.wait(AWAY)
            else:
                await self._back_off(pause * random.uniform(0.75, 1.25))  # noqa: S311 - not a secret

    async def _back_off(self, seconds: float) -> None:
        """Wait before the next attempt to connect, unless there is another socket to connect to."""
        self._moving = asyncio.get_running_loop().create_future()
        await asyncio.wait((self._moving,), timeout=seconds)
        self._moving = None

    async def _expect_free(self) -> None:
        """Expect that no other client is attached to a socket that is not ours alone.

        A client that leaves the queue of a socket stays in it, so the agent does not queue.

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
            self._inquiry.begin(await read_guest.known(commands.find_balloon(session)))
            session.listen(lambda: self._hear(session))
            await self._attend_all(session)

    async def _attend_all(self, session: Channel) -> None:
        was_away, self._is_away = self._is_away, False
        try:
            await self._attend(session, was_away=was_away)
        finally:
            await self._inquiry.leave_as_found(session)

    def _is_of_use(self) -> bool:
        """Tell whether to hold the guest's socket: our own always, another only to move its memory.

        And as long as others use it by way of us.
        """
        if self._lending.is_wanted:
            return True
        record = self.found.record
        can_move = self._inquiry.known.device is not None and record.managed and self._is_managed
        can_move = can_move and not record.human
        return can_move or record.origin != "adopted"

    def _hear(self, session: Channel) -> None:
        """Take in what the guest says unasked; the session's end shows when it is asked again."""
        self._pause.end()
        events = tuple(session.take_events())
        self._inquiry.hear([event.name for event in events])
        for event in events:
            if self.pass_on is not None:
                self.pass_on(self.found.record.id, event)
            if event.name in epochs.RESETS:
                self._order.withdraw()
            if event.name in epochs.RESETS | epochs.RESUMES:
                self._news()

    async def _attend(self, session: Channel, *, was_away: bool) -> None:
        """Look, tell, wait; again and again, as long as that is of use."""
        while True:
            try:
                await self._inquiry.look(session)
                if not self._is_of_use():
                    self._is_away, self._looked = True, self._clock()
                    self._order.withdraw()
                    return
                if was_away:  # what happened meanwhile was not heard
                    was_away = False
                    self._inquiry.begin_anew()
                await self._tell(session)
            except GuestUnreachable as error:
                if error.reason not in HARMLESS:
                    raise
                self._inquiry.miss(error)
                self._drop_order(error)
            finally:
                self._inquiry.asking = None
            await self._pause.wait(self._inquiry.rest())

    async def _tell(self, session: Channel) -> None:
        target = self._order.take()
        if target is None:
            return
        start, error = self._clock(), None
        self._inquiry.asking = start
        sizes = self._inquiry.known.sizes
        try:
            await commands.set_balloon(session, target if sizes is None else sizes.told(target))
        except GuestError as failure:
            error = failure
        finally:
            self._order.told()
        self._report(error, self._clock() - start)
        if isinstance(error, GuestUnreachable):
            raise error

    def _report(self, error: GuestError | None, seconds: float | None = None) -> None:
        """Record what came of an order."""
        refused = None if error is None else error.message
        self._order.report(refused, seconds)
        self._inquiry.known = guest_state.order_told(self._inquiry.known, refused)

    def _drop_order(self, error: GuestError) -> None:
        if self._order.target is not None:
            self._order.withdraw()
            self._report(error)

    def _lose(self, error: GuestError) -> None:
        was_there = self._inquiry.known.reading.state not in errors.WITHOUT_SESSION
        self._drop_order(error)
        self._inquiry.lose(error)
        if was_there:
            self._news()
