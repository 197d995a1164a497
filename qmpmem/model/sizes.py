"""What a guest's memory is made of, and how QEMU's sizes become the guest's own.

Theory of operation:
    QEMU counts boot memory and plugged DIMMs in `actual`, and nothing else (QEMU: virtio-balloon.c,
    get_current_ram_size). A guest may have less: a DIMM is no memory until the guest has put it
    online. It may have more: virtio-mem, an NVDIMM or CXL memory that it uses as RAM. What the
    guest reports as its total decides. That is less than it was given, by what its kernel keeps for
    itself, and without deflate-on-oom by the balloon. What is missing beyond that is not online.

    Everywhere else in this package a size is the guest's own: `shift` is added to what QEMU
    reports, and subtracted from what QEMU is told.

Rules of this file:
    Pure. In doubt a guest has what it was given.
"""

from typing import Final

from qmpmem.model.guest import BalloonDevice, GuestStats
from qmpmem.records import Record, replace
from qmpmem.units import MIB, PAGE, Bytes

BLOCK: Final = Bytes(128 * MIB)
"""Least that Linux puts online at a time (x86: MIN_MEMORY_BLOCK_SIZE)."""
KEPT: Final = Bytes(96 * MIB)
"""What a kernel keeps for itself at boot. Measured with Linux 6.1: 40 MiB, and 64 MiB more for
swiotlb where memory could be plugged above 4 GiB."""
KEPT_PARTS: Final = 16
"""Divisor of all its memory that gives what a kernel keeps besides: the record of each page takes
1/64, and a crash kernel's memory more."""


class Sizes(Record, frozen=True):
    """Memory that a guest was given, by kind."""

    boot: Bytes
    dimms: Bytes = Bytes(0)
    """Plugged DIMMs."""
    movable: Bytes = Bytes(0)
    """What virtio-mem devices have plugged."""
    storage: Bytes = Bytes(0)
    """NVDIMM, virtio-pmem and CXL memory: RAM only where the guest makes it so."""
    pluggable: Bytes = Bytes(0)
    """What virtio-mem devices could plug besides."""
    offline: Bytes | None = None
    """The part of all plugged memory that the guest does not use; None: it did not report it."""

    @property
    def ballooned(self) -> Bytes:
        """Return what QEMU counts: `actual` with an empty balloon."""
        return Bytes(self.boot + self.dimms)

    @property
    def plugged(self) -> Bytes:
        """Return all memory beside boot memory."""
        return Bytes(self.dimms + self.movable + self.storage)

    @property
    def unused(self) -> Bytes:
        """Return the plugged memory that the guest does not use; storage, if it did not report."""
        return self.storage if self.offline is None else self.offline

    @property
    def maximum(self) -> Bytes:
        """Return what an empty balloon leaves the guest with."""
        return Bytes(self.boot + self.plugged - self.unused)

    @property
    def most(self) -> Bytes:
        """Return the most that the guest could truly report as its total."""
        return Bytes(self.boot + self.plugged + self.pluggable)

    @property
    def shift(self) -> int:
        """Return what the guest has beside what QEMU counts; negative if it does not use it all."""
        return self.maximum - self.ballooned

    @property
    def beyond(self) -> Bytes:
        """Return what no balloon takes."""
        return Bytes(max(0, self.shift))

    def seen(self, counted: Bytes | None) -> Bytes | None:
        """Return what the guest has, from what QEMU counts."""
        return None if counted is None else Bytes(max(PAGE, counted + self.shift))

    def told(self, target: Bytes) -> Bytes:
        """Return what QEMU is told, from what the guest shall have."""
        return Bytes(min(max(PAGE, target - self.shift), self.ballooned))


def with_report(
    sizes: Sizes, total: Bytes | None, *, counted: Bytes | None, deflates: bool | None
) -> Sizes:
    """Return sizes with how much of the plugged memory the guest uses.

    Args:
        sizes: what it was given.
        total: what it reports as its total; None: it reports none.
        counted: what QEMU counted when it reported.
        deflates: whether its balloon has deflate-on-oom, with which the balloon stays in the total
            (Linux: virtio_balloon.c, adjust_managed_page_count).
    """
    if total is None or sizes.plugged == 0:
        return sizes
    balloon = 0 if deflates or counted is None else max(0, sizes.ballooned - counted)
    missing = sizes.boot + sizes.plugged - total - balloon
    lack = missing - total // KEPT_PARTS - KEPT
    blocks = -(-lack // BLOCK)
    offline = min(max(0, blocks * BLOCK), sizes.plugged, max(0, missing))
    return replace(sizes, offline=Bytes(offline))


def by_report(
    sizes: Sizes,
    stats: GuestStats | None,
    counted: Bytes | None,
    device: BalloonDevice | None,
) -> Sizes:
    """Work out from a guest's report how much of its memory it uses; None: it made none."""
    return with_report(
        sizes,
        None if stats is None else stats.total,
        counted=counted,
        deflates=None if device is None else device.deflate_on_oom,
    )
