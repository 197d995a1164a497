"""An agent that decides by a policy, ours or another, until it is told to end.

    python -m tests.bench.policed POLICY CONFIG

CONFIG is the agent's configuration as JSON; QMPMEM_RUN_DIR names the run directory. At the end the
agent writes a `Summary` as JSON.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import msgspec

from qmpmem.agent.loop import Agent, Surroundings
from qmpmem.agent.systemd_notify import Notifier
from qmpmem.model.config import Config
from qmpmem.model.round import Tick
from qmpmem.records import Record
from qmpmem.simulate.policy_table import RIVALS


class Summary(Record, frozen=True):
    """What an agent did."""

    turns: int
    """Commands to the other direction than the guest's last."""
    commands: int
    rounds: int
    longest: float
    """Seconds between two rounds, at the most."""
    states: Mapping[str, float]
    """Percent of the rounds in each state of the host, by our policy."""


class Watch:
    """Counts what an agent does."""

    def __init__(self) -> None:
        self._turns = 0
        self._commands = 0
        self._longest = 0.0
        self._last: float | None = None
        self._states: Counter[str] = Counter()
        self._grows: dict[str, bool] = {}

    def publish(self, tick: Tick) -> None:
        """Take note of a round."""
        now = tick.snapshot.time
        self._longest = max(self._longest, 0.0 if self._last is None else now - self._last)
        self._last = now
        self._states[tick.plan.state] += 1
        self._commands += len(tick.plan.balloons)
        sizes = {guest.id: guest.actual for guest in tick.snapshot.guests}
        for change in tick.plan.balloons:
            actual = sizes[change.guest]
            if actual is not None and actual != change.target:
                grows = change.target > actual
                self._turns += self._grows.get(change.guest, grows) != grows
                self._grows[change.guest] = grows

    def summary(self) -> Summary:
        """Return what was counted."""
        rounds = self._states.total()
        return Summary(
            turns=self._turns,
            commands=self._commands,
            rounds=rounds,
            longest=self._longest,
            states={state: 100 * count / rounds for state, count in self._states.items()},
        )


async def run(policy: str, config: Config) -> Summary:
    """Run it until SIGTERM."""
    watch = Watch()
    place = Surroundings(run=Path(os.environ["QMPMEM_RUN_DIR"]))
    agent = Agent(place, config, [watch.publish], Notifier({}))
    agent.policy = RIVALS[policy].start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, agent.stop)
    await agent.run()
    return watch.summary()


if __name__ == "__main__":
    settings = msgspec.json.decode(sys.argv[2], type=Config)
    print(msgspec.json.encode(asyncio.run(run(sys.argv[1], settings))).decode())
