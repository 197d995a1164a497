"""An agent that decides by somebody's policy, until it is told to end.

    python -m tests.bench.policed POLICY CGROUP MINIMUM

QMPMEM_RUN_DIR names the run directory. At the end it writes how often it sent a guest the other
way.
A guest is new for 5 s only, instead of a minute: a bench has no hours.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from qmpmem.actions import Tick
from qmpmem.agent.loop import Agent, Place
from qmpmem.agent.notify import Notifier
from qmpmem.config import Config, Rule
from qmpmem.simulate.rivals import RIVALS
from qmpmem.units import Bytes


class Turns:
    """Counts commands to the other direction than the guest's last."""

    def __init__(self) -> None:
        self.count = 0
        self._grows: dict[str, bool] = {}

    def publish(self, tick: Tick) -> None:
        sizes = {guest.id: guest.actual for guest in tick.snapshot.guests}
        for change in tick.plan.balloons:
            actual = sizes[change.guest]
            if actual is not None and actual != change.target:
                grows = change.target > actual
                self.count += self._grows.get(change.guest, grows) != grows
                self._grows[change.guest] = grows


async def run(policy: str, group: str, minimum: int) -> int:
    """Run it until SIGTERM; gives the number of turns."""
    config = Config(
        budget=group,
        grace=5.0,
        on_stop="keep",
        rules=(Rule(match="*", minimum=Bytes(minimum)),),
    )
    turns = Turns()
    place = Place(run=Path(os.environ["QMPMEM_RUN_DIR"]))
    agent = Agent(place, config, [turns.publish], Notifier({}))
    agent.policy = RIVALS[policy].start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, agent.stop)
    await agent.run()
    return turns.count


if __name__ == "__main__":
    print(asyncio.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
