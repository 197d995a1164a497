"""The loop: a policy and a simulated host, each seeing what the other did. No clock, no chance.

Theory of operation:
    The host runs in steps of a quarter of a second. Once a second the policy sees what the agent
    would see: what QEMU and the host tell at once, and the guests' own reports, which are some
    seconds old. A policy that adapts is asked four times as often while the host is in HARD or
    CRITICAL, and guests report as often as the agent has them.

    Where a world has days, what guests used in their hours is remembered as the journal does it.
"""

import math
from collections.abc import Iterator
from typing import Final

from qmpmem.model.observation import Lease, OperatorRequests, Snapshot
from qmpmem.model.round import Plan, Tick
from qmpmem.policy import History, cadence
from qmpmem.simulate import qemu_reports
from qmpmem.simulate.days import Days
from qmpmem.simulate.guest import STEP, Guest
from qmpmem.simulate.host import Host
from qmpmem.simulate.policy_table import PolicyRow
from qmpmem.simulate.spec import World

EVERY: Final = 2.0
"""Seconds between two reports of a guest (Proxmox's guest-stats-polling-interval)."""
NOTHING: Final = OperatorRequests()
SHORT: Final = frozenset(("HARD", "CRITICAL"))


class Run:
    """One host under one policy.

    Attributes:
        host: the host, with its guests.
        time: seconds since it started.
        history: what the policy remembers.
    """

    def __init__(self, world: World, rival: PolicyRow) -> None:
        world = rival.equip(world)
        self.host = Host(world.host, world.guests)
        self.time = 0.0
        self.history = History()
        self._world = world
        self._rival = rival
        self._policy = rival.start()
        self._guests = {guest.spec.id: guest for guest in self.host.guests}
        self._reports: dict[str, qemu_reports.Report] = {}
        self._plan = Plan()
        self._grown: set[str] = set()
        """Guests that cost clearly more than at their last report."""
        self._number = 0
        learns = rival.learns and world.config.journal.learn
        self._days = None if world.day is None or not learns else Days(world.day)

    def ticks(self) -> Iterator[Tick]:
        """Run to the end, one round of the policy after the other; each was done when it comes."""
        due, steps = 0.0, int(self._world.seconds / STEP)
        for step in range(1, steps + 1):
            self.time = step * STEP
            self.host.step(self.time)
            if self._have_reports():
                due = self.time
            if self.time >= due:
                yield self._round()
                due = self.time + self._period()

    def snapshot(self) -> Snapshot:
        """Return what the agent sees now."""
        host, now = self.host, self.time
        ksm = host.ksm
        seen = Snapshot(
            time=now,
            host=host.reading(),
            guests=tuple(
                qemu_reports.reading(guest, self._reports.get(guest.spec.id), now, host.merged)
                for guest in host.guests
                if guest.is_up(now)
            ),
            ksm=None if ksm is None else ksm.state(host.held),
            ksmd=None if ksm is None else ksm.worked,
            requests=self._requests(),
        )
        return seen if self._days is None else self._days.remind(seen)

    def _requests(self) -> OperatorRequests:
        request = self._world.request
        if request is None or self.time < request.at:
            return NOTHING
        lease = Lease(id="next", owner="simulate", size=request.size, until=math.inf)
        return OperatorRequests(leases=(lease,))

    def _round(self) -> Tick:
        self._number += 1
        seen = self.snapshot()
        self._plan, self.history = self._policy(seen, self.history, self._world.config)
        trends = self.history.guests
        self._grown = {
            reading.id
            for reading in seen.guests
            if cadence.has_grown(reading, trends.get(reading.id))
        }
        for change in self._plan.balloons:
            self._guests[change.guest].tell(change.target)
        if self._plan.ksm is not None and self.host.ksm is not None:
            self.host.ksm.set(self._plan.ksm.changes)
        tick = Tick(number=self._number, snapshot=seen, plan=self._plan)
        if self._days is not None:
            self._days.add(tick)
        return tick

    def _period(self) -> float:
        period = self._world.config.period
        return period / 4 if self._rival.adapts and self._plan.state in SHORT else period

    def _have_reports(self) -> bool:
        """Have guests report; tell whether one did that was asked because it grows."""
        hurries = False
        for name, guest in self._guests.items():
            last = self._reports.get(name)
            if last is None or self.time - last.time >= self._every(name, guest):
                report = qemu_reports.ask(guest, self.time) if guest.is_up(self.time) else None
                if report is not None:
                    self._reports[name] = report
                    hurries |= name in self._grown
        return hurries

    def _every(self, name: str, guest: Guest) -> float:
        if not self._rival.adapts:
            return EVERY
        if name in self._grown:
            return cadence.HURRY
        squeezed = guest.actual < guest.maximum
        return cadence.every(self._plan.state, squeezed=squeezed, up=guest.up(self.time))
