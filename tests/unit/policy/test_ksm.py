"""The governor of KSM: when merging is worth its effort."""

import pytest

from qmpmem.ksm import presets
from qmpmem.model.config import Config, KsmConfig, Rule
from qmpmem.model.ksm import KsmState
from qmpmem.model.observation import GuestReading, HostReading, Snapshot
from qmpmem.model.round import HostState
from qmpmem.policy import ksm
from qmpmem.policy.ksm import CAMPAIGN_SECONDS, KsmDecision, govern
from qmpmem.policy.state import KsmTrend
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes

CONFIG = Config(ksm=KsmConfig(managed=True))
IDLE = KsmState(
    page_size=Bytes(4096),
    run=0,
    pages_to_scan=100,
    sleep_millisecs=20,
    smart_scan=1,
    advisor_mode="none",
    advisor_max_cpu=70,
    advisor_target_scan_time=200,
    pages_shared=0,
    pages_sharing=0,
    full_scans=0,
    general_profit=Bytes(0),
)


def guest(name: str, domain: str | None = None, cost: int = GIB) -> GuestReading:
    return GuestReading(id=name, state="running", cost=Bytes(cost), domain=domain)


PAIR = (guest("a"), guest("b"))


def seen(
    time: float,
    state: KsmState | None = IDLE,
    guests: tuple[GuestReading, ...] = PAIR,
    cow: int | None = None,
) -> Snapshot:
    host = HostReading(total=Bytes(8 * GIB), available=Bytes(4 * GIB), cow_ksm=cow)
    return Snapshot(time=time, host=host, guests=guests, ksm=state)


def turn(
    snapshot: Snapshot,
    trend: KsmTrend | None = None,
    state: HostState = "SLACK",
    config: Config = CONFIG,
) -> KsmDecision:
    return govern(snapshot, trend or KsmTrend(), config, state)


def changes(found: KsmDecision) -> dict[str, str]:
    return {} if found.action is None else dict(found.action.changes)


def obey(found: KsmDecision, state: KsmState) -> KsmState:
    """What the kernel shows after a change; under the advisor pages_to_scan is its own."""
    known = {
        name: value if name == "advisor_mode" else int(value)
        for name, value in changes(found).items()
    }
    return replace(state, **known)


def campaign() -> tuple[KsmTrend, KsmState]:
    begun = turn(seen(0))
    return begun.trend, obey(begun, IDLE)


def test_nothing_is_merged_before_the_operator_said_so() -> None:
    assert turn(seen(0), config=Config()).action is None


def test_nor_where_the_kernel_cannot() -> None:
    assert turn(seen(0, None)).action is None


def test_one_guest_alone_merges_with_no_other() -> None:
    assert turn(seen(0, guests=(guest("a"),))).action is None


def test_guests_of_different_domains_do_not_merge_unless_told() -> None:
    mixed = (guest("a", "red"), guest("b", "blue"))
    assert turn(seen(0, guests=mixed)).action is None
    told = Config(ksm=KsmConfig(managed=True, across_domains=True))
    assert changes(turn(seen(0, guests=mixed), config=told))["run"] == "1"


def test_a_rule_says_which_domain_a_guest_is_in() -> None:
    apart = replace(CONFIG, rules=(Rule(match="b", domain="blue"),))
    assert turn(seen(0), config=apart).action is None
    mixed = (guest("a", "red"), guest("b", "blue"))
    same = replace(CONFIG, rules=(Rule(match="*", domain="one"),))
    assert changes(turn(seen(0, guests=mixed), config=same))["run"] == "1"


def test_a_stranger_who_comes_later_ends_it() -> None:
    trend, state = campaign()
    found = turn(seen(10, state, (*PAIR, guest("c", "red"))), trend)
    assert changes(found) == {"run": "0"}


@pytest.mark.parametrize(
    ("state", "preset"),
    [("SLACK", "quiet"), ("BALANCED", "quiet"), ("SOFT", "balanced"), ("CRITICAL", "eager")],
)
def test_effort_follows_need(state: HostState, preset: str) -> None:
    shown = obey(turn(seen(0), state=state), IDLE)
    wanted = presets.settings(presets.PRESETS[preset], IDLE, Bytes(2 * GIB))
    assert {name: str(getattr(shown, name)) for name in wanted} == wanted
    assert shown.run == 1


def test_the_administrators_cpu_share_is_the_most() -> None:
    def pace(config: Config) -> int:
        many = (guest("a", cost=64 * GIB), guest("b", cost=64 * GIB))
        found = turn(seen(0, guests=many), state="CRITICAL", config=config)
        return int(changes(found)["pages_to_scan"])

    assert pace(Config(ksm=KsmConfig(managed=True, max_cpu=10))) < pace(CONFIG) // 4


