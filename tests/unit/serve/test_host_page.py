"""What the page shows of a round: numbers that are known, in an order that helps."""

import asyncio
import re
from collections.abc import Mapping
from typing import Final, get_args

import msgspec
import pytest

from qmpmem.feed import Lost, Round
from qmpmem.model.observation import GuestReading, HostReading, Lease, OperatorRequests, Snapshot
from qmpmem.model.round import Explanation, Plan, SetBalloon, Verdict
from qmpmem.serve import pages
from qmpmem.serve.agent_follower import BEAT, AgentFollower
from qmpmem.serve.host_page import URGENCY, Bar, HostPage, Sort, order, overview
from qmpmem.serve.html import Markup
from qmpmem.serve.recent_past import DECISIONS, POINTS, STEP, RecentPast
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.readings import changed

HOSTILE: Final = """<img src=x onerror=alert(1)>"'&\x1b[2J\ud800"""


def reading(guest: str = "web1", **fields: object) -> GuestReading:
    known = {
        "maximum": GIB,
        "actual": Bytes(600 * MIB),
        "available": Bytes(200 * MIB),
        "free": Bytes(50 * MIB),
        "age": 1.0,
        "every": 2.0,
    }
    return changed(GuestReading(id=guest, state="running"), **(known | fields))


def seen(
    *guests: GuestReading,
    wall: float = 1e9,
    verdicts: Mapping[str, Verdict] | None = None,
    told: Mapping[str, int] | None = None,
    **fields: object,
) -> Round:
    """A round; guests are told sizes in MiB."""
    targets = {guest: Bytes(size * MIB) for guest, size in (told or {}).items()}
    plan = Plan(
        state="SOFT",
        reserve=GIB,
        spare=Bytes(3 * GIB),
        guests=tuple(
            Explanation(
                guest=each.id,
                verdict=(verdicts or {}).get(each.id, "normal"),
                reason=HOSTILE,
                actual=each.actual,
                target=targets.get(each.id),
                reclaimable=Bytes(512 * MIB),
            )
            for each in guests
        ),
        balloons=tuple(
            SetBalloon(guest=guest, target=size, reason=HOSTILE) for guest, size in targets.items()
        ),
    )
    snapshot = Snapshot(
        time=0.0, host=HostReading(total=Bytes(64 * GIB), available=Bytes(2 * GIB)), guests=guests
    )
    return Round(**({"source": "agent", "wall": wall, "snapshot": snapshot, "plan": plan} | fields))  # type: ignore[arg-type]


def shown(*guests: GuestReading, **fields: object) -> HostPage:
    return overview(seen(*guests, **fields))  # type: ignore[arg-type]


def test_a_bar_adds_up_to_the_maximum() -> None:
    bar = shown(reading(), told={"web1": 700}).rows["web1"].bar
    assert bar == Bar(
        used=Bytes(400 * MIB),
        cache=Bytes(150 * MIB),
        free=Bytes(50 * MIB),
        balloon=Bytes(424 * MIB),
        maximum=GIB,
        target=Bytes(700 * MIB),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {
            "available": Bytes(900 * MIB)
        },  # more than it has: of a report that is older than a shrink
        {"free": Bytes(900 * MIB)},
        {"free": None},
        {"actual": Bytes(2 * GIB)},
        {"available": Bytes(0)},
        {"actual": Bytes(0), "available": Bytes(0)},
    ],
)
def test_a_bar_adds_up_whatever_the_guest_says(fields: Mapping[str, object]) -> None:
    bar = shown(reading("web1", **fields)).rows["web1"].bar
    assert bar is not None
    parts = (bar.used, bar.cache, bar.free, bar.balloon)
    assert min(parts) >= 0
    assert sum(parts) == bar.maximum


@pytest.mark.parametrize(
    "fields",
    [
        {"available": None},
        {"actual": None},
        {"implausible": True},
        {"age": 41.0},
        {"age": None},
    ],
)
def test_what_is_not_known_or_old_is_no_number(fields: Mapping[str, object]) -> None:
    row = shown(reading("web1", **fields)).rows["web1"]
    assert row.used is None
    assert row.bar is None
    text = pages.guest_row(row, ())
    assert "400 MiB" not in text
    assert "bar unknown" in text


def test_a_maximum_that_is_not_known_gives_no_bar() -> None:
    row = shown(reading(maximum=None)).rows["web1"]
    assert (row.used, row.bar) == (400 * MIB, None)


