"""What others do, by the constants that they publish."""

import pytest

from qmpmem.model.config import Config, Rule
from qmpmem.model.guest import GuestStats
from qmpmem.model.ksm import KsmState
from qmpmem.model.observation import GuestReading, HostReading, Snapshot
from qmpmem.policy import History
from qmpmem.records import replace
from qmpmem.simulate.loads import Steady
from qmpmem.simulate.policy_table import RIVALS, rows
from qmpmem.simulate.spec import GuestSpec, HostSpec, World
from qmpmem.units import GIB, MIB, Bytes


def guest(name: str, has: int, free: int, **more: object) -> GuestReading:
    reading = GuestReading(
        id=name,
        state="running",
        maximum=Bytes(4096 * MIB),
        actual=Bytes(has * MIB),
        stats=GuestStats(free=Bytes(free * MIB)),
    )
    return replace(reading, **more)


def seen(available: int, *guests: GuestReading, time: float = 10.0) -> Snapshot:
    host = HostReading(total=Bytes(10_000 * MIB), available=Bytes(available * MIB))
    return Snapshot(time=time, host=host, guests=guests)


def targets(name: str, snapshot: Snapshot, config: Config | None = None) -> dict[str, float]:
    """What a policy commands ten seconds after it first saw the same."""
    *_, last = commands(name, [replace(snapshot, time=time) for time in (0.0, 5.0, 10.0)], config)
    return last


def commands(
    name: str, snapshots: list[Snapshot], config: Config | None = None
) -> list[dict[str, float]]:
    """What a policy commands in each round: MiB."""
    policy = RIVALS[name].start()
    found: list[dict[str, float]] = []
    for snapshot in snapshots:
        plan, _ = policy(snapshot, History(), config or Config())
        found.append({change.guest: change.target / MIB for change in plan.balloons})
    return found


def test_static_moves_nothing() -> None:
    assert targets("static", seen(0, guest("a", 4096, 4000))) == {}


MINIMA = Config(rules=(Rule(match="*", minimum=Bytes(1000 * MIB)),))


@pytest.mark.parametrize(("name", "more"), [("at-minimum", {}), ("proxmox", {"a": 1100})])
def test_a_policy_that_starts_guests_at_their_minimum_says_so_once(
    name: str, more: dict[str, float]
) -> None:
    first = seen(9000, guest("a", 4096, 4000), time=0.0)
    again = seen(9000, guest("a", 1000, 900), guest("b", 4096, 4000), time=5.0)
    later = seen(9000, guest("a", 1000, 9), guest("b", 1000, 900), time=10.0)
    assert commands(name, [first, again, later], MINIMA) == [{"a": 1000}, {"b": 1000}, more]


@pytest.mark.parametrize(
    ("again", "found"),
    [({"began": "seen"}, {"a": 1000}), ({"began": "reset"}, {}), ({"epoch": 0}, {})],
)
def test_a_target_is_remembered_until_qemu_ends(
    again: dict[str, object], found: dict[str, float]
) -> None:
    first = seen(2000, guest("a", 4096, 4000), time=0.0)
    later = seen(2000, guest("a", 4096, 4000, **({"epoch": 1} | again)), time=1.0)
    assert commands("at-minimum", [first, later], MINIMA)[1] == found


@pytest.mark.parametrize(
    ("available", "full", "idle", "found"),
    [
        # 10000 MiB, 7000 of them used: 1000 MiB to give; the guest with little free gets first.
        (3000, 2000, 2000, {"full": 2100}),
        # 50 MiB too many are used; the guest with more than a quarter of its minimum free gives.
        (1950, 2000, 2000, {"idle": 1950}),
        (0, 2000, 2000, {"idle": 1900}),
        # It gives nothing below its minimum: then the other has to.
        (0, 2000, 1000, {"full": 1900}),
        # What is within 10 MiB of the goal stays.
        (1995, 2000, 2000, {}),
    ],
)
def test_proxmox_keeps_80_percent_in_use_in_steps_of_100_mib(
    available: int, full: int, idle: int, found: dict[str, float]
) -> None:
    guests = (guest("full", full, 10), guest("idle", idle, 900))
    assert targets("proxmox", seen(available, *guests), MINIMA) == found


@pytest.mark.parametrize(
    ("available", "rich", "poor", "found"),
    [
        # 700 MiB beyond the minima, and 100 less from now on: three quarters of 600 for the rich.
        (1900, 1400, 1300, {"poor": 1200}),
        (1900, 1600, 1100, {"rich": 1500}),
        # Growth takes from the guest that has more than its share.
        (2100, 1000, 1300, {"rich": 1100, "poor": 1200}),
    ],
)
def test_proxmox_goes_by_shares_beyond_the_minimum(
    available: int, rich: int, poor: int, found: dict[str, float]
) -> None:
    config = Config(
        rules=(
            Rule(match="rich", shares=3000, minimum=Bytes(1000 * MIB)),
            Rule(match="poor", shares=1000, minimum=Bytes(1000 * MIB)),
        )
    )
    free = 10 if available > 2000 else 900
    guests = (guest("rich", rich, free), guest("poor", poor, free))
    assert targets("proxmox", seen(available, *guests), config) == pytest.approx(found, abs=1)


