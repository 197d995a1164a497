"""Running the agent: everything it is made of, put together."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

from qmpmem import configuration, launcher_install
from qmpmem.agent import descriptor_limit, locked_memory, threads
from qmpmem.agent.garbage_collection import Collector
from qmpmem.agent.loop import Agent, Surroundings
from qmpmem.agent.systemd_notify import Notifier, watchdog_period
from qmpmem.api import addresses, permissions, socket_activation
from qmpmem.api.handlers import Handlers
from qmpmem.api.permissions import Permissions
from qmpmem.api.recent_rounds import RecentRounds
from qmpmem.api.server import serving
from qmpmem.api.sockets import Listeners, listening
from qmpmem.cli.agent_log import AgentLog
from qmpmem.cli.config import accepted, judged
from qmpmem.cli.output import as_json
from qmpmem.errors import LaunchError
from qmpmem.guests import rundir
from qmpmem.journal.paths import journal_path
from qmpmem.journal.writer import Journal
from qmpmem.ksm import ledger
from qmpmem.model.config import Config
from qmpmem.model.escapes import printable
from qmpmem.model.round import Kind, SetBalloon, Tick
from qmpmem.records import Record, replace
from qmpmem.units import format_size
from qmpmem.view import agent as view
from qmpmem.view import rows

ONCE: Final = 10.0
"""Seconds that a single look waits for guests that do not answer, or do not report."""
SHOWN: Final = 60.0
"""Seconds after which a dry run shows again what it would do."""
OFTEN: Final = 1.0
"""Seconds between two reports for a single look: it takes two to know what a guest uses."""

READING: Final = 5.0
"""Seconds that the files of the configuration may take: their file system may hang."""

PATIENT: Final = 3
"""Rounds that may be missed before systemd takes the agent for dead."""


class Options(Record, frozen=True):
    """How the agent was asked to run."""

    config: Path | None = None
    dry_run: bool = False
    once: bool = False
    json: bool = False


def run(options: Options) -> None:
    """Run the agent until it is told to stop.

    Raises:
        ConfigError: an agent runs already, or there is no place for one.
        KernelError: its socket cannot be made, or no thread can be started.
    """
    config = accepted(judged(options.config))
    place = _place(os.environ)
    path = addresses.socket_path(os.environ, place.run)
    place = replace(place, most=descriptor_limit.make_room())
    place = replace(place, requests=addresses.orders_path(path))
    if not options.once:
        locked_memory.stay()
    with ExitStack() as stack, threads.explained():
        agent_log = AgentLog()
        stack.callback(agent_log.close)
        known = permissions.permissions(os.geteuid())
        given = socket_activation.given(os.environ)
        place = replace(place, say=agent_log.say, warn=agent_log.warn)
        listeners = stack.enter_context(listening(path, known, given=given, warn=agent_log.warn))
        _bring_along(place)
        outdated = None if options.once else outdated_launcher(Path("/"))
        if outdated is not None:
            agent_log.warn(outdated)
        journal = None if options.once else _journal(config)
        if journal is not None:
            place = replace(place, journal=journal.path)
            stack.callback(journal.close)
        pool = threads.start()
        stack.callback(pool.shutdown, wait=False)
        running = _Running(options, config, place, agent_log, journal)
        asyncio.run(_reading_in(pool, running.run(listeners, known)))


async def _reading_in(pool: ThreadPoolExecutor, work: Coroutine[None, None, None]) -> None:
    """Do some work whose files are read in these threads."""
    asyncio.get_running_loop().set_default_executor(pool)
    await work


class _Running:
    """An agent and all that listens to it."""

    def __init__(
        self,
        options: Options,
        config: Config,
        place: Surroundings,
        agent_log: AgentLog,
        journal: Journal | None = None,
    ) -> None:
        self._options = options
        self._agent_log = agent_log
        self._publish: list[Callable[[Tick], None]] = []
        if options.once:
            config = replace(config, on_stop="keep", grace=0.0)
            place = replace(place, requests=None)
        # It reads files, so before there is an event loop.
        self._version = version("qmpmem")
        self._notifier = Notifier(os.environ)
        self._agent = Agent(
            place,
            config,
            self._publish,
            self._notifier,
            dry_run=options.dry_run or options.once,
        )
        if options.once:
            self._agent.rarest = OFTEN
        self._journal = journal
        self._began: float | None = None
        self._shown: dict[str, tuple[Kind, float]] = {}
        """What a dry run showed last of each guest, and when it did."""
        self._reloading: asyncio.Task[None] | None = None

    async def run(self, listeners: Listeners, known: Permissions) -> None:
        """Run until told to stop.

        Args:
            listeners: the sockets on which clients ask the agent.
            known: which clients may ask what.
        """
        rounds = RecentRounds()
        handlers = Handlers(self._agent, rounds, self._agent_log.say, self._version)
        self._publish += [Collector().publish, handlers.publish]
        self._publish += [] if self._journal is None else [self._write_down]
        self._publish.append(self._show_once if self._options.once else self._show)
        if self._agent_log.log.isEnabledFor(logging.DEBUG):
            self._publish.append(self._trace)
        self._listen_to_signals()
        self._ask_for_time()
        async with serving(handlers, listeners, known, self._agent_log.log):
            if not self._options.once:
                run = self._agent.place.run
                self._agent_log.say(
                    printable(f"{self._mode()} guests in {run}; asked at {listeners.path}")
                )
            await self._agent.run()
        if not self._options.once:
            readings = [watcher.reading() for watcher in self._agent.guests.values()]
            left = view.left_line(readings)
            self._agent_log.say(f"stopped; {left}" if left else "stopped")

    def _mode(self) -> str:
        return "at work on" if not self._agent.dry_run else "watching, and changing nothing of,"

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._agent.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _reload(self) -> None:
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._read_again())

    async def _read_again(self) -> None:
        total = None if self._agent.last is None else self._agent.last.snapshot.host.total
        try:
            async with asyncio.timeout(READING):
                sources = await configuration.read_again(self._options.config, os.environ)
        except TimeoutError:
            words = "not read within %g s; the configuration stays as it was"
            self._agent_log.log.error(words, READING)  # noqa: TRY400 - one line
            return
        found = configuration.reload(self._agent.config, sources, total)
        for mistake in found.mistakes:
            self._agent_log.log.error(mistake)
        for warning in found.warnings:
            self._agent_log.warn(str(warning))
        if found.mistakes:
            self._agent_log.log.error("the configuration stays as it was")
            return
        self._agent.reload(found.config)
        self._ask_for_time()
        changed = ", ".join(found.changed) or "nothing"
        self._agent_log.say(f"configuration read again; changed: {changed}")

    def _ask_for_time(self) -> None:
        """Have systemd wait for some rounds, however long they are (sd_notify(3))."""
        least = watchdog_period(os.environ)
        if least is not None:
            wanted = max(least, PATIENT * self._agent.config.period)
            self._notifier.tell(f"WATCHDOG_USEC={int(wanted * 1e6)}")

    def _write_down(self, tick: Tick) -> None:
        """Have the journal take a round, and warn of what is wrong with it."""
        if self._journal is not None:
            self._journal.add(tick, self._agent.config)
            for problem in self._journal.problems():
                self._agent.warn(problem)

    def _show(self, tick: Tick) -> None:
        """Write a line for each thing that a round did; none where it did nothing."""
        agent_log, plan = self._agent_log, tick.plan
        names = {each.guest: each.name for each in plan.guests}
        if self._options.json:
            agent_log.put(as_json(tick, sys.stdout.encoding))
        else:
            would = "would: " if tick.dry_run else ""
            for change in self._news(tick):
                guest = rows.label(change.guest, names.get(change.guest))
                what = f"{guest} → {format_size(change.target)}"
                agent_log.put(f"{plan.state} {would}{what}: {printable(change.reason)}")
            for step in plan.reclaims:
                guest = rows.label(step.guest, names.get(step.guest))
                what = f"{guest}: {format_size(step.size)} of its cgroup"
                agent_log.put(f"{plan.state} {would}{what} {printable(step.reason)}")
            if plan.ksm is not None:
                agent_log.put(
                    f"{plan.state} {would}KSM {dict(plan.ksm.changes)}: {plan.ksm.reason}"
                )
        for warning in plan.warnings:
            agent_log.warn(warning)
        for outcome in tick.outcomes:
            if outcome.error:
                agent_log.log.warning("%s: %s", outcome.guest or "KSM", outcome.error)

    def _trace(self, tick: Tick) -> None:
        """Log how long a round took, for the search for a mistake."""
        words = "round %d: %s, guests: %d, commands: %d, %.4f s"
        plan, took = tick.plan, tick.seconds or 0.0
        guests, commands = len(plan.guests), len(plan.balloons)
        self._agent_log.log.debug(words, tick.number, plan.state, guests, commands, took)

    def _news(self, tick: Tick) -> list[SetBalloon]:
        """Return the commands to show. One that is not sent is decided again in each round."""
        if not tick.dry_run:
            return list(tick.plan.balloons)
        now = tick.snapshot.time
        fresh: list[SetBalloon] = []
        for change in tick.plan.balloons:
            kind, since = self._shown.get(change.guest, (None, 0.0))
            if kind != change.kind or now - since >= SHOWN:
                self._shown[change.guest] = change.kind, now
                fresh.append(change)
        return fresh

    def _show_once(self, tick: Tick) -> None:
        """Write what would be decided, once every guest was looked at, and end."""
        if self._began is None:
            self._began = tick.snapshot.time
        # On a loaded host the first rounds come before the first look for guests has ended.
        waits = not self._agent.has_looked
        waits |= any(guest.is_new for guest in self._agent.guests.values())
        waits |= any(each.verdict == "grace" for each in tick.plan.guests)
        if waits and tick.snapshot.time - self._began < ONCE:
            self._agent.hurry()
            return
        self._agent.stop()
        if self._options.json:
            self._agent_log.put(as_json(tick, sys.stdout.encoding))
            return
        for line in view.plan_lines(tick.plan):
            self._agent_log.put(line)
        headers, table = view.guest_table(tick.plan.guests)
        for line in rows.columns(headers, table) if table else ():
            self._agent_log.put(line)


def outdated_launcher(root: Path) -> str | None:
    """Return what to do where the launcher in the place of kvm is of another version.

    An upgrade of this package leaves the launcher's copy in the host's directories as it was, so
    the agent, which is restarted then, is the first to see it. None where there is nothing to do.
    """
    try:
        seen = launcher_install.status(launcher_install.site(root))
    except LaunchError:
        return None
    if seen.state != "outdated":
        return None
    return f"{seen.kvm}: the launcher is of another version; run `qmpmem launcher install`"


def _bring_along(place: Surroundings) -> None:
    """Take over what an agent of 0.1 was told to hold and pin: root's kept it one level higher."""
    if place.run == rundir.ROOTS and place.requests is not None and not place.requests.exists():
        with suppress(OSError):
            (place.run.parent / place.requests.name).rename(place.requests)


def _journal(config: Config) -> Journal:
    path = journal_path(config.journal.path, os.environ, os.geteuid())
    return Journal(path, config.journal)


def _place(environ: Mapping[str, str]) -> Surroundings:
    run = rundir.run_directory(environ, os.getuid())
    try:
        rundir.make_run_directory(run)
    except OSError as error:
        raise rundir.refused(run, error) from error
    return Surroundings(run=run, ledger=ledger.directory(environ))