def test_nothing_is_written_twice() -> None:
    trend, state = campaign()
    assert turn(seen(1, state), trend).action is None


def test_a_campaign_that_gained_little_is_followed_by_longer_and_longer_rests() -> None:
    trend, state = campaign()
    rests: list[float] = []
    now = 0.0
    for _ in range(6):
        now += CAMPAIGN_SECONDS
        found = turn(seen(now, state), trend)
        assert changes(found) == {"run": "0"}
        rests.append(found.trend.rest_until - now)
        now = found.trend.rest_until
        idle = obey(found, state)
        begun = turn(seen(now, idle), found.trend)
        trend, state = begun.trend, obey(begun, idle)
    assert rests == [300, 600, 1200, 2400, 3600, 3600]


def test_three_scans_are_a_campaign() -> None:
    trend, state = campaign()
    assert turn(seen(50, replace(state, full_scans=2)), trend).action is None
    assert changes(turn(seen(60, replace(state, full_scans=3)), trend)) == {"run": "0"}


def test_a_campaign_that_gained_much_goes_on() -> None:
    trend, state = campaign()
    rich = replace(state, full_scans=3, general_profit=Bytes(100 * MIB), pages_sharing=25600)
    found = turn(seen(60, rich), trend)
    assert found.action is None
    assert (found.trend.started, found.trend.rests) == (60, 0)


def test_what_is_gained_is_what_is_left_after_costs() -> None:
    trend, state = campaign()
    dear = replace(state, full_scans=3, general_profit=Bytes(0), pages_sharing=25600)
    assert changes(turn(seen(60, dear), trend)) == {"run": "0"}


def rested() -> tuple[KsmTrend, KsmState]:
    trend, state = campaign()
    found = turn(seen(CAMPAIGN_SECONDS, state), trend)
    return found.trend, obey(found, state)


@pytest.mark.parametrize(
    ("guests", "state"),
    [
        ((*PAIR, guest("c")), "SLACK"),
        ((guest("a"), guest("b", cost=GIB * 5 // 4)), "SLACK"),
        (PAIR, "SOFT"),
    ],
)
def test_news_wakes_it(guests: tuple[GuestReading, ...], state: HostState) -> None:
    trend, idle = rested()
    now = CAMPAIGN_SECONDS + 10
    assert turn(seen(now, idle), trend).action is None
    assert changes(turn(seen(now, idle, guests), trend, state))["run"] == "1"


def test_guests_that_write_to_merged_pages_slow_it_and_then_stop_it() -> None:
    trend, state = campaign()
    a_minute = 8 * GIB // 4096  # pages: all of the host
    trend = turn(seen(1, state, cow=0), trend).trend
    slow = turn(seen(11, state, cow=int(a_minute * 0.01 / 6)), trend)
    assert slow.trend.slowed == 1
    assert int(changes(slow)["pages_to_scan"]) < (state.pages_to_scan or 0)
    stop = turn(seen(11, state, cow=int(a_minute * 0.03 / 6)), trend)
    assert changes(stop) == {"run": "0"}
    calm = turn(seen(11, state, cow=int(a_minute * 0.001 / 6)), trend)
    assert calm.action is None


def test_another_program_that_steers_is_not_fought() -> None:
    """Row F67: contended after two writes, and hands off from then on."""
    trend, state = campaign()
    theirs = replace(state, pages_to_scan=1250)
    once = turn(seen(1, theirs), trend)
    ours = obey(once, theirs)
    twice = turn(seen(2, replace(ours, pages_to_scan=1250)), once.trend)
    assert twice.action is None
    assert "another program changes pages_to_scan" in twice.warnings[0]
    for time in range(3, 20):
        later = turn(seen(time, theirs), twice.trend, "CRITICAL")
        assert later.action is None


def test_what_was_never_ours_is_not_switched_off() -> None:
    mixed = (guest("a", "red"), guest("b", "blue"))
    assert turn(seen(0, replace(IDLE, run=1), mixed)).action is None


def test_nothing_is_ever_unmerged() -> None:
    trend, state = campaign()
    for time, cow in ((1, 0), (11, 10**9), (CAMPAIGN_SECONDS, 0)):
        found = turn(seen(time, replace(state, full_scans=9), cow=cow), trend)
        assert changes(found).get("run") != "2"


def test_the_debt_is_all_that_could_come_back() -> None:
    assert ksm.debt(replace(IDLE, pages_sharing=1000, ksm_zero_pages=24)) == 1024 * 4096
    assert ksm.debt(None) == 0
