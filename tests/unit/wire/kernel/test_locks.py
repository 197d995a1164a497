"""Which processes hold a lock on a file, as /proc/locks shows it."""

import os
from pathlib import Path

import pytest

from qmpmem.wire.kernel.locks import lock_holders, parse_locks

DEVICE = os.makedev(0xFE, 1)
LOCKS = """\
1: POSIX  ADVISORY  READ  4711 fe:01:17 120 120
1: -> POSIX  ADVISORY  WRITE 4712 fe:01:17 120 120
2: POSIX  ADVISORY  WRITE 4713 fe:01:17 0 EOF
3: FLOCK  ADVISORY  WRITE 4714 fe:01:17 0 EOF
4: OFDLCK ADVISORY  READ  -1 fe:01:17 0 EOF
5: POSIX  ADVISORY  READ  4715 fe:01:18 0 EOF
6: POSIX  ADVISORY  READ  -1 fe:01:17 0 EOF
7: POSIX
"""


@pytest.mark.parametrize(
    ("inode", "expected"), [(17, {4711, 4713}), (18, {4715}), (19, set[int]())]
)
def test_only_what_holds_a_lock_on_that_file(inode: int, expected: set[int]) -> None:
    assert parse_locks(LOCKS, DEVICE, inode) == expected


def test_another_device_has_other_inodes() -> None:
    assert parse_locks(LOCKS, os.makedev(0xFE, 2), 17) == frozenset()


def test_nothing_is_known_of_a_file_that_is_gone_nor_without_proc(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert lock_holders(tmp_path / "none") == frozenset()
    assert lock_holders(tmp_path / "file", proc=tmp_path) == frozenset()
