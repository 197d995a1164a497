"""Metrics, alerts and the dashboard, judged by Prometheus's own tool."""

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from qmpmem.api import async_client
from qmpmem.api.sockets import Listeners
from qmpmem.errors import KernelError
from qmpmem.metrics import text
from qmpmem.metrics.content_type import OPEN, PLAIN
from qmpmem.metrics.totals import Totals, follow
from qmpmem.model.guest import GuestStats
from qmpmem.model.ksm import KsmState
from qmpmem.model.observation import GuestReading, HostReading, Snapshot
from qmpmem.model.round import Explanation, HostState, Outcome, Plan, SetBalloon, Tick, Verdict
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.agent import EveryClient, Office, talk
from tests.rig.promtool import promtool

STATIC: Final = Path(str(resources.files("qmpmem.serve").joinpath("static")))
RULES: Final = STATIC / "prometheus-rules.yml"
DASHBOARD: Final = json.loads((STATIC / "grafana-dashboard.json").read_text())
CHAPTER: Final = Path(__file__).parents[3] / "qmpmem" / "manual" / "metrics.md"
EVERY: Final = 15
"""Seconds between two scrapes of the recorded data."""
ROUNDS: Final = 60
"""A quarter of an hour."""
Samples = Mapping[str, float]
"""Values by labels."""
HOSTILE: Final = 'we"b\\1\n# TYPE evil gauge\x1b[2J\ud800'


@pytest.fixture
def office() -> Office:
    made = Office(Path("/proc/none"))
    made.add("web1")
    made.add("db1", 800, name=HOSTILE)
    return made


def tick(
    number: int,
    *,
    state: HostState = "SOFT",
    verdicts: Mapping[str, Verdict] | None = None,
    available: int = 3000,
    told: bool = True,
) -> Tick:
    """A round of two guests, in which all is known."""
    judged = {"web1": "distress", "db1": "normal"} if verdicts is None else dict(verdicts)
    guests = tuple(
        GuestReading(
            id=name,
            name=HOSTILE,
            state="running",
            domain="blue",
            maximum=Bytes(2 * GIB),
            actual=GIB,
            stats=GuestStats(
                available=Bytes(200 * MIB),
                free=Bytes(50 * MIB),
                disk_caches=Bytes(100 * MIB),
                swap_in=Bytes(4096 * number),
                swap_out=Bytes(8192 * number),
                major_faults=number,
                oom_kills=0,
            ),
            rss=GIB,
            cost=GIB,
            swap=Bytes(MIB),
            age=1.0,
        )
        for name in judged
    )
    plan = Plan(
        state=state,
        reserve=Bytes(2500 * MIB),
        budget=Bytes(60 * GIB),
        spare=Bytes(-5 * MIB),
        debt=Bytes(MIB),
        guests=tuple(
            Explanation(
                guest=name,
                verdict=verdict,  # type: ignore[arg-type]
                bound="spare",
                used=Bytes(800 * MIB),
                demand=GIB,
                entitlement=GIB,
                minimum=Bytes(700 * MIB),
            )
            for name, verdict in judged.items()
        ),
        balloons=tuple(SetBalloon(guest=name, target=GIB, reason="") for name in judged if told),
        warnings=("look out",),
    )
    host = HostReading(
        total=Bytes(64 * GIB),
        available=Bytes(available * MIB),
        limit=Bytes(63 * GIB),
        headroom=GIB,
    )
    ksm = KsmState(page_size=Bytes(4096), run=1, pages_sharing=10, full_scans=5)
    wall = float(number * EVERY)
    seen = Snapshot(time=wall, wall=wall, host=host, guests=guests, ksm=ksm, ksmd=float(number))
    outcomes = tuple(Outcome(guest=name, done=True) for name in judged)
    return Tick(number=number, snapshot=seen, plan=plan, outcomes=outcomes, seconds=0.02)


@pytest.mark.parametrize("media", [PLAIN, OPEN])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_the_agent_answers_a_scraper(
    office: Office, listener: Listeners, media: str, encoding: str
) -> None:
    office.round(told=[SetBalloon(guest="web1", target=GIB, reason="")])
    async with office.open(listener, EveryClient(owner=0, access="read")) as client:
        content = await async_client.scrape(client, media, encoding)
        assert await async_client.scrape(client, media, encoding) == content
        office.round()
        later = await async_client.scrape(client, media, encoding)
    found = gzip.decompress(content) if encoding == "gzip" else content
    assert b"qmpmem_rounds_total 1\n" in found
    assert found.endswith(b"# EOF\n") == (media == OPEN)
    again = gzip.decompress(later) if encoding == "gzip" else later
    assert b"qmpmem_rounds_total 2\n" in again
    assert b'qmpmem_decisions_total{bound="none"} 1\n' in again, "counters go on over rounds"


