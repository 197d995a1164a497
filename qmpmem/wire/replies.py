"""The shapes of QEMU's answers to the commands we use (QEMU: docs/interop/qemu-qmp-ref).

Rules of this file:
    A field that the guest writes is an object: `qmpmem.model.sanitise` checks whether it can be
    true.
"""

from typing import Annotated, Final

import msgspec

from qmpmem.records import Record
from qmpmem.units import Bytes
from qmpmem.wire.errors import WITHOUT_SESSION

_RUN_STATE: Final = rf"^(?!(?:{'|'.join(sorted(WITHOUT_SESSION))})\Z)[a-z][a-z-]{{0,31}}\Z"
"""A run state of QEMU: the longest is ``finish-migrate`` (qapi/run-state.json: RunState). The words
of ours for a guest without a session are none of QEMU's."""


class Status(Record, frozen=True):
    """The reply of query-status."""

    status: Annotated[str, msgspec.Meta(pattern=_RUN_STATE)]


class Balloon(Record, frozen=True):
    """The reply of query-balloon."""

    actual: object


class MemorySize(Record, frozen=True, rename="kebab"):
    """Boot memory, and memory of every other kind (query-memory-size-summary)."""

    base_memory: Bytes
    plugged_memory: Bytes = Bytes(0)
    """All other memory, also NVDIMM and virtio-mem, which QEMU's balloon does not count
    (`Plugged`)."""


class Plugged(Record, frozen=True):
    """One memory device (query-memory-devices)."""

    type: str
    data: object
    """What is told of the device: for memory, a `Device`; other types have other shapes."""


class Device(Record, frozen=True, rename="kebab"):
    """What is told of a memory device."""

    size: Bytes
    """How much of it is plugged."""
    max_size: Bytes = Bytes(0)
    """How much could be plugged, for virtio-mem."""


class BlockNode(Record, frozen=True):
    """One node of the block layer (query-named-block-nodes)."""

    drv: str


class DiskCounters(Record, frozen=True):
    """What one disk did, as QEMU counts it; QEMU's names have underscores here."""

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
        """Return how many nodes there are of it and below it."""
        below = (each for each in (self.parent, self.backing) if each is not None)
        return 1 + sum(each.nodes for each in below)


class Kvm(Record, frozen=True):
    """The reply of query-kvm."""

    enabled: bool


class Property(Record, frozen=True):
    """One entry of qom-list."""

    name: str
    type: str

    @property
    def child(self) -> str | None:
        """Return the type of the object that this entry is; None for a value or a link."""
        inner = self.type.removeprefix("child<")
        return None if inner == self.type else inner.removesuffix(">")


class RawStats(Record, frozen=True, rename="kebab"):
    """The ``guest-stats`` property of a balloon device, which the guest filled in."""

    stats: dict[str, object]
    last_update: object = None


class MemoryDevice(Record, frozen=True):
    """One memory backend (query-memdev)."""

    size: Bytes
    merge: bool = True
    share: bool = False
    prealloc: bool = False


def machine_name(qom_type: str) -> str:
    """Return the name of a machine, as -machine takes it, from its QOM type: ``pc-i440fx-7.2``."""
    return qom_type.removesuffix("-machine")
