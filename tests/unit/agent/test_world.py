"""The agent and its world: a loop that stands still, no systemd, a host that is out of memory, KSM.

Rows F53, F61, F63, F65, F66, F68, F70, F71 and F72 of the faults. F58 and F67 are elsewhere: in
test_control_listener and test_control_list, and in test_policy_ksm and test_ksm_hand.
"""

import asyncio
import errno
import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from qmpmem.agent import loop, starting_size
from qmpmem.agent.loop import Agent
from qmpmem.agent.systemd_notify import Notifier
from qmpmem.ksm import ledger
from qmpmem.ksm.apply import KsmWriter
from qmpmem.ksm.presets import PAGES_PER_CPU_SECOND
from qmpmem.model.config import Config, KsmConfig, Rule
from qmpmem.model.ksm import KsmState
from qmpmem.model.observation import GuestReading, HostReading, Snapshot
from qmpmem.model.round import HostState, Plan
from qmpmem.policy import History, ksm, progress
from qmpmem.policy.state import KsmTrend
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes
from qmpmem.wire.kernel import ksm as kernel_ksm
from tests.rig.agent_scenarios import TIGHT, is_seen, play
from tests.rig.clock import VirtualLoop
from tests.rig.fakeguest import FakeGuest, FakeHost
from tests.rig.invariants import Watched
from tests.rig.ksmmodel import OLD, Kernel
from tests.rig.memory import memory_directory
from tests.rig.waiting import until

QUEUE = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
"""What a deaf socket holds (unix(7))."""
MERGING = replace(TIGHT, ksm=KsmConfig(managed=True))


def knob(host: FakeHost, name: str) -> str:
    return (host.root / "sys/kernel/mm/ksm" / name).read_text().strip()


def test_f53_a_loop_that_stood_still_says_so_and_systemd_hears_of_rounds_alone() -> None:
    """Row F53: the watchdog's ping is the end of a round, and not a timer beside the rounds."""

    async def scene(_: FakeHost, seen: Watched) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        await seen.until(lambda: is_seen(seen, "a"))
        await seen.rounds(3)
        pings: list[float] = []
        seen.agent._notifier.tell = lambda state: pings.append(loop.time())  # type: ignore[method-assign] # noqa: ARG005
        policy = seen.agent.policy

        def blocked(snapshot: Snapshot, history: History, config: Config) -> tuple[Plan, History]:
            loop._jumping.now += 2  # nothing else of this process runs meanwhile
            return policy(snapshot, history, config)

        before = len(seen.ticks)
        seen.agent.policy = blocked
        await seen.rounds(1)
        seen.agent.policy = policy
        assert (seen.last.seconds or 0) >= 2
        await asyncio.sleep(5)
        done = len(seen.ticks) - before
        assert len(pings) == done
        assert done <= 7, "what was missed is not made up for"
        assert all(after - at >= 0.9 for at, after in pairwise(pings[1:]))

    play(scene, "a")


@pytest.mark.parametrize("kind", ["none", "missing", "a file", "deaf", "long", "odd", "abstract"])
def test_f61_without_systemd_or_with_a_broken_one_the_agent_runs(kind: str) -> None:
    """Row F61."""
    with memory_directory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(directory / "deaf"))
        (directory / "a file").write_text("")
        names = {
            "long": f"/{'x' * 200}",
            "odd": os.fsdecode(b"/tmp/\xff\xfe"),
            "abstract": "@nobody-listens-here",
        }
        path = names.get(kind, f"{directory}/{kind}")

        async def scene(_: FakeHost, seen: Watched) -> None:
            seen.agent._notifier = Notifier({} if kind == "none" else {"NOTIFY_SOCKET": path})
            await seen.rounds(QUEUE + 10)

        play(scene)


def test_f61_systemd_hears_that_it_is_ready_that_it_lives_and_that_it_ends() -> None:
    """Row F61, and what it would be for."""
    with memory_directory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(directory / "ear"))
        ear.setblocking(False)  # noqa: FBT003 - its name says what it is

        async def scene(_: FakeHost, seen: Watched) -> None:
            seen.agent._notifier = Notifier({"NOTIFY_SOCKET": f"{directory}/ear"})
            seen.agent._is_ready = False
            await seen.rounds(2)
            seen.agent.stop()

        play(scene)
        assert ear.recv(100) == b"READY=1"
        said = b""
        while said != b"STOPPING=1":
            said = ear.recv(100)
            assert said in (b"WATCHDOG=1", b"STOPPING=1")


