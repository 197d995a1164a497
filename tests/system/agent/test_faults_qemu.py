"""Faults of real guests, and of their files, and what an agent makes of them."""

import asyncio
import json
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Final

import pytest

from qmpmem.agent.loop import Surroundings
from qmpmem.model.config import Config
from qmpmem.model.names import SAFE_ID
from qmpmem.model.round import Tick
from qmpmem.units import MIB, Bytes
from tests.rig.agent import running
from tests.rig.command import called
from tests.rig.guests import RunningGuest, boot, end
from tests.rig.invariants import Watched, watched
from tests.rig.patience import patient, within
from tests.rig.qemu import BALLOON, SMALL, WITH_US, paused, short_directory, until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]

QUIET: Final = Config(on_stop="keep", grace=2.0)

LAUNCHER: Final = str(Path(__file__).resolve().parents[3] / "launchers" / "kvm")
SIGNALS: Final = ("TERM", "KILL", "INT", "HUP", "SEGV", "STOP")
SOON: Final = 4.0
"""Seconds to a guest's going from the list: within a second on an idle machine."""


@asynccontextmanager
async def watching(run: Path, config: Config = QUIET) -> AsyncIterator[Watched]:
    """Run an agent in this loop, with the guests of a run directory."""
    clock = asyncio.get_running_loop().time
    async with watched(Surroundings(run=run, ledger=run / ".ksm", clock=clock), config) as seen:
        seen.agent.rarest = 1.0  # so that no test waits for a second one
        yield seen


