"""Disks of a bench's guests: images of its own, and as slow as a real disk is."""

from dataclasses import dataclass

from qmpmem.units import MIB
from tests.bench import limits
from tests.bench.host import Guest, Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What a disk can do at most."""

    operations: int
    """A second."""
    rate: int
    """MiB a second."""


def made(host: Host, size: int, *, is_blank: bool = False) -> tuple[str, ...]:
    """Make a disk of so many MiB, as fast as it gets, and return QEMU's arguments for it.

    The host keeps nothing of it in its page cache, which would count for the guests' limit.
    """
    image = host.exits.enter_context(limits.disk(size * MIB, is_blank=is_blank))
    drive = f"file={image},if=none,id=disk,format=raw,cache.direct=on"
    return ("-drive", drive, "-device", "virtio-blk-pci,drive=disk")


def slow_down(guest: Guest, speed: Speed) -> None:
    """Bound a guest's disk from now on (QEMU: docs/throttle.txt)."""
    guest.ask(
        "block_set_io_throttle",
        device="disk",
        bps=speed.rate * MIB,
        iops=speed.operations,
        **dict.fromkeys(("bps_rd", "bps_wr", "iops_rd", "iops_wr"), 0),
    )


def swap_on(guest: Guest) -> None:
    """Have the guest swap on its disk."""
    guest.do("modprobe virtio_blk && mkswap /dev/vda && swapon /dev/vda")


def swap_compressed(guest: Guest, size: int) -> None:
    """Have the guest swap into so many MiB of zram."""
    guest.do(
        "modprobe lzo_rle; modprobe zram"
        f" && echo {size}M >/sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0"
    )
