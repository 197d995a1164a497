"""What others do, by the constants that they publish."""

import pytest

from qmpmem.config import Config, Rule
from qmpmem.policy import History
from qmpmem.policy.history import HostTrend
from qmpmem.records import replace
from qmpmem.sight import GuestSight, HostSight, Snapshot
from qmpmem.simulate.rivals import RIVALS, Policy, ksmtuned_only, mom, proxmox, static
from qmpmem.snapshot import KsmState
from qmpmem.units import GIB, MIB, Bytes

LOOKED = History(host=HostTrend(time=0.0))


def guest(name: str, has: int, free: int, **more: object) -> GuestSight:
    sight = GuestSight(
        id=name,
        state="running",
        maximum=Bytes(4096 * MIB),
        actual=Bytes(has * MIB),
        free=Bytes(free * MIB),
    )
    return replace(sight, **more)


def seen(available: int, *guests: GuestSight, time: float = 10.0) -> Snapshot:
    host = HostSight(total=Bytes(10_000 * MIB), available=Bytes(available * MIB))
    return Snapshot(time=time, host=host, guests=guests)


def targets(policy: Policy, snapshot: Snapshot, config: Config | None = None) -> dict[str, float]:
    plan, _ = policy(snapshot, LOOKED, config or Config())
    return {change.guest: change.target / MIB for change in plan.balloons}


def test_static_moves_nothing() -> None:
    assert targets(static, seen(0, guest("a", 4096, 4000))) == {}


def test_proxmox_gives_what_is_below_80_percent_in_steps_of_100_mib() -> None:
    # 10000 MiB, 7000 of them used: 1000 MiB to give; who has little free first.
    found = targets(proxmox, seen(3000, guest("full", 2000, 10), guest("idle", 2000, 1500)))
    assert found == {"full": 2100, "idle": 2100}


def test_proxmox_takes_what_is_above_from_who_has_more_than_a_quarter_free() -> None:
    # 50 MiB too many are used.
    found = targets(proxmox, seen(1950, guest("full", 2000, 10), guest("idle", 2000, 1500)))
    assert found == {"idle": 1950}


def test_proxmox_takes_from_all_when_the_first_are_not_enough() -> None:
    found = targets(proxmox, seen(0, guest("full", 2000, 10), guest("idle", 2000, 1500)))
    assert found == {"full": 1900, "idle": 1900}


def test_proxmox_goes_by_shares_within_limits() -> None:
    config = Config(
        rules=(
            Rule(match="rich", shares=3000, minimum=Bytes(1000 * MIB)),
            Rule(match="poor", shares=1000, minimum=Bytes(1980 * MIB)),
        )
    )
    guests = (guest("rich", 2000, 1500), guest("poor", 2000, 1500))
    assert targets(proxmox, seen(1900, *guests), config) == {"rich": 1925, "poor": 1980}


def test_mom_has_all_shrink_by_at_most_5_percent_below_20_percent_free() -> None:
    found = targets(mom, seen(1000, guest("idle", 2000, 1500), guest("full", 2000, 230)))
    # Of 2000 MiB, 10 % shall stay free: 1770 used and 200.
    assert found == pytest.approx({"idle": 1900, "full": 1970}, abs=0.01)


def test_mom_has_all_grow_by_5_percent_above() -> None:
    found = targets(mom, seen(3000, guest("a", 2000, 0), guest("b", 4000, 0)))
    assert found == {"a": 2100, "b": 4096}


@pytest.mark.parametrize("policy", [proxmox, mom])
def test_they_look_every_ten_seconds(policy: Policy) -> None:
    sight = guest("a", 2000, 1900)
    plan, history = policy(seen(100, sight, time=0.0), History(), Config())
    times: list[float] = []
    for second in range(1, 41):
        plan, history = policy(seen(100, sight, time=float(second)), history, Config())
        times += [float(second)] if plan.balloons else []
    assert times == [10, 20, 30, 40]


@pytest.mark.parametrize("policy", [proxmox, mom])
@pytest.mark.parametrize(
    "spared",
    [
        {"exempt": "no balloon device"},
        {"state": "paused"},
        {"actual": None},
    ],
)
def test_they_leave_alone_what_cannot_be_moved(policy: Policy, spared: dict[str, object]) -> None:
    assert targets(policy, seen(100, guest("a", 2000, 1900, **spared))) == {}


def test_ksmtuned_works_harder_while_little_is_free_and_less_afterwards() -> None:
    config, history, pages = Config(), History(), 100
    found: list[int] = []
    for minute, available in enumerate((9000, 100, 100, 100, 100, 100, 9000, 9000)):
        state = KsmState(page_size=Bytes(4096), run=1, pages_to_scan=pages)
        snapshot = seen(available, guest("a", 4096, 0), guest("b", 4096, 0), time=minute * 60.0)
        with_ksm = Snapshot(
            time=snapshot.time, host=snapshot.host, guests=snapshot.guests, ksm=state
        )
        plan, history = ksmtuned_only(with_ksm, history, config)
        if plan.ksm is not None:
            pages = int(plan.ksm.changes["pages_to_scan"])
            found.append(pages)
    assert found == [400, 700, 1000, 1250, 1250, 1200, 1150]


def test_ksmtuned_stops_where_all_fits() -> None:
    state = KsmState(page_size=Bytes(4096), run=1, pages_to_scan=100)
    snapshot = Snapshot(
        time=60.0,
        host=HostSight(total=Bytes(64 * GIB), available=Bytes(60 * GIB)),
        guests=(guest("a", 4096, 0),),
        ksm=state,
    )
    plan, _ = ksmtuned_only(snapshot, LOOKED, Config())
    assert plan.ksm is not None
    assert plan.ksm.changes == {"run": "0"}


def test_every_rival_can_be_named() -> None:
    assert list(RIVALS) == ["ours", "static", "proxmox", "mom", "ksmtuned-only"]
