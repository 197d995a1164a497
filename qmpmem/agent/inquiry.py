"""Asking one guest over its session, and keeping what is known of it.

Theory of operation:
    At most one command is in flight. What an answer makes of what is known stands in
    `qmpmem.agent.guest_state`, and what is asked when in `qmpmem.agent.schedule`. Both are pure.
    Events are heard while an answer is waited for. So both records are read again after each wait,
    and are never kept over one.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from qmpmem.agent import guest_state, schedule
from qmpmem.agent.disk_reads import DiskReader
from qmpmem.agent.guest_state import GuestState
from qmpmem.agent.schedule import Schedule
from qmpmem.errors import GuestError, GuestRefused, GuestUnreachable
from qmpmem.guests import read_guest
from qmpmem.model.guest import BalloonDevice
from qmpmem.wire import commands, guest_devices
from qmpmem.wire.channel import Channel

PATIENCE: Final = 2.0
"""Seconds without an answer after which a guest is not to be counted on: two rounds. An idle QEMU
answers within 1 ms; the deadline of the question itself is longer, for the starved ones."""
LEAVING: Final = 1.0
"""Seconds that putting a guest's polling back may take."""


class Inquiry:
    """Asks one guest.

    Args:
        known: what is known of it.
        clock: seconds of a steady clock.
        news: called when it has reported that was to report at once.
    """

    def __init__(
        self, known: GuestState, clock: Callable[[], float], news: Callable[[], None]
    ) -> None:
        self.known = known
        self.asked = Schedule()
        self.asking: float | None = None
        """Since when an answer is waited for."""
        self.looks = 0
        """How often the guest answered."""
        self._clock = clock
        self._news = news
        self._asks_disks = True
        self._disks = DiskReader()

    def begin(self, device: BalloonDevice | None) -> None:
        """Note that there is a session, and which balloon was found by it."""
        self.known = guest_state.session_begun(self.known, device)
        self.asked = schedule.session_begun(self.asked)

    def hear(self, events: Sequence[str]) -> None:
        """Note which events there were."""
        self.asked = schedule.heard(self.asked, events)
        for name in events:
            self.known = guest_state.event_heard(self.known, name)

    def begin_anew(self) -> None:
        """Note that the guest was not heard for a while, so that it may be another."""
        self.known = guest_state.begun_anew(self.known, "seen")

    def miss(self, error: GuestUnreachable) -> None:
        """Note that there was no answer, and that the session goes on."""
        self.known = guest_state.unanswered(self.known, error)
        self.asked = schedule.unanswered(self.asked)

    def lose(self, error: GuestError) -> None:
        """Note that there is no session."""
        self.known = guest_state.session_lost(self.known, error)
        self.asking = None

    def is_late(self, now: float) -> bool:
        """Tell whether an answer has been waited for too long to count on the guest."""
        return self.asking is not None and now - self.asking > PATIENCE

    def rest(self) -> float:
        """Return the seconds for which there is nothing to ask."""
        return schedule.rest(self.asked, self.known, self._clock())

    async def look(self, session: Channel) -> None:
        """Ask what is due.

        Raises:
            GuestUnreachable: there was no answer, or the session broke.
        """
        now = self.asking = self._clock()
        # Those that are met together are not asked together for ever.
        is_new = self.known.is_new
        ago = random.uniform(0, schedule.RECHECK) if is_new else 0.0  # noqa: S311 - not a secret
        # Noted before the answer comes: an event meanwhile makes it due again.
        if schedule.is_check_due(self.asked, self.known, now):
            self.asked = schedule.checked(self.asked, now - ago)
            await self._check(session)
        if schedule.is_size_due(self.asked, now):
            self.asked = schedule.sized(self.asked, now - ago)
            claimed = await read_guest.known(commands.balloon_actual(session))
            self.known = guest_state.size_read(self.known, claimed, session.lacks)
        self.known = guest_state.answering(self.known)
        device = self.known.device
        if device is not None and now >= self.asked.report_due:
            self.asked = schedule.report_begun(self.asked, now)
            await self._read_report(session, device)
            reads = await self._disks.read(session, now)
            self.known = guest_state.reads_read(self.known, reads.size, reads.waited)
        self.looks += 1
        self.known = guest_state.looked_at(self.known)
        self.asking = None

    async def leave_as_found(self, session: Channel) -> None:
        """Put the guest's polling back."""
        device, seconds = self.known.device, guest_state.polling_to_put_back(self.known)
        if device is None or seconds is None:
            return
        with suppress(GuestError, TimeoutError):
            async with asyncio.timeout(LEAVING):
                await commands.set_polling_interval(session, device, seconds)

    async def _check(self, session: Channel) -> None:
        """Ask for what seldom changes."""
        state = await commands.run_state(session)
        self.known = guest_state.run_state_read(self.known, state)
        if schedule.is_survey_due(self.asked, now := self._clock()):
            self.asked = schedule.surveyed(self.asked, now)
            await self._survey(session)
        sizes = await read_guest.known(read_guest.given(session, self.known.devices))
        self.known = guest_state.given_read(self.known, sizes)
        device = self.known.device or await read_guest.known(commands.find_balloon(session))
        self.known = guest_state.device_read(self.known, device)
        if self.known.machine is None:
            machine = await read_guest.known(commands.machine_type(session))
            kvm = await read_guest.known(commands.kvm_enabled(session))
            self.known = guest_state.machine_read(self.known, machine, kvm=kvm)

    async def _survey(self, session: Channel) -> None:
        """Look at the guest's devices; at its disks only while that has not ended a session."""
        asks, self._asks_disks = self._asks_disks, False
        devices = await guest_devices.look(session, disks=asks)
        self.known = guest_state.devices_read(self.known, devices)
        self._asks_disks = asks

    async def _read_report(self, session: Channel, device: BalloonDevice) -> None:
        try:
            await self._set_polling(session, device)
            raw = await commands.guest_stats(session, device)
        except GuestRefused:  # unplugged, or an older QEMU
            self.known = guest_state.device_lost(self.known)
            self.asked = schedule.device_lost(self.asked)
            return
        now, is_other = self._clock(), raw != self.known.raw
        self.known = guest_state.report_read(self.known, raw, now, time.time())
        if is_other and schedule.was_hurried(self.asked, now):  # asked because it is growing
            self._news()

    async def _set_polling(self, session: Channel, device: BalloonDevice) -> None:
        wanted = schedule.polling(self.asked)
        if self.known.polled_before is None:
            seconds = await commands.polling_interval(session, device)
            self.known = guest_state.polling_read(self.known, seconds)
        now = self._clock()
        asked = schedule.polling_seen(self.asked, now)
        again = schedule.is_to_be_woken(asked, self.known, now)
        self.asked = schedule.hurry_taken(asked)
        for seconds in guest_state.polling_to_set(self.known, wanted, again=again):
            await commands.set_polling_interval(session, device, seconds)
            self.known = guest_state.polling_set(self.known, seconds)
            if not seconds:
                self.asked = schedule.woken(self.asked, self._clock())
