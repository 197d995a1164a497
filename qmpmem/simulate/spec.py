"""What a simulated guest and a simulated host are made of, before they run.

Rules of this file:
    Frozen records of plain values; sizes in bytes, speeds in bytes a second, times in seconds.
    A default that comes from a measurement names it.
"""

from typing import Literal

from qmpmem.model.config import Config
from qmpmem.model.observation import Habit
from qmpmem.records import Record
from qmpmem.simulate.loads import Load
from qmpmem.units import MIB, Bytes

Reports = Literal["honest", "high", "low", "pages", "none"]
"""What a guest reports of its memory: the truth; that all is in use; that all is free; the truth,
but all that it reads from disks as swapping in, as Windows' service does; or nothing."""


class Driver(Record, frozen=True):
    """A guest's balloon driver.

    The speeds are what a Linux guest without KVM reached; with KVM they are a few times that.
    """

    inflate: float = 300.0 * MIB
    deflate: float = 1700.0 * MIB
    rescues: float = 300.0 * MIB
    """How fast it deflates on OOM: a MiB at a time, each after the kernel has reclaimed in vain
    (Linux: VIRTBALLOON_OOM_NR_PAGES). Without KVM guests reached 30 to 220 MiB/s."""
    period: float = 0.0
    """It works only during `works` seconds of each such time; 0: always."""
    works: float = 0.0
    retakes: float = 0.0
    """It deflates by itself at this speed, whatever it was told."""
    least: Bytes = Bytes(0)
    """The size at which it gets stuck on the way down, without telling."""
    most: Bytes | None = None
    """The size at which it gets stuck on the way up, without telling."""
    misses: Bytes = Bytes(0)
    """How far from its target it stops."""
    frees: bool = True
    """False: what it inflates stays with QEMU, as with locked or shared memory."""


class Reboot(Record, frozen=True, tag=True):
    """The guest is reset: all that it used is forgotten, its balloon is empty until it is up."""

    at: float


class Plug(Record, frozen=True, tag=True):
    """Memory is plugged."""

    at: float
    size: Bytes


class Pause(Record, frozen=True, tag=True):
    """The guest is stopped for a while."""

    at: float
    lasts: float


class Contained(Record, frozen=True, tag=True):
    """A container reaches its own limit: its guest's kernel kills in it, and counts that."""

    at: float


Event = Reboot | Plug | Pause | Contained


class GuestSpec(Record, frozen=True):
    """One guest."""

    id: str
    memory: Bytes
    load: Load
    kernel: Bytes = Bytes(48 * MIB)
    """What its kernel and its daemons need, on top of the load."""
    hot: float = 1.0
    """The part of the load that is used all the time; the rest could be in swap unnoticed."""
    files: Bytes = Bytes(0)
    """Files that it reads: they fill its page cache, as far as there is room."""
    refills: bool = False
    """Whether it reads files that it dropped again as soon as there is room."""
    hot_files: Bytes = Bytes(0)
    """Files that it reads again and again."""
    rereads: float | None = None
    """How fast it reads those, from its cache or its disk; None: all of them in `ROUND` seconds."""
    mapped: bool = False
    """Whether it reads those as programs are read: from the disk by major faults."""
    swap: Bytes = Bytes(0)
    swap_speed: float | None = None
    """How fast its own swap is; None: as its disks."""
    zram: bool = False
    """Whether its own swap is in its memory, compressed to a third, and on no disk."""
    driver: Driver | None = Driver()
    reports: Reports = "honest"
    deflate_on_oom: bool = True
    free_page_reporting: bool = True
    """Whether its balloon has that; on, like `deflate_on_oom`, as our launcher makes a balloon."""
    shows_devices: bool = True
    """Whether the agent learns what its balloon can do."""
    modern: bool = False
    """Whether its driver also reports kills and stalls (Linux 6.12)."""
    touches_all: bool = False
    """Whether it writes to all of its memory when it boots, as Windows does."""
    allocates: float = 1024.0 * MIB
    """How fast its programs take what they want."""
    reads: float = 200.0 * MIB
    """How fast its disks are."""
    cgroup: bool = False
    """Whether it runs in a cgroup of its own, which tells how long it waits for memory."""
    starts: float = 0.0
    restarts: bool = True
    """Whether it is started again where the host's kernel killed it."""
    balloon: Bytes = Bytes(0)
    """What is in its balloon when it starts."""
    events: tuple[Event, ...] = ()
    habit: Habit | None = None
    """What is told to be usual for it; where a world has days, what they show instead."""

    @property
    def most(self) -> Bytes:
        """Return what it may have once all is plugged."""
        plugged = sum(event.size for event in self.events if isinstance(event, Plug))
        return Bytes(self.memory + plugged)


class HostSpec(Record, frozen=True):
    """The host."""

    memory: Bytes
    own: Load
    """What everything beside the guests needs."""
    swap: Bytes = Bytes(0)
    swap_speed: float = 200.0 * MIB
    budget: Bytes | None = None
    """All that guests may use together, where that is less."""
    same: float = 0.0
    """The part of what guests touched that is the same in all of them, and could be merged."""


class Request(Record, frozen=True):
    """Memory that is to be kept for a guest that shall start soon."""

    size: Bytes
    at: float


class World(Record, frozen=True):
    """A host, its guests, and how it is to be run."""

    host: HostSpec
    guests: tuple[GuestSpec, ...]
    config: Config = Config()
    seconds: float = 120.0
    request: Request | None = None
    day: float | None = None
    """Seconds of a day, after which guests are expected to do the same again; it begins at
    midnight. None: no day is remembered."""
