"""An agent that is killed in the middle of a squeeze, again and again, with real guests.

Rows F51 and F71 of the faults.

3 times in each run, 200 times in `make soak` (SOAK_KILLS). Three guests run an operating system,
and some QEMUs beside them are paused. The host is in need in most lives: the budget is far below
what the guests hold. After each kill the next agent begins anew.

What holds in each life: no guest is told a size below its minimum, or has less; in the first
minute a guest is lowered only by what is free in it, unless the host is in HARD or CRITICAL. KSM is
as it was before the first agent when the last one has stopped, and meanwhile the ledger says how it
was.
"""

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from qmpmem.model.round import SetBalloon, Tick
from qmpmem.units import MIB, Bytes
from qmpmem.wire import commands
from qmpmem.wire.qmp import connect
from tests.rig import chance, ksm
from tests.rig.agent_server import AgentServer, agent_server
from tests.rig.guests import come_up, start
from tests.rig.ksm import Machine
from tests.rig.qemu import paused, short_directory
from tests.rig.waiting import until

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.host,
    pytest.mark.timeout(1200),  # of which nearly all is waiting for others to let KSM go
    pytest.mark.usefixtures("artifacts"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may change KSM"),
]

LAUNCHER: Final = str(Path(__file__).resolve().parents[3] / "launchers/kvm")
REAL: Final = ("real1", "real2", "real3")
PAUSED: Final = ("still1", "still2", "still3", "still4", "still5")
MAXIMUM: Final = Bytes(256 * MIB)
MINIMUM: Final = Bytes(160 * MIB)
NEARLY: Final = 8 * MIB
CONFIG: Final = """
period = "200ms"
reserve = "16M"
on_stop = "keep"
budget = "{budget}"
[ksm]
managed = true
across_domains = true
[[guest]]
match = "*"
minimum = "160M"
"""
NEED: Final = "64M"
"""Far less than the guests hold: the host is in CRITICAL."""
CALM: Final = "default"
IN_NEED: Final = ("HARD", "CRITICAL")
KILLS: Final = 3
SOAK_KILLS: Final = int(os.environ.get("SOAK_KILLS", "200"))


class Life:
    """An agent from its start to its end, and what it decided."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.rounds = 0
        self.lowered = 0
        self.states: Counter[str] = Counter()
        self.mistakes: list[str] = []
        self._last: Tick | None = None

    def hear(self, line: bytes) -> None:
        """Judge a round."""
        tick = msgspec.json.decode(line, type=Tick)
        self.rounds += 1
        self._last = tick
        self.states[tick.plan.state] += 1
        has = {reading.id: reading.actual for reading in tick.snapshot.guests}
        for change in tick.plan.balloons:
            self._judge(tick, change, has[change.guest])

    def told(self) -> str:
        """Say what the agent last made of the guests."""
        plan = None if self._last is None else self._last.plan
        known = () if plan is None else plan.guests
        return f"{plan and plan.state}: " + "; ".join(
            f"{each.guest} has {each.actual}, {each.verdict}, {each.bound}: {each.reason}"
            for each in known
        )

    def _judge(self, tick: Tick, change: SetBalloon, has: Bytes | None) -> None:
        if has is None or change.target < min(MINIMUM, has):
            self.mistakes.append(f"round {tick.number}: below the minimum: {change}")
        if has is not None and change.target < has:
            self.lowered += 1
            if change.kind != "position" and tick.plan.state not in IN_NEED:
                self.mistakes.append(f"round {tick.number}: lowered in {tick.plan.state}: {change}")


class World:
    """Guests, and the agents that come one after the other."""

    def __init__(self, directory: Path, nurse: AgentServer, machine: Machine) -> None:
        self.run = directory / "run"
        self.ledger = directory / "ksm"
        self._config = directory / "qmpmem.toml"
        self._ticks = directory / "ticks"
        self._nurse = nurse
        self._machine = machine
        self._before = self.knobs()
        os.mkfifo(self._ticks)

    def knobs(self) -> dict[str, str]:
        """Return what KSM's files say now."""
        return {name: self._machine.get(name) for name in self._machine.before}

    def said(self) -> str:
        words = self.run / ".err"
        return words.read_text() if words.exists() else ""

    @asynccontextmanager
    async def agent(self, budget: str, how: signal.Signals) -> AsyncIterator[Life]:
        """Run an agent that ends by a signal, at the end of the context."""
        self._config.write_text(CONFIG.format(budget=budget))
        reading = os.open(self._ticks, os.O_RDONLY | os.O_NONBLOCK)
        environ = {
            "QMPMEM_CONFIG": str(self._config),
            "QMPMEM_KSM_DIR": str(self.ledger),
            "STATE_DIRECTORY": str(self.run.parent),
        }
        life = Life(self._nurse.start(self.run, None, environ, ticks=self._ticks))
        hearing = asyncio.create_task(_hear(reading, life))
        try:
            yield life
        finally:
            with suppress(ProcessLookupError):
                os.kill(life.pid, how)
            await until(lambda: self._nurse.ended(life.pid) is not None, seconds=20, what="its end")
            await hearing
        expected = 0 if how == signal.SIGTERM else -how
        assert self._nurse.ended(life.pid) == expected, self.said()[-3000:]

    async def sizes(self) -> dict[str, int]:
        """Ask the guests that run what they have; no agent runs."""
        return {name: await self._size(name) for name in REAL}

    async def grow(self) -> None:
        """Give all of them all they may have; no agent runs."""
        for name in REAL:
            path = str(self.run / name / "qmp.sock")
            async with connect(path, guest=name) as session:
                await commands.set_balloon(session, MAXIMUM)

        async def have() -> bool:
            return min((await self.sizes()).values()) >= MAXIMUM - NEARLY

        await until(have, seconds=20, what="they have all of it")

    async def _size(self, name: str) -> int:
        async with connect(str(self.run / name / "qmp.sock"), guest=name) as session:
            size = await commands.balloon_actual(session)
        assert isinstance(size, int)
        return size

    def expect_ksm_is_known(self) -> None:
        """Hold that whatever an agent changed of KSM, the next one can put back."""
        now = self.knobs()
        changed = {name for name, value in now.items() if value != self._before[name]}
        if now.get("advisor_mode", "none") != "none":
            changed.discard("pages_to_scan")  # the advisor's own (mm/ksm.c: scan_time_advisor)
        noted: Any = {}
        with suppress(FileNotFoundError):
            noted = json.loads((self.ledger / "ledger.json").read_text())["before"]
        assert {name: noted.get(name) for name in changed} == {
            name: self._before[name] for name in changed
        }

    def expect_ksm_is_as_before(self) -> None:
        assert self.knobs() == self._before


