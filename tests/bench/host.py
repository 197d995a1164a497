"""A host for a bench: guests of one row under a limit, slow swap behind it, and what moves memory.

Theory of operation:
    Every guest has a monitor of the bench's own beside the launcher's, so that the bench can ask
    and reset it while an agent holds the other. All of it hangs on one stack: the threads end last,
    since a question to a guest ends with the guest. Where the bench is killed the kernel ends the
    guests and the agent (PR_SET_PDEATHSIG, which follows the thread that starts them: only the
    main thread does).
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from launchers.guest import channel
from launchers.guest.errors import ChannelError
from qmpmem.model.config import Config, Rule
from qmpmem.units import MIB, Bytes
from tests.bench import limits
from tests.bench.policed import Summary
from tests.bench.stacks import ARGUMENTS, Stack
from tests.rig.command import plain_environment
from tests.rig.guests import ROOT, RunningGuest, come_up, start
from tests.rig.interrupts import uninterrupted
from tests.rig.launcher import talking
from tests.rig.qemu import WITH_US, short_directory

T = TypeVar("T")

PATIENCE: Final = 120.0
"""Seconds for what is no part of the measurement."""
THREADS: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What guests may hold together, and what an agent is told. Sizes in MiB."""

    limit: int
    swap: int | None = None
    """What the host has; None: a quarter of the limit."""
    minimum: int = 96
    """Below which no policy takes a guest."""
    grace: float = 5.0
    """Seconds for which a guest is new: a bench has no hours. Where it boots in what is measured,
    that is the agent's default."""
    is_watched: bool = False
    """Each guest is in a cgroup v2 of its own, which says how long it waits for memory: to the
    bench, and to an agent that asks."""
    rules: tuple[Rule, ...] = ()
    """For some guests; the minimum holds for the others."""

    def config(self, group: Path) -> Config:
        """Return what an agent is told."""
        every = Rule(match="*", minimum=Bytes(self.minimum * MIB))
        return Config(
            budget=str(group), grace=self.grace, on_stop="keep", rules=(*self.rules, every)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A guest to be started."""

    name: str
    memory: int = 512
    """MiB."""
    extra: Sequence[str] = ()
    """More arguments for QEMU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A guest that was started."""

    name: str
    running: RunningGuest
    monitor: Path
    group: Path | None
    """Its own cgroup v2; None where guests are not watched, or this host has none."""

    @property
    def is_alive(self) -> bool:
        return self.running.process.poll() is None

    def take(self, command: str, seconds: float) -> float | None:
        """Run a command, measured; return the seconds it took, None where it failed or was late."""
        began = time.monotonic()
        return None if self.say(command, seconds) is None else time.monotonic() - began

    def queued(self) -> float:
        """Return the seconds for which threads of its QEMU waited for a processor, until now.

        Source: Linux, Documentation/scheduler/sched-stats.rst (/proc/PID/schedstat, run_delay).
        """
        total = 0
        for task in Path(f"/proc/{self.running.pid}/task").glob("*/schedstat"):
            with suppress(OSError):  # the thread has ended
                total += int(task.read_text().split()[1])
        return total / 1e9

    def do(self, command: str) -> None:
        """Run a command that is no part of the measurement; its failure shows in what is."""
        self.say(command, PATIENCE)

    def say(self, command: str, seconds: float) -> str | None:
        """Run a command and return what it wrote; None where it failed or was late."""
        try:
            answer = channel.execute(self.running.channel, command, seconds=seconds)
        except ChannelError:
            return None
        return None if answer.code else answer.output.decode(errors="replace")

    def kills(self) -> int | None:
        """Count what the guest's kernel has killed since its boot; None: it does not answer."""
        said = self.say("grep '^oom_kill ' /proc/vmstat", PATIENCE)
        return None if said is None else int(said.split()[1])

    def tell(self, size: int) -> None:
        """Tell the balloon a size in MiB."""
        self.ask("balloon", value=size * MIB)

    def ask(self, command: str, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        """Execute a QMP command, and return what it returns.

        Raises:
            ConnectionError: the guest is gone.
        """
        if not self.is_alive:
            raise ConnectionError(f"{self.name} is gone")
        try:
            with talking(self.monitor) as monitor:
                return monitor.ask(command, **arguments)
        except (OSError, ValueError, AssertionError) as error:  # an answer that is cut short
            if self.is_alive:
                raise
            raise ConnectionError(f"{self.name} is gone") from error

    def actual(self) -> int | None:
        """Return the bytes that the guest has, as QEMU knows it; None: it is gone, or has none."""
        try:
            return int(self.ask("query-balloon")["actual"])
        except (OSError, ValueError, AssertionError):
            return None

    def stalled(self) -> float:
        """Return the seconds in which all of its processes waited for memory, since its start.

        A page that comes back from swap is a wait for memory only where it was in use when it went,
        but always one for a disk; guests that are watched have no disk of the host's.

        Source: Linux, Documentation/accounting/psi.rst (full, total); mm/page_io.c.
        """
        if self.group is None:
            return 0.0
        return max(_full(self.group / f"{what}.pressure") for what in ("memory", "io"))


def _full(pressure: Path) -> float:
    """Read the seconds in which all of a group's processes waited."""
    lines = pressure.read_text().splitlines()
    full = next(line for line in lines if line.startswith("full "))
    return int(full.rpartition("total=")[2]) / 1e6


@dataclass(slots=True, kw_only=True)
class Host:
    """One row's host; `hosted` makes it."""

    stack: Stack
    room: Room
    directory: Path
    group: Path
    """The memory cgroup with the limit."""
    guests: list[Guest] = field(default_factory=list[Guest])
    over: threading.Event = field(default_factory=threading.Event)
    """Set when the row is over, whatever the reason."""
    exits: ExitStack
    """What is undone at the end of the row."""
    _pool: ThreadPoolExecutor
    _agent: subprocess.Popen[str] | None = None

    def start(self, machines: Iterable[Machine]) -> list[Guest]:
        """Start guests at once, without waiting for any of them."""
        started = [self._start(machine) for machine in machines]
        self.guests += started
        return started

    def boot(self, machines: Iterable[Machine], *, is_met: bool = True) -> list[Guest]:
        """Start guests at once, and return when they have booted.

        Args:
            machines: the guests.
            is_met: otherwise `meet` is still to be called.

        Raises:
            AssertionError: one did not boot.
        """
        started = self.start(machines)
        for guest in started:
            come_up(guest.running)
            if is_met:
                self.meet(guest)
        return started

    def meet(self, guest: Guest) -> None:
        """Do once what this row does with a guest that has booted."""
        if self.stack.is_small:
            guest.tell(self.room.minimum)

    def look_after(self, *, inside: bool = False) -> None:
        """Start this row's agent, if it has one.

        Args:
            inside: it shares the guests' limit.
        """
        if self.stack.rival is None:
            return
        config = msgspec.json.encode(self.room.config(self.group)).decode()
        words = [sys.executable, "-m", "tests.bench.policed", self.stack.rival, config]
        with uninterrupted():
            self._agent = subprocess.Popen(
                [*_with_us(self.group if inside else None), *words],
                cwd=ROOT,
                env=plain_environment() | {"QMPMEM_RUN_DIR": str(self.directory / "run")},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
            )
            self.exits.callback(_end, self._agent)

    def report(self) -> Summary | None:
        """End the agent, and return what it did; None: this row has none.

        Raises:
            AssertionError: it ended before.
        """
        if self._agent is None:
            return None
        assert self._agent.poll() is None, f"the agent of {self.stack.key} ended"
        self._agent.terminate()
        said, _ = self._agent.communicate(timeout=PATIENCE)
        return msgspec.json.decode(said, type=Summary)

    def sleep(self, seconds: float) -> None:
        """Let time pass, which is part of what is measured; at the end of the row, none."""
        self.over.wait(max(0.0, seconds))

    def sleep_until(self, moment: float) -> None:
        """Sleep until a moment of time.monotonic()."""
        self.sleep(moment - time.monotonic())

    def submit(self, task: Callable[[], T]) -> Future[T]:
        """Begin to call this, beside what follows."""
        return self._pool.submit(task)

    def together(self, tasks: Iterable[Callable[[], T]]) -> list[T]:
        """Call all of these at once, and return what they return."""
        futures = [self.submit(task) for task in tasks]
        return [future.result() for future in futures]

    def lost(self) -> int:
        """Count the guests that are gone: here only the host's kernel ends any."""
        return sum(not guest.is_alive for guest in self.guests)

    def kills(self) -> int | None:
        """Count what the kernels of the guests that are there have killed; None: one is silent."""
        counts = [guest.kills() for guest in self.guests if guest.is_alive]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def hits(self) -> int:
        """Count how often the limit was met (memory.failcnt)."""
        return int((self.group / "memory.failcnt").read_text())

    @uninterrupted()
    def _start(self, machine: Machine) -> Guest:
        monitor = self.directory / f"{machine.name}.qmp"
        own = limits.watched(machine.name) if self.room.is_watched else nullcontext()
        group = self.exits.enter_context(own)
        running = self.exits.enter_context(
            start(
                [*_with_us(self.group, group), str(ROOT / "launchers" / "kvm")],
                memory=f"{machine.memory}M",
                extra=(
                    *("-name", machine.name, "-qmp", f"unix:{monitor},server=on,wait=off"),
                    *(*ARGUMENTS[self.stack.devices], *machine.extra),
                ),
                environ=self._environment(),
            )
        )
        return Guest(name=machine.name, running=running, monitor=monitor, group=group)

    def _environment(self) -> dict[str, str]:
        balloon = {"QMPMEM_BALLOON": "off"} if self.stack.devices == "absent" else {}
        run = str(self.directory / "run")
        return {"QMPMEM_RUN_DIR": run, "QMPMEM_KSM": "off"} | balloon


def _with_us(*groups: Path | None) -> Sequence[str]:
    """Return the words that start what ends with the bench, in these groups.

    It enters them first: what a process holds already stays with the group that it was in. A bench
    that was killed before setpriv(1) asked for its signal sends none.
    """
    enter = "".join(f" && echo $$ > {group}/cgroup.procs" for group in groups if group)
    return (*WITH_US, "sh", "-c", f'[ $PPID = {os.getpid()} ]{enter} && exec "$0" "$@"')


@contextmanager
def hosted(stack: Stack, room: Room) -> Generator[Host]:
    """Make the host of a row; at the end all of it is gone."""
    limit = room.limit * stack.times * MIB
    with ThreadPoolExecutor(THREADS) as pool, short_directory() as directory, ExitStack() as exits:
        (directory / "run").mkdir()
        host = Host(
            stack=stack,
            room=room,
            directory=directory,
            group=_limited(exits, limit),
            exits=exits,
            _pool=pool,
        )
        swap = limit // 4 if room.swap is None else room.swap * MIB
        exits.enter_context(limits.swapped(swap, limits.SLOW))
        try:
            yield host
        finally:
            host.over.set()


@uninterrupted()
def _limited(exits: ExitStack, limit: int) -> Path:
    return exits.enter_context(limits.limited(limit))


def _end(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.communicate(timeout=15)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
