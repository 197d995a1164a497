"""Memory that is plugged in, or that no balloon frees: real guests, through the launcher."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from qmpmem.guests import inventory
from qmpmem.model import obstacles
from qmpmem.model.guest import GuestView
from qmpmem.units import MIB
from tests.rig import foreign_qemu
from tests.rig.command import Ran, called
from tests.rig.guests import ROOT, RunningGuest, boot
from tests.rig.launcher import talking
from tests.rig.qemu import paused, short_directory, until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]

LAUNCHER = (str(ROOT / "launchers" / "kvm"),)
ROOM = "256M,slots=2,maxmem=1G"
VIRTIO_MEM = (
    *("-object", "memory-backend-ram,id=v,size=512M"),
    *("-device", "virtio-mem-pci,memdev=v,requested-size=256M"),
)
OWN = ("-device", "virtio-balloon-pci,id=own")


@contextmanager
def booted(memory: str, *extra: str) -> Iterator[tuple[RunningGuest, Path]]:
    with short_directory() as directory:
        run = directory / "guests"
        environ = {"QMPMEM_RUN_DIR": str(run), "QMPMEM_DEFAULTS": "/proc/nonexistent"}
        with boot(LAUNCHER, memory=memory, extra=["-name", "g1", *extra], environ=environ) as g1:
            yield g1, run


def info(run: Path) -> GuestView:
    ran = called("info", "g1", "--json", run=run)
    assert ran.code == 0, ran
    return msgspec.json.decode(ran.out, type=GuestView)


def listed(run: Path) -> GuestView:
    ran = called("list", "--json", run=run)
    (guest,) = msgspec.json.decode(ran.out, type=list[GuestView])
    return guest


def set_(run: Path, *words: str) -> Ran:
    return called("set", "g1", *words, run=run)


def test_a_dimm_is_the_guest_s_from_when_it_is_online() -> None:
    with short_directory() as beside:
        monitor = beside / "q"
        own = ("-qmp", f"unix:{monitor},server=on,wait=off")
        with booted(ROOM, *own) as (guest, run), talking(monitor) as qmp:
            # Some kernels bring it online by themselves.
            guest.check("echo offline > /sys/devices/system/memory/auto_online_blocks")
            qmp.say("object_add memory-backend-ram,id=m,size=128M")
            qmp.say("device_add pc-dimm,id=d,memdev=m")
            blocks = "/sys/devices/system/memory/memory*/state"
            until(lambda: "offline" in guest.check(f"cat {blocks}"), what="the DIMM is there")
            seen = info(run)
            assert (seen.maximum, seen.actual, seen.offline) == (256 * MIB, 256 * MIB, 128 * MIB)
            assert (listed(run).maximum, listed(run).actual) == (256 * MIB, 256 * MIB)
            assert seen.used is not None
            assert seen.used < 160 * MIB  # 18 MiB, and 102 that its kernel keeps

            assert set_(run, "200M", "--wait") == (0, "g1: 200 MiB\n", "")
            assert qmp.ask("query-balloon")["actual"] == (200 + 128) * MIB
            assert guest.meminfo("MemAvailable") > 60
            assert "less than its floor 128 MiB" in set_(run, "120M").err

            guest.check(f"for block in {blocks}; do echo online > $block; done")
            seen = info(run)
            assert (seen.maximum, seen.actual, seen.offline) == (384 * MIB, 328 * MIB, 0)
            assert set_(run, "100%", "--wait") == (0, "g1: 384 MiB\n", "")
            assert qmp.ask("query-balloon")["actual"] == 384 * MIB


def test_virtio_mem_is_part_of_the_guest() -> None:
    with booted("256M,maxmem=1G", *VIRTIO_MEM) as (guest, run):
        assert info(run).maximum == 256 * MIB
        guest.check("echo online > /sys/devices/system/memory/auto_online_blocks")
        guest.check("modprobe virtio_mem")
        until(lambda: guest.meminfo("MemTotal") > 400, seconds=30, what="all is plugged")
        seen = info(run)
        assert (seen.maximum, seen.actual, seen.beyond) == (512 * MIB, 512 * MIB, 256 * MIB)
        assert seen.stats is not None
        assert seen.stats.consistent
        assert seen.stats.total is not None
        assert seen.stats.total > 400 * MIB
        assert listed(run).maximum == 512 * MIB
        assert "floor 384 MiB" in set_(run, "300M").err
        assert (
            "expected more than 256 MiB, which no balloon takes" in set_(run, "200M", "--force").err
        )
        before = guest.meminfo("MemAvailable")
        assert set_(run, "400M", "--wait") == (0, "g1: 400 MiB\n", "")
        assert before - guest.meminfo("MemAvailable") > 100
        assert info(run).actual == 400 * MIB


@pytest.mark.parametrize(
    ("words", "settings", "reason", "todo"),
    [
        (["-overcommit", "mem-lock=on"], {}, "the guest's memory is locked", "without locked"),
        (["-M", "isapc"], {}, "machine 'isapc' has none", "such as q35"),
        ([], {"QMPMEM_BALLOON": "off"}, "QMPMEM_BALLOON=off", "without QMPMEM_BALLOON=off"),
    ],
)
def test_the_reason_for_no_balloon_is_known_later(
    words: Sequence[str], settings: dict[str, str], reason: str, todo: str
) -> None:
    with short_directory() as directory, started(directory, words, settings) as run:
        refused = called("set", "g1", "100%", run=run)
        assert refused.code == 6
        assert f"no balloon device: {reason}" in refused.err
        assert todo in refused.err
        for command in (["list"], ["info", "g1"], ["stats", "g1"], ["doctor"]):
            assert reason in called(*command, run=run).out, command


@contextmanager
def started(directory: Path, words: Sequence[str], settings: dict[str, str]) -> Iterator[Path]:
    """Start a guest without an operating system through the launcher."""
    run = directory / "guests"
    environ = {"QMPMEM_RUN_DIR": str(run), "QMPMEM_DEFAULTS": "/proc/nonexistent"} | settings
    socket = run / "g1" / "qmp.sock"
    with foreign_qemu.started(
        *("-name", "g1", "-m", "64M", *words),
        wait_for=socket,
        env=os.environ | environ,
        executable=LAUNCHER[0],
    ):
        until(lambda: inventory.take(run).guests, what="its record is there")
        yield run


def test_a_balloon_damages_no_file_behind_a_private_copy() -> None:
    with short_directory() as directory:
        template = directory / "template"
        template.write_bytes(b"\xff" * (64 * MIB))
        backend = f"memory-backend-file,id=m,size=64M,mem-path={template}"
        words = ("-object", backend, "-machine", "memory-backend=m")
        with paused(directory / "r", "g1", memory="64M", extra=(*words, *OWN)):
            run = directory / "r"
            refused = set_(run, "40M", "--force", "--no-wait")
            assert refused.code == 0  # by force
            refused = set_(run, "40M")
            assert "less than its floor" in refused.err
            seen = info(run)
            assert "private copy of a file" in str(seen.unmovable)
            assert obstacles.NO_DEFLATE in str(seen.problem)
        with started(directory, words, {}) as run:
            assert "private copy of a file" in called("list", run=run).out
        assert template.stat().st_blocks * 512 >= 64 * MIB


def test_shared_memory_is_freed() -> None:
    backend = "memory-backend-memfd,id=m,size=256M,share=on"
    with booted("256M", "-object", backend, "-machine", "memory-backend=m") as (guest, run):
        guest.check("eat random 100")
        before = listed(run)  # before the guest reports its free pages, which frees them as well
        guest.check("eat stop")
        assert set_(run, "160M", "--wait").code == 0
        after = listed(run)
        assert (before.problem, after.problem) == (None, None)
        assert before.rss is not None
        assert after.rss is not None
        assert before.rss - after.rss > 80 * MIB
