"""An agent in a world where everything goes wrong at random, for minutes: `make soak`.

SOAK_SECONDS: how long, ten minutes without it. SOAK_SEED: what happens; another each time without.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Final

import msgspec
import pytest

from launchers.guest.errors import ChannelError
from qmpmem.configuration import load, settled
from qmpmem.model.config import Config
from qmpmem.model.round import Tick
from tests.rig.agent import ask
from tests.rig.agent_server import AgentServer, agent_server
from tests.rig.fakeguest import FakeHost, herd
from tests.rig.guests import RunningGuest, boot
from tests.rig.invariants import judge
from tests.rig.ksmmodel import OLD, Kernel
from tests.rig.nemesis import Nemesis
from tests.rig.qemu import short_directory
from tests.rig.waiting import until

SECONDS: Final = float(os.environ.get("SOAK_SECONDS", "600"))
SEED: Final = int(os.environ.get("SOAK_SEED", str(time.time_ns() % 1_000_000)))
LAUNCHER: Final = Path(__file__).resolve().parents[2] / "launchers/kvm"
FAKES: Final = 100
REALS: Final = 2
CONFIG: Final = """
grace = "10s"
reserve = "2G"
[ksm]
managed = true
across_domains = true
"""
WARM_UP: Final = 0.2
"""Of the time: by then the agent has what it keeps."""
MORE_MEMORY: Final = 8 << 10
"""KiB that it may grow by afterwards, however long it runs. What it keeps is bounded: the last
twenty decisions of each guest, about 1 KiB each, which takes the quiet ones long to have; the pages
of the journal's file that SQLite keeps, 2000 KiB (SQLite: PRAGMA cache_size); what malloc has free
in between, some 2 MiB here; a heap of some 2 MiB for each worker thread."""
SLACK: Final = 3
"""Descriptors that come and go: a look at /proc, the journal's file beside its file."""
SLOW: Final = 0.5
"""Seconds, that 99 of 100 rounds take less than, on a machine that does all of this at once."""

pytestmark = [pytest.mark.soak, pytest.mark.qemu, pytest.mark.timeout(SECONDS + 400)]


class Belongings(msgspec.Struct, frozen=True):
    """What a process has; memory in KiB."""

    files: int
    threads: int
    tasks: int
    memory: int


class Agent:
    """A real agent, whose rounds are judged as they come."""

    def __init__(self, pid: int, run: Path, config: Config) -> None:
        self.pid = pid
        self.rounds = 0
        self.requests = 0
        self.took: list[float] = []
        self.last: Tick | None = None
        self.mistakes: list[str] = []
        self._run = run
        self._config = config

    def hear(self, line: bytes) -> None:
        """Judge a round."""
        tick = msgspec.json.decode(line, type=Tick)
        self.last = tick
        self.rounds += 1
        self.requests += len(tick.plan.balloons)
        self.took.append(tick.seconds or 0.0)
        try:
            judge(tick, self._config)
        except AssertionError as error:
            self.mistakes.append(f"round {tick.number}: {error}")

    def said(self) -> str:
        return (self._run / ".err").read_text()

    async def belongings(self) -> Belongings:
        """Look at it from outside, and have it count its tasks."""
        tasks = self._run / ".tasks"
        tasks.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        await until(tasks.exists, what="the agent counts")
        fields = _status(self.pid)
        return Belongings(
            files=len(os.listdir(f"/proc/{self.pid}/fd")),  # noqa: PTH208 - their number
            threads=int(fields["Threads"]),
            tasks=int(tasks.read_text()),
            memory=int(fields["VmRSS"].split()[0]),
        )

    def sees(self, guests: int) -> bool:
        """Whether it manages so many guests, and no other."""
        if self.last is None:
            return False
        states = [each.state for each in self.last.snapshot.guests]
        return len(states) == guests and set(states) == {"running"}

    def misses(self, guests: set[str]) -> str:
        """Name the guests that it does not manage, and those that are none."""
        if self.last is None:
            return "no round"
        seen = {each.id: each.state for each in self.last.snapshot.guests}
        away = {name: seen.get(name) for name in guests if seen.get(name) != "running"}
        return f"not running: {away}; too many: {seen.keys() - guests}; {self.said()[-3000:]}"


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: rest for name, _, rest in (line.partition(":") for line in lines)}


@pytest.fixture
def nurse() -> Iterator[AgentServer]:
    with agent_server() as found:
        yield found


@asynccontextmanager
async def agent_of(host: FakeHost, nurse: AgentServer) -> AsyncIterator[Agent]:
    """Run an agent, and take its rounds."""
    path, ticks = host.root / "qmpmem.toml", host.root / "ticks"
    path.write_text(CONFIG)
    os.mkfifo(ticks)
    reading = os.open(ticks, os.O_RDONLY | os.O_NONBLOCK)
    environ = {
        "QMPMEM_CONFIG": str(path),
        "QMPMEM_KSM_DIR": str(host.root / "ksm"),
        "STATE_DIRECTORY": str(host.root),
    }
    agent = Agent(
        nurse.start(host.run, host.root, environ, ticks=ticks),
        host.run,
        settled(load(path, {})),
    )
    hearing = asyncio.create_task(_hear(reading, agent.hear))
    try:
        yield agent
    finally:
        with suppress(ProcessLookupError):
            os.kill(agent.pid, signal.SIGCONT)
            os.kill(agent.pid, signal.SIGTERM)
        await until(lambda: nurse.ended(agent.pid) is not None, seconds=15, what="it ends")
        await hearing
    assert nurse.ended(agent.pid) == 0