async def test_the_agent_answers_before_its_first_round(
    office: Office, listener: Listeners
) -> None:
    async with office.open(listener) as client:
        content = await async_client.scrape(client, PLAIN)
    assert b"qmpmem_up 1\n" in content
    promtool("check", "metrics", text=content)


async def test_a_stranger_hears_no_metrics(office: Office, listener: Listeners) -> None:
    async with office.open(listener, EveryClient(owner=0, access="none")) as client:
        with pytest.raises(KernelError):
            await async_client.scrape(client, PLAIN)


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET /metrics HTTP/1.1\r\nHost: qmpmem\r\nOrigin: http://evil.example\r\n\r\n", 403),
        (b"GET /metrics HTTP/1.1\r\nHost: qmpmem\r\nContent-Length: 1\r\n\r\nx", 400),
        (b"POST /metrics HTTP/1.1\r\nHost: qmpmem\r\nContent-Length: 0\r\n\r\n", 405),
    ],
)
async def test_what_no_scraper_asks_is_refused(
    office: Office, listener: Listeners, head: bytes, code: int
) -> None:
    async with office.open(listener) as client:
        answer = await talk(client.path, head)
    assert answer.split(b" ")[1] == b"%d" % code


async def test_prometheus_finds_nothing_odd_in_the_metrics(
    office: Office, listener: Listeners
) -> None:
    office.round(told=[SetBalloon(guest="web1", target=GIB, reason="")])
    async with office.open(listener) as client:
        promtool("check", "metrics", text=await async_client.scrape(client, PLAIN))
    full = tick(2)
    promtool("check", "metrics", text=text.plain(text.blocks(full, follow(Totals(), full), "1")))


def test_prometheus_takes_the_rules() -> None:
    assert "5 rules found" in promtool("check", "rules", str(RULES))


def series(ticks: Iterable[Tick]) -> list[dict[str, str]]:
    """What scrapes of these rounds record, as promtool's tests have it."""
    totals, values = Totals(), dict[str, list[str]]()
    for number, each in enumerate(ticks):
        totals = follow(totals, each)
        content = text.plain(text.blocks(each, totals, "1")).decode()
        for family in text_string_to_metric_families(content):
            for sample in family.samples:
                labels = sample.labels | {"instance": "vmhost3"}
                said = ",".join(f"{key}={json.dumps(word)}" for key, word in labels.items())
                known = values.setdefault(f"{sample.name}{{{said}}}", ["_"] * number)
                known.append(f"{sample.value:g}")
    return [{"series": name, "values": " ".join(each)} for name, each in values.items()]


def expect(directory: Path, ticks: Iterable[Tick], queries: Mapping[str, Samples]) -> None:
    """Fail unless queries have these samples after the rounds; JSON is YAML."""
    recorded = list(ticks)
    tests = [
        {
            "expr": query,
            "eval_time": f"{(len(recorded) - 1) * EVERY}s",
            "exp_samples": [
                {"labels": labels, "value": value} for labels, value in samples.items()
            ],
        }
        for query, samples in queries.items()
    ]
    case = {
        "interval": f"{EVERY}s",
        "input_series": series(recorded),
        "promql_expr_test": tests,
    }
    file = directory / "test.yml"
    content = {"rule_files": [str(RULES)], "evaluation_interval": f"{EVERY}s", "tests": [case]}
    file.write_text(json.dumps(content))
    promtool("test", "rules", str(file))


def steady(**fields: Any) -> list[Tick]:  # noqa: ANN401
    return [tick(number, **fields) for number in range(ROUNDS)]


def blind(rounds: list[Tick]) -> list[Tick]:
    """The agent hangs after its first round, and what it wrote then is scraped again and again."""
    return [rounds[0]] * len(rounds)