def is_known(seen: Watched, *guests: str) -> bool:
    """Whether the agent was last answered by all of them."""
    return all(
        reading and reading.state in ("running", "prelaunch")
        for reading in map(seen.reading, guests)
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
                    await asyncio.to_thread(child.wait, patient(10))
                with within(SOON):
                    await seen.until(
                        lambda: [each.id for each in seen.last.snapshot.guests] == ["n"]
                    )
                await asyncio.to_thread(wait_until_only, run, "n")
                await seen.rounds(1)
                assert is_known(seen, "n")
                assert set(seen.agent.guests) == {"n"}


def wait_until_only(run: Path, *names: str) -> None:
    def there() -> set[str]:
        return {each.name for each in run.iterdir() if each.is_dir()} - {".ksm"}

    with within(SOON):
        until(lambda: there() == {*names}, what="the others' directories are gone")


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
    """F44: only what surely no process has any more is removed."""
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
                stopped = seen.reading("t")
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
            reading = watcher.reading()
            # The other guest's monitor may have no room: then it is that which is said.
            states = ("unreachable", "in-use") if make is other_guest else ("unreachable",)
            assert reading.state in states
            assert reading.actual is None
            problem = watcher.snapshot(None).problem
            assert reading.refused == problem
            said = "process" if make is other_guest else "socket"
            assert problem is not None
            assert said in problem, problem
            assert is_known(seen, "n")
            assert (run / "bad" / "record.json").exists()
            path.unlink()
            path.with_name("real").rename(path)
            await seen.until(lambda: is_known(seen, "bad", "n"))


@asynccontextmanager
async def booted(run: Path, *words: str, deflate: str = "on") -> AsyncIterator[RunningGuest]:
    """Boot a guest with an operating system beside this loop, by way of the launcher."""
    balloon = f"virtio-balloon-pci,deflate-on-oom={deflate}"
    extra = ["-name", "g", "-device", balloon, *words]
    context = boot([LAUNCHER], extra=extra, environ={"QMPMEM_RUN_DIR": str(run)})
    guest = await asyncio.to_thread(context.__enter__)
    try:
        yield guest
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


def has(seen: Watched, guest: str) -> int:
    """Give what a guest was last seen to have, in MiB."""
    reading = seen.reading(guest)
    return -1 if reading is None or reading.actual is None else reading.actual // MIB


async def squeezed(seen: Watched, guest: str, size: int) -> None:
    """Have a guest that the agent took memory from."""
    await seen.until(lambda: seen.verdict(guest) == "normal")
    seen.agent.requests.pin(guest, Bytes(size * MIB))
    await seen.until(lambda: abs(has(seen, guest) - size) <= 8)


DRIVER: Final = "/sys/bus/virtio/drivers/virtio_balloon"


async def test_a_driver_that_goes_and_comes_back_is_not_fought_with() -> None:
    """F36: without a driver a guest has all it wants, and nothing can be asked of it."""
    with short_directory() as run:
        async with booted(run) as guest, watching(run) as seen:
            await squeezed(seen, "g", 128)
            device = await asyncio.to_thread(guest.check, f"basename {DRIVER}/virtio*")
            unbind = f"echo {device.strip()} >{DRIVER}/unbind"
            await asyncio.to_thread(guest.check, unbind)
            await seen.until(lambda: has(seen, "g") >= 250)
            await seen.until(lambda: seen.verdict("g") == "stalled")
            await seen.rounds(2)
            before = len(seen.targets)
            await seen.rounds(10)
            assert seen.targets[before:] == []
            await asyncio.to_thread(guest.check, unbind.replace("unbind", "bind"))
            await seen.rounds(5)
            assert seen.verdict("g") == "stalled"  # until its rest is over
            assert has(seen, "g") >= 250


async def test_memory_that_is_shared_does_not_merge_and_is_managed_all_the_same() -> None:
    """F41."""
    shared = "memory-backend-memfd,id=m,size=256M,share=on"
    with short_directory() as run:
        words = ("-object", shared, "-machine", "memory-backend=m")
        async with booted(run, *words) as guest:
            async with watching(run) as seen:
                await squeezed(seen, "g", 160)
                assert seen.verdict("g") == "normal"
            assert await asyncio.to_thread(guest.meminfo, "MemFree") < 160
            # A QEMU that is slow to answer is spoken of by the kernel's word alone.
            told = "no: shared memory"
            await asyncio.to_thread(until, lambda: told in called("ksm", "status", run=run).out)


def rounds_to_release(ticks: Sequence[Tick]) -> int:
    """Count the rounds from the first in which a guest shows its need to the one that gives more.

    It shows where less than a tenth of what it has is available, or where it took some back. None
    pass where it is given more before that.
    """
    had = ticks[0].snapshot.guests[0].actual
    assert had is not None
    shown = [
        (reading.stats.available or had) * 10 < had or (reading.actual or had) > had + 8 * MIB
        for tick in ticks
        for reading in tick.snapshot.guests
    ]
    first = [gives_more(tick, had) for tick in ticks].index(True)
    return first - shown.index(True) if True in shown[:first] else 0


def gives_more(tick: Tick, size: Bytes) -> bool:
    return any(change.target > size for change in tick.plan.balloons)


async def eat_too_much(run: Path, deflate: str, size: int, percents: Sequence[int]) -> None:
    """Have a guest's programs take so many percent of what it has left, one after the other."""
    async with booted(run, deflate=deflate) as guest, watching(run) as seen:
        await squeezed(seen, "g", size)
        left = await asyncio.to_thread(guest.meminfo, "MemAvailable")
        seen.agent.requests.unpin("g")
        begun = len(seen.ticks) - 1
        had = seen.ticks[begun].snapshot.guests[0].actual or Bytes(0)
        for percent in percents:
            await asyncio.to_thread(guest.check, f"eat random {left * percent // 100}")
            await seen.until(lambda: has(seen, "g") >= size + 16)
        # It may have taken so much by itself before the agent had a round to give it anything.
        await seen.until(lambda: any(gives_more(tick, had) for tick in seen.ticks[begun:]))
        ticks = seen.ticks[begun:]
        assert rounds_to_release(ticks) <= 2
        # What it took between two reports may look like another client's doing; it is helped, too.
        seen_as = {each.verdict for tick in ticks for each in tick.plan.guests}
        assert seen_as <= {"normal", "distress", "foreign"}
        told = await asyncio.to_thread(guest.check, "eat status")
        assert [line.split()[-1] for line in told.splitlines()] == ["held"] * len(percents)


@pytest.mark.parametrize(
    ("deflate", "size", "percents"),
    [("on", 128, [120]), ("off", 192, [95, 25])],
    ids=["on", "off"],
)
async def test_a_guest_that_is_out_of_memory_lives_and_is_given_more(
    deflate: str, size: int, percents: Sequence[int]
) -> None:
    """F37. Without deflate-on-oom only the agent can, and only while there is a little left."""
    with short_directory() as run:
        await eat_too_much(run, deflate, size, percents)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_guests_are_out_of_memory_twenty_times_over() -> None:
    """F37."""
    for _ in range(20):
        with short_directory() as run:
            await eat_too_much(run, "on", 128, [120])


NAMES: Final = (
    "twin",
    "twin",
    "x" * 200,
    "bücher-☃",
    "-rf",
    "two\nlines",
    "../../etc",
    "\x1b[31mred",
)


@contextmanager
def named(run: Path) -> Iterator[dict[int, str]]:
    """Start a QEMU for each name, by way of the launcher; yields the name of each pid."""
    children: dict[int, str] = {}
    with ExitStack() as stack:
        for name in NAMES:
            words = [LAUNCHER, "-name", name, "-S", *SMALL, "-m", "256", *BALLOON]
            child = Popen(
                [*WITH_US, *words],
                env=os.environ | {"QMPMEM_RUN_DIR": str(run)},
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=DEVNULL,
            )
            stack.callback(end, child)
            children[child.pid] = name
        yield children


def test_whatever_guests_are_called_each_is_told_apart_and_shown_on_one_line() -> None:
    """F50."""
    with short_directory() as run, named(run) as children, running(run):
        until(lambda: len(listed(run)) == len(NAMES), seconds=20, what="all are listed")
        guests = listed(run)
        assert {guest["pid"]: guest["name"] for guest in guests} == children
        ids = [str(guest["id"]) for guest in guests]
        assert len(set(ids)) == len(NAMES)
        assert all(SAFE_ID.fullmatch(each) for each in ids), ids
        assert {each.parent for each in run.glob("*/record.json")} == {run / each for each in ids}
        lines = called("list", run=run).out.splitlines()
        assert len(lines) == len(NAMES) + 1
        assert all(line.isprintable() for line in lines)
        for guest in guests:
            lines = shown(run, str(guest["id"]))
            [name] = [line[5:].strip() for line in lines if line.startswith("name:")]
            assert guest["name"] in {name, name.encode().decode("unicode_escape")}
        for number, each in enumerate(ids):
            told = called("set", each, f"{160 + number}M", run=run)
            assert told.code == 0, told.err
        pins = json.loads(called("agent", "status", "--json", run=run).out)["pins"]
        assert pins == {each: (160 + number) * MIB for number, each in enumerate(ids)}


def listed(run: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(called("list", "--json", run=run).out)
    return found


def shown(run: Path, guest: str) -> list[str]:
    """Have a guest described; each line can be put on a terminal."""
    text = called("info", guest, run=run).out
    assert text.replace("\n", "").isprintable(), ascii(text)
    return text.splitlines()
