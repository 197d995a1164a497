"""Metrics: what a round is to Prometheus, read by another's parsers."""

import gzip
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_plain

from qmpmem.metrics import content_type, families, text
from qmpmem.metrics.content_type import OPEN, PLAIN, Form
from qmpmem.metrics.rendered import RenderedMetrics
from qmpmem.metrics.text import Block
from qmpmem.metrics.totals import BUCKETS, Totals, follow
from qmpmem.model.ksm import KsmState
from qmpmem.model.observation import GuestReading, HostReading, Lease, OperatorRequests, Snapshot
from qmpmem.model.round import Explanation, Outcome, Plan, Reclaim, SetBalloon, Tick, Verdict
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.readings import changed

HOSTILE = 'we"b\\1\n# TYPE evil gauge\nevil 1\x1b[2J\u2028{}\ud800'


def reading(guest: str = "web1", **fields: object) -> GuestReading:
    known = {
        "maximum": GIB,
        "actual": Bytes(512 * MIB),
        "available": Bytes(100 * MIB),
        "swap_in": Bytes(4096),
        "age": 1.5,
    }
    return changed(GuestReading(id=guest, state="running"), **(known | fields))


def make(
    number: int = 1, *guests: GuestReading, told: Mapping[str, int] | None = None, **fields: object
) -> Tick:
    """A round in which guests are told sizes, in MiB."""
    known = guests or (reading(),)
    return Tick(
        number=number,
        snapshot=Snapshot(
            time=float(number), wall=1e9 + number, host=HostReading(total=GIB), guests=known
        ),
        plan=Plan(
            state="SOFT",
            reserve=Bytes(MIB),
            guests=tuple(
                Explanation(guest=each.id, verdict="normal", bound="spare", used=Bytes(256 * MIB))
                for each in known
            ),
            balloons=tuple(
                SetBalloon(guest=guest, target=Bytes(size * MIB), reason="")
                for guest, size in (told or {}).items()
            ),
        ),
        **fields,  # type: ignore[arg-type]
    )


def samples(content: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    read = read_open if content.endswith(b"# EOF\n") else read_plain
    return {
        (each.name, frozenset(each.labels.items())): each.value
        for family in read(content.decode())
        for each in family.samples
    }


def value(content: bytes, name: str, **labels: str) -> float | None:
    return samples(content).get((name, frozenset(labels.items())))


def told(*ticks: Tick) -> bytes:
    """What is written after these rounds."""
    totals = Totals()
    for each in ticks:
        totals = follow(totals, each)
    return text.plain(text.blocks(ticks[-1] if ticks else None, totals, "1"))


def forms(tick: Tick, totals: Totals) -> Iterable[bytes]:
    found = text.blocks(tick, totals, "1.2")
    return text.plain(found), text.open_metrics(found)


def test_both_formats_say_the_same() -> None:
    tick = make(1, reading("a"), reading("b", domain="x", name="Büro 1"), told={"a": 300})
    plain, modern = forms(tick, follow(Totals(), tick))
    assert samples(plain) == samples(modern)
    assert modern.endswith(b"# EOF\n")


def test_what_is_not_known_is_absent() -> None:
    bare = GuestReading(id="new", state="running")
    content = told(
        Tick(number=1, snapshot=Snapshot(time=1.0, host=HostReading(), guests=(bare,)), plan=Plan())
    )
    names = {name for name, _ in samples(content)}
    absent = {each.family.name for each in families.GUESTS} | {
        f"qmpmem_{name}"
        for name in (
            "host_memory_bytes",
            "host_available_bytes",
            "host_budget_bytes",
            "host_spare_bytes",
            "round_timestamp_seconds",
            "ksm_saved_bytes",
            "ksm_profit_bytes",
            "ksm_debt_bytes",
            "ksmd_cpu_seconds_total",
        )
    }
    assert not names & absent
    assert "None" not in content.decode()


def test_before_the_first_round_there_is_what_needs_none() -> None:
    content = told()
    assert value(content, "qmpmem_up") == 1
    assert value(content, "qmpmem_build_info", version="1") == 1
    assert value(content, "qmpmem_balloon_commands_total", direction="grow", result="done") == 0
    assert value(content, "qmpmem_host_memory_bytes") is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qmpmem_guest_maximum_bytes", GIB),
        ("qmpmem_guest_actual_bytes", 512 * MIB),
        ("qmpmem_guest_used_bytes", 256 * MIB),
        ("qmpmem_guest_available_bytes", 100 * MIB),
        ("qmpmem_guest_pressure_ratio", 0.5),
        ("qmpmem_guest_stats_age_seconds", 1.5),
        ("qmpmem_guest_swap_in_bytes_total", 4096),
        ("qmpmem_guest_target_bytes", None),
        ("qmpmem_guest_oom_kills_total", None),
    ],
)
def test_a_guest_has_its_values(name: str, expected: float | None) -> None:
    assert value(told(make()), name, guest="web1") == expected


