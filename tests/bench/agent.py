"""What the agent costs: CPU, memory and the length of its rounds, with many guests and with few.

Theory of operation:
    The agent is started as a user starts it, with its journal and its control API, which is asked
    every few seconds as a monitor would. Real QEMUs are paused, so they answer and report nothing;
    the scripted ones report. A process that waits stands for each scripted one's QEMU, so that
    there is as much to read below /proc as with real ones.
"""

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qmpmem.api import addresses
from qmpmem.api.client import Client
from qmpmem.api.records import Status
from qmpmem.errors import AgentUnreachable
from qmpmem.model.guest import GuestView
from tests.bench.table import AtLeast, AtMost, Figure
from tests.rig.command import PROGRAM, plain_environment
from tests.rig.guests import end
from tests.rig.interrupts import uninterrupted
from tests.rig.qemu import paused, short_directory

CHECKOUT: Final = Path(__file__).parents[2]
PATIENCE: Final = 180.0
"""Seconds until an agent has seen all of its guests."""
STOPS: Final = 15.0
"""Seconds that an agent has to end in good order: it takes ten at the most."""
ASKING: Final = 5.0
"""Seconds between two questions of the monitor."""
LISTS: Final = 9
STATES: Final = ("running", "paused", "prelaunch")
"""Of guests that were looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    real: int = 200
    scripted: int = 2000
    some: int = 200
    """Of which a quarter hangs."""
    few: int = 10
    killed: int = 100
    settle: float = 60.0
    """Seconds before it counts: the first look at all guests is over."""
    seconds: float = 120.0


FULL: Final = Size()
QUICK: Final = Size(real=5, scripted=50, some=8, few=4, killed=10, settle=2.0, seconds=5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What an agent was seen to need."""

    cpu: float
    """Percent of a core."""
    memory: float
    """MiB, at its largest (VmHWM)."""
    took: float | None
    """Milliseconds within which 99 of 100 rounds were done."""
    rounds: float
    """In a second."""
    guests: Sequence[GuestView]
    listed: float
    """Milliseconds that `qmpmem list` takes from start to end."""


