"""The shapes of QEMU's answers to the commands we use (QEMU: docs/interop/qemu-qmp-ref).

Rules of this file:
    A field that the guest writes is an object: whether it can be true, `qmpmem.model.sanitise`
    judges.
"""

from typing import Annotated, Final

import msgspec

from qmpmem.records import Record
from qmpmem.units import Bytes
from qmpmem.wire.errors import WITHOUT_SESSION

_RUN_STATE: Final = rf"^(?!(?:{'|'.join(sorted(WITHOUT_SESSION))})\Z)[a-z][a-z-]{{0,31}}\Z"
"""The longest of QEMU is ``finish-migrate`` (qapi/run-state.json: RunState). Our own words for a
guest that cannot be asked are none of QEMU's."""


class Status(Record, frozen=True):
    """query-status."""

    status: Annotated[str, msgspec.Meta(pattern=_RUN_STATE)]


class Balloon(Record, frozen=True):
    """query-balloon."""

    actual: object


class MemorySize(Record, frozen=True, rename="kebab"):
    """Boot memory, and memory of every other kind (query-memory-size-summary)."""

    base_memory: Bytes
    plugged_memory: Bytes = Bytes(0)
    """Also an NVDIMM and virtio-mem, which QEMU's balloon does not count: see `Plugged`."""


class Plugged(Record, frozen=True):
    """One memory device (query-memory-devices)."""

    type: str
    data: object
    """Of another shape for each type; those that are memory are a `Device`."""


class Device(Record, frozen=True, rename="kebab"):
    """What is told of a memory device: ``size`` is what of it is plugged."""

    size: Bytes
    max_size: Bytes = Bytes(0)
    """Of virtio-mem: what could be plugged."""


class BlockNode(Record, frozen=True):
    """One node of the block layer (query-named-block-nodes)."""

    drv: str


class DiskCounters(Record, frozen=True):
    """What one disk did, as QEMU counts it; its names have underscores here."""

    rd_bytes: object = None
    rd_total_time_ns: object = None


class Disk(Record, frozen=True, rename="kebab"):
    """One disk, or an image below it (query-blockstats). Only a disk's own counters count reads."""

    stats: DiskCounters
    node_name: str | None = None
    """None: a drive without a medium."""
    parent: "Disk | None" = None
    """The file that holds the image."""
    backing: "Disk | None" = None

    @property
    def nodes(self) -> int:
        """How many there are of it and below it."""
        below = (each for each in (self.parent, self.backing) if each is not None)
        return 1 + sum(each.nodes for each in below)


class Kvm(Record, frozen=True):
    """query-kvm."""

    enabled: bool


class Property(Record, frozen=True):
    """One entry of qom-list."""

    name: str
    type: str

    @property
    def child(self) -> str | None:
        """The type of the object that this entry is; None where it is a value or a link."""
        inner = self.type.removeprefix("child<")
        return None if inner == self.type else inner.removesuffix(">")


class RawStats(Record, frozen=True, rename="kebab"):
    """The ``guest-stats`` property of a balloon device, as the guest filled it."""

    stats: dict[str, object]
    last_update: object = None


class MemoryDevice(Record, frozen=True):
    """One memory backend (query-memdev)."""

    size: Bytes
    merge: bool = True
    share: bool = False
    prealloc: bool = False


def machine_name(qom_type: str) -> str:
    """Name a machine as -machine does: ``pc-i440fx-7.2``, from its QOM type."""
    return qom_type.removesuffix("-machine")