def test_the_host_is_in_one_state_and_a_guest_has_one_verdict() -> None:
    found = samples(told(make()))
    states = {
        dict(labels)["state"]: number
        for (name, labels), number in found.items()
        if name == "qmpmem_host_state"
    }
    assert states == {"SLACK": 0, "BALANCED": 0, "SOFT": 1, "HARD": 0, "CRITICAL": 0}
    verdicts = [number for (name, _), number in found.items() if name == "qmpmem_guest_verdict"]
    assert (len(verdicts), sum(verdicts)) == (len(families.VERDICTS), 1)


def test_requests_are_counted() -> None:
    lease = Lease(id="x", owner="kim", size=Bytes(MIB), until=9.0)
    tick = make()
    requests = OperatorRequests(hold=True, pins={"web1": GIB}, leases=(lease, lease))
    snapshot = Snapshot(time=1.0, host=HostReading(), requests=requests)
    content = told(Tick(number=tick.number, snapshot=snapshot, plan=tick.plan))
    assert value(content, "qmpmem_hold") == 1
    assert value(content, "qmpmem_pinned_guests") == 1
    assert value(content, "qmpmem_host_leased_bytes") == 2 * MIB


def test_merging_is_told_of_the_host_alone() -> None:
    ksm = KsmState(page_size=Bytes(4096), run=1, pages_sharing=10, general_profit=Bytes(-5))
    snapshot = Snapshot(time=1.0, host=HostReading(), ksm=ksm, ksmd=2.5, guests=(reading(),))
    content = told(Tick(number=1, snapshot=snapshot, plan=Plan(debt=Bytes(7))))
    assert value(content, "qmpmem_ksm_saved_bytes") == 40960
    assert value(content, "qmpmem_ksm_profit_bytes") == -5
    assert value(content, "qmpmem_ksm_debt_bytes") == 7
    assert value(content, "qmpmem_ksmd_cpu_seconds_total") == 2.5
    per_guest = {name for name, labels in samples(content) if dict(labels).get("guest")}
    assert not {name for name in per_guest if "ksm" in name or "merg" in name}


@pytest.mark.parametrize(
    ("state", "verdict", "behind"),
    [
        ("running", "normal", 0),
        ("running", "stale", 1),
        ("unreachable", "exempt", 1),
        ("paused", "exempt", 0),
    ],
)
def test_guests_that_do_not_report_are_behind(state: str, verdict: Verdict, behind: int) -> None:
    guest = reading(state=state)
    plan = Plan(guests=(Explanation(guest=guest.id, verdict=verdict),))
    tick = Tick(
        number=1, snapshot=Snapshot(time=1.0, host=HostReading(), guests=(guest,)), plan=plan
    )
    assert value(told(tick), "qmpmem_guests_behind") == behind


def test_a_hostile_name_is_one_line_of_text_and_makes_no_metric() -> None:
    guest = reading("web1", name=HOSTILE, domain=HOSTILE * 100)
    for content in forms(make(1, guest), Totals()):
        found = [(name, dict(labels)) for name, labels in samples(content)]
        assert not [name for name, _ in found if not name.startswith("qmpmem_")]
        [labels] = [labels for name, labels in found if name == "qmpmem_guest_info"]
        assert labels["name"] == 'we"b\\1\\n# TYPE evil gauge\\nevil 1\\x1b[2J\\u2028{}\\ud800'
        assert len(labels["domain"]) <= text.LONGEST
        for line in content.decode().splitlines():
            assert line.startswith(("#", "qmpmem_")), line


def test_commands_are_counted_by_direction_and_by_what_came_of_them() -> None:
    done, refused = Outcome(guest="a", done=True), Outcome(guest="b", done=False, error="no")
    reclaimed = Outcome(guest="a", done=True, reclaimed=Bytes(MIB))
    ticks = (
        make(1, reading("a"), reading("b"), told={"a": 600, "b": 300}),
        make(
            2,
            reading("a"),
            reading("b"),
            outcomes=(done, refused, reclaimed, Outcome(guest=None, done=True)),
        ),
        make(3, reading("a"), reading("b"), outcomes=(reclaimed,)),
    )
    content = told(*ticks)
    found = {
        (direction, result): value(
            content, "qmpmem_balloon_commands_total", direction=direction, result=result
        )
        for direction in ("grow", "shrink")
        for result in ("done", "refused")
    }
    assert found == {
        ("grow", "done"): 1,
        ("grow", "refused"): 0,
        ("shrink", "done"): 0,
        ("shrink", "refused"): 1,
    }
    assert value(content, "qmpmem_decisions_total", bound="spare") == 2
    assert value(content, "qmpmem_reclaimed_bytes_total") == 2 * MIB
    assert value(content, "qmpmem_rounds_total") == 3


