"""The shapes of QEMU's answers to the commands we use (QEMU: docs/interop/qemu-qmp-ref).

Rules of this file:
    A field that the guest writes is an object: whether it can be true, `qmpmem.sanitise` judges.
"""

from qmpmem.records import Record
from qmpmem.units import Bytes


class Status(Record, frozen=True):
    """query-status."""

    status: str


class Balloon(Record, frozen=True):
    """query-balloon."""

    actual: object


class MemorySize(Record, frozen=True, rename="kebab"):
    """Boot memory and hot-plugged memory (query-memory-size-summary)."""

    base_memory: Bytes
    plugged_memory: Bytes = Bytes(0)

    @property
    def maximum(self) -> Bytes:
        """What an empty balloon leaves the guest with."""
        return Bytes(self.base_memory + self.plugged_memory)


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


class Chardev(Record, frozen=True, rename="kebab"):
    """One character device (query-chardev)."""

    label: str
    filename: str
    frontend_open: bool = True


def machine_name(qom_type: str) -> str:
    """Name a machine as -machine does: ``pc-i440fx-7.2``, from its QOM type."""
    return qom_type.removesuffix("-machine")
