"""Counters become words: whatever they hold, no word is missing, and nothing is divided by zero."""

from typing import Final, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.ksm import verdict
from qmpmem.ksm.verdict import Sample, Verdict
from qmpmem.model.ksm import KsmState
from qmpmem.records import replace
from qmpmem.units import MIB, PAGE, Bytes

COUNTS: Final = (
    *("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "pages_skipped"),
    *("pages_scanned", "full_scans", "ksm_zero_pages", "pages_to_scan", "sleep_millisecs"),
)
BARE: Final = KsmState(page_size=PAGE, run=1)
COUNT: Final = st.one_of(st.none(), st.just(0), st.integers(0, (1 << 64) - 1))


@st.composite
def states(draw: st.DrawFn) -> KsmState:
    counts = {name: draw(COUNT) for name in COUNTS}
    profit = draw(st.one_of(st.none(), st.integers(-(1 << 63), (1 << 63) - 1).map(Bytes)))
    return replace(BARE, run=draw(st.integers(0, 2)), general_profit=profit, **counts)


def state(**changes: int | None) -> KsmState:
    """A kernel that has scanned enough."""
    return replace(BARE, **{"full_scans": 9, **changes})


def word(seen: KsmState, before: int = 0) -> str:
    return verdict.judge(seen, before).word


@given(seen=states(), before=st.integers(0, (1 << 64) - 1))
def test_any_counters_have_a_verdict(seen: KsmState, before: int) -> None:
    found = verdict.judge(seen, before)
    assert found.word in get_args(verdict.Word)
    assert found.why
    assert "\n" not in found.why
    assert (found.word == "off") == (seen.run == 0)
    assert (found.word == "unmerged") == (seen.run == 2)
    assert verdict.saved(seen) >= 0
    assert verdict.looked_at(seen) >= 0


@given(part=COUNT, whole=COUNT)
def test_a_ratio_is_known_where_it_says_something(part: int | None, whole: int | None) -> None:
    found = verdict.ratio(part, whole)
    assert (found is None) == (part is None or not whole)


@given(
    before=states(),
    after=states(),
    seconds=st.floats(-10, 1e6),
    cpu=st.tuples(*[st.one_of(st.none(), st.floats(0, 1e9))] * 2),
)
def test_a_rate_is_never_negative_and_never_of_a_counter_gone_backwards(
    before: KsmState, after: KsmState, seconds: float, cpu: tuple[float | None, float | None]
) -> None:
    first = Sample(time=100.0, state=before, cpu=cpu[0])
    last = Sample(time=100.0 + seconds, state=after, cpu=cpu[1])
    found = verdict.rates(first, last)
    counters = ((before.pages_scanned, after.pages_scanned, found.scanned), (*cpu, found.cpu))
    for then, now, rate in counters:
        rises = then is not None and now is not None and now >= then
        assert (rate is not None) == (rises and last.time > first.time)
        assert rate is None or rate >= 0


def test_a_rate_is_what_happened_in_a_second() -> None:
    first = Sample(time=10.0, state=state(pages_scanned=1000), cpu=1.0)
    last = Sample(time=12.0, state=state(pages_scanned=3000), cpu=1.5)
    found = verdict.rates(first, last)
    assert (found.scanned, found.cpu) == (1000 * PAGE, 25.0)


def test_two_looks_at_the_same_moment_give_no_rate() -> None:
    one = Sample(time=10.0, state=state(pages_scanned=1), cpu=1.0)
    assert verdict.rates(one, one) == verdict.Rates()


def test_zero_pages_are_saved_too() -> None:
    assert verdict.saved(state(pages_sharing=2, ksm_zero_pages=3)) == 5 * PAGE


def test_the_profit_is_the_kernels_own_where_it_says_one() -> None:
    busy = state(pages_sharing=100, pages_shared=1, pages_unshared=899)
    assert verdict.profit(busy) == 100 * PAGE - 1000 * 64
    assert verdict.profit(replace(busy, general_profit=Bytes(-7))) == -7


GOOD: Final = {"pages_shared": 10, "pages_sharing": 20_000, "pages_unshared": 1000}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "good sharing"),
        ({"full_scans": 2}, "still scanning"),
        ({"full_scans": None}, "still scanning"),
        ({"pages_unshared": 16 * 20_000}, "good sharing"),
        ({"pages_unshared": 16 * 20_000 + 1}, "wasted effort"),
        ({"pages_volatile": 16 * 20_000}, "wasted effort"),
        ({"pages_sharing": 1000}, "wasted effort"),  # less than LITTLE
        ({"general_profit": 0}, "wasted effort"),
        ({"pages_shared": 0, "pages_sharing": 0, "pages_unshared": 0}, "nothing to merge"),
        ({"pages_sharing": 0, "ksm_zero_pages": 20_000}, "good sharing"),
    ],
)
def test_the_word(changes: dict[str, int | None], expected: str) -> None:
    assert word(state(**{**GOOD, **changes})) == expected


def test_scans_are_counted_from_when_merging_was_switched_on() -> None:
    assert word(state(**GOOD, full_scans=41), 39) == "still scanning"
    assert word(state(**GOOD, full_scans=42), 39) == "good sharing"
    assert word(state(**GOOD, full_scans=5), 39) == "good sharing"  # began anew since


def test_that_pages_change_too_fast_is_told() -> None:
    assert "change too fast" in verdict.judge(state(pages_volatile=10, pages_shared=1)).why
    assert "change too fast" not in verdict.judge(state(pages_volatile=1, pages_unshared=1)).why


def test_what_stays_merged_while_off_is_told() -> None:
    off = replace(state(pages_sharing=256), run=0)
    assert "; 1 MiB were merged when it last did" in verdict.judge(off).why
    assert "no pages are merged" in verdict.judge(replace(off, pages_sharing=0)).why


@pytest.mark.parametrize(
    ("looks", "word", "settled"),
    [
        ([0, 50, 100], "good sharing", False),
        ([100, 100, 100], "good sharing", True),
        ([10, 100, 100, 100], "good sharing", True),
        ([1000, 1005, 1009], "good sharing", True),
        ([100, 100, 100], "still scanning", False),
        ([100, 100], "good sharing", False),
        ([0], "off", True),
        ([50], "unmerged", True),
    ],
)
def test_a_saving_that_no_longer_grows_has_settled(
    looks: list[int],
    word: verdict.Word,
    settled: bool,  # noqa: FBT001
) -> None:
    found = Verdict(word=word, why="")
    assert verdict.has_settled([Bytes(look * MIB) for look in looks], found) is settled
