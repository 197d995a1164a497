"""Room for guests about to start: when it is there, which guests could not give, what ends it."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from qmpmem.api import leases
from qmpmem.api.permissions import Peer
from qmpmem.api.records import LeaseRequest
from qmpmem.errors import ConfigError, NotReached
from qmpmem.model.observation import HostReading, Snapshot
from qmpmem.model.round import Explanation, Plan, Tick
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.agent import Office, ask
from tests.rig.install_roots import NO_PROCESS
from tests.rig.leases import ROOM, asking, kept, old_guest, reserved, settle, stays

ME = Peer(pid=os.getpid(), uid=os.geteuid(), groups=frozenset())


@pytest.fixture
def office() -> Office:
    return old_guest()


async def test_it_is_there_when_a_round_that_knew_of_it_lacks_nothing(office: Office) -> None:
    work = asking(office, ME)
    await settle()
    office.round(spare=-100)
    await settle()
    assert not work.done()
    office.round(spare=0)
    done = await work
    assert (done.size, done.keep) == (512 * MIB, 60)
    [lease] = kept(office)
    assert lease.id == done.lease
    assert lease.until == pytest.approx(time.monotonic() + 60, abs=5)


async def test_a_round_that_did_not_know_of_it_says_nothing(office: Office) -> None:
    tick = office.round(spare=1000)
    assert not leases.is_there("abc", tick)
    work = asking(office, ME)
    await settle()
    office.rounds.publish(replace(tick, number=9))
    await settle()
    assert not work.done()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def test_what_is_not_known_is_no_room(office: Office) -> None:
    work = asking(office, ME)
    await settle()
    tick = office.round()
    unknown = replace(tick, plan=replace(tick.plan, spare=None))
    assert leases.is_there(tick.snapshot.requests.leases[0].id, tick)
    assert not leases.is_there(tick.snapshot.requests.leases[0].id, unknown)
    await work


async def test_it_fails_in_time_and_nothing_is_kept(office: Office) -> None:
    office.add("db1", 358)
    work = asking(office, ME, replace(ROOM, timeout=0.05))
    await settle()
    office.round(spare=-300)
    with pytest.raises(NotReached) as met:
        await work
    assert met.value.message == (
        "no room for 512 MiB after 0.05 s, 300 MiB missing: web1 gave 0 B of 154 MiB (none); "
        "db1 gave 0 B of 0 B (none)"
    )
    assert kept(office) == ()
    assert office.agent.leases._claims == {}


async def test_a_client_that_asked_and_went_away_keeps_nothing(office: Office) -> None:
    async def is_gone() -> bool:
        return True

    work = asking(office, ME, is_gone=is_gone)
    await settle()
    office.round(spare=-1)
    with pytest.raises(NotReached, match="has left"):
        await work
    assert kept(office) == ()


async def test_a_question_that_is_cancelled_keeps_nothing(office: Office) -> None:
    work = asking(office, ME)
    await settle()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert kept(office) == ()


@pytest.mark.parametrize(
    ("room", "words"),
    [
        (replace(ROOM, size=Bytes(0)), "expected a size"),
        (replace(ROOM, size=Bytes(-1)), "expected a size"),
        (replace(ROOM, owner="x" * 257), "owner: 257 characters, expected 256 at most"),
        (replace(ROOM, guest="x" * 1025), "guest: 1025 characters, expected 1024 at most"),
        (replace(ROOM, size=Bytes(8 * GIB)), "ever"),
        (replace(ROOM, timeout=-1.0), "expected a time"),
        (replace(ROOM, keep=0.0), "expected a time"),
        (replace(ROOM, timeout=4000.0), "a lease of"),
        (replace(ROOM, timeout=float("nan")), "a lease of"),
    ],
)
async def test_what_makes_no_sense_is_refused_at_once(
    office: Office, room: LeaseRequest, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        await office.handlers.reserve(room, ME, stays)
    assert kept(office) == ()
    assert office.agent.leases._claims == {}


async def test_what_is_refused_leaves_nothing_open(office: Office) -> None:
    before = await ask(descriptors)
    with pytest.raises(ConfigError, match="a lease of"):
        await office.handlers.reserve(replace(ROOM, timeout=4000.0, mine=True), ME, stays)
    assert await ask(descriptors) == before


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_an_agent_that_changes_nothing_makes_no_room() -> None:
    office = Office(Path("/proc/none"), dry_run=True)
    with pytest.raises(ConfigError, match="--dry-run"):
        await office.handlers.reserve(ROOM, ME, stays)


async def test_it_is_the_guests_that_the_asking_process_became(office: Office) -> None:
    await reserved(office, ME, replace(ROOM, mine=True))
    office.add("other", pid=os.getppid())
    office.round()
    assert kept(office)[0].guest is None
    office.add("new", pid=os.getpid())
    office.round()
    assert kept(office)[0].guest == "new"
    assert office.lines[-1].endswith("taken by guest new")


async def test_a_guest_of_the_same_pid_that_was_there_before_is_another(office: Office) -> None:
    await reserved(office, ME, replace(ROOM, mine=True))
    office.add("old", pid=os.getpid(), created=time.time() - 1000)
    office.round()
    assert kept(office)[0].guest is None


@pytest.mark.parametrize("name", ["new", "a name"])
async def test_it_is_the_guests_that_was_named(office: Office, name: str) -> None:
    await reserved(office, ME, replace(ROOM, guest=name))
    office.add("web2")
    office.round()
    assert kept(office)[0].guest is None
    office.add("new", name="a name")
    office.round()
    assert kept(office)[0].guest == "new"


async def test_it_ends_with_its_guest(office: Office) -> None:
    await reserved(office, ME, replace(ROOM, guest="new"))
    office.add("new")
    office.round()
    office.remove("new")
    office.round()
    assert kept(office) == ()
    assert "no longer needed" in office.lines[-1]


async def test_a_client_that_is_gone_already_gets_nothing(office: Office) -> None:
    peer = Peer(pid=NO_PROCESS, uid=0, groups=frozenset())
    with pytest.raises(ConfigError, match=f"process {NO_PROCESS}"):
        await office.handlers.reserve(replace(ROOM, mine=True), peer, stays)


async def test_it_can_be_given_back(office: Office) -> None:
    done = await reserved(office, ME)
    assert office.handlers.give_back(done.lease, ME).changed
    assert not office.handlers.give_back(done.lease, ME).changed
    assert kept(office) == ()


async def test_one_whose_time_is_over_is_forgotten(office: Office) -> None:
    await reserved(office, ME, replace(ROOM, mine=True))
    office.agent.requests.expire(time.monotonic() + 100)
    office.round()
    assert office.agent.leases._claims == {}
    assert "its time is over" in office.lines[-1]


def explained(actual: int, **fields: object) -> Explanation:
    known = Explanation(guest="a", actual=Bytes(actual * MIB), minimum=Bytes(256 * MIB))
    return replace(known, **fields)


def tick_of(*explanations: Explanation, spare: int = -100) -> Tick:
    plan = Plan(spare=Bytes(spare * MIB), guests=explanations)
    return Tick(number=1, snapshot=Snapshot(time=0.0, host=HostReading()), plan=plan)


def test_each_guest_is_named_with_what_it_gave() -> None:
    start = tick_of(explained(1024), explained(300, guest="b"))
    end = tick_of(
        explained(800, demand=Bytes(800 * MIB)),
        explained(300, guest="b", verdict="grace", reason="new"),
        explained(512, guest="c"),
    )
    gave = leases.given(start, end)
    assert [(each.guest, each.gave // MIB, each.could // MIB) for each in gave] == [
        ("a", 224, 768),
        ("b", 0, 44),
        ("c", 0, 256),
    ]
    assert [each.reason for each in gave] == ["it needs 800 MiB", "grace: new", "none"]


def test_those_that_could_have_given_most_are_named_first_and_not_all() -> None:
    many = [explained(300 + 10 * number, guest=f"g{number}") for number in range(9)]
    words = leases.failure(ROOM, tick_of(*many), tick_of(*many))
    assert words.startswith(
        "no room for 512 MiB after 5 s, 100 MiB missing: g8 gave 0 B of 124 MiB"
    )
    assert words.endswith("; and 4 more")


def test_a_host_without_guests_has_no_guest_to_blame() -> None:
    assert leases.failure(ROOM, None, None).endswith("there are no guests to take it from")
