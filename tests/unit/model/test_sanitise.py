"""Guest-written numbers: what cannot be is not believed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.model.guest import GuestStats
from qmpmem.model.sanitise import NOT_REPORTED, available_by_now, balloon_actual, guest_stats, used
from qmpmem.records import replace
from qmpmem.units import MIB, Bytes

MAXIMUM = Bytes(512 * MIB)
NOW = 1_700_000_000.5
GOOD: dict[str, object] = {
    "stat-swap-in": 4096,
    "stat-swap-out": 8192,
    "stat-major-faults": 3,
    "stat-minor-faults": 4,
    "stat-free-memory": 100 * MIB,
    "stat-total-memory": 480 * MIB,
    "stat-available-memory": 300 * MIB,
    "stat-disk-caches": 200 * MIB,
    "stat-htlb-pgalloc": 5,
    "stat-htlb-pgfail": 6,
    "stat-oom-kills": 7,
    "stat-alloc-stalls": 8,
}
"""As QEMU 10.0 names them (QEMU: hw/virtio/virtio-balloon.c, balloon_stat_names)."""

FIELDS = {
    "stat-swap-in": "swap_in",
    "stat-swap-out": "swap_out",
    "stat-major-faults": "major_faults",
    "stat-minor-faults": "minor_faults",
    "stat-free-memory": "free",
    "stat-total-memory": "total",
    "stat-available-memory": "available",
    "stat-disk-caches": "disk_caches",
    "stat-htlb-pgalloc": "hugetlb_allocations",
    "stat-htlb-pgfail": "hugetlb_failures",
    "stat-oom-kills": "oom_kills",
    "stat-alloc-stalls": "alloc_stalls",
}

ODD_NUMBERS: list[object] = [
    NOT_REPORTED, 1 << 63, 1 << 64, -1, -4096, 1.5, True, "12", None, [], {}, math.nan, math.inf,
]  # fmt: skip


def report(last_update: object = 1_699_999_998, **changes: object) -> GuestStats | None:
    stats = GOOD | {key.replace("_", "-"): value for key, value in changes.items()}
    return guest_stats(stats, last_update, maximum=MAXIMUM, now=NOW)


def test_a_good_report_is_believed_whole() -> None:
    assert report() == GuestStats(
        swap_in=Bytes(4096),
        swap_out=Bytes(8192),
        major_faults=3,
        minor_faults=4,
        free=Bytes(100 * MIB),
        total=Bytes(480 * MIB),
        available=Bytes(300 * MIB),
        disk_caches=Bytes(200 * MIB),
        hugetlb_allocations=5,
        hugetlb_failures=6,
        oom_kills=7,
        alloc_stalls=8,
        last_update=1_699_999_998,
        age=2.5,
    )


def test_the_balloon_does_not_count_as_used() -> None:
    stats = report()
    # With deflate-on-oom the guest's total stays at 480 MiB, whatever the balloon holds.
    assert used(Bytes(400 * MIB), stats) == 100 * MIB
    assert used(Bytes(256 * MIB), stats) is None  # it reported before it gave so much away
    assert used(None, stats) is None
    assert used(MAXIMUM, GuestStats()) is None
    assert used(MAXIMUM, None) is None


def test_what_is_available_follows_the_balloon_until_the_next_report() -> None:
    def by_now(then: int | None, now: int | None) -> int | None:
        sizes = [None if size is None else Bytes(size * MIB) for size in (then, now)]
        available = available_by_now(Bytes(300 * MIB), *sizes)
        return None if available is None else available // MIB

    assert by_now(400, 400) == 300
    assert by_now(400, 200) == 100
    assert by_now(400, 50) == 0
    assert by_now(400, 500) == 400
    assert by_now(200, 250) == 250  # never more than there is
    assert by_now(None, 400) == 300
    assert by_now(400, None) == 300
    assert available_by_now(None, MAXIMUM, MAXIMUM) is None


@pytest.mark.parametrize("odd", ODD_NUMBERS, ids=repr)
@pytest.mark.parametrize("field", sorted(GOOD))
def test_an_odd_number_makes_that_field_unknown_and_no_other(field: str, odd: object) -> None:
    good = report()
    assert good is not None
    assert report(**{field: odd}) == replace(good, **{FIELDS[field]: None})


@pytest.mark.parametrize("odd", [*ODD_NUMBERS, 0], ids=repr)
def test_without_a_possible_time_there_is_no_report(odd: object) -> None:
    assert report(last_update=odd) is None


def test_a_report_from_the_future_has_no_age() -> None:
    stats = report(last_update=1_700_086_400)
    assert stats is not None
    assert stats.age is None


@pytest.mark.parametrize(
    "lie",
    [
        {"stat_available_memory": 481 * MIB},
        {"stat_free_memory": 481 * MIB},
        {"stat_free_memory": 470 * MIB},
        {"stat_total_memory": 0},
        {"stat_total_memory": 600 * MIB},
        {"stat_disk_caches": 600 * MIB},
        {"stat_total_memory": NOT_REPORTED, "stat_available_memory": 600 * MIB},
    ],
    ids=str,
)
def test_numbers_that_contradict_each_other_are_dropped_as_a_set(lie: dict[str, object]) -> None:
    stats = report(**lie)
    assert stats is not None
    assert not stats.consistent
    fields = ("free", "total", "available", "disk_caches", "swap_in", "major_faults")
    assert [getattr(stats, field) for field in fields] == [None] * 6


def test_all_unreported_is_all_unknown() -> None:
    stats = guest_stats(dict.fromkeys(GOOD, NOT_REPORTED), 1_699_999_998, maximum=MAXIMUM, now=NOW)
    assert stats == GuestStats(last_update=1_699_999_998, age=2.5)


@pytest.mark.parametrize("odd", [*ODD_NUMBERS, 0, MAXIMUM + 1], ids=repr)
def test_a_size_that_cannot_be_is_not_known(odd: object) -> None:
    assert balloon_actual(odd, MAXIMUM) is None


def test_a_size_that_can_be_is_believed() -> None:
    assert balloon_actual(int(MAXIMUM), MAXIMUM) == MAXIMUM
    assert balloon_actual(4096, None) == 4096


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), JSON), JSON)
def test_whatever_the_guest_says_what_is_shown_can_be(
    stats: dict[str, object], updated: object
) -> None:
    seen = guest_stats(stats, updated, maximum=MAXIMUM, now=NOW)
    if seen is None:
        return
    for size in (seen.free, seen.total, seen.available, seen.disk_caches):
        assert size is None or 0 <= size <= MAXIMUM * 105 // 100
    assert (used(MAXIMUM, seen) or 0) >= 0
