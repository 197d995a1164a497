"""Agents: one whose rounds are made up, to be asked in this process; and real ones."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

from qmpmem.agent.guest_state import NOT_SEEN
from qmpmem.agent.loop import Agent, Surroundings
from qmpmem.agent.systemd_notify import Notifier
from qmpmem.agent.watcher import Watcher
from qmpmem.api.client import Client
from qmpmem.api.handlers import Handlers
from qmpmem.api.permissions import Peer, Permissions
from qmpmem.api.recent_rounds import RecentRounds
from qmpmem.api.records import Access, Status
from qmpmem.api.server import serving
from qmpmem.api.sockets import Listeners, listening
from qmpmem.errors import AgentUnreachable
from qmpmem.guests import access, rundir
from qmpmem.guests.inventory import LiveGuest
from qmpmem.guests.rundir import GuestRecord
from qmpmem.model.config import Config
from qmpmem.model.guest import GuestStats
from qmpmem.model.observation import GuestReading, HostReading, Snapshot
from qmpmem.model.round import Explanation, Plan, SetBalloon, Tick
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.command import PROGRAM, plain_environment
from tests.rig.logs import log_to
from tests.rig.patience import patient
from tests.rig.qemu import until

T = TypeVar("T")


class EveryClient(Permissions, frozen=True):
    """Every client that asks has these rights."""

    access: Access = "write"

    def of(self, peer: Peer) -> Access:  # noqa: ARG002 - the signature is that of Rights
        return self.access


def record(guest: str, **fields: object) -> GuestRecord:
    """Make a guest's record, as if its process were this one."""
    known: dict[str, object] = {
        "version": rundir.RECORD_VERSION,
        "id": guest,
        "name": guest,
        "pid": os.getpid(),
        "start_time": 1,
        "socket": f"/proc/none/{guest}",
        "uid": os.getuid(),
        "created": time.time(),
    }
    return GuestRecord(**(known | fields))  # type: ignore[arg-type]


class Office:
    """An agent that sees what it is told, and the desk in front of it."""

    def __init__(self, run: Path, config: Config | None = None, *, dry_run: bool = False) -> None:
        self.lines: list[str] = []
        self.listeners: list[Callable[[Tick], None]] = []
        self.agent = Agent(
            Surroundings(run=run, say=self.lines.append, warn=self._hear_warning),
            config or Config(),
            self.listeners,
            Notifier({}),
            dry_run=dry_run,
        )
        self.rounds = RecentRounds()
        self.handlers = Handlers(self.agent, self.rounds, self.lines.append, "0")
        self.listeners.append(self.handlers.publish)
        self.readings: dict[str, GuestReading] = {}
        self.number = 0

    def add(self, guest: str, actual: int = 512, **fields: object) -> None:
        """Have a guest of 1 GiB, with so many MiB."""
        found = LiveGuest(record=record(guest, **fields), pid=os.getpid())
        watcher = Watcher(found)
        reading = GuestReading(
            id=guest,
            state="running",
            maximum=GIB,
            actual=Bytes(actual * MIB),
            rss=Bytes(actual * MIB),
            stats=GuestStats(available=Bytes(100 * MIB)),
            age=1.0,
        )
        watcher._inquiry.known = replace(
            watcher._inquiry.known, reading=reading, problem=None, is_new=False
        )
        self.readings[guest] = reading
        self.agent._watchers[guest] = (watcher, None)  # type: ignore[assignment]

    def remove(self, guest: str) -> None:
        del self.agent._watchers[guest], self.readings[guest]

    def round(
        self,
        *,
        spare: int = 0,
        told: Sequence[SetBalloon] = (),
        guests: Sequence[Explanation] | None = None,
        warnings: tuple[str, ...] = (),
    ) -> Tick:
        """Publish a round; `spare` in MiB."""
        self.number += 1
        known = guests or [
            Explanation(guest=name, actual=reading.actual, minimum=Bytes(358 * MIB), maximum=GIB)
            for name, reading in self.readings.items()
        ]
        tick = Tick(
            number=self.number,
            snapshot=Snapshot(
                time=time.monotonic(),
                wall=time.time(),
                host=HostReading(total=Bytes(8 * GIB), available=Bytes(2 * GIB)),
                guests=tuple(self.readings.values()),
                requests=self.agent.requests.in_force,
            ),
            plan=Plan(
                spare=Bytes(spare * MIB),
                reserve=Bytes(GIB),
                guests=tuple(known),
                balloons=tuple(told),
                warnings=warnings,
            ),
        )
        self.agent._tell(tick)
        return tick

    def _hear_warning(self, text: str) -> None:
        self.lines.append(f"warning: {text}")

    @asynccontextmanager
    async def open(
        self, listeners: Listeners, permissions: Permissions | None = None
    ) -> AsyncIterator[Client]:
        """Answer on two sockets; a client in this process must ask in a thread: `ask`."""
        known = permissions or EveryClient(owner=os.geteuid())
        async with serving(self.handlers, listeners, known, log_to(self.lines)) as self.pool:
            yield Client(listeners.path, patience=patient(2))


