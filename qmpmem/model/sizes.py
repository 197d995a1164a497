"""What a guest's memory is made of, and how QEMU's sizes become the guest's own.

Theory of operation:
    QEMU counts boot memory and plugged DIMMs in `actual`, and nothing else (QEMU: virtio-balloon.c,
    get_current_ram_size). A guest may have less: a DIMM is no memory until the guest has put it
    online. It may have more: virtio-mem, an NVDIMM or CXL memory that it uses as RAM. What the
    guest reports as its total decides. That is less than it was given by what its kernel keeps for
    itself, and without deflate-on-oom by the balloon; what is missing beyond that is not online.

    Everywhere else in this package a size is the guest's own: `shift` is added to what QEMU says,
    and taken off what QEMU is told.

Rules of this file:
    Pure. In doubt a guest has what it was given.
"""

from typing import Final

from qmpmem.records import Record, replace
from qmpmem.units import MIB, PAGE, Bytes

BLOCK: Final = Bytes(128 * MIB)
"""What Linux puts online at a time, at the least (x86: MIN_MEMORY_BLOCK_SIZE)."""
KEPT: Final = Bytes(96 * MIB)
"""What a kernel keeps for itself at boot. Measured with Linux 6.1: 40 MiB, and 64 MiB more for
swiotlb where memory could be plugged above 4 GiB."""
KEPT_PARTS: Final = 16
"""Likewise a part of all it has: a page's own record takes 1/64, a crash kernel's memory more."""


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
    """What of all plugged memory the guest does not use; None: it did not say."""

    @property
    def ballooned(self) -> Bytes:
        """What QEMU counts: an empty balloon's `actual`."""
        return Bytes(self.boot + self.dimms)

    @property
    def plugged(self) -> Bytes:
        """All memory beside boot memory."""
        return Bytes(self.dimms + self.movable + self.storage)

    @property
    def unused(self) -> Bytes:
        """What of the plugged memory is not the guest's; storage, where it did not say."""
        return self.storage if self.offline is None else self.offline

    @property
    def maximum(self) -> Bytes:
        """What an empty balloon leaves the guest with."""
        return Bytes(self.boot + self.plugged - self.unused)

    @property
    def most(self) -> Bytes:
        """What the guest could say of itself and be right."""
        return Bytes(self.boot + self.plugged + self.pluggable)

    @property
    def shift(self) -> int:
        """What the guest has beside what QEMU counts; negative where it does not use all of it."""
        return self.maximum - self.ballooned

    @property
    def beyond(self) -> Bytes:
        """What no balloon takes."""
        return Bytes(max(0, self.shift))

    def seen(self, counted: Bytes | None) -> Bytes | None:
        """Turn what QEMU counts into what the guest has."""
        return None if counted is None else Bytes(max(PAGE, counted + self.shift))

    def told(self, target: Bytes) -> Bytes:
        """Turn what the guest shall have into what QEMU is told."""
        return Bytes(min(max(PAGE, target - self.shift), self.ballooned))


def with_report(
    sizes: Sizes, total: Bytes | None, *, counted: Bytes | None, deflates: bool | None
) -> Sizes:
    """Work out how much of the plugged memory a guest uses.

    Args:
        sizes: what it was given.
        total: what it reports as its total; None: nothing.
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
