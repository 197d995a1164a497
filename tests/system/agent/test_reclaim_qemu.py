"""A short host of cgroup v2 reclaims memory of a guest's own group: a real kernel, in a guest."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from tests.rig.pocket import START, pocket

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(240)]

MINIMUM: Final = 64
RESERVE: Final = 370
HELD: Final = 300
ENOUGH: Final = HELD - 60
SET_UP: Final = f"""
mount -t cgroup2 none /sys/fs/cgroup && cd /sys/fs/cgroup
echo +memory >cgroup.subtree_control && mkdir qmpmem
echo +memory >qmpmem/cgroup.subtree_control && mkdir qmpmem/g
modprobe lzo_rle; modprobe zram && echo 512M >/sys/block/zram0/disksize
mkswap /dev/zram0 >/dev/null && swapon /dev/zram0
sh -c 'echo 0 >qmpmem/g/cgroup.procs; exec eat {{}} {HELD}' && cat qmpmem/g/cgroup.procs
"""
"""A host of 849 MiB with swap, and a process in a group as the launcher makes it."""


def play(kind: str, scratch: Path) -> list[dict[str, Any]]:
    """Have a short host play rounds; `kind` is how the process uses its memory."""
    with pocket(("tests.rig.shorthost",), scratch, memory="900M") as guest:
        pid = guest.check(SET_UP.format(kind), timeout=60).split()[-1]
        least = HELD if kind == "churn" else ENOUGH
        call = f"main({pid}, {MINIMUM}, {RESERVE}, enough={least}, is_hot={kind == 'churn'})"
        said = guest.check(
            f"{START} -c 'from tests.rig.shorthost import main; {call}' && eat status",
            timeout=200,
        )
        *lines, status = said.splitlines()
        assert status == f"{pid} {kind} {HELD} {HELD} held", "the process lives, and all it had"
        return [json.loads(line) for line in lines]


def test_idle_memory_is_reclaimed_step_by_step_and_what_is_cut_off_is_undone(
    tmp_path: Path,
) -> None:
    first, moment, killed, without_swap = play("half", tmp_path)
    assert (first["way"], first["made"], first["problems"]) == ("reclaim", True, [])
    assert first["states"][0] == "SOFT"
    held, asked, done = first["held"], first["asked"], first["done"]
    assert held[-1] <= ENOUGH, first
    assert min(held) >= MINIMUM + 60
    assert max(asked) <= 61
    assert len(done) >= 2
    for size, reclaimed in zip([size for size in asked if size], done, strict=True):
        assert size - 4 <= reclaimed <= size + 12

    assert 16 <= moment["reclaimed"] <= 60
    assert (moment["high"], moment["noted"]) == ("max", False)
    assert killed["left"].isdigit()
    assert killed["noted"]
    assert killed["then"] == "max"
    assert len(killed["said"]) == 1

    assert not any(without_swap["asked"]), "without swap there is nothing to reclaim"


def test_a_guest_that_uses_all_it_has_is_left_alone_after_one_step(tmp_path: Path) -> None:
    (first,) = play("churn", tmp_path)
    assert sum(size > 0 for size in first["asked"]) == 1
    assert first["rests"] == 1
    assert first["why"]
    assert first["held"][-1] >= HELD - 40
