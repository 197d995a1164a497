"""An agent that decides by somebody's policy, until it is told to end.

    python -m tests.bench.policed POLICY CGROUP

QMPMEM_RUN_DIR names the run directory.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from qmpmem.agent.loop import Agent, Place
from qmpmem.agent.notify import Notifier
from qmpmem.config import Config
from qmpmem.simulate.rivals import RIVALS


async def run(policy: str, group: str) -> None:
    """Run it until SIGTERM."""
    config = Config(budget=group, grace=5.0, on_stop="keep")
    place = Place(run=Path(os.environ["QMPMEM_RUN_DIR"]))
    agent = Agent(place, config, [], Notifier({}))
    agent.policy = RIVALS[policy].policy
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, agent.stop)
    await agent.run()


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:3]))