def measure(size: Size, say: Callable[[str], None]) -> list[Figure]:
    """Measure an agent with many guests, with some that hang, and with few."""
    say(f"agent: {size.real} paused QEMUs and {size.scripted} scripted guests")
    many = _run(size, real=size.real, scripted=size.scripted)
    say(f"agent: {size.some} scripted guests, {size.some // 4} of them hung")
    hung = _run(size, scripted=size.some, hung=size.some // 4)
    say(f"agent: {size.few} idle guests")
    few = _run(size, scripted=size.few)
    say(f"agent: killed, beside {size.killed} scripted guests")
    back = at_most(f"agent, killed: {size.killed} guests seen again", "s", _restart(size), 5)
    return [*_many(size, many), *_hung(size, hung), *_few(size, few), back]


def _many(size: Size, seen: Seen) -> list[Figure]:
    what = f"agent, {size.real + size.scripted} guests"
    return [
        at_most(f"{what}: CPU", "% of a core", seen.cpu, 60),
        at_most(f"{what}: memory", "MiB", seen.memory, 96),
        at_most(f"{what}: 99 of 100 rounds", "ms", seen.took, 50),
    ]


def _hung(size: Size, seen: Seen) -> list[Figure]:
    what = f"agent, {size.some // 4} of {size.some} hung"
    ages = [guest.stats.age for guest in seen.guests if guest.stats and guest.state == "running"]
    answering = [age for age in ages if age is not None]
    return [
        Figure(what=f"{what}: rounds", unit="/s", ours=seen.rounds, goal=AtLeast(amount=0.99)),
        Figure(
            what=f"{what}: others seen",
            unit="",
            ours=float(len(answering)),
            goal=AtLeast(amount=size.some - size.some // 4),
        ),
        at_most(f"{what}: others' oldest report", "s", max(answering, default=None), 11),
        at_most(f"{what}: `qmpmem list`", "ms", seen.listed, 300),
    ]


def _few(size: Size, seen: Seen) -> list[Figure]:
    what = f"agent, {size.few} idle guests"
    return [
        at_most(f"{what}: CPU", "% of a core", seen.cpu, 1),
        at_most(f"{what}: memory", "MiB", seen.memory, 64),
    ]


def at_most(what: str, unit: str, ours: float | None, most: float) -> Figure:
    """Make a figure that is not to be more than so much."""
    return Figure(what=what, unit=unit, ours=ours, goal=AtMost(amount=most))


def _run(size: Size, *, real: int = 0, scripted: int = 0, hung: int = 0) -> Seen:
    with short_directory() as run, ExitStack() as stack:
        stack.enter_context(paused(run, *(f"q{number:03}" for number in range(real)), memory="64M"))
        guests = stack.enter_context(scripted_guests(run, scripted, hung))
        agent = stack.enter_context(started(run))
        client = Client(addresses.socket_path(plain_environment() | settings(run), run), 20.0)
        wait_for(client, real + scripted)
        if hung:
            assert guests.stdin is not None
            print("hang", file=guests.stdin, flush=True)
        _ask_for(client, size.settle)
        return _watch(client, agent, size.seconds, run)


def _restart(size: Size) -> float:
    """Kill an agent and start another; gives the seconds until that has seen all guests."""
    with short_directory() as run, scripted_guests(run, size.killed, 0):
        client = Client(addresses.socket_path(plain_environment() | settings(run), run), 20.0)
        with started(run) as agent:
            wait_for(client, size.killed)
            os.kill(agent, signal.SIGKILL)
        began = time.monotonic()
        with started(run):
            wait_for(client, size.killed)
            return time.monotonic() - began


def _watch(client: Client, agent: int, seconds: float, run: Path) -> Seen:
    before, began, spent = _number(client), time.monotonic(), cpu(agent)
    _ask_for(client, seconds)
    elapsed, used = time.monotonic() - began, cpu(agent) - spent
    status = client.get("status", Status)
    return Seen(
        cpu=100 * used / elapsed,
        memory=_peak(agent),
        took=None if status.took_most is None else 1000 * status.took_most,
        rounds=(status.number - before) / (time.monotonic() - began),
        guests=client.get("guests", list[GuestView]),
        listed=statistics.median(_list(run) for _ in range(LISTS)),
    )


def _list(run: Path) -> float:
    environ = plain_environment() | settings(run)
    began = time.monotonic()
    subprocess.run([PROGRAM, "list"], env=environ, stdout=subprocess.DEVNULL, check=True)
    return 1000 * (time.monotonic() - began)


def _ask_for(client: Client, seconds: float) -> None:
    """Be a monitor for a while: what is measured is over time, so time has to pass."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(ASKING, left))
        client.get("status", Status)


def _number(client: Client) -> int:
    return client.get("status", Status).number


def wait_for(client: Client, count: int) -> None:
    """Wait until an agent has seen so many guests."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            seen = client.get("guests", list[GuestView])
        except AgentUnreachable:
            seen = []
        if sum(guest.state in STATES for guest in seen) == count:
            return
        time.sleep(0.1)
    raise TimeoutError(f"the agent did not see its {count} guests within {PATIENCE:.0f} s")


def settings(run: Path) -> dict[str, str]:
    """Return the environment of an agent that is measured."""
    return {"QMPMEM_RUN_DIR": str(run), "QMPMEM_CONFIG": str(run / ".bench.toml")}


@contextmanager
def started(run: Path) -> Generator[int]:
    """Run an agent; yields its pid."""
    (run / ".bench.toml").write_text(f'on_stop = "keep"\n[journal]\npath = "{run}/.journal"\n')
    with ExitStack() as exits:
        with uninterrupted(), (run / ".said").open("wb") as said:
            child = subprocess.Popen(
                [PROGRAM, "agent"],
                env=plain_environment() | settings(run),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
            exits.callback(end, child, STOPS)
        yield child.pid
        assert child.poll() in (None, -signal.SIGKILL), (run / ".said").read_text()


@contextmanager
def scripted_guests(run: Path, count: int, hung: int) -> Generator[subprocess.Popen[str]]:
    """Have guests that are scripted; some of them can be told to hang."""
    with ExitStack() as exits:
        with uninterrupted():  # it ends with its stdin, which the end of Popen's context closes
            child = exits.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.bench.scripted", str(run), str(count), str(hung)],
                    cwd=CHECKOUT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        assert child.stdout is not None
        said = child.stdout.readline()
        assert said == "ready\n", said
        yield child


def cpu(pid: int) -> float:
    """Seconds that a process and its threads have run."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> float:
    """MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
