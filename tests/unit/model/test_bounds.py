"""How far a guest may be moved."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.errors import ConfigError
from qmpmem.model.bounds import FLOOR_LEAST, check_target, floor, is_near
from qmpmem.units import MIB, PAGE, Bytes


@given(st.integers(PAGE, 1 << 45))
def test_the_floor_is_a_third_but_at_least_128_mib_and_never_above_the_maximum(size: int) -> None:
    maximum = Bytes(size)
    least = floor(maximum)
    assert least <= maximum
    assert least >= min(FLOOR_LEAST, maximum)
    assert least <= max(FLOOR_LEAST, maximum * 35 // 100)


def test_more_than_the_maximum_is_refused_even_by_force() -> None:
    with pytest.raises(ConfigError, match="more than its maximum"):
        check_target(Bytes(513 * MIB), guest="a", maximum=Bytes(512 * MIB), force=True)


def test_less_than_the_floor_needs_force() -> None:
    maximum = Bytes(1024 * MIB)
    with pytest.raises(ConfigError, match="less than its floor") as error:
        check_target(Bytes(300 * MIB), guest="a", maximum=maximum)
    assert "--force" in str(error.value.hint)
    check_target(Bytes(300 * MIB), guest="a", maximum=maximum, force=True)


@pytest.mark.parametrize("target", [0, -4096, 4095])
def test_no_memory_at_all_is_refused_even_by_force(target: int) -> None:
    with pytest.raises(ConfigError, match="no memory"):
        check_target(Bytes(target), guest="a", maximum=Bytes(512 * MIB), force=True)


def test_there_is_within_one_page_of_the_guest() -> None:
    assert is_near(Bytes(256 * MIB + 4096), Bytes(256 * MIB))
    assert not is_near(Bytes(256 * MIB), Bytes(256 * MIB - 64 * 1024))
