"""The results of a run: which guests lacked memory, for how long, and at what price."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from qmpmem.model import bounds
from qmpmem.model.config import Config
from qmpmem.model.round import HostState, Tick
from qmpmem.policy import host as rules
from qmpmem.policy.state import HostTrend
from qmpmem.records import Record
from qmpmem.simulate.policy_table import Devices, PolicyRow
from qmpmem.simulate.run import Run
from qmpmem.simulate.spec import World
from qmpmem.units import MIB, Bytes

SOON: Final = 30.0
"""Seconds within which memory that comes back need not have been moved, if no demand changed."""
CHANGED: Final = 8 * MIB
"""Least change of demand that is a cause to move memory."""
READING: Final = MIB
"""Bytes a second that a guest reads from its disks since memory was taken from it, from which on
that is a cause to give memory back."""


class Results(Record, frozen=True):
    """What a policy did for a host and its guests."""

    policy: str
    devices: Devices
    seconds: float
    unmet: float
    """MiB·s that guests needed and did not have, all together."""
    guest_kills: int
    """Programs that guests' kernels killed for want of memory."""
    host_kills: int
    """Guests that the host's kernel killed for want of memory."""
    distress: float
    """Seconds in which guests lacked more than 1 % of what they want, or waited for the host, all
    together."""
    longest: float
    """Seconds until the burst that waited longest had what it wants."""
    host_swap_in: Bytes
    host_swap_out: Bytes
    moved: Bytes
    """What was moved through balloons, both ways."""
    commands: int
    turns: int
    """Commands to the other direction than the guest's last."""
    reversals: int
    """Those of `turns` that came within 30 s without a new cause: the guest wants as much as
    before, reads no files again and is in the same epoch, and the host and all other guests want as
    much as before. What a guest that reports nothing yet starts with is no cause to count from."""
    causes: Mapping[str, int]
    """The number of `reversals` by the reasons of the two commands."""
    late: int
    """Commands in the second half of the run: there are none where no demand changes."""
    worst: HostState
    """How short the host was at worst, by our scale, whatever the policy decides by."""


class Sent(Record, frozen=True):
    """A command to one guest."""

    time: float
    grows: bool
    reason: str
    epoch: int
    wanted: float
    """Bytes that the guest's programs wanted then."""
    total: float
    """Bytes that the host and all guests wanted then."""
    reads: float
    """Bytes that the guest had read from its disks then."""

    def is_caused(self, before: "Sent") -> bool:
        """Tell whether demand changed since the command before in favour of this one."""
        sign = 1 if self.grows else -1
        more, less = self.wanted - before.wanted, before.total - self.total
        read = self.reads - before.reads if self.grows else 0.0
        return (
            self.epoch != before.epoch
            or sign * more >= CHANGED
            or sign * less >= CHANGED
            or read >= READING * (self.time - before.time)
        )


class ResultsCounter:
    """Counts while a run goes on: call `note` after each of its rounds."""

    def __init__(self, world: World, rival: PolicyRow) -> None:
        self.run = Run(world, rival)
        self._policy = rival.name
        self._devices: Devices = rival.devices
        self._seconds = world.seconds
        self._longest = 0.0
        self._trend = HostTrend()
        self._worst: HostState = "SLACK"
        self._commands = self._turns = self._late = 0
        self._last: dict[str, Sent] = {}
        self._causes: Counter[str] = Counter()

    def ticks(self) -> Iterator[Tick]:
        """Run to the end, and count."""
        for tick in self.run.ticks():
            self._judge(tick)
            self._count(tick)
            yield tick

    def report(self) -> Results:
        """Return the results so far."""
        host = self.run.host
        guests = host.guests
        return Results(
            policy=self._policy,
            devices=self._devices,
            seconds=self._seconds,
            unmet=sum(guest.lacked for guest in guests) / MIB,
            guest_kills=sum(guest.kills for guest in guests),
            host_kills=host.kills,
            distress=sum(guest.distress for guest in guests),
            longest=max((guest.longest for guest in guests), default=0.0),
            host_swap_in=Bytes(int(host.swap_in)),
            host_swap_out=Bytes(int(host.swap_out)),
            moved=Bytes(int(sum(guest.moved for guest in guests))),
            commands=self._commands,
            turns=self._turns,
            reversals=self._causes.total(),
            causes=dict(self._causes),
            late=self._late,
            worst=self._worst,
        )

    def _judge(self, tick: Tick) -> None:
        host = tick.snapshot.host
        kept = bounds.reserve(rules.total_of(host) or Bytes(0))
        pinch = rules.measure(tick.snapshot, self._trend, Config(), kept)
        if pinch is not None:
            self._worst = rules.at_least(self._worst, rules.worst(pinch))
        self._trend = HostTrend(time=tick.snapshot.time, swap_in=host.swap_in, stalled=host.stalled)

    def _count(self, tick: Tick) -> None:
        silent = {guest.id for guest in tick.snapshot.guests if guest.age is None}
        sizes = {guest.id: guest.actual for guest in tick.snapshot.guests}
        now = tick.snapshot.time
        host = self.run.host
        guests = {guest.spec.id: guest for guest in host.guests}
        total = host.spec.own.at(now) + sum(guest.wanted for guest in host.guests)
        for change in tick.plan.balloons:
            self._commands += 1
            self._late += now > self._seconds / 2
            actual = sizes[change.guest]
            if actual is None or actual == change.target or change.guest in silent:
                continue
            guest = guests[change.guest]
            sent = Sent(
                time=now,
                grows=change.target > actual,
                reason=change.reason,
                epoch=guest.epoch,
                wanted=guest.wanted,
                total=total,
                reads=guest.reads,
            )
            last = self._last.get(change.guest, sent)
            self._last[change.guest] = sent
            if last.grows != sent.grows:
                self._turns += 1
                if now - last.time <= SOON and not sent.is_caused(last):
                    self._causes[f"{last.reason} -> {sent.reason}"] += 1


def measure(world: World, rival: PolicyRow) -> Results:
    """Run a host under a policy to the end."""
    counter = ResultsCounter(world, rival)
    for _ in counter.ticks():
        pass
    return counter.report()
