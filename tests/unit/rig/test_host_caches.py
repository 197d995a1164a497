"""What else of a host's memory can be had, and how dear its swap is: ZFS's cache, and zram."""

from pathlib import Path
from typing import Final

import pytest

from qmpmem.agent.host_reader import HostReader
from qmpmem.units import GIB, Bytes
from qmpmem.wire.kernel import host

HEAD: Final = """\
13 1 0x01 147 39984 8043021421 9041236523
name                            type data
hits                            4    19823417
c                               4    {c}
c_min                           4    {least}
c_max                           4    16765489152
size                            4    {size}
compressed_size                 4    3021331456
hdr_size                        4    12345678
memory_direct_count             4    0
memory_available_bytes          3    -1234
"""
SWAPS: Final = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
ZRAM: Final = "/dev/zram0                              partition\t8388604\t\t{}\t\t100\n"
DISK: Final = "/dev/sda2                               partition\t8388604\t\t{}\t\t-2\n"
FILE: Final = "/swap\\040file                           file\t\t8388604\t\t{}\t\t-3\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", 0),
        (HEAD.format(c=3 * GIB, least=GIB, size=3 * GIB), 2 * GIB),
        (HEAD.format(c=GIB, least=GIB, size=GIB - 5), 0),
        ("size 4 500\n", 0),
        ("size 4 500\nc_min 4 -1\n", 0),
        ("size 4 x\nc_min 4 1\n", 0),
        ("size 500\nc_min 1\n", 0),
    ],
)
def test_zfs_gives_back_what_is_above_its_least(content: str, expected: int) -> None:
    assert host.parse_arcstats(content) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", False),
        (SWAPS, False),
        (SWAPS + ZRAM.format(5), True),
        (SWAPS + ZRAM.format(0), True),
        (SWAPS + DISK.format(5), False),
        (SWAPS + ZRAM.format(5) + DISK.format(0), True),
        (SWAPS + ZRAM.format(5) + DISK.format(7), False),
        (SWAPS + ZRAM.format(0) + DISK.format(7), False),
        (SWAPS + ZRAM.format(0) + DISK.format(0), False),
        (SWAPS + ZRAM.format(1) + FILE.format(1), False),
        (SWAPS + "nonsense\n", False),
    ],
)
def test_swap_is_fast_where_all_that_is_used_is_zram(content: str, *, expected: bool) -> None:
    assert host.parse_swaps(content) is expected


@pytest.mark.parametrize(
    ("total", "available", "expected"), [(8, 1, 3), (8, 7, 8), (None, 1, 1), (8, None, None)]
)
def test_a_host_with_zfs_has_that_much_more(
    tmp_path: Path, total: int | None, available: int | None, expected: int | None
) -> None:
    sizes = {"MemTotal": total, "MemAvailable": available}
    lines = (f"{key}: {size << 20} kB\n" for key, size in sizes.items() if size is not None)
    (tmp_path / "proc/spl/kstat/zfs").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("".join(lines))
    (tmp_path / "proc/swaps").write_text(SWAPS + ZRAM.format(5))
    (tmp_path / host.ARC).write_text(HEAD.format(c=3 * GIB, least=GIB, size=3 * GIB))
    seen = HostReader(tmp_path).read(Bytes(0)).host
    assert seen.available == (None if expected is None else expected * GIB)
    assert seen.swap_fast
