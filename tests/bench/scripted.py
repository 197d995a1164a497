"""Thousands of scripted guests in a process of their own, each with a process that stands for it.

    python -m tests.bench.scripted RUN COUNT [HUNG]

Says "ready" when all of them listen; ends when its stdin ends, and takes the processes with it.
After a line on stdin, HUNG of the guests answer nothing any more.

Theory of operation:
    What a guest's QEMU costs is read from /proc, so each has a process, forked from this one, that
    waits for the end of a pipe. The sockets are served here, by one event loop: an answer takes
    some 20 us, so what is measured in the agent is the agent.
"""

import asyncio
import os
import sys
from pathlib import Path

from tests.rig.fakeguest import FakeGuest, connect_point, register


def stand_in(ends: int, keeps: int) -> int:
    """Fork a process that does nothing until the other end of a pipe is closed."""
    pid = os.fork()
    if pid:
        return pid
    os.close(keeps)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.read(ends, 1)
    os._exit(0)


async def serve(run: Path, pids: list[int], hung: int) -> None:
    """Serve a guest for each process, until stdin ends."""
    guests = [FakeGuest(f"s{number:04}", 512, used=200) for number in range(len(pids))]
    for guest, pid in zip(guests, pids, strict=True):
        await connect_point(run, guest)
        register(run, guest.id, pid)
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        for guest in guests[:hung]:
            guest.hang()


def main(words: list[str]) -> None:
    run, count, hung = Path(words[0]), int(words[1]), int(words[2]) if words[2:] else 0
    ends, keeps = os.pipe()
    pids = [stand_in(ends, keeps) for _ in range(count)]
    os.close(ends)
    asyncio.run(serve(run, pids, hung))
    os.close(keeps)


if __name__ == "__main__":
    main(sys.argv[1:])