@pytest.mark.parametrize(
    ("available", "found"),
    [
        # Of 2000 MiB, 10 % shall stay free: 1770 used and 200.
        (1000, {"idle": 1900, "full": 1970}),
        # Below 5 % free guests are made to swap: at 4 %, 1 % less than is in use.
        (400, {"idle": 1900, "full": 1900}),
        # All grow by 5 %, or until a fifth of the maximum is free.
        (3000, {"idle": 2100, "full": 1770 + 819.2}),
    ],
)
def test_mom_has_all_shrink_or_all_grow(available: int, found: dict[str, float]) -> None:
    guests = (guest("idle", 2000, 1500), guest("full", 2000, 230))
    assert targets("mom", seen(available, *guests)) == pytest.approx(found, abs=0.01)


def test_mom_makes_guests_swap_when_the_host_is_nearly_full() -> None:
    found = targets("mom", seen(400, guest("full", 2000, 0), guest("near", 2000, 70)))
    assert found == pytest.approx({"full": 1980, "near": 1910}, abs=0.01)


def test_mom_averages_over_ten_samples() -> None:
    plenty, little = ([seen(free, guest("a", 2000, 1000))] * 10 for free in (3000, 100))
    rounds = [replace(each, time=5.0 * number) for number, each in enumerate((*plenty, *little), 1)]
    ways = [
        (snapshot.time, found["a"] > 2000)
        for snapshot, found in zip(rounds, commands("mom", rounds), strict=True)
        if found
    ]
    # Four samples of 1 % free and six of 30 % are the first with less than 20 % on average.
    assert next(time for time, grows in ways if not grows) == 5.0 * 14 + 5


@pytest.mark.parametrize("name", ["proxmox", "mom"])
def test_they_look_every_ten_seconds(name: str) -> None:
    rounds = [seen(100, guest("a", 2000, 1900), time=float(second)) for second in range(41)]
    found = commands(name, rounds)
    assert [second for second in range(1, 41) if found[second]] == [10, 20, 30, 40]


@pytest.mark.parametrize("name", ["at-minimum", "proxmox", "mom"])
@pytest.mark.parametrize(
    "spared",
    [
        {"exempt": "no balloon device"},
        {"state": "paused"},
        {"actual": None},
    ],
)
def test_they_leave_alone_what_cannot_be_moved(name: str, spared: dict[str, object]) -> None:
    assert targets(name, seen(100, guest("a", 2000, 1900, **spared))) == {}


def pages_to_scan(availables: list[int], name: str = "ksmtuned-only", **more: object) -> list[int]:
    """What a policy has ksmd scan, minute by minute."""
    policy, pages = RIVALS[name].start(), 100
    found: list[int] = []
    for minute, available in enumerate(availables):
        state = KsmState(page_size=Bytes(4096), run=1, pages_to_scan=pages)
        guests = (guest("a", 4096, 0), guest("b", 4096, 0))
        snapshot = replace(seen(available, *guests, time=minute * 60.0), ksm=state, **more)
        plan, _ = policy(snapshot, History(), Config())
        if plan.ksm is not None:
            pages = int(plan.ksm.changes.get("pages_to_scan", 0))
            found.append(pages)
    return found


@pytest.mark.parametrize("name", ["ksmtuned-only", "proxmox", "mom"])
def test_ksmd_works_harder_while_little_is_free_and_less_afterwards(name: str) -> None:
    found = pages_to_scan([9000, 100, 100, 100, 100, 100, 9000, 9000], name)
    assert found == [400, 700, 1000, 1250, 1250, 1200, 1150]


def test_ksmtuned_stops_where_all_fits() -> None:
    host = HostReading(total=Bytes(64 * GIB), available=Bytes(60 * GIB))
    assert pages_to_scan([0, 0], host=host) == [0]


def test_every_rival_can_be_named() -> None:
    assert list(RIVALS) == ["ours", "static", "at-minimum", "proxmox", "mom", "ksmtuned-only"]


def test_every_policy_but_ours_is_there_with_our_devices_and_with_its_own() -> None:
    found = [(row.name, row.devices) for row in rows()]
    others = [name for name in RIVALS if name != "ours"]
    both = [(name, devices) for name in others for devices in ("launcher", "stock")]
    assert found == [("ours", "launcher"), *both]
    assert [row.devices for row in rows("mom")] == ["launcher", "stock"]


@pytest.mark.parametrize(
    ("name", "devices", "said", "found"),
    [
        ("mom", "launcher", {}, (True, True)),
        ("mom", "launcher", {"deflate_on_oom": False}, (False, True)),
        ("mom", "launcher", {"free_page_reporting": False}, (True, False)),
        ("mom", "stock", {}, (False, False)),
        ("mom", "stock", {"deflate_on_oom": True}, (False, False)),
        ("proxmox", "stock", {}, (False, True)),
        ("proxmox", "stock", {"free_page_reporting": False}, (False, False)),
    ],
)
def test_devices_are_the_launchers_or_those_of_the_policys_own_stack(
    name: str, devices: str, said: dict[str, bool], found: tuple[bool, bool]
) -> None:
    spec = replace(GuestSpec(id="a", memory=Bytes(GIB), load=Steady(size=Bytes(0))), **said)
    host = HostSpec(memory=Bytes(GIB), own=Steady(size=Bytes(0)))
    rival = replace(RIVALS[name], devices=devices)
    (guest,) = rival.equip(World(host=host, guests=(spec,))).guests
    assert (guest.deflate_on_oom, guest.free_page_reporting) == found
