"""Running the broker: `qmpmem agent broker`."""

import asyncio
import grp
import os
import signal
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from qmpmem.agent import descriptor_limit, locked_memory
from qmpmem.agent.systemd_notify import Notifier
from qmpmem.broker.directory import Directory, opened
from qmpmem.broker.loop import Broker
from qmpmem.cli.agent_log import AgentLog
from qmpmem.cli.config import accepted, judged
from qmpmem.errors import ConfigError
from qmpmem.guests import rundir
from qmpmem.model.config import Adoption
from qmpmem.model.escapes import printable
from qmpmem.wire.kernel.files import is_count

NO_GROUP = (1 << 32) - 1
"""The number that is no group's: (gid_t)-1."""


def run(directory: Path, group: str, config: Path | None) -> None:
    """Run the broker until it is told to stop.

    Args:
        directory: where the guests are shown.
        group: the group whose members may connect there, by name or number.
        config: the main file of the configuration; None: as without an option.

    Raises:
        ConfigError: a broker runs already, or there is no such group.
        KernelError: a directory cannot be made.
    """
    rules = accepted(judged(config)).adoptions
    descriptor_limit.make_room()
    locked_memory.stay()
    run = rundir.run_directory(os.environ, os.geteuid())
    try:
        rundir.make_run_directory(run)
    except OSError as error:
        raise rundir.refused(run, error) from error
    with opened(directory, group_number(group)) as shown, closing(AgentLog()) as agent_log:
        asyncio.run(_serve(run, shown, rules, agent_log))


async def _serve(
    run: Path, shown: Directory, rules: Sequence[Adoption], agent_log: AgentLog
) -> None:
    broker = Broker(run, shown, rules, agent_log.log, Notifier(os.environ))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, broker.stop)
    agent_log.say(printable(f"guests in {run} are shown in {shown.path}"))
    await broker.run()


def group_number(group: str) -> int:
    """Find a group by its name or its number.

    Raises:
        ConfigError: there is none.
    """
    if is_count(group) and int(group) < NO_GROUP:
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):  # ValueError: a name with a zero in it
        hint = "`qmpmem agent service install` makes it"
        raise ConfigError(f"--group {group}: no such group", hint=hint) from None