ALERTS: Final[Mapping[str, tuple[list[Tick], Samples]]] = {
    "QmpmemGuestStarving": (steady(), {'{guest="web1"}': 1}),
    "QmpmemGuestStarving, stalled": (
        steady(verdicts={"a": "stalled", "b": "grace"}),
        {'{guest="a"}': 1},
    ),
    "QmpmemGuestStarving, for a moment": (
        [*steady(verdicts={"web1": "normal"}), tick(ROUNDS)],
        {},
    ),
    "QmpmemGuestDoesNotCooperate": (
        steady(verdicts={"a": "uncooperative", "b": "implausible", "c": "suspect", "d": "normal"}),
        {'{guest="a"}': 1, '{guest="b"}': 1, '{guest="c"}': 1},
    ),
    "QmpmemGuestDoesNotCooperate, stale": (steady(verdicts={"a": "stale"}), {}),
    "QmpmemReserveEaten": (steady(available=1200), {"{}": 1}),
    "QmpmemReserveEaten, not yet": (steady(available=1300), {}),
    "QmpmemHostCritical": (steady(state="CRITICAL"), {"{}": 1}),
    "QmpmemHostCritical, HARD": (steady(state="HARD"), {}),
    "QmpmemHostCritical, for a moment": ([*steady(), tick(ROUNDS, state="CRITICAL")], {}),
    "QmpmemAgentBlind": (blind(steady()), {"{}": 1}),
    "QmpmemAgentBlind, guests": (
        steady(verdicts={"a": "stale", "b": "stale", "c": "normal"}),
        {"{}": 1},
    ),
    "QmpmemAgentBlind, one guest": (steady(verdicts={"a": "stale"}), {}),
    "QmpmemAgentBlind, fewer guests": (
        steady(verdicts={"a": "stale", "b": "stale", "c": "normal", "d": "normal"}),
        {},
    ),
    "QmpmemAgentBlind, all is well": (steady(), {}),
}
"""The alert, and with which labels it fires after such rounds."""


@pytest.mark.parametrize("case", ALERTS)
def test_an_alert_fires_when_it_should(case: str, tmp_path: Path) -> None:
    rounds, samples = ALERTS[case]
    alert = case.partition(",")[0]
    query = f'count by (guest) (ALERTS{{alertname="{alert}",alertstate="firing"}})'
    expect(tmp_path, rounds, {query: samples})


def test_the_agent_is_blind_where_it_does_not_answer(tmp_path: Path) -> None:
    case = {
        "interval": f"{EVERY}s",
        "input_series": [{"series": 'qmpmem_up{instance="vmhost3"}', "values": "0x20"}],
        "promql_expr_test": [
            {
                "expr": 'count(ALERTS{alertname="QmpmemAgentBlind",alertstate="firing"})',
                "eval_time": "5m",
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
        ],
    }
    file = tmp_path / "test.yml"
    content = {"rule_files": [str(RULES)], "evaluation_interval": f"{EVERY}s", "tests": [case]}
    file.write_text(json.dumps(content))
    promtool("test", "rules", str(file))


def panels() -> Iterator[Mapping[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", ())


def test_every_query_of_the_dashboard_finds_something(tmp_path: Path) -> None:
    queries = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    assert len(queries) > 20
    for name, value in (("$instance", ".*"), ("$guest", "web1"), ("$__rate_interval", "1m")):
        queries = [each.replace(name, value) for each in queries]
    assert not [each for each in queries if "$" in each]
    expect(tmp_path, steady(), {f"count({each}) > bool 0": {"{}": 1} for each in queries})


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    """By what its import looks at: ids, places, and a data source that it asks for."""
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    assert [each["name"] for each in DASHBOARD["__inputs"]] == ["DS_PROMETHEUS"]
    for panel in panels():
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        for part in (panel, *panel.get("targets", ())):
            if panel["type"] != "row":
                assert part["datasource"]["uid"] == "${DS_PROMETHEUS}", panel["title"]
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$(\w+)", json.dumps(DASHBOARD["panels"]))) - {"__rate_interval"}
    assert used == variables


def families() -> set[str]:
    """The names of all families that there are, as queries have them."""
    full = tick(2)
    content = text.plain(text.blocks(full, follow(Totals(), full), "1")).decode()
    return set(re.findall(r"(?m)^# TYPE (\w+)", content))


def test_alerts_and_dashboard_name_no_metric_that_there_is_not() -> None:
    said = RULES.read_text() + json.dumps(DASHBOARD["panels"])
    parts = r"(?<=_seconds)_(?:bucket|sum|count)\b"  # of a histogram
    assert set(re.findall(r"\bqmpmem_\w+", re.sub(parts, "", said))) <= families()


def test_the_manual_names_every_metric_and_no_other() -> None:
    table = CHAPTER.read_text().partition("| ours | libvirt_exporter")[2].partition("\n\n")[0]
    assert set(re.findall(r"\bqmpmem_\w+", table)) == families()