def test_what_a_guest_was_told_last_stays_until_it_begins_anew_or_ends() -> None:
    first = make(1, reading("a"), reading("b"), told={"a": 600, "b": 300})
    later = make(2, reading("a"), reading("b", epoch=1))
    content = told(first, later)
    assert value(content, "qmpmem_guest_target_bytes", guest="a") == 600 * MIB
    assert value(content, "qmpmem_guest_target_bytes", guest="b") is None
    assert (
        value(told(first, make(2, reading("b")), later), "qmpmem_guest_target_bytes", guest="a")
        is None
    )


def test_a_dry_run_told_nothing() -> None:
    content = told(make(1, told={"web1": 300}, dry_run=True))
    assert value(content, "qmpmem_guest_target_bytes", guest="web1") is None


def test_rounds_are_in_buckets_that_add_up() -> None:
    lengths = (0.001, 0.005, 0.2, 9.0)
    content = told(
        *(make(number, seconds=length) for number, length in enumerate(lengths)), make(9)
    )
    counts = [
        value(content, "qmpmem_round_duration_seconds_bucket", le=repr(each)) for each in BUCKETS
    ]
    assert counts == [2, 2, 2, 3, 3, 3]
    assert value(content, "qmpmem_round_duration_seconds_bucket", le="+Inf") == 4
    assert value(content, "qmpmem_round_duration_seconds_count") == 4
    assert value(content, "qmpmem_round_duration_seconds_sum") == pytest.approx(sum(lengths))


def test_warnings_add_up() -> None:
    tick = Tick(
        number=1, snapshot=Snapshot(time=1.0, host=HostReading()), plan=Plan(warnings=("a", "b"))
    )
    assert value(told(tick, tick), "qmpmem_warnings_total") == 4


def test_nothing_is_left_of_guests_that_have_ended() -> None:
    totals = Totals()
    for number in range(100):
        guest = f"g{number}"
        totals = follow(totals, make(number, reading(guest), told={guest: 300}))
    assert set(totals.told) == {"g99"}


def test_reclaims_are_no_commands_to_balloons() -> None:
    step = Reclaim(guest="web1", size=Bytes(MIB), reason="")
    failed = Outcome(guest="web1", done=False, error="no", reclaimed=Bytes(0))
    tick = make(1, told={"web1": 300})
    after = Tick(number=2, snapshot=tick.snapshot, plan=Plan(reclaims=(step,)), outcomes=(failed,))
    content = told(tick, after)
    assert (
        value(content, "qmpmem_balloon_commands_total", direction="shrink", result="refused") == 0
    )


NEW: Final = (
    "application/openmetrics-text;version=1.0.0;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
"""What Prometheus sends."""


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (NEW, OPEN),
        ("application/openmetrics-text", OPEN),
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/html,application/xhtml+xml,*/*;q=0.8", PLAIN),
        ("text/plain;version=0.0.4", PLAIN),
        ("text/plain, application/openmetrics-text;q=0.5", PLAIN),
        ("application/openmetrics-text;q=0", PLAIN),
        ("application/openmetrics-text;q=x", PLAIN),
        ("application/openmetrics-text;q=nan", PLAIN),
        (",;,;q=,", PLAIN),
    ],
)
def test_a_scraper_gets_the_format_that_it_asks_for(accept: str, media: str) -> None:
    assert content_type.form(accept, "").media == media


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
    ],
)
def test_a_scraper_gets_gzip_where_it_takes_it(encoding: str, packed: bool) -> None:  # noqa: FBT001
    assert content_type.form("", encoding).packed == packed


@pytest.mark.parametrize("media", [PLAIN, OPEN])
def test_packed_or_not_it_is_the_same(media: str) -> None:
    made = RenderedMetrics(make(), Totals(), "1")
    loose, packed = Form(media=media, packed=False), Form(media=media, packed=True)
    assert made.known(packed) is None
    content = made.make(packed)
    assert gzip.decompress(content) == made.make(loose)
    assert made.make(packed) is content
    assert made.known(packed) is content
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in loose.headers


def test_a_round_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    blocks = text.blocks

    def counted(tick: Tick | None, totals: Totals, version: str) -> Sequence[Block]:
        calls.append(version)
        return blocks(tick, totals, version)

    monkeypatch.setattr(text, "blocks", counted)
    made = RenderedMetrics(make(), Totals(), "1")
    for media in (PLAIN, OPEN, PLAIN):
        for packed in (True, False):
            made.make(Form(media=media, packed=packed))
    assert calls == ["1"]


def test_without_an_agent_that_is_all_there_is() -> None:
    assert samples(text.plain(text.down())) == {("qmpmem_up", frozenset()): 0}


def test_500_guests_take_some_milliseconds() -> None:
    tick = make(1, *(reading(f"guest-{number}", rss=GIB, cost=GIB) for number in range(500)))
    totals = follow(Totals(), tick)

    def work() -> None:
        began = time.thread_time()
        text.plain(text.blocks(tick, totals, "1"))
        took.append(time.thread_time() - began)

    took: list[float] = []
    for _ in range(5):
        work()
    assert min(took) < 0.06, "the agent's rounds wait meanwhile"