def test_a_guest_that_is_silent_says_for_how_long() -> None:
    text = pages.guest_row(shown(reading(age=41.4)).rows["web1"], ())
    assert "silent 41 s" in text
    assert "does not report" in text
    assert "waiting" in pages.guest_row(shown(reading(age=None)).rows["web1"], ())


def test_guests_that_suffer_come_first() -> None:
    assert set(URGENCY) == set(get_args(Verdict))
    verdicts: dict[str, Verdict] = {"b": "distress", "c": "grace", "d": "stale"}
    found = shown(*map(reading, "abcd"), verdicts=verdicts)
    assert pages.ordered(found, "attention") == ["b", "d", "c", "a"]


@pytest.mark.parametrize(
    ("by", "expected"),
    [("name", "abc"), ("current", "bac"), ("maximum", "bac"), ("used", "bac"), ("cost", "abc")],
)
def test_guests_are_sorted(by: Sort, expected: str) -> None:
    known = (
        reading("a", rss=Bytes(9)),
        reading("b", maximum=Bytes(2 * GIB), actual=GIB, rss=Bytes(8)),
        GuestReading(id="c", state="unreachable"),
    )
    rows = list(shown(*known).rows.values())
    assert "".join(each.id for each in order(rows, by)) == expected


def test_there_is_room_for_so_many_guests() -> None:
    found = shown(reading("a"), reading("b"), reading("c", maximum=Bytes(8 * GIB))).room
    assert found is not None
    assert (found.size, found.now, found.could) == (GIB, 3, 4)
    empty = shown().room
    assert empty is not None
    assert (empty.size, empty.now) == (2 * GIB, 1)


def test_without_an_agent_there_is_no_state_and_no_room() -> None:
    found = overview(seen(reading(), plan=None, problem="no agent runs"))
    assert (found.state, found.reserve, found.room) == (None, None, None)
    assert "no agent runs" in pages.top(found)
    assert found.rows["web1"].verdict is None


def test_requests_are_shown() -> None:
    lease = Lease(id="x", owner="kim", size=GIB, until=9.0)
    requests = OperatorRequests(hold=True, pins={"web1": GIB}, leases=(lease,))
    snapshot = Snapshot(time=0.0, host=HostReading(), guests=(reading(),), requests=requests)
    found = overview(seen(reading(), snapshot=snapshot))
    assert "nothing is taken" in pages.top(found)
    assert "1 GiB kept for guests about to start" in pages.tiles(found)
    assert "pinned" in pages.guest_row(found.rows["web1"], ())


def test_a_hostile_name_stays_text() -> None:
    found = shown(reading(name=HOSTILE), told={"web1": 700})
    recent = RecentPast()
    recent.follow(seen(reading(name=HOSTILE), told={"web1": 700}), found)
    text = pages.guest_row(found.rows["web1"], (0.5, None, 0.6))
    assert "<img" not in text
    assert "&lt;img" in text
    assert "\x1b" not in text
    assert re.fullmatch(r'(?:<[a-z]+(?: [a-zA-Z-]+(?:="[^"<>]*")?)*>|</[a-z]+>|[^<>"]|")*', text)
    text.encode("utf-8", "replace")


def test_no_element_has_a_style_or_a_script_of_its_own() -> None:
    found = shown(reading(), told={"web1": 700})
    frame = pages.Frame("vmhost3", "1", can_change=True, has_token=True)
    row = pages.guest_row(found.rows["web1"], (0.5,))
    body = pages.tiles(found) + pages.table(found, [row], "attention")
    text = frame.page("Guests", found, Markup(body), current="/", mark="x-1").decode()
    assert "style=" not in text
    assert "<style" not in text
    assert not re.search(r"<script(?! src)", text)
    assert not re.search(r"<[^>]* on[a-z]+=", re.sub(r'"[^"]*"', '""', text))


def test_a_trail_is_bounded_and_survives_a_clock_that_is_set_back() -> None:
    recent = RecentPast()
    for number in range(DECISIONS + POINTS):
        one = seen(reading(), wall=1e9 + number * STEP, told={"web1": 700})
        recent.follow(one, overview(one))
    assert (len(recent.decisions), len(recent.points("web1"))) == (DECISIONS, POINTS)
    assert recent.points("web1")[-1] == pytest.approx(400 / 1024)
    back = seen(reading("new"), wall=5e8)
    recent.follow(back, overview(back))
    assert (recent.points("web1"), len(recent.points("new"))) == ((), 1)


