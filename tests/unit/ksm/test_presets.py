"""What a preset means on each kernel, and that each kernel takes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.ksm import presets, rules
from qmpmem.ksm.presets import PRESETS
from qmpmem.model.ksm import KsmState
from qmpmem.records import replace
from qmpmem.units import GIB, PAGE, Bytes
from tests.rig.ksmmodel import NEW, OLD, Kernel


def state_of(values: dict[str, str]) -> KsmState:
    numbers = {name: int(value) for name, value in values.items() if name != rules.MODE}
    empty = KsmState(page_size=PAGE, run=0, advisor_mode=values.get(rules.MODE))
    return replace(empty, **numbers)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("mode", ["none", "scan-time", None])
@given(mergeable=st.integers(0, 1 << 50))
def test_every_kernel_takes_every_preset(name: str, mode: str | None, mergeable: int) -> None:
    values = dict(OLD) if mode is None else {**NEW, "advisor_mode": mode}
    state = state_of(values)
    wanted = presets.settings(PRESETS[name], state, Bytes(mergeable))
    rules.check(wanted, state)
    kernel = Kernel(None, values, kind={})
    for write in rules.plan(wanted, state):
        kernel.write(write.name, write.after)
    assert {key: kernel.values[key] for key in wanted} == wanted


@pytest.mark.parametrize("name", PRESETS)
def test_the_advisor_is_switched_off_where_there_is_one(name: str) -> None:
    new, old = (
        presets.settings(PRESETS[name], state_of(dict(each)), Bytes(0)) for each in (NEW, OLD)
    )
    assert new == {**old, "advisor_mode": "none"}


def test_the_speed_is_what_a_scan_in_time_takes() -> None:
    wanted = presets.settings(PRESETS["balanced"], state_of(dict(OLD)), Bytes(4 * GIB))
    # 2^20 pages in 40 s of 10 batches
    assert wanted == {"sleep_millisecs": "100", "pages_to_scan": str(-(-(1 << 20) // 400))}


@pytest.mark.parametrize(("name", "most"), [("quiet", 15000), ("balanced", 8000), ("eager", 5600)])
def test_however_much_there_is_no_preset_exceeds_its_share_of_a_core(name: str, most: int) -> None:
    wanted = presets.settings(PRESETS[name], state_of(dict(OLD)), Bytes(1 << 50))
    assert wanted["pages_to_scan"] == str(most)


@pytest.mark.parametrize("name", PRESETS)
def test_however_little_there_is_no_preset_is_below_the_kernels_default(name: str) -> None:
    wanted = {key: int(value) for key, value in settings_of(name).items()}
    default = int(OLD["pages_to_scan"]) / int(OLD["sleep_millisecs"])
    assert wanted["pages_to_scan"] / wanted["sleep_millisecs"] == default


def settings_of(name: str) -> dict[str, str]:
    return presets.settings(PRESETS[name], state_of(dict(OLD)), Bytes(0))


def test_the_eager_is_never_slower() -> None:
    order = [PRESETS[name] for name in ("quiet", "balanced", "eager")]
    assert [each.scan_time for each in order] == sorted((e.scan_time for e in order), reverse=True)
    assert [each.max_cpu for each in order] == sorted(each.max_cpu for each in order)
