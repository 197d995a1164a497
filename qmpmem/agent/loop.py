"""The loop: observe, decide, apply, publish.

Theory of operation:
    A round takes what the watchers last saw, reads the host once, in a thread, decides, and leaves
    commands with the watchers. It waits for no guest, so it takes milliseconds however many hang.
    The results of the commands are in the round that follows.

    A mistake of ours costs the part in which it happened, and nothing else: a watcher starts over,
    a reader of rounds misses one, or a round is left out. systemd is told only of rounds that were
    completed, so when none is any more it starts another agent.

    Everything that is kept for the next round is in `History`. After a crash the next agent starts
    with none, and so takes only what is free for a minute, unless the host is in need (policy:
    grace). KSM is first put back as it was before any agent: the configuration may forbid today
    what it allowed yesterday, and an agent that does not know that a value is ours would leave it.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qmpmem.agent import descriptor_limit, report_intervals, starting_size
from qmpmem.agent.adopter import Adopter
from qmpmem.agent.cgroup_usage import CgroupUsage
from qmpmem.agent.cgroups import OwnCgroups
from qmpmem.agent.finder import Finder
from qmpmem.agent.habits import NOTHING, Habits
from qmpmem.agent.host_reader import HostReader
from qmpmem.agent.leases import Leases
from qmpmem.agent.pins import Pins
from qmpmem.agent.process_memory import ProcessMemory
from qmpmem.agent.reclaimer import Reclaimer
from qmpmem.agent.requests import RequestStore
from qmpmem.agent.systemd_notify import Notifier
from qmpmem.agent.unmet_rules import UnmetRules
from qmpmem.agent.wakeups import alarms
from qmpmem.agent.watcher import Watcher
from qmpmem.errors import ConfigError, QmpmemError
from qmpmem.guests.inventory import LiveGuest
from qmpmem.ksm import status_report as merging
from qmpmem.ksm.apply import KsmWriter
from qmpmem.model import obstacles
from qmpmem.model.config import Config
from qmpmem.model.observation import GuestReading, Habit, HostReading, Snapshot
from qmpmem.model.round import Outcome, Plan, SetKsm, Tick, severity
from qmpmem.policy import History, cadence, decide, ksm, progress
from qmpmem.policy.state import KsmTrend
from qmpmem.records import Record, replace
from qmpmem.units import Bytes, format_size
from qmpmem.wire.kernel.processes import Memory

if TYPE_CHECKING:
    from qmpmem.wire.events import Event

STOPPING: Final = 5.0
"""Seconds that the guests have to take their last commands: a hung guest never does. All of a stop
takes at most 10 s."""
RELAX_PERCENT: Final = 20
"""Percent beyond what a guest works with that are left to it when the agent stops."""

HURRY: Final = 4
"""Times what the last round took, after which an early round may come: many events at once must not
make as many rounds."""
LEAST: Final = 0.05
"""Least seconds between two rounds."""

NEW_PER_SECOND: Final = 500
"""Most guests with which sessions begin in a second: a handshake is some 2 ms of work, and
thousands at once would delay the rounds, and need memory that Python does not free again."""

FINDING: Final = 0.02
"""Most seconds that a round waits for the search for guests; a few are looked at in 1 ms."""
FEW: Final = 100
"""Most guests for whose search a round waits. More are looked at between two rounds: else the
round's reading of files would have to wait for the search's, system call for system call."""

STARTING_OVER: Final = 1.0
"""Seconds after which a watcher that a mistake of ours ended is started again."""
SAID: Final = 60.0
"""Seconds within which the same warning comes once."""
MOST_WARNINGS: Final = 100
"""Most warnings that are kept: the agent's own, and the policy's."""

FORBIDDEN: Final = (
    "memory of guests' cgroups cannot be reclaimed: the agent may not write there "
    "(`reclaim = false` leaves them alone)"
)
NO_TARGETS: Final[Mapping[str, Bytes]] = {}

Publish = Callable[[Tick], None]
Say = Callable[[str], None]
Clock = Callable[[], float]
Policy = Callable[[Snapshot, History, Config], tuple[Plan, History]]


def _ignore(_: str) -> None:
    """Drop a line."""


class Surroundings(Record, frozen=True):
    """Where an agent works, by which clock, and who hears what it has to say."""

    run: Path
    root: Path = Path("/")
    ledger: Path = Path("/run/qmpmem/ksm")
    requests: Path | None = None
    journal: Path | None = None
    """The journal that tells what guests usually use; None: that is not known."""
    most: int | None = None
    """Most guests that can be watched, each of which takes two descriptors; None: all."""
    clock: Clock = time.monotonic
    """Seconds of a steady clock: the one that the event loop has."""
    say: Say = _ignore
    """Gets a line at once for each request that ended or was taken; must neither wait nor raise."""
    warn: Say = _ignore
    """Gets each warning at once; must neither wait nor raise."""


class Agent:
    """Watches a host until it is told to stop.

    Args:
        place: where it works.
        config: what the administrator wants; `reload` changes it.
        publish: called with each round, in any order.
        notifier: tells systemd how the agent is.
        dry_run: whether to decide, and do nothing.
    """

    def __init__(
        self,
        place: Surroundings,
        config: Config,
        publish: Sequence[Publish],
        notifier: Notifier,
        *,
        dry_run: bool = False,
    ) -> None:
        self.policy: Policy = decide
        """What decides: our policy, or another one that is compared with it."""
        self.rarest = float("inf")
        """Most seconds between two reports of a guest, whatever `policy.cadence` allows."""
        self.place = place
        self.config = config
        self.history = History()
        self.last: Tick | None = None
        self.pass_on: Callable[[str, Event], None] | None = None
        """Called with a guest's id and each event of it; must not raise."""
        self.warnings: list[str] = []
        """The last warnings, oldest first: the agent's own, and the policy's."""
        self.degraded_at: float | None = None
        """When a part of the agent last failed by a mistake of ours; None: never."""
        self._clock = place.clock
        self._said: dict[str, float] = {}
        self.requests = RequestStore(place.requests, self.warn)
        self.pins = Pins(self.requests, place.say, self._clock())
        self.leases = Leases(self.requests, place.say, self._clock)
        self._unmet_rules = UnmetRules(self.warn)
        self.dry_run = dry_run
        self._publish = publish
        self._notifier = notifier
        self._finder = Finder(place.run, place.root / "proc")
        self._finding: asyncio.Task[tuple[LiveGuest, ...]] | None = None
        self._found: tuple[LiveGuest, ...] = ()
        self.has_looked = False
        """Whether the guests were searched for at least once."""
        self._costs = ProcessMemory(place.root / "proc")
        self._usage = CgroupUsage()
        self._habits = Habits(place.journal)
        self._adopter = Adopter(place.run, self.warn)
        self._surveyor = HostReader(place.root, config.budget)
        self._ceilings: Mapping[int, Bytes] = {}
        self._own: Mapping[int, OwnCgroups] = {}
        self._reclaimer = Reclaimer(self.warn)
        self._told_once: set[str] = set()
        self._limited_by: str | None = None
        self._watchers: dict[str, tuple[Watcher, asyncio.Task[None]]] = {}
        self._hurry = asyncio.Event()
        self._stop = asyncio.Event()
        self._number = 0
        self._is_ready = False
        self._ksm_outcomes: list[Outcome] = []
        self._lets_ksm_go = False

    @property
    def guests(self) -> Mapping[str, Watcher]:
        """Return the watchers of the guests that are watched now, by id."""
        return {guest: watcher for guest, (watcher, _) in self._watchers.items()}

    def watcher(self, guest: str) -> Watcher | None:
        """Return the watcher of a guest; None where no guest of that id is watched."""
        entry = self._watchers.get(guest)
        return None if entry is None else entry[0]

    def stop(self) -> None:
        """End after this round, in order."""
        self._stop.set()
        self._hurry.set()

    def hurry(self) -> None:
        """Begin the next round early: something happened."""
        self._hurry.set()

    def reload(self, config: Config) -> None:
        """Go on with other settings from the next round on."""
        self._lets_ksm_go = self.config.ksm.managed and not config.ksm.managed
        self.config = config
        self._surveyor = HostReader(self.place.root, config.budget)
        self._hurry.set()

    async def run(self) -> None:
        """Run rounds until stopped, then leave the guests as the configuration says."""
        await self._restore_ksm()
        news = alarms(self.place.run, self.hurry, self.place.root)
        async with news, asyncio.TaskGroup() as tasks:
            try:
                while not self._stop.is_set():
                    started = self._clock()
                    await self._survive(tasks)
                    if len(self._watchers) > FEW:
                        self._look_around()
                    await self._rest(started)
                self._notifier.tell("STOPPING=1")
                await self._leave()
                await self.requests.kept()
            finally:
                for _, task in self._watchers.values():
                    task.cancel()
                self.leases.close()
                self._costs.close()
                self._usage.close()
                await self._reclaimer.stop()
                await self._habits.stop()
                await self._adopter.stop()
                if self._finding is not None:
                    await asyncio.wait((self._finding,))

    def warn(self, text: str) -> None:
        """Warn the administrator; the same warning comes at most once a minute."""
        if self._is_news(text):
            self._keep(text)
            self.place.warn(text)

    def _keep(self, *warnings: str) -> None:
        self.warnings += warnings
        del self.warnings[:-MOST_WARNINGS]

    def _say_once(self, text: str) -> None:
        """Warn of something that does not change while the agent runs, once."""
        if text not in self._told_once:
            self._told_once.add(text)
            self.warn(text)

    def _is_news(self, text: str) -> bool:
        """Tell whether a warning did not come within the last minute, and note that it comes."""
        now = self._clock()
        if now - self._said.get(text, float("-inf")) < SAID:
            return False
        self._said = {old: at for old, at in self._said.items() if now - at < SAID} | {text: now}
        return True

    def _degrade(self, what: str, error: Exception) -> None:
        self.degraded_at = self._clock()
        self.warn(f"{what}: {type(error).__name__}: {error}")

    async def _survive(self, tasks: asyncio.TaskGroup) -> None:
        """Do a round, and go on after a mistake of ours in it."""
        try:
            await self._round(tasks)
        except Exception as error:  # noqa: BLE001 - the one boundary around a round
            self._degrade(f"round {self._number} was left out", error)
        else:
            self._notifier.tell("WATCHDOG=1" if self._is_ready else "READY=1")
            self._is_ready = True

    async def _round(self, tasks: asyncio.TaskGroup) -> None:
        started = self._clock()
        self._hurry.clear()
        self._number += 1
        snapshot = await self._observe(tasks)
        before = self.history
        plan, self.history = self.policy(snapshot, before, self.config)
        if self.dry_run:
            self._forget_commands(plan, before)
        # The policy also repeats a warning that passed and came back, which may be every second.
        fresh = tuple(text for text in plan.warnings if self._is_news(text))
        plan = plan if fresh == plan.warnings else replace(plan, warnings=fresh)
        outcomes = await self._apply(snapshot, plan)
        self._tell(
            Tick(
                number=self._number,
                snapshot=snapshot,
                plan=plan,
                outcomes=outcomes,
                dry_run=self.dry_run,
                seconds=self._clock() - started,
            )
        )

    def _tell(self, tick: Tick) -> None:
        """Follow what becomes of requests, and tell all who listen of a round."""
        self.last = tick
        self._keep(*tick.plan.warnings)
        for publish in (self._follow_requests, *self._publish):
            try:
                publish(self.last)
            except Exception as error:  # noqa: BLE001 - a reader of rounds must not stop them
                self._degrade("telling of a round", error)

    def _follow_requests(self, tick: Tick) -> None:
        records = {guest: each.found.record for guest, (each, _) in self._watchers.items()}
        before = len(self.requests.in_force.leases)
        self.leases.follow(records, tick.snapshot.time)
        if len(self.requests.in_force.leases) < before:
            self.hurry()
        self.pins.follow(records, tick.snapshot.time)
        self._unmet_rules.follow(self.config, tick.snapshot)

    def _forget_commands(self, plan: Plan, before: History) -> None:
        """Have the next round decide as if no command was sent: else it would wait for guests."""
        known = dict(self.history.guests)
        for change in plan.balloons:
            trend = known[change.guest]
            known[change.guest] = progress.unmade(trend, before.guests.get(change.guest))
        self.history = replace(self.history, guests=known)

    async def _observe(self, tasks: asyncio.TaskGroup) -> Snapshot:
        if not self.dry_run:
            self._adopter.tend(self.config.adoptions, self._clock())
        self._follow(await self._find(), tasks)
        pids = [pid for each, _ in self._watchers.values() if (pid := each.found.pid) is not None]
        await self._costs.read(pids, self._pace())
        survey = await asyncio.to_thread(self._surveyor.read, self._held(), pids)
        self._ceilings, self._own = survey.ceilings, survey.own
        if not self.dry_run:
            await self._reclaimer.restore(survey.own)
        await self._usage.read(survey.own, self._pace(), descriptor_limit.left_over(len(pids)))
        self._tell_limit(survey.host)
        if survey.problem is not None:
            self.warn(f"{survey.problem}; until it is there, nothing is given or taken")
        now = self._clock()
        self.requests.expire(now)
        wall = time.time()
        learns = self.config.journal.learn
        habits = self._habits.known(self._watchers, wall) if learns else NOTHING
        return Snapshot(
            time=now,
            wall=wall,
            host=survey.host,
            ksm=survey.ksm,
            ksmd=survey.ksmd,
            guests=tuple(
                self._reading(watcher, habits.get(guest))
                for guest, (watcher, _) in self._watchers.items()
            ),
            requests=self.requests.in_force,
        )

    def _held(self) -> Bytes:
        """Return what all guests cost."""
        uses = self._usage.known
        known = ((memory, uses.get(pid)) for pid, memory in self._costs.known.items())
        return Bytes(sum((use and use.held) or memory.rss or 0 for memory, use in known))

    def _follow(self, found: Sequence[LiveGuest], tasks: asyncio.TaskGroup) -> None:
        """Start and stop watchers, so that each guest has one. A process is a guest, not an id."""
        present = {each.record.id: each for each in islice(found, self.place.most)}
        if len(found) > len(present):
            left = len(found) - len(present)
            self.warn(f"{left} guests are not watched: there are no descriptors left for them")
        epochs: dict[str, int] = {}
        for guest, (watcher, task) in list(self._watchers.items()):
            now = present.get(guest)
            if now is not None and now.is_shown_anew(watcher.found):
                watcher.move(now)
            if now != watcher.found:
                task.cancel()
                epochs[guest] = watcher.epoch + 1
                del self._watchers[guest]
        new = [each for guest, each in present.items() if guest not in self._watchers]
        for number, each in enumerate(new):
            guest, delay = each.record.id, number / NEW_PER_SECOND
            watcher = Watcher(
                each, self.hurry, self._clock, epoch=epochs.get(guest, 0), delay=delay
            )
            watcher.pass_on = self.pass_on
            self._watchers[guest] = (watcher, tasks.create_task(self._supervise(watcher)))

    async def _find(self) -> Sequence[LiveGuest]:
        """Return the guests that the last search found, without waiting for a long one."""
        finding = self._look_around()
        patience = FINDING if len(self._watchers) <= FEW else 0.0
        await asyncio.wait((finding,), timeout=patience)
        if finding.done():
            self._finding = None
            self._found = finding.result()
            self.has_looked = True
            if self._finder.problem is not None:
                self.warn(self._finder.problem)
        return self._found

    def _look_around(self) -> asyncio.Task[tuple[LiveGuest, ...]]:
        """Have a thread look for guests, where none does so already."""
        if self._finding is None:
            gone = {
                guest
                for guest, (watcher, _) in self._watchers.items()
                if watcher.found.pid in self._costs.gone
            }
            look = asyncio.to_thread(self._finder.find, self._clock(), gone)
            self._finding = asyncio.create_task(look)
        return self._finding

    def _pace(self) -> float:
        """Return the part of the guests' processes that is read in a round, 0 to 1."""
        state = "SLACK" if self.last is None else self.last.plan.state
        since = float("inf") if self.last is None else self._clock() - self.last.snapshot.time
        return min(1.0, since / cadence.EVERY[state])

    def _reading(self, watcher: Watcher, habit: Habit | None) -> GuestReading:
        pid = watcher.found.pid
        memory = self._costs.known.get(pid) if pid is not None else None
        reading = watcher.reading(memory, None if pid is None else self._usage.known.get(pid))
        # Of thousands nearly none has a reason, so a copy is made only where there is one.
        reason = None if memory is None or reading.exempt else unmovable(memory, reading)
        ceiling = None if pid is None else self._ceilings.get(pid)
        reading = self._with_way(reading, memory, None if pid is None else self._own.get(pid))
        if reason is None and ceiling is None and habit is None:
            return reading
        return replace(reading, exempt=reason or reading.exempt, ceiling=ceiling, habit=habit)

    def _with_way(
        self, reading: GuestReading, memory: Memory | None, own: OwnCgroups | None
    ) -> GuestReading:
        """Return a reading with how the host can reclaim memory of the guest's own cgroup."""
        if own is None or (memory is not None and unmovable(memory, reading) is not None):
            return reading
        if own.forbidden and self.config.may_reclaim(reading.id, reading.name, made=own.made):
            self._say_once(FORBIDDEN)
        if own.way is None:
            return reading
        reclaiming = reading.id in self._reclaimer.under_way
        return replace(reading, way=own.way, made=own.made, reclaiming=reclaiming)

    def _tell_limit(self, host: HostReading) -> None:
        """Warn when a cgroup begins to leave less than the host has, or when that changes."""
        if host.limited_by == self._limited_by:
            return
        self._limited_by = host.limited_by
        if host.limited_by is None:
            self.warn("no cgroup limits the memory for guests any more")
        elif self.config.budget is None and host.limit is not None:
            size = format_size(host.limit)
            self.warn(f"the budget is {size}: the memory limit of cgroup {host.limited_by}")

    def _can_manage(self, watcher: Watcher) -> bool:
        """Tell whether a guest's memory may be moved, by the configuration, and would come free."""
        rule = self.config.rule(watcher.found.record.id)
        memory = self._costs.known.get(watcher.found.pid or 0)
        is_stuck = memory is not None and unmovable(memory, watcher.reading()) is not None
        return (rule is None or rule.managed) and not is_stuck

    async def _apply(self, seen: Snapshot, plan: Plan) -> tuple[Outcome, ...]:
        watchers = [watcher for watcher, _ in self._watchers.values()]
        self._have_reports(seen, plan)
        for watcher in watchers:
            if watcher.found.record.origin == "adopted":  # all others are held
                watcher.manage(self._can_manage(watcher))
        done = [outcome for watcher in watchers for outcome in watcher.outcomes()]
        done += self._ksm_outcomes + self._reclaimer.outcomes()
        self._ksm_outcomes = []
        if self._lets_ksm_go:
            self._lets_ksm_go = False
            await self._restore_ksm()
        if not self.dry_run:
            self._start_small(plan)
            for change in plan.balloons:
                if change.guest in self._watchers:
                    self._watchers[change.guest][0].order(change.target)
            self._reclaimer.order(plan.reclaims, self._own_by_id())
        if plan.ksm is not None:
            await self._set_ksm(plan.ksm)
        return tuple(done)

    def _own_by_id(self) -> Mapping[str, OwnCgroups]:
        """Return the groups that are each guest's own, by its id."""
        return {
            guest: self._own[pid]
            for guest, (watcher, _) in self._watchers.items()
            if (pid := watcher.found.pid) is not None and pid in self._own
        }

    def _have_reports(self, seen: Snapshot, plan: Plan) -> None:
        """Have each guest report as often as the policy's cadence needs."""
        for reading in seen.guests:
            watcher = self._watchers[reading.id][0]
            trend = self.history.guests.get(reading.id)
            seconds = report_intervals.every(plan.state, reading, trend, seen.time)
            watcher.report_every(min(self.rarest, seconds))
            if cadence.has_grown(reading, trend):
                watcher.report_now()

    def _start_small(self, plan: Plan) -> None:
        """Tell guests that have just started with which size, where a rule says so."""
        requests = self.requests.in_force
        told = {change.guest for change in plan.balloons}
        for guest, (watcher, _) in self._watchers.items():
            if not watcher.looks or not watcher.may_start_small:
                continue
            watcher.may_start_small = False
            size = starting_size.current(watcher.found.record, watcher.reading(), self.config)
            if size is not None and not requests.hold and guest not in requests.pins:
                watcher.start_with(size, is_told=guest in told)

    async def _set_ksm(self, change: SetKsm) -> None:
        if self.dry_run:
            self._forget_ksm(change, refused=False)
            return
        writer = self._writer()
        try:
            await asyncio.to_thread(writer.apply, change.changes)
        except QmpmemError as error:
            self._ksm_outcomes.append(Outcome(guest=None, done=False, error=error.message))
            self._forget_ksm(change, refused=True)
            if self.history.ksm.contended >= ksm.GIVE_UP:
                self.warn(f"KSM: {error.message}; left as it is")
        else:
            self._ksm_outcomes.append(Outcome(guest=None, done=True))

    def _forget_ksm(self, change: SetKsm, *, refused: bool) -> None:
        trend = ksm.unmade(self.history.ksm, change, refused=refused)
        self.history = replace(self.history, ksm=trend)

    async def _restore_ksm(self) -> None:
        """Put KSM back as it was before us; where it is not managed, only what agents changed."""
        self.history = replace(self.history, ksm=KsmTrend())
        if self.dry_run:
            return
        writer, only_agents = self._writer(), not self.config.ksm.managed

        def work() -> None:
            # Only another user, or root, can put back what that user's agent left.
            if not only_agents or os.access(self.place.ledger, os.W_OK):
                writer.restore(self._expect_one_domain, only_agents=only_agents)

        try:
            await asyncio.to_thread(work)
        except QmpmemError as error:
            if only_agents or isinstance(error, ConfigError):
                self.warn(f"KSM is not put back: {error.message}")
        for problem in writer.problems:
            self.warn(problem)

    def _expect_one_domain(self) -> None:
        merging.expect_one_domain(merging.strangers_by_record(self.place.run))

    def _writer(self) -> KsmWriter:
        return KsmWriter(self.place.ledger, self.place.root, by_agent=True)

    async def _rest(self, started: float) -> None:
        state = "SLACK" if self.last is None else self.last.plan.state
        short = severity(state) >= severity("HARD")
        period = self.config.period / (4 if short else 1)
        elapsed = self._clock() - started
        least = min(period, max(LEAST, HURRY * elapsed))
        await asyncio.sleep(max(0.0, least - elapsed))
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, period - max(elapsed, least))):
                await self._hurry.wait()

    async def _leave(self) -> None:
        """Leave the host and the guests as the configuration says."""
        if self.dry_run:
            return
        await self._restore_ksm()
        if self.last is None or self.config.on_stop == "keep":
            return
        told = {
            guest: trend.target
            for guest, trend in self.history.guests.items()
            if trend.target is not None and trend.shrinking
        }
        for guest, target in parting(self.last, self.config, told).items():
            if guest in self._watchers:
                self._watchers[guest][0].order(target)
        settling = [watcher.settled() for watcher, _ in self._watchers.values()]
        with suppress(TimeoutError):
            async with asyncio.timeout(STOPPING):
                await asyncio.gather(*settling)

    async def _supervise(self, watcher: Watcher) -> None:
        """Restart a watcher that fails: a mistake of ours with one guest must not end others."""
        while True:
            try:
                await watcher.run()
            except Exception as error:  # noqa: BLE001 - the one boundary around each guest's task
                self._degrade(f"guest {watcher.found.record.id}: starting over", error)
                watcher.fail(f"{type(error).__name__}: {error}")
                await asyncio.sleep(STARTING_OVER)