async def ask(question: Callable[[], T]) -> T:
    """Ask from a thread, while the loop of this test answers."""
    return await asyncio.to_thread(question)


async def talk(path: Path, content: bytes, *, seconds: float = 10.0) -> bytes:
    """Send bytes, and take what comes until the connection ends."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        async with asyncio.timeout(patient(seconds)):
            writer.write(content)
            received = b""
            try:
                while piece := await reader.read(65536):
                    received += piece
            except ConnectionError:  # it did not read all that was sent
                pass
            return received
    finally:
        writer.close()


@contextmanager
def own_listener(directory: Path, permissions: Permissions | None = None) -> Iterator[Listeners]:
    """Listen as an agent does, on sockets of our own."""
    known = permissions or Permissions(owner=os.geteuid())
    with listening(directory / "a.sock", known) as listeners:
        yield listeners


@contextmanager
def running(
    run: Path,
    *options: str,
    environ: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
) -> Iterator[subprocess.Popen[str]]:
    """Run a real agent, and yield when it has decided about each guest that it knows.

    Args:
        run: its run directory.
        options: of `qmpmem agent`.
        environ: added to this process's environment.
        before: a program that runs it, such as ``setpriv``.
    """
    run.mkdir(exist_ok=True)
    environment = plain_environment() | {"QMPMEM_RUN_DIR": str(run)} | dict(environ or {})
    words = ["setpriv", "--pdeathsig", "KILL", *before, str(PROGRAM), "agent", *options]
    with (run / ".out").open("w") as out, (run / ".err").open("w") as err:
        agent = subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, text=True
        )
    try:
        until(
            lambda: agent.poll() is not None or has_begun(run),
            seconds=20,
            what="the agent answers",
        )
        assert agent.poll() is None, f"the agent ended: {said(run)}"
        yield agent
    finally:
        stop(agent)


@asynccontextmanager
async def beside(run: Path, *options: str) -> AsyncIterator["subprocess.Popen[str]"]:
    """Run a real agent beside this loop, which goes on meanwhile."""
    context = running(run, *options)
    agent = await ask(context.__enter__)
    try:
        yield agent
    finally:
        await ask(lambda: context.__exit__(None, None, None))


def stop(agent: "subprocess.Popen[str]") -> int:
    """Stop an agent, as systemd does."""
    if agent.poll() is None:
        agent.send_signal(signal.SIGCONT)
        agent.terminate()
    try:
        return agent.wait(timeout=patient(20))
    except subprocess.TimeoutExpired:
        agent.kill()
        return agent.wait()


def said(run: Path) -> str:
    """Give what an agent wrote to stderr."""
    return (run / ".err").read_text()


def asking(run: Path) -> Client:
    """Return a client of the agent of a run directory that waits longer on a busy machine."""
    return Client(access.agent_socket(run), patience=patient(2))


def has_begun(run: Path) -> bool:
    """Whether the agent of a run directory has seen its guests and decided about them."""
    try:
        status = asking(run).get("status", Status)
    except AgentUnreachable:
        return False
    judged = all(guest.reason != NOT_SEEN for guest in status.guests)
    return status.number >= 2 and judged
