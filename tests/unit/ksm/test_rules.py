"""What can be written is what the kernel takes: the rules against a model of mm/ksm.c."""

from collections.abc import Iterable, Mapping
from itertools import permutations
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.errors import ConfigError, KernelError
from qmpmem.ksm import rules
from qmpmem.model.ksm import KsmState
from qmpmem.records import replace
from qmpmem.units import PAGE
from tests.rig.ksmmodel import KNOBS, NEW, OLD, Kernel

TUNABLE: Final = tuple(name for name in KNOBS if name != "run")
ODD: Final = ("", "x", "-1", "1.5", "+5", "007", "00", "٣", "²", "yes", "1\n", "max", "9" * 30)


def values_of(name: str, *, odd: bool = True) -> st.SearchStrategy[str]:
    """Values that a user may ask for: at the edges, in the middle, and beyond."""
    if name == rules.MODE:
        return st.sampled_from(["none", "scan-time", *(["scan_time", "1", ""] if odd else [])])
    lowest, highest = (0, 1) if name == rules.RUN else rules.RANGES[name]
    edges = {lowest, min(lowest + 1, highest), highest}
    good = st.one_of(st.sampled_from(sorted(edges)), st.integers(lowest, highest)).map(str)
    beyond = st.sampled_from([str(lowest - 1), str(highest + 1), *ODD])
    return st.one_of(good, beyond) if odd else good


def changes(names: Iterable[str] = TUNABLE, *, odd: bool) -> st.SearchStrategy[dict[str, str]]:
    return st.fixed_dictionaries({}, optional={name: values_of(name, odd=odd) for name in names})


@st.composite
def kernels(draw: st.DrawFn) -> dict[str, str]:
    """A kernel of either kind, in any state that it can be in, sane or not."""
    values = dict(draw(st.sampled_from([OLD, NEW])))
    for name in set(TUNABLE) & values.keys():
        values[name] = draw(st.one_of(st.just(values[name]), values_of(name, odd=False)))
    values["pages_shared"] = draw(st.sampled_from(["0", "7"]))
    values["run"] = draw(st.sampled_from(["0", "1"]))
    return values


def state_of(values: Mapping[str, str]) -> KsmState:
    numbers = {name: int(value) for name, value in values.items() if name != rules.MODE}
    empty = KsmState(page_size=PAGE, run=0, advisor_mode=values.get(rules.MODE))
    return replace(empty, **numbers)


def accepts(wanted: Mapping[str, str], state: KsmState) -> bool:
    try:
        rules.check(wanted, state)
    except ConfigError as error:
        return not error.message
    return True


def takes(values: Mapping[str, str], writes: Iterable[tuple[str, str]]) -> Kernel | None:
    """Write in this order; None where the kernel refuses one."""
    kernel = Kernel(None, values, kind={})
    try:
        for name, value in writes:
            kernel.write(name, value)
    except KernelError:
        return None
    return kernel


def is_ours_to_refuse(wanted: Mapping[str, str], state: KsmState) -> bool:
    """Whether we are stricter than the kernel here, by intent."""
    for name, value in wanted.items():
        if name == rules.MODE:
            continue
        lowest, highest = rules.RANGES[name]
        if not (value.isascii() and value.isdigit() and value == str(int(value))):
            return True
        if not lowest <= int(value) <= highest:
            return True
    low, high = "advisor_min_pages_to_scan", "advisor_max_pages_to_scan"
    if not {low, high} & wanted.keys() or state.advisor_mode is None:
        return False
    return int(wanted.get(low, getattr(state, low))) > int(wanted.get(high, getattr(state, high)))


@given(values=kernels(), wanted=changes(odd=True))
def test_what_is_accepted_the_kernel_takes_in_the_planned_order(
    values: dict[str, str], wanted: dict[str, str]
) -> None:
    state = state_of(values)
    if not accepts(wanted, state):
        return
    kernel = takes(values, [(write.name, write.after) for write in rules.plan(wanted, state)])
    assert kernel is not None
    assert {name: kernel.values[name] for name in wanted} == wanted
    untouched = kernel.knobs().keys() - wanted.keys() - {rules.PAGES}
    assert all(kernel.values[name] == values[name] for name in untouched)


@given(data=st.data(), values=kernels(), odd=st.booleans())
def test_what_is_refused_the_kernel_takes_in_no_order(
    data: st.DataObject, values: dict[str, str], *, odd: bool
) -> None:
    names = data.draw(st.sets(st.sampled_from(TUNABLE), max_size=3))
    wanted = {name: data.draw(values_of(name, odd=odd)) for name in sorted(names)}
    state = state_of(values)
    if accepts(wanted, state) or is_ours_to_refuse(wanted, state):
        return
    for order in permutations(wanted.items()):
        kernel = takes(values, order)
        assert kernel is None or rules.PAGES in wanted.keys() - kernel.knobs().keys()