async def _hear(reading: int, life: Life) -> None:
    stream = asyncio.StreamReader(limit=1 << 24)
    with os.fdopen(reading, "rb") as pipe:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), pipe
        )
        while (line := await stream.readline()).endswith(b"\n"):
            life.hear(line)
        transport.close()


@pytest.fixture
def world() -> Iterator[World]:
    with ksm.held() as machine, short_directory() as directory, ExitStack() as stack:
        machine.reset()
        guests = [
            stack.enter_context(
                start(
                    [LAUNCHER],
                    memory="256M",
                    extra=["-name", name],
                    environ={"QMPMEM_RUN_DIR": str(directory / "run")},
                )
            )
            for name in REAL
        ]
        for guest in guests:
            come_up(guest)
        stack.enter_context(paused(directory / "run", *PAUSED))
        yield World(directory, stack.enter_context(agent_server()), machine)


async def live_and_die(here: World, dice: random.Random, done: Counter[str]) -> None:
    """Have an agent that is killed in the middle of what it does."""
    needy = dice.random() < 0.8
    before = await here.sizes()
    if min(before.values()) < MINIMUM + 4 * NEARLY or dice.random() < 0.3:
        await here.grow()
    async with here.agent(NEED if needy else CALM, signal.SIGKILL) as life:

        def has_begun() -> bool:
            return bool(life.mistakes) or (life.lowered > 0 if needy else life.rounds >= 5)

        # A guest that gets no processor does not report, and nothing is taken from it.
        await until(has_begun, seconds=60, what="it squeezes", said=life.told)
        await asyncio.sleep(dice.uniform(0, 1))
    sizes = await here.sizes()
    assert not life.mistakes, life.mistakes
    assert min(sizes.values()) >= MINIMUM, sizes
    here.expect_ksm_is_known()
    done["rounds"] += life.rounds
    done["lowered"] += life.lowered
    done["in need"] += needy
    done["midway"] += needy and max(sizes.values()) > MINIMUM + NEARLY
    done.update({f"in {state}": count for state, count in life.states.items()})


async def be_killed(here: World, kills: int) -> Counter[str]:
    dice = random.Random(chance.draw())  # noqa: S311 - repeatable on purpose
    done: Counter[str] = Counter()
    for number in range(kills):
        try:
            await live_and_die(here, dice, done)
        except Exception as error:
            error.add_note(f"life {number}")
            raise
    async with here.agent(CALM, signal.SIGTERM) as life:
        await until(lambda: life.rounds >= 5, seconds=20, what="rounds", said=here.said)
    assert not life.mistakes
    here.expect_ksm_is_as_before()
    assert "Traceback" not in here.said()
    return done


@pytest.mark.parametrize(
    "kills",
    [
        KILLS,
        pytest.param(SOAK_KILLS, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
async def test_no_guest_loses_by_an_agent_that_is_killed_in_the_middle_of_a_squeeze(
    world: World, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    done = await be_killed(world, kills)
    with capsys.disabled():
        print(f"\n{kills} kills: {dict(done)}")
    assert done["midway"] * 3 >= done["in need"]
