"""Memory budgets of cgroups: limits, the way up, and files that hold what no kernel writes."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.errors import KernelError
from qmpmem.units import KIB, Bytes
from qmpmem.wire.kernel import cgroup

V2 = {"memory.current": "1000", "memory.max": "max", "memory.high": "max", "memory.stat": ""}
V1 = {"memory.usage_in_bytes": "1000", "memory.limit_in_bytes": "9223372036854771712"}


def make_group(path: Path, files: Mapping[str, str], **changes: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in (*files.items(), *changes.items()):
        (path / name.replace("__", ".")).write_text(f"{content}\n")
    return path


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        ("max\n", None),
        ("0\n", 0),
        ("4096", 4096),
        ("9223372036854771712", None),  # v1's "no limit"
        (str((1 << 60) - 1), (1 << 60) - 1),
        (str(1 << 60), None),
    ],
)
def test_a_limit(content: str, limit: int | None) -> None:
    assert cgroup.parse_limit(content) == limit


@pytest.mark.parametrize("content", ["", "-1", "1.5", "MAX", "1 2", "٣", "9" * 21, "0x10"])
def test_what_is_no_limit(content: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(content.strip())}$"):
        cgroup.parse_limit(content)


@given(st.text(max_size=30))
def test_any_text_is_a_limit_or_a_value_error(content: str) -> None:
    try:
        limit = cgroup.parse_limit(content)
    except ValueError:
        return
    assert limit is None or 0 <= limit < cgroup.UNLIMITED


def test_without_a_limit_there_is_no_bound(tmp_path: Path) -> None:
    seen = cgroup.memory(make_group(tmp_path / "a", V2))
    assert (seen.version, seen.usage, seen.limit, seen.headroom) == (2, 1000, None, None)


def test_a_limit_above_binds_as_much(tmp_path: Path) -> None:
    make_group(tmp_path / "a", V2, memory__max="5000", memory__current="4500")
    seen = cgroup.memory(make_group(tmp_path / "a/b", V2, memory__max="3000"))
    assert (seen.usage, seen.limit, seen.headroom) == (1000, 5000, 500)


def test_of_two_limits_of_one_group_the_lower_counts(tmp_path: Path) -> None:
    seen = cgroup.memory(make_group(tmp_path / "a", V2, memory__max="9000", memory__high="3000"))
    assert (seen.limit, seen.headroom) == (3000, 2000)


def test_file_cache_can_be_dropped(tmp_path: Path) -> None:
    stat = "anon 7\ninactive_file 300\nactive_file 100\n"
    seen = cgroup.memory(make_group(tmp_path / "a", V2, memory__max="1100", memory__stat=stat))
    assert seen.headroom == 500


def test_over_the_limit_is_no_room_and_not_less(tmp_path: Path) -> None:
    seen = cgroup.memory(make_group(tmp_path / "a", V2, memory__max="10"))
    assert seen.headroom == 0


def test_version_1_counts_swap_with_memory(tmp_path: Path) -> None:
    group = make_group(
        tmp_path / "a",
        V1,
        memory__limit_in_bytes=str(64 * KIB),
        memory__memsw__limit_in_bytes=str(80 * KIB),
        memory__memsw__usage_in_bytes="1500",
    )
    seen = cgroup.memory(group)
    assert (seen.version, seen.limit, seen.headroom) == (1, 64 * KIB, 64 * KIB - 1000)
    assert (seen.swap_limit, seen.swap_usage) == (16 * KIB, 500)


def test_version_2_counts_it_apart(tmp_path: Path) -> None:
    group = make_group(tmp_path / "a", V2, memory__swap__max="700", memory__swap__current="30")
    seen = cgroup.memory(group)
    assert (seen.swap_limit, seen.swap_usage) == (Bytes(700), Bytes(30))


def test_a_kernel_that_does_not_count_swap_says_nothing(tmp_path: Path) -> None:
    seen = cgroup.memory(make_group(tmp_path / "a", V2))
    assert (seen.swap_limit, seen.swap_usage) == (None, None)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"memory__current": "max"}, "memory.current: expected a number of bytes"),
        ({"memory__current": "x"}, "memory.current: expected bytes or max, got 'x'"),
        ({"memory__max": "-1"}, "memory.max: expected bytes or max, got '-1'"),
    ],
)
def test_what_no_kernel_writes_is_named(tmp_path: Path, changes: dict[str, str], part: str) -> None:
    with pytest.raises(KernelError) as caught:
        cgroup.memory(make_group(tmp_path / "a", V2, **changes))
    assert part in caught.value.message


def test_no_memory_cgroup_is_said_to_be_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(KernelError, match="not a memory cgroup"):
            cgroup.memory(path)