def test_f63_pressure_is_an_emergency_within_four_seconds_and_floors_are_kept() -> None:
    """Row F63."""

    async def scene(host: FakeHost, seen: Watched) -> None:
        host.guests["busy"].used = 400
        guests = ("one", "two", "busy")
        await seen.until(lambda: seen.verdict("one") == "normal", seconds=120)
        clock = asyncio.get_running_loop().time
        host.total, host.stalls, began = 3 * 512 + 100, 25.0, clock()
        await seen.until(lambda: seen.last.plan.state in ("HARD", "CRITICAL"))
        assert clock() - began <= 4
        await seen.until(lambda: host.guests["one"].balloons and host.guests["two"].balloons)
        assert clock() - began <= 4
        await seen.rounds(200)
        config = seen.agent.config
        for name in guests:
            least = config.limits(name, Bytes(512 * MIB)).minimum
            assert all(target >= least for target in host.guests[name].balloons)
        assert host.guests["one"].actual == pytest.approx(host.guests["two"].actual, rel=0.1)
        assert host.guests["busy"].actual > host.guests["one"].actual

    play(scene, "one", "two", "busy", total=8192)


@pytest.mark.parametrize(("stalls", "state"), [(25.0, "CRITICAL"), (0.0, "BALANCED")])
def test_f63_pressure_counts_also_where_memory_seems_to_be_left(
    stalls: float, state: HostState
) -> None:
    """Row F63: what is available lies where a disk's pages come and go too fast to be used."""

    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a"))
        host.stalls = stalls
        await seen.rounds(4)
        assert seen.last.plan.state == state

    play(scene, "a", total=512 + 128 * 2)