def unmovable(memory: Memory, reading: GuestReading) -> str | None:
    """Return why a balloon would free nothing of this process now, or None. Pure."""
    if memory.state in ("T", "t"):
        return "its process is stopped (state T)"
    return obstacles.of_process(memory.huge, memory.locked, memory.pinned, reading.maximum)


def parting(tick: Tick, config: Config, told: Mapping[str, Bytes] = NO_TARGETS) -> dict[str, Bytes]:
    """Return the sizes at which guests are left when the agent stops. Pure.

    Guests are raised towards what they work with and a fifth, or to all they may have. They are
    never lowered, and raised only out of what is spare: those that lack most come first.

    Args:
        tick: the last round.
        config: which of these.
        told: the targets of guests on their way down; what was seen of them may be older.
    """
    spare = max(0, tick.plan.spare or 0)
    targets: dict[str, Bytes] = {}
    wants = [
        (goal - has, each.guest, goal)
        for each in tick.plan.guests
        if each.actual is not None and each.maximum is not None
        for has in [min(each.actual, told.get(each.guest, each.actual))]
        for goal in [
            each.maximum
            if config.on_stop == "release"
            else min(each.maximum, (each.working or 0) * (100 + RELAX_PERCENT) // 100)
        ]
        if goal > has and each.verdict not in ("exempt", "implausible", "frozen")
    ]
    for lack, guest, goal in sorted(wants, reverse=True):
        granted = min(lack, spare)
        if granted > 0:
            spare -= granted
            targets[guest] = Bytes(goal - lack + granted)
    return targets
