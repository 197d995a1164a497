"""Rounds as they come: from the agent, and from the guests where no agent runs.

Theory of operation:
    The agent's stream is followed until it ends. Then the agent is tried again and again, so that a
    screen that stays open over a restart goes on by itself. An agent that restarts needs the
    guests' sockets, which have one client at a time: so the guests are left alone for some seconds
    first, and asked less often the longer that takes.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final

from qmpmem.api import addresses, async_client
from qmpmem.api.client import PATIENCE, Client
from qmpmem.errors import AgentUnreachable, QmpmemError
from qmpmem.feed import guests
from qmpmem.feed.records import Lost, Round, round_of
from qmpmem.guests import access
from qmpmem.model.round import Tick
from qmpmem.records import replace

AGAIN: Final = 1.0
"""Seconds between two looks at whether an agent answers."""
RESTART: Final = 5.0
"""Seconds that an agent that ended has to come back before the guests themselves are asked."""
SHARE: Final = 9
"""How many times as long as a look at the guests took is waited after it: such looks take a tenth
of one processor at most."""
ENDED: Final = "the agent has ended"
NONE: Final = "no agent runs"
SEPARATOR: Final = "; the guests: "

Look = Callable[[Path], Awaitable[Round]]
Follow = Callable[[Path], AsyncGenerator[Round]]


async def of_agent(run: Path, patience: float = PATIENCE) -> AsyncGenerator[Round]:
    """Follow the agent until its stream ends.

    Raises:
        AgentUnreachable: there is none, or it falls silent.
        QmpmemError: as the agent says.
    """
    # Anew each time: a socket that a user may not look at is none, and that may change.
    path = await asyncio.to_thread(addresses.existing_socket, os.environ, run)
    if path is None:
        raise AgentUnreachable(NONE, reason="none")
    async for tick in async_client.follow(Client(path, patience), "ticks", Tick):
        yield round_of(tick, "agent", time.time())


async def live(
    run: Path | None = None, *, follow: Follow = of_agent, look: Look | None = guests.look
) -> AsyncGenerator[Round | Lost]:
    """Yield rounds as they come, without end.

    Args:
        run: the run directory; the one whose guests this user sees by default.
        follow: gives the agent's rounds, until they end.
        look: asks the guests themselves where no agent runs; None: they are never asked.

    Yields:
        Rounds of the agent, from its last one on; a reader that is slow misses some. `Lost`, once,
        where there are none for a while, and anew when the reason changes. Then rounds of the
        guests themselves, which name that reason in `Round.problem`, until the agent is back.

    Raises:
        ConfigError: QMPMEM_RUN_DIR makes no sense.
    """
    directory = run
    if directory is None:
        directory = await asyncio.to_thread(access.directory, os.environ, os.getuid())
    clock = asyncio.get_running_loop().time
    said, begin = "", clock()
    while True:
        why, took = ENDED, 0.0
        try:
            async with aclosing(follow(directory)) as rounds:
                async for each in rounds:
                    said, begin = "", clock() + RESTART
                    yield each
        except QmpmemError as error:
            why = said if error.message == NONE and said.startswith(ENDED) else error.message
        seen: Round | None = None
        is_blind = look is None
        if look is not None and (before := clock()) >= begin:
            try:
                seen = replace(await look(directory), problem=why)
            except QmpmemError as error:  # this user may not ask them either
                why = f"{why.partition(SEPARATOR)[0]}{SEPARATOR}{error.message}"
                is_blind = True
            took = clock() - before
        if why != said:
            said = why
            yield Lost(wall=time.time(), problem=why, is_blind=is_blind)
        if seen is not None:
            yield seen
        await asyncio.sleep(max(AGAIN, SHARE * took))