@pytest.mark.parametrize(("rate", "state"), [(2 * MIB, "HARD"), (MIB // 2, "SOFT")])
def test_f65_a_host_that_reads_back_from_swap_what_it_took_is_in_need(
    rate: int, state: HostState
) -> None:
    """Row F65. ksmd is not slowed for it: pages that are in swap are none that it looks at."""

    async def scene(host: FakeHost, seen: Watched) -> None:
        host.guests["busy"].used = 500
        await seen.until(lambda: seen.verdict("busy") == "normal", seconds=120)
        host.total = 512 + 140
        for second in range(4):
            pages = second * rate // os.sysconf("SC_PAGE_SIZE")
            text = f"pswpin {pages}\npswpout 0\n"
            await asyncio.to_thread((host.root / "proc/vmstat").write_text, text)
            await asyncio.sleep(1)
        assert seen.last.plan.state == state
        said = any("the host swaps in" in tick.plan.reason for tick in seen.ticks)
        assert said == (state == "HARD")

    play(scene, "busy", total=4096)


def test_f66_a_host_that_stays_short_says_so_once_and_asks_no_more() -> None:
    """Row F66."""

    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: seen.verdict("a") == "normal", seconds=120)
        host.total = 250
        words = "the host is short of memory, and no guest can give any more"
        await seen.until(lambda: words in seen.last.plan.warnings, seconds=300)
        limits = seen.agent.config.limits("a", Bytes(512 * MIB))
        beyond = max(guest.actual - limits.minimum for guest in host.guests.values())
        assert 0 <= beyond < progress.band(limits)
        told = [len(guest.balloons) for guest in host.guests.values()]
        before = len(seen.ticks)
        await seen.rounds(300)  # 75 s: a warning that is given again is let through after 60
        assert [len(guest.balloons) for guest in host.guests.values()] == told
        assert not any(words in tick.plan.warnings for tick in seen.ticks[before:])
        assert seen.last.plan.state == "CRITICAL"

    play(scene, "a", "b", total=4096)


def test_f66_a_guest_that_may_give_later_is_waited_for() -> None:
    """Row F66: nothing is said while a guest has more than it must have."""

    async def scene(host: FakeHost, seen: Watched) -> None:
        host.total = 250
        await seen.until(lambda: seen.targets)
        assert seen.last.plan.state == "CRITICAL"
        assert any(guest.actual > 400 * MIB for guest in host.guests.values())
        assert not any("can give" in each for tick in seen.ticks for each in tick.plan.warnings)

    play(scene, "a", "b", total=4096, config=replace(TIGHT, grace=60.0))


@pytest.mark.parametrize(
    "error", [errno.EROFS, errno.EACCES, errno.EINVAL, errno.EBUSY], ids=errno.errorcode.get
)
def test_f68_ksm_that_takes_no_change_is_left_alone_and_guests_are_managed_all_the_same(
    monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """Row F68: the kernel refuses each write."""
    refused: list[str] = []

    def refuse(name: str, value: str) -> None:
        refused.append(name)
        raise kernel_ksm.refused(name, value, OSError(error, os.strerror(error)))

    async def scene(host: FakeHost, seen: Watched) -> None:
        Kernel(host.root, kind=OLD)
        await seen.until(lambda: is_seen(seen, "a", "b"))
        await seen.rounds(20)
        assert 0 < len(refused) <= ksm.GIVE_UP
        assert not any(tick.plan.warnings for tick in seen.ticks)
        [warning] = seen.agent.warnings
        assert warning.startswith("KSM: /sys/kernel/mm/ksm/")
        assert warning.endswith(f": {os.strerror(error)}; nothing is changed; left as it is")
        assert knob(host, "run") == "0"
        host.total = 1100
        await seen.until(lambda: any(guest.balloons for guest in host.guests.values()), seconds=120)

    monkeypatch.setattr(
        loop,
        "KsmWriter",
        lambda where, root, *, by_agent: KsmWriter(where, root, refuse, by_agent=by_agent),
    )
    play(scene, "a", "b", config=MERGING)


def test_f68_a_trial_writes_nothing_and_takes_that_for_no_rivals_hand() -> None:
    """Row F68: the same where nothing is written because of --dry-run."""

    async def scene(host: FakeHost, seen: Watched) -> None:
        Kernel(host.root, kind=OLD)
        await seen.until(lambda: is_seen(seen, "a", "b"))
        await seen.rounds(10)
        assert seen.last.plan.ksm is not None
        assert not any(tick.plan.warnings for tick in seen.ticks)
        assert knob(host, "run") == "0"

    play(scene, "a", "b", config=MERGING, dry_run=True)


@pytest.mark.parametrize("is_alive", [False, True])
def test_what_a_killed_agent_made_of_ksm_is_put_back_by_one_that_does_not_manage_it(
    *, is_alive: bool
) -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        Kernel(host.root, kind=OLD)
        before = {"run": knob(host, "run"), "pages_to_scan": knob(host, "pages_to_scan")}
        first = KsmWriter(seen.agent.place.ledger, host.root, by_agent=True)
        await asyncio.to_thread(first.apply, {"run": "1", "pages_to_scan": "2500"})
        if not is_alive:
            where = seen.agent.place.ledger
            book = await asyncio.to_thread(ledger.load, where, host.root)
            await asyncio.to_thread(ledger.save, where, replace(book, agent=(1, 1)))
        await seen.agent._restore_ksm()
        now = {name: knob(host, name) for name in before}
        assert now == before
        assert not seen.agent.warnings

    play(scene, "a", config=TIGHT)


def test_what_a_command_made_of_ksm_is_left_by_an_agent_that_does_not_manage_it() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        Kernel(host.root, kind=OLD)
        writer = KsmWriter(seen.agent.place.ledger, host.root)
        await asyncio.to_thread(writer.apply, {"run": "1"})
        await seen.agent._restore_ksm()
        assert knob(host, "run") == "1"

    play(scene, "a", config=TIGHT)


def test_f68_a_kernel_that_cannot_merge_is_no_error() -> None:
    """Row F68: without the files of KSM nothing is said, and guests are managed."""

    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.until(lambda: is_seen(seen, "a", "b"))
        await seen.rounds(10)
        assert not any(tick.plan.warnings or tick.outcomes for tick in seen.ticks)
        host.total = 1100
        await seen.until(lambda: any(guest.balloons for guest in host.guests.values()), seconds=120)

    play(scene, "a", "b", config=MERGING)


@pytest.mark.parametrize("slower", [1, 3, 20])
def test_f70_ksmd_is_back_under_its_share_of_a_core_within_half_a_minute(slower: int) -> None:
    """Row F70: on a host where looking at a page takes so many times as long as was measured."""
    config = Config(ksm=KsmConfig(managed=True, max_cpu=10))
    guests = tuple(
        GuestReading(id=name, state="running", cost=Bytes(96 * MIB))
        for name in ("a", "b", "c", "d")
    )
    state = KsmState(page_size=Bytes(4096), run=0, pages_to_scan=100, sleep_millisecs=20)
    trend, ran, shares = KsmTrend(), 0.0, []
    for second in range(120):
        seen = Snapshot(
            time=float(second),
            host=HostReading(total=Bytes(8 * GIB), available=Bytes(4 * GIB)),
            guests=guests,
            ksm=state,
            ksmd=ran,
        )
        turn = ksm.govern(seen, trend, config, "CRITICAL")
        trend = turn.trend
        if turn.action is not None:
            known = {name: int(value) for name, value in turn.action.changes.items()}
            state = replace(state, **known)
        work = (state.pages_to_scan or 0) * slower / PAGES_PER_CPU_SECOND
        shares.append(100 * work / (work + (state.sleep_millisecs or 0) / 1000))
        ran += shares[-1] / 100
    assert max(shares[30:]) <= 10
    assert min(shares[60:]) >= 2, "and does not stop"
    assert state.run == 1


def test_f70_a_ksmd_that_was_slowed_is_let_go_faster_when_it_takes_little() -> None:
    """Row F70: the same turned round."""
    slow = KsmTrend(cpu=0.0, cpu_time=0.0, pace=0.1)
    host = HostReading(total=Bytes(GIB))
    later = ksm._watch_cpu(Snapshot(time=10.0, host=host, ksmd=0.1), slow, 40)
    assert later.pace > slow.pace
    assert ksm._watch_cpu(Snapshot(time=9.0, host=host, ksmd=9.0), slow, 40) == slow
    assert ksm._watch_cpu(Snapshot(time=10.0, host=host, ksmd=3.0), slow, 40).pace == slow.pace


def test_f71_what_a_killed_agent_left_on_is_put_back_where_it_may_not_merge_any_more() -> None:
    """Row F71: the next agent does not remember that KSM is on by its predecessor's hand."""
    strangers = (Rule(match="a", domain="red"), Rule(match="b", domain="blue"))

    async def scene(host: FakeHost, seen: Watched) -> None:
        Kernel(host.root, kind=OLD)
        writer = KsmWriter(host.root / "ksm", host.root)
        await asyncio.to_thread(writer.apply, {"run": "1", "pages_to_scan": "9000"})
        again = Agent(seen.agent.place, seen.agent.config, [], Notifier({}))
        running = asyncio.create_task(again.run())
        await until(lambda: knob(host, "run") == "0", what="it is put back")
        assert knob(host, "pages_to_scan") == "100"
        again.stop()
        await running
        assert knob(host, "run") == "0"

    play(scene, config=replace(MERGING, rules=strangers))


def test_f71_what_was_ours_is_put_back_when_we_shall_not_merge_any_more() -> None:
    """Row F71: the same by a reload."""

    async def scene(host: FakeHost, seen: Watched) -> None:
        Kernel(host.root, kind=OLD)
        await seen.until(lambda: is_seen(seen, "a", "b"))
        await seen.rounds(2)
        assert knob(host, "run") == "1"
        seen.agent.reload(TIGHT)
        await seen.rounds(2)
        assert knob(host, "run") == "0"
        seen.agent.reload(MERGING)
        await seen.rounds(3)
        assert knob(host, "run") == "1"
        assert not any(tick.plan.warnings for tick in seen.ticks)

    play(scene, "a", "b", config=MERGING)


def test_f72_twenty_guests_at_once_are_met_in_turn_and_give_only_what_is_free_at_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row F72."""
    monkeypatch.setattr(starting_size, "up", lambda _: 30.0)
    names = [f"g{number}" for number in range(20)]

    async def scene(host: FakeHost, seen: Watched) -> None:
        await seen.rounds(5)
        clock = asyncio.get_running_loop().time
        asked: list[float] = []
        for name in names:
            await host.start(_Noting(name, lambda: asked.append(clock())))
        began = clock()
        await seen.until(lambda: is_seen(seen, *names), seconds=5)
        host.total = 20 * 512 + 64
        await asyncio.sleep(35 - (clock() - began))
        assert {change.kind for change in seen.targets} == {"position"}, "in grace"
        by_second = Counter(int(moment) for moment in asked if moment - began > 15)
        average = sum(by_second.values()) / len(by_second)
        assert max(by_second.values()) <= 3 * average, "no waves"
        for name in names:
            host.end(name)
        await seen.until(lambda: not seen.last.snapshot.guests)

    play(scene, total=65536, config=replace(TIGHT, grace=40.0))


class _Noting(FakeGuest):
    """A guest that tells when it is asked something."""

    def __init__(self, guest: str, note: Callable[[], None]) -> None:
        super().__init__(guest)
        self._note = note

    def reply(self, command: str, words: Mapping[str, object]) -> Mapping[str, object]:
        self._note()
        return super().reply(command, words)