@given(values=kernels(), wanted=changes(odd=False))
def test_what_is_done_needs_no_doing(values: dict[str, str], wanted: dict[str, str]) -> None:
    state = state_of(values)
    if accepts(wanted, state):
        kernel = takes(values, [(each.name, each.after) for each in rules.plan(wanted, state)])
        assert kernel is not None
        assert rules.plan(wanted, state_of(kernel.values)) == ()


@given(values=kernels())
def test_what_is_there_is_text_as_the_kernel_has_it(values: dict[str, str]) -> None:
    assert rules.current(state_of(values)) == {
        name: value
        for name, value in values.items()
        if name in KNOBS and not (name == rules.PAGES and values.get(rules.MODE) == "scan-time")
    }


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ({"pages_to_scan": "200", "advisor_mode": "scan-time"}, "the advisor chooses it"),
        ({"advisor_max_cpu": "101"}, "expected 1 to 100"),
        ({"advisor_min_pages_to_scan": "900", "advisor_max_pages_to_scan": "800"}, "more than"),
        ({"advisor_min_pages_to_scan": "30001"}, "more than advisor_max_pages_to_scan=30000"),
        ({"advisor_mode": "fast"}, "expected none or scan-time"),
        ({"run": "3"}, "expected 0 to 2"),
        ({"sleep_millisecs": "020"}, "expected 0 to"),
    ],
)
def test_a_refusal_says_what_is_expected(wanted: dict[str, str], part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rules.check(wanted, state_of(NEW))
    assert part in caught.value.message
    assert caught.value.hint == "nothing was changed"


def test_every_mistake_is_in_the_one_message() -> None:
    with pytest.raises(ConfigError) as caught:
        rules.check(
            {"pages_to_scan": "0", "smart_scan": "2", "sleep_millisecs": "x"}, state_of(NEW)
        )
    assert caught.value.message.count("expected") == 3


def test_what_only_newer_kernels_have_is_refused_on_older_ones() -> None:
    with pytest.raises(ConfigError, match="smart_scan: this kernel does not have it"):
        rules.check({"smart_scan": "1"}, state_of(OLD))


@pytest.mark.parametrize("name", rules.UNMERGED_ONLY)
def test_some_cannot_change_while_pages_are_merged(name: str) -> None:
    merged = state_of({**NEW, "pages_shared": "1"})
    other = {"merge_across_nodes": "0", "max_page_sharing": "2"}[name]
    for check in (rules.check, rules.check_return):
        with pytest.raises(ConfigError, match="qmpmem ksm unmerge"):
            check({name: other}, merged)
        check({name: NEW[name]}, merged)
        check({name: other}, state_of(NEW))


def test_the_way_back_is_not_judged_by_our_own_ranges() -> None:
    rules.check_return(
        {"pages_to_scan": "0", "advisor_max_cpu": "900", "advisor_min_pages_to_scan": "99999"},
        state_of(NEW),
    )


def test_the_mode_goes_off_before_and_on_after_what_depends_on_it() -> None:
    wanted = {"run": "1", "advisor_mode": "none", "pages_to_scan": "9", "smart_scan": "0"}
    advised = state_of({**NEW, "advisor_mode": "scan-time"})
    order = [write.name for write in rules.plan(wanted, advised)]
    assert order == ["advisor_mode", "pages_to_scan", "smart_scan", "run"]
    on = {"run": "1", "advisor_mode": "scan-time", "advisor_min_pages_to_scan": "9"}
    order = [write.name for write in rules.plan(on, state_of(NEW))]
    assert order == ["advisor_min_pages_to_scan", "advisor_mode", "run"]


def test_switching_the_advisor_off_resets_what_is_wanted_as_it_was() -> None:
    # The value under the advisor is the kernel's own, and may be the wanted one by chance.
    values = {**NEW, "advisor_mode": "scan-time", "pages_to_scan": "250"}
    writes = rules.plan({"advisor_mode": "none", "pages_to_scan": "250"}, state_of(values))
    assert [write.name for write in writes] == ["advisor_mode", "pages_to_scan"]


def test_words_become_settings() -> None:
    words = ["pages_to_scan=0400", "advisor_mode=none", "sleep_millisecs=000"]
    assert rules.parse(words) == {
        "pages_to_scan": "400",
        "advisor_mode": "none",
        "sleep_millisecs": "0",
    }


def test_misspelt_words_are_named_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        rules.parse(
            ["run=1", "pages", "x=1", "smart_scan=", "use_zero_pages=1", "use_zero_pages=0"]
        )
    for part in ("`qmpmem ksm on`", "'pages'", "'x=1'", "smart_scan: no value", "given twice"):
        assert part in caught.value.message
    assert "advisor_mode" in str(caught.value.hint)


@given(st.lists(st.text(max_size=40), max_size=5))
def test_any_words_are_settings_or_a_mistake(words: list[str]) -> None:
    try:
        found = rules.parse(words)
    except ConfigError:
        return
    assert set(found) <= set(rules.KNOBS)
