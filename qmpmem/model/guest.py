"""What was seen: one guest, as QEMU, its driver and the host describe it.

Sizes are bytes. Whatever is not known is None. The field names of `GuestView` are the keys of
``--json`` and stay stable; new ones may be added.
"""

from collections.abc import Mapping
from typing import Any

from qmpmem.records import Record
from qmpmem.units import Bytes


class GuestStats(Record, frozen=True):
    """What the guest's balloon driver reports (virtio 1.2, 5.5.6.3; QEMU: qom guest-stats).

    The guest writes it, so it is never trusted alone. Counters start again with every boot.
    """

    swap_in: Bytes | None = None
    swap_out: Bytes | None = None
    major_faults: int | None = None
    minor_faults: int | None = None
    free: Bytes | None = None
    total: Bytes | None = None
    available: Bytes | None = None
    disk_caches: Bytes | None = None
    hugetlb_allocations: int | None = None
    hugetlb_failures: int | None = None
    oom_kills: int | None = None
    alloc_stalls: int | None = None
    last_update: int | None = None
    """Time of the last report by the host's clock, in seconds since 1970. None: there was none."""
    age: float | None = None
    """Seconds since the last report, when this was read."""
    consistent: bool = True
    """False where the guest's numbers contradict each other: all of them are None then."""

    @property
    def is_report(self) -> bool:
        """Whether the guest ever reported."""
        return self.last_update is not None


class BalloonDevice(Record, frozen=True):
    """The balloon device of a guest, and those of its properties that matter here."""

    driver: str
    """QEMU's type name, such as ``virtio-balloon-pci``."""
    path: str
    """The QOM path, such as ``/machine/peripheral/qmpmem0``."""
    deflate_on_oom: bool | None = None
    free_page_reporting: bool | None = None


class GuestDevices(Record, frozen=True):
    """What was found of a guest's devices, which decides whether its balloon frees anything."""

    obstacle: str | None = None
    """Why a balloon frees nothing of this guest."""
    cxl: Bytes = Bytes(0)
    """CXL memory, which QEMU counts nowhere."""


class GuestView(Record, frozen=True):
    """One guest at one moment."""

    id: str
    name: str
    """What the user called it: any text. Escape it before showing it."""
    pid: int | None
    state: str
    """QEMU's run state (``running``, ``paused``, ...), or why there is none:
    ``unreachable``, ``busy``, ``in-use``, ``gone``."""
    maximum: Bytes | None
    """Boot memory plus the plugged memory that the guest uses: what an empty balloon leaves it."""
    actual: Bytes | None
    """What the guest has now: maximum - balloon. None without a balloon device."""
    rss: Bytes | None
    """Resident memory of the QEMU process on the host."""
    stats: GuestStats | None
    socket: str
    machine: str | None
    managed: bool
    """Whether qmpmem may change this guest's memory."""
    mode: str = "balloon"
    used: Bytes | None = None
    """What the guest cannot give up without swapping: actual - available. Not total - available:
    with deflate-on-oom the balloon stays in the guest's total, and would count as used."""
    accelerator: str | None = None
    balloon: BalloonDevice | None = None
    problem: str | None = None
    """One line: why something above is missing or may not change."""
    plugged: Bytes | None = None
    """All memory beside boot memory: DIMMs, virtio-mem, NVDIMM, CXL."""
    offline: Bytes | None = None
    """The part of `plugged` that the guest does not use; None where the guest does not report
    it."""
    beyond: Bytes | None = None
    """The part of the maximum that no balloon takes, such as virtio-mem."""
    no_balloon: str | None = None
    """Why the launcher added no balloon, where it did not."""
    unmovable: str | None = None
    """Why a balloon frees nothing of this guest."""
    current: Bytes | None = None
    """What it was to start with, where its user asked for that: the balloon's driver went there
    when it was loaded."""


class GuestEvent(Record, frozen=True):
    """An event of a guest that QEMU reports (QEMU: qemu-qmp-ref, "Events").

    The field names are the keys of ``qmpmem events --json``.
    """

    id: str
    """The guest's id."""
    event: str
    """QEMU's name of it, such as ``RESET``."""
    data: Mapping[str, Any]
    """What QEMU sent with it: valid JSON, and not checked further."""
    time: float
    """Seconds since 1970."""
    dropped: int = 0
    """Number of events, of any guest, that were dropped right before this one, because their reader
    was too slow."""
    name: str | None = None
    """What the guest's owner called it."""