async def _hear(reading: int, take: Callable[[bytes], None]) -> None:
    stream = asyncio.StreamReader(limit=1 << 24)
    with os.fdopen(reading, "rb") as pipe:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), pipe
        )
        while line := await stream.readline():
            take(line)
        transport.close()


@asynccontextmanager
async def tiny(host: FakeHost, name: str) -> AsyncIterator[RunningGuest]:
    """Boot a real guest, and let the agent see its process."""
    context = boot(
        [str(LAUNCHER)],
        memory="256M",
        extra=["-name", name],
        environ={"QMPMEM_RUN_DIR": str(host.run)},
    )
    guest = await ask(context.__enter__)
    seen = host.root / f"proc/{guest.pid}"
    seen.symlink_to(f"/proc/{guest.pid}")
    try:
        yield guest
    finally:
        await ask(lambda: context.__exit__(None, None, None))
        seen.unlink()


async def torment(host: FakeHost, number: int, random: Random, seconds: float) -> None:
    """Have a real guest work, stopped now and then; and killed, and another in its place."""
    end = asyncio.get_running_loop().time() + seconds
    life = 0
    while asyncio.get_running_loop().time() < end:
        life += 1
        async with tiny(host, f"tiny{number}-{life}") as guest:
            for _ in range(random.randint(5, 12)):
                with suppress(ChannelError, AssertionError):
                    size = random.randint(20, 120)
                    await ask(lambda size=size: guest.check(f"eat random {size}"))  # type: ignore[misc]
                await asyncio.sleep(random.uniform(0, 2))
                os.kill(guest.pid, signal.SIGSTOP)
                await asyncio.sleep(random.uniform(0.5, 6))
                os.kill(guest.pid, signal.SIGCONT)
                with suppress(ChannelError, AssertionError):
                    await ask(lambda: guest.check("eat stop"))
                if asyncio.get_running_loop().time() > end:
                    break
            os.kill(guest.pid, signal.SIGKILL)


async def pause(agent: Agent, random: Random) -> None:
    """Stop the agent itself, now and then."""
    while True:
        await asyncio.sleep(random.uniform(20, 60))
        os.kill(agent.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(random.uniform(1, 8))
        finally:
            os.kill(agent.pid, signal.SIGCONT)


async def rage(host: FakeHost, agent: Agent, seconds: float, random: Random) -> Nemesis:
    nemesis = Nemesis(host, random)
    pausing = asyncio.create_task(pause(agent, random))
    try:
        await asyncio.gather(
            nemesis.rage(seconds), *(torment(host, each, random, seconds) for each in range(REALS))
        )
    finally:
        pausing.cancel()
        await asyncio.wait((pausing,))
    return nemesis


@pytest.mark.usefixtures("artifacts")
async def test_nothing_that_happens_to_guests_wears_the_agent_out(
    nurse: AgentServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(f"\nSOAK_SEED={SEED} SOAK_SECONDS={SECONDS:g}")
    random = Random(SEED)  # noqa: S311 - repeatable on purpose
    with short_directory() as directory:
        names = [f"g{number}" for number in range(FAKES)]
        async with herd(directory, *names, total=FAKES * 512) as host:
            Kernel(host.root, kind=OLD)
            for guest in host.guests.values():
                guest.used = random.randint(50, 300)
            async with agent_of(host, nurse) as agent:
                await until(lambda: agent.sees(FAKES), seconds=30, what="it sees all")
                await rage(host, agent, SECONDS * WARM_UP, random)
                before = await at_rest(host, agent)
                nemesis = await rage(host, agent, SECONDS * (1 - WARM_UP), random)
                after = await at_rest(host, agent)
            with capsys.disabled():
                print(f"{dict(nemesis.done)}")
                print(f"{agent.rounds} rounds, {agent.requests} orders; {slowest(agent):.3f} s")
                print(f"before {before}\nafter  {after}\n{agent.said()[-2000:]}")
            expect_sound(host, agent)
            expect_flat(before, after)


async def at_rest(host: FakeHost, agent: Agent) -> Belongings:
    """Wait until all guests are managed again, and look at what the agent has."""
    rounds = agent.rounds
    await until(lambda: agent.rounds > rounds + 5, seconds=30, what="rounds", said=agent.said)
    await until(
        lambda: agent.sees(len(host.guests)),
        seconds=75,
        what="all are back",
        said=lambda: agent.misses(set(host.guests)),
    )
    return await agent.belongings()


def slowest(agent: Agent) -> float:
    """Say in what time 99 of 100 rounds were done."""
    return sorted(agent.took)[len(agent.took) * 99 // 100]


def expect_sound(host: FakeHost, agent: Agent) -> None:
    """I1, I6, I7, I8; and I9, I10, which the guests noted."""
    assert not agent.mistakes
    assert agent.requests, "nothing was given or taken: it proves nothing"
    said = agent.said()
    for words in ("starting over", "was left out", "Traceback", "frozen", "telling of"):
        assert words not in said, f"I1: {said}"
    for guest in host.guests.values():
        assert not guest.mistakes, f"{guest.id}: {guest.mistakes}"
    assert slowest(agent) < SLOW


def expect_flat(before: Belongings, after: Belongings) -> None:
    """I4 and I5."""
    assert after.files <= before.files + SLACK
    assert after.threads <= before.threads + SLACK
    assert after.tasks <= before.tasks
    assert after.memory <= before.memory + MORE_MEMORY
