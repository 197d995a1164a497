"""Faults of real guests, and of their files, and what an agent makes of them."""

import asyncio
import os
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import Popen
from typing import Final

import pytest

from qmpmem.agent.loop import Place
from qmpmem.config import Config
from qmpmem.units import MIB, Bytes
from tests.rig.invariants import Watched, watched
from tests.rig.qemu import paused, short_directory

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]

QUIET: Final = Config(on_stop="keep", grace=2.0)

SIGNALS: Final = ("TERM", "KILL", "INT", "HUP", "SEGV", "STOP")
SOON: Final = 4.0
"""Seconds to a guest's going from the list: within a second on an idle machine."""


@asynccontextmanager
async def watching(run: Path, config: Config = QUIET) -> AsyncIterator[Watched]:
    """Run an agent in this loop, with the guests of a run directory."""
    clock = asyncio.get_running_loop().time
    async with watched(Place(run=run, ledger=run / ".ksm", clock=clock), config) as seen:
        yield seen


def is_known(seen: Watched, *guests: str) -> bool:
    """Whether the agent was last answered by all of them."""
    return all(
        sight and sight.state in ("running", "prelaunch") for sight in map(seen.sight, guests)
    )


def send(child: Popen[bytes], name: str) -> None:
    """Signal a QEMU; one that is to stop is killed when it has stopped."""
    resource.prlimit(child.pid, resource.RLIMIT_CORE, (0, 0))
    child.send_signal(signal.Signals[f"SIG{name}"])
    if name == "STOP":
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        child.kill()


async def die_while(state: str) -> None:
    with short_directory() as run, paused(run, "n", running=True):
        async with watching(run) as seen:
            await seen.until(lambda: is_known(seen, "n"))
            with paused(run, *SIGNALS, running=state != "paused") as children:
                if state != "starting":
                    await seen.until(lambda: is_known(seen, *SIGNALS))
                if state == "ballooning":
                    for name in SIGNALS:
                        seen.agent.guests[name].order(Bytes(128 * MIB))
                    await asyncio.gather(*(seen.agent.guests[name].settled() for name in SIGNALS))
                for name, child in children.items():
                    send(child, name)
                for child in children.values():
                    await asyncio.to_thread(child.wait, 10)
                end = time.monotonic()
                await seen.until(lambda: [each.id for each in seen.last.snapshot.guests] == ["n"])
                assert time.monotonic() - end <= SOON
                await asyncio.to_thread(wait_until_only, run, "n")
                await seen.rounds(1)
                assert is_known(seen, "n")
                assert set(seen.agent.guests) == {"n"}


def wait_until_only(run: Path, *names: str) -> None:
    deadline = time.monotonic() + SOON
    while (left := {each.name for each in run.iterdir() if each.is_dir()} - {".ksm"}) != {*names}:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


@pytest.mark.parametrize("state", ["starting", "running", "paused", "ballooning"])
async def test_a_qemu_that_ends_by_a_signal_is_soon_gone_and_so_is_what_it_left(state: str) -> None:
    """F44."""
    await die_while(state)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("state", ["starting", "running", "paused", "ballooning"])
async def test_qemus_end_by_signals_ten_times_over(state: str) -> None:
    """F44."""
    for _ in range(10):
        await die_while(state)


async def test_what_a_stopped_qemu_has_stays_and_so_does_what_another_listens_on() -> None:
    """F44: only what surely nobody has any more is removed."""
    with short_directory() as run, paused(run, "t", "d", "n") as children:
        async with watching(run) as seen:
            await seen.until(lambda: is_known(seen, "t", "d", "n"))
            children["t"].send_signal(signal.SIGSTOP)
            path = run / "d" / "qmp.sock"
            path.unlink()
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(str(path))
                other.listen()
                children["d"].kill()
                children["d"].wait()
                await seen.until(
                    lambda: {each.id for each in seen.last.snapshot.guests} == {"t", "n"}
                )
                await seen.rounds(8)
                assert path.is_socket()
                assert (run / "t" / "qmp.sock").is_socket()
                stopped = seen.sight("t")
                assert stopped is not None
                assert stopped.exempt == "its process is stopped (state T)"
            await asyncio.to_thread(wait_until_only, run, "t", "n")
            children["t"].send_signal(signal.SIGCONT)
            await seen.until(lambda: is_known(seen, "t", "n"))


def link(path: Path) -> None:
    path.symlink_to(path.with_name("real"))


def other_guest(path: Path) -> None:
    os.link(path.parents[1] / "n" / "qmp.sock", path)


@pytest.mark.parametrize("make", [link, Path.touch, os.mkfifo, other_guest])
async def test_a_path_that_is_no_longer_the_guests_socket_is_refused(
    make: Callable[[Path], object],
) -> None:
    """F47."""
    with short_directory() as run, paused(run, "bad", "n"):
        path = run / "bad" / "qmp.sock"
        path.rename(path.with_name("real"))
        make(path)
        async with watching(run) as seen:
            await seen.until(lambda: is_known(seen, "n"))
            await seen.until(lambda: "bad" in seen.agent.guests)
            watcher = seen.agent.guests["bad"]
            await seen.until(lambda: not watcher.is_new)
            await seen.rounds(3)
            sight = watcher.sight()
            assert (sight.state, sight.actual) == ("unreachable", None)
            problem = watcher.snapshot(None).problem
            assert sight.refused == problem
            said = "process" if make is other_guest else "socket"
            assert problem is not None
            assert said in problem, problem
            assert is_known(seen, "n")
            assert (run / "bad" / "record.json").exists()
            path.unlink()
            path.with_name("real").rename(path)
            await seen.until(lambda: is_known(seen, "bad", "n"))
