"""What merging does for each guest: QEMU's word, the kernel's word, and what comes of both."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from qmpmem.guests.inventory import LiveGuest
from qmpmem.guests.rundir import GuestRecord
from qmpmem.ksm import guest_savings
from qmpmem.ksm.guest_savings import KernelAccount, QemuOffer
from qmpmem.model.host import ProcessCost
from qmpmem.model.ksm import KsmProcess
from qmpmem.records import replace
from qmpmem.units import Bytes
from qmpmem.wire.replies import MemoryDevice

RECORD = GuestRecord(
    version=1,
    id="g",
    name="g",
    pid=42,
    start_time=1,
    socket="/proc/nonexistent/qmp.sock",
    uid=0,
    created=0.0,
    domain="blue",
)
FOUND = LiveGuest(record=RECORD, pid=42)
STATIC = LiveGuest(record=replace(RECORD, mode="static"), pid=42)


def memory(*, merge: bool = True, share: bool = False) -> MemoryDevice:
    return MemoryDevice(size=Bytes(1 << 28), merge=merge, share=share)


def offered(
    *devices: MemoryDevice, found: LiveGuest = FOUND, account: KernelAccount | None = None
) -> tuple[bool | None, str | None]:
    return guest_savings.offered(found, QemuOffer(devices=devices), account or KernelAccount())


def test_what_is_private_and_offered_may_merge() -> None:
    assert offered(memory()) == (True, None)
    assert offered(memory(merge=False), memory()) == (True, None)
    assert offered(memory(share=True), memory()) == (True, None)


def test_what_is_not_offered_may_not() -> None:
    assert offered(memory(merge=False)) == (False, "mem-merge=off")


def test_shared_memory_never_merges_though_offered() -> None:
    assert offered(memory(share=True)) == (False, "shared memory")
    assert offered(memory(share=True), memory(merge=False)) == (False, "mem-merge=off")


def test_huge_pages_never_merge_though_offered() -> None:
    huge = KernelAccount(cost=ProcessCost(hugetlb=Bytes(2 << 20)))
    assert offered(memory(), account=huge) == (False, "huge pages")
    none = KernelAccount(cost=ProcessCost(hugetlb=Bytes(0)))
    assert offered(memory(), account=none) == (True, None)


def test_a_static_guest_is_told_by_what_it_offers() -> None:
    assert offered(memory(merge=False), found=STATIC) == (False, "static mode")
    assert offered(memory(), found=STATIC) == (True, None)  # adopted with locked memory
    assert guest_savings.offered(STATIC, QemuOffer(problem="busy"), KernelAccount()) == (
        None,
        "busy",
    )


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [(True, (True, None)), (False, (False, "not offered")), (None, (None, "busy"))],
)
def test_where_qemu_cannot_be_asked_the_kernel_knows(
    *, kernel: bool | None, expected: tuple[bool | None, str | None]
) -> None:
    account = KernelAccount(process=KsmProcess(mergeable=kernel))
    assert guest_savings.offered(FOUND, QemuOffer(problem="busy"), account) == expected


def test_all_that_is_known_is_put_together() -> None:
    account = KernelAccount(
        process=KsmProcess(merging_pages=3, profit=Bytes(-5)),
        cost=ProcessCost(rss=Bytes(100), proportional=Bytes(60)),
    )
    seen = guest_savings.describe(FOUND, QemuOffer(devices=(memory(),)), account)
    page = os.sysconf("SC_PAGE_SIZE")
    assert (seen.id, seen.pid, seen.domain) == ("g", 42, "blue")
    assert (seen.merged, seen.profit, seen.rss, seen.proportional) == (3 * page, -5, 100, 60)


def test_what_is_not_known_is_none_and_never_nothing() -> None:
    seen = guest_savings.describe(FOUND, QemuOffer(), KernelAccount())
    assert (seen.mergeable, seen.merged, seen.profit, seen.rss) == (None, None, None, None)


def make_process(root: Path, pid: int) -> Path:
    directory = root / "proc" / str(pid)
    directory.mkdir(parents=True)
    (directory / "ksm_stat").write_text("ksm_merging_pages 7\nksm_mergeable: yes\n")
    (directory / "smaps_rollup").write_text("Rss: 8 kB\nPss: 4 kB\n")
    return directory


async def test_a_guest_is_looked_at_where_the_root_says(tmp_path: Path) -> None:
    make_process(tmp_path, 42)
    [seen] = await guest_savings.look([FOUND], tmp_path, ask=False)
    assert (seen.mergeable, seen.rss, seen.proportional) == (True, 8192, 4096)


async def test_a_guest_that_cannot_be_asked_is_listed_with_the_reason(tmp_path: Path) -> None:
    [seen] = await guest_savings.look([FOUND], tmp_path)
    assert seen.mergeable is None
    assert seen.reason


async def test_guests_whose_memory_is_locked_hold_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A FIFO that no process writes to, for a process whose address space is locked.
    stuck = [replace(FOUND, pid=pid) for pid in range(100, 100 + guest_savings.THREADS)]
    pipes = [make_process(tmp_path, found.pid or 0) / "smaps_rollup" for found in stuck]
    for pipe in pipes:
        pipe.unlink()
        os.mkfifo(pipe)
    make_process(tmp_path, 42)
    monkeypatch.setattr(guest_savings, "PATIENCE", 0.2)
    *slow, quick = await guest_savings.look([*stuck, FOUND], tmp_path, ask=False)
    assert [guest.rss for guest in slow] == [None] * len(stuck)
    assert quick.rss == 8192
    for pipe in pipes:  # let the threads go
        os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))


async def test_a_guest_that_is_still_being_read_is_not_read_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = make_process(tmp_path, 43) / "smaps_rollup"
    pipe.unlink()
    os.mkfifo(pipe)
    stuck = replace(FOUND, pid=43)
    monkeypatch.setattr(guest_savings, "PATIENCE", 0.1)
    for _ in range(5):
        [seen] = await guest_savings.look([stuck], tmp_path, ask=False)
        assert seen.rss is None
    readers = [thread for thread in threading.enumerate() if thread.name == "ksm-43"]
    assert len(readers) == 1
    os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
    await asyncio.to_thread(readers[0].join, 10)
    pipe.unlink()
    pipe.write_text("Rss: 8 kB\n")
    monkeypatch.setattr(guest_savings, "PATIENCE", 10)
    [seen] = await guest_savings.look([stuck], tmp_path, ask=False)
    assert seen.rss == 8192


async def test_a_guest_without_a_process_to_look_at_is_not_known(tmp_path: Path) -> None:
    [seen] = await guest_savings.look([replace(FOUND, pid=None)], tmp_path, ask=False)
    assert (seen.pid, seen.rss, seen.mergeable) == (None, None, None)