def test_a_trail_goes_on_where_an_older_one_ended() -> None:
    def following(*walls: float) -> RecentPast:
        recent = RecentPast()
        for wall in walls:
            each = seen(reading(), wall=wall, told={"web1": 500})
            recent.follow(each, overview(each))
        return recent

    older, newer = following(0.0, STEP, 2 * STEP), following(2 * STEP, 3 * STEP)
    newer.come_after(older)
    assert [each.wall for each in newer.decisions] == [0.0, STEP, 2 * STEP, 3 * STEP]
    assert len(newer.points("web1")) == 5
    empty = RecentPast()
    empty.come_after(older)
    assert len(empty.points("web1")) == 3
    for _ in range(POINTS):
        newer.come_after(older)
    assert len(newer.points("web1")) == POINTS


def test_a_dry_run_decides_nothing() -> None:
    recent = RecentPast()
    one = seen(reading(), told={"web1": 700}, dry_run=True)
    recent.follow(one, overview(one))
    assert not recent.decisions


class Reader:
    """A page that is open: takes an event when it is told to."""

    def __init__(self, follower: AgentFollower, by: Sort = "name", mark: str | None = None) -> None:
        self._events = follower.follow(by, mark)

    async def read(self) -> dict[str, object]:
        event = await anext(self._events)
        head, data = event.decode().split("\ndata: ")
        assert event.endswith(b"\n\n")
        assert "\n" not in data.rstrip("\n")
        self.mark = head.split("\n")[0].removeprefix("id: ")
        found: dict[str, object] = msgspec.json.decode(data)
        return found


def parts(event: Mapping[str, object]) -> set[str]:
    found = event["parts"]
    assert isinstance(found, dict)
    return set(found)


async def test_a_page_is_sent_what_changed_and_nothing_else() -> None:
    follower = AgentFollower(asyncio.get_running_loop().time)
    follower.take(seen(reading("a"), reading("b")))
    reader = Reader(follower)
    assert parts(await reader.read()) == {"top", "tiles", "guest-a", "guest-b"}
    follower.take(seen(reading("a"), reading("b", actual=Bytes(700 * MIB))))
    event = await reader.read()
    assert parts(event) == {"guest-b", "tiles"}  # what all guests have is in a tile
    assert event["order"] == ["guest-a", "guest-b"]
    follower.take(seen(reading("b", actual=Bytes(700 * MIB))))
    assert (await reader.read())["order"] == ["guest-b"]
    assert "guest-a" not in follower._parts


async def test_a_page_that_comes_back_goes_on_where_it_was() -> None:
    follower = AgentFollower(asyncio.get_running_loop().time)
    follower.take(seen(reading("a"), reading("b")))
    follower.row("a")  # as a page does that is made
    mark = follower.mark
    follower.take(seen(reading("a"), reading("b", actual=Bytes(700 * MIB))))
    assert parts(await Reader(follower, mark=mark).read()) == {"guest-b", "tiles"}
    for strange in ("", "x", "other-1", f"{follower.instance}--1", f"{follower.instance}-٣", None):
        assert "guest-a" in parts(await Reader(follower, mark=strange).read()), strange


async def test_a_quiet_stream_is_not_dead() -> None:
    follower = AgentFollower(asyncio.get_running_loop().time)
    follower.take(seen(reading("a")))
    events = follower.follow("name", follower.mark)
    assert b"event: round" in await anext(events)
    began = asyncio.get_running_loop().time()
    assert await anext(events) == b": \n\n"
    assert asyncio.get_running_loop().time() - began == pytest.approx(BEAT)


async def test_a_page_says_that_there_are_no_rounds() -> None:
    follower = AgentFollower(asyncio.get_running_loop().time)
    follower.take(Lost(wall=1.0, problem="no agent runs"))
    event = await Reader(follower).read()
    assert (parts(event), event["order"], event["age"]) == ({"top"}, [], None)
    follower.take(seen(reading("a")))
    follower.take(Lost(wall=2.0, problem="the agent has ended"))
    found = (await Reader(follower).read())["parts"]
    assert isinstance(found, dict)
    assert "the agent has ended" in found["top"]
    assert "SOFT" not in found["top"]


async def test_a_slow_page_misses_rounds_and_costs_nothing() -> None:
    follower = AgentFollower(asyncio.get_running_loop().time)
    reader = Reader(follower)
    for number in range(1000):
        follower.take(seen(reading("a", actual=Bytes((600 + number) * MIB))))
    event = await reader.read()
    assert parts(event) == {"top", "tiles", "guest-a"}
    assert reader.mark == follower.mark
