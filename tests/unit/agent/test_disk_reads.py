"""What guests read from their disks, and how it is asked for."""

import asyncio

import pytest

from qmpmem.agent import disk_reads
from qmpmem.agent.disk_reads import DiskReader
from qmpmem.errors import GuestRefused, GuestUnreachable
from qmpmem.wire.messages import Arguments
from tests.rig.agent_scenarios import is_seen, play
from tests.rig.fakeguest import FakeGuest, FakeHost, disk_stats
from tests.rig.invariants import Watched

EMPTY = {"device": "ide1-cd0", "stats": {"rd_bytes": 0}}
EJECTED = {"device": "ide1-cd0", "stats": {"rd_bytes": 11}}
MINUS_ONE = (1 << 64) - 1


class Told:
    """A session that gives one answer, or raises."""

    guest = "g"

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked = 0

    async def query(self, command: str, arguments: Arguments | None = None) -> object:
        assert (command, arguments) == ("query-blockstats", None)
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def read(reader: DiskReader, answer: object, now: float = 0.0) -> int | None:
    return asyncio.run(reader.read(Told(answer), now)).size  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ([], None),
        ([EMPTY], None),
        ([EMPTY, disk_stats(0)], 0),
        ([EJECTED], 11),
        ([disk_stats(5), disk_stats(7)], 12),
        ([disk_stats(5, 3)], 5),
        ([disk_stats(5), disk_stats(-1)], None),
        ([disk_stats(5), disk_stats(MINUS_ONE)], None),
        ([disk_stats(reads=True)], None),
        ([disk_stats("5")], None),
        ([disk_stats(None)], None),
        ([disk_stats(5) for _ in range(31)], 155),
        ([disk_stats(5, 1) for _ in range(31)], 155),
        ([disk_stats(5, 2) for _ in range(31)], None),
        ([disk_stats(5, 20)], 5),
    ],
)
def test_reads_are_what_all_disks_were_asked_for(answer: object, expected: int | None) -> None:
    assert read(DiskReader(), answer) == expected


@pytest.mark.parametrize(
    ("waited", "expected"),
    [([0], 0), ([1999], 1), ([5000, 7000], 12), ([5000, -1], None), ([5000, None], None)],
)
def test_the_time_that_it_waited_is_that_of_all_disks(
    waited: list[object], expected: int | None
) -> None:
    answer = [disk_stats(5, waited=each) for each in waited]
    read = asyncio.run(DiskReader().read(Told(answer), 0.0))  # type: ignore[arg-type]
    assert (read.size, read.waited) == (5 * len(waited), expected)


@pytest.mark.parametrize(
    "answer",
    [
        GuestRefused("no", error_class="CommandNotFound"),
        [disk_stats(5, 2) for _ in range(31)],
    ],
    ids=["refused", "many"],
)
def test_a_guest_that_does_not_tell_is_asked_seldom(answer: object) -> None:
    reader, session = DiskReader(), Told(answer)
    for now in range(300):
        assert asyncio.run(reader.read(session, float(now))) == disk_reads.UNKNOWN  # type: ignore[arg-type]
    assert session.asked == 300 / disk_reads.AGAIN


@pytest.mark.parametrize(
    ("reason", "expected"), [("protocol", None), ("busy", 5), ("timeout", 5), ("closed", 5)]
)
def test_an_answer_that_ends_the_session_is_not_asked_for_again(
    reason: str, expected: int | None
) -> None:
    reader = DiskReader()
    with pytest.raises(GuestUnreachable):
        read(reader, GuestUnreachable("no", reason=reason))
    assert read(reader, [disk_stats(5)], 1e6) == expected


def test_reads_are_seen_with_each_report_and_not_asked_for_otherwise() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        guest = host.guests["a"]
        guest.reads = [(5 << 30, 1), (7, 0)]
        await seen.until(lambda: is_seen(seen, "a"))
        await seen.until(lambda: reads(seen) == (5 << 30) + 7)
        await seen.rounds(20)  # while it has just started, it is asked each second
        guest.commands.clear()
        await seen.rounds(100)
        asked = [each for each in guest.commands if each == "query-blockstats"]
        reports = [each for each in guest.commands if each == "qom-get"]
        assert 9 <= len(asked) <= 12
        assert len(asked) <= len(reports)
        guest.reads = [(7, 0)]
        await seen.until(lambda: reads(seen) == 7)

    play(scene, "a")


def test_a_disk_of_very_many_images_costs_one_session_and_no_more() -> None:
    async def scene(host: FakeHost, seen: Watched) -> None:
        guest: FakeGuest = host.guests["a"]
        guest.reads = [(5, 40)]
        await seen.until(lambda: guest.commands.count("qmp_capabilities") == 2)
        await seen.until(lambda: is_seen(seen, "a"))
        await seen.rounds(100)
        assert is_seen(seen, "a")
        assert guest.commands.count("query-blockstats") == 1
        assert guest.commands.count("qmp_capabilities") == 2
        reading = seen.reading("a")
        assert reading is not None
        assert reading.age is not None
        assert reading.reads is None

    play(scene, "a")


def reads(seen: Watched) -> int | None:
    reading = seen.reading("a")
    return None if reading is None else reading.reads
