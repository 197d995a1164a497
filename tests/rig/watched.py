"""An agent that tells how long its event loop stood still: `python -m tests.rig.watched OUT HANG`.

Theory of operation:
    The program runs as it is, in this process. Blockbuster raises where code of ours makes a call
    that may block while the loop runs; such an error is a warning in what the agent says, or its
    end. A task sleeps and measures by how much it is woken too late. Of that, time in which any
    thread of this process waited for a CPU does not count: that is the machine's doing, and the
    kernel knows how much it was (Documentation/scheduler/sched-stats: /proc/PID/schedstat).

    Opening a file whose path contains HANG takes as long as there is a file OUT.hang: so does
    open(2) on a file system whose server is gone.
"""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

from blockbuster import blockbuster_ctx

from qmpmem import cli
from qmpmem.cli import agent_run

TICK: Final = 0.01
"""Seconds between two measurements."""

WORST: Final = [0.0]
"""Seconds; one number."""


def main() -> None:
    out, hang, *words = sys.argv[1:]
    sys.argv = ["qmpmem", "agent", *words]
    held = Path(f"{out}.hang")
    really = os.open

    def slowly(path: Any, *args: Any, **named: Any) -> int:  # noqa: ANN401 - as os.open
        while hang and hang in str(path) and held.exists():
            time.sleep(0.05)
        return really(path, *args, **named)

    os.open = slowly
    run = agent_run._Running.run

    async def measured(*args: Any) -> None:  # noqa: ANN401 - as the original
        measuring = asyncio.create_task(measure())
        try:
            await run(*args)
        finally:
            measuring.cancel()
            await asyncio.wait((measuring,))
            worst = measuring.exception() if not measuring.cancelled() else WORST[-1]
            await asyncio.to_thread(Path(out).write_text, str(worst))

    agent_run._Running.run = measured  # type: ignore[method-assign, assignment]
    with blockbuster_ctx(scanned_modules=["qmpmem"]) as blockbuster:
        for function in blockbuster.functions.values():
            function.can_block_in("tests/rig/watched.py", {"waited_for_cpu", "slowly"})
        # It reads when the kernel says that there is something to read.
        blockbuster.functions["os.read"].can_block_in("asyncinotify/__init__.py", {"_get"})
        cli.main()


async def measure() -> None:
    """Keep the worst lag so far, in seconds."""
    while True:
        began, waited = time.monotonic(), waited_for_cpu()
        await asyncio.sleep(TICK)
        lag = time.monotonic() - began - TICK - (waited_for_cpu() - waited)
        WORST.append(max(lag, WORST.pop()))


def waited_for_cpu() -> float:
    """Seconds for which threads of this process could have run and did not."""
    total = 0
    for task in Path("/proc/self/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[1])
        except OSError:  # the thread has ended: ENOENT, or ESRCH where that is between two calls
            continue
    return total / 1e9


if __name__ == "__main__":
    main()
