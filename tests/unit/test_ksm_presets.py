"""What a preset means on each kernel, and that each kernel takes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.ksm import presets, rules
from qmpmem.ksm.presets import PRESETS
from qmpmem.records import replace
from qmpmem.snapshot import KsmState
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


def test_with_an_advisor_the_kernel_finds_the_speed() -> None:
    wanted = presets.settings(PRESETS["quiet"], state_of(dict(NEW)), Bytes(0))
    assert wanted["advisor_mode"] == "scan-time"
    assert (wanted["advisor_target_scan_time"], wanted["advisor_max_cpu"]) == ("200", "20")
    assert "pages_to_scan" not in wanted


def test_without_one_the_speed_is_what_a_scan_in_time_takes() -> None:
    old = state_of(dict(OLD))
    wanted = presets.settings(PRESETS["balanced"], old, Bytes(8 * GIB))
    # 2^21 pages in 60 s of 50 batches
    assert wanted == {"sleep_millisecs": "20", "pages_to_scan": str(-(-(1 << 21) // 3000))}


@pytest.mark.parametrize(("name", "most"), [("quiet", 1600), ("balanced", 3200), ("eager", 5600)])
def test_however_much_there_is_no_preset_exceeds_its_share_of_a_core(name: str, most: int) -> None:
    wanted = presets.settings(PRESETS[name], state_of(dict(OLD)), Bytes(1 << 50))
    assert wanted["pages_to_scan"] == str(most)


@pytest.mark.parametrize("name", PRESETS)
def test_however_little_there_is_no_preset_is_below_the_kernels_default(name: str) -> None:
    wanted = presets.settings(PRESETS[name], state_of(dict(OLD)), Bytes(0))
    assert wanted["pages_to_scan"] == OLD["pages_to_scan"]


def test_the_eager_is_never_slower() -> None:
    order = [PRESETS[name] for name in ("quiet", "balanced", "eager")]
    assert [each.scan_time for each in order] == sorted((e.scan_time for e in order), reverse=True)
    assert [each.max_cpu for each in order] == sorted(each.max_cpu for each in order)
