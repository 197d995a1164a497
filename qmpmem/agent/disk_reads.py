"""What a guest reads from its disks, as its QEMU counts it.

Theory of operation:
    QEMU counts for each disk the bytes that the guest's device asked for (docs/interop:
    query-blockstats, `rd_bytes`), also for guests without a driver or an agent of ours in them. It
    also counts the nanoseconds that passed until the device had them (`rd_total_time_ns`), a limit
    of QEMU's own included. It does not count what a backup job or an NBD export reads, nor what a
    guest reads through vhost-user or a file system of the host.

    The answer has some 700 bytes for each disk and each image below it, and QEMU's main loop takes
    0.05 ms to write each (measured with 7.2). So a guest with many is asked seldom, in case it has
    fewer by now. A longer line than `limits.LINE`, or images nested deeper than `limits.DEPTH`, end
    the session; then the guest is not asked again.
"""

from typing import Final

from qmpmem.errors import GuestRefused, GuestUnreachable
from qmpmem.model import sanitise
from qmpmem.records import Record
from qmpmem.units import Bytes
from qmpmem.wire import commands
from qmpmem.wire.channel import Channel

MOST_NODES: Final = 128
"""Most disks and images in an answer: about 92 KiB, and 6 ms of QEMU's time. 31 disks, each an
image with one below it, have 124."""
AGAIN: Final = 60.0
"""Seconds after which a guest that refused, or has too many, is asked again."""
NEVER: Final = float("inf")
MICROSECOND: Final = 1000
"""Nanoseconds of a microsecond."""


class DiskReads(Record, frozen=True):
    """What a guest has read from its disks since its QEMU started."""

    size: Bytes | None = None
    """Bytes that it has read. None where that is not known: it has no disk, too many, or a QEMU
    that does not tell. It goes down when a disk is unplugged."""
    waited: int | None = None
    """Microseconds that its reads took together. None where that is not known; it goes down when a
    disk is unplugged."""


UNKNOWN: Final = DiskReads()


class DiskReader:
    """Asks one guest's QEMU, again and again."""

    def __init__(self) -> None:
        self._due = 0.0

    async def read(self, session: Channel, now: float) -> DiskReads:
        """Return what the guest has read since its QEMU started.

        Args:
            session: the guest's session.
            now: seconds of a steady clock.

        Raises:
            GuestUnreachable: the session broke.
        """
        if now < self._due:
            return UNKNOWN
        self._due = NEVER
        try:
            disks = await commands.disks(session)
        except GuestRefused:
            self._due = now + AGAIN
            return UNKNOWN
        except GuestUnreachable as error:
            if error.reason != "protocol":
                self._due = now
            raise
        if sum(disk.nodes for disk in disks) > MOST_NODES:
            self._due = now + AGAIN
            return UNKNOWN
        self._due = now
        # An empty drive is no disk: it is not known where such a guest reads its files.
        if not any(disk.node_name or disk.stats.rd_bytes for disk in disks):
            return UNKNOWN
        waited = sanitise.total(disk.stats.rd_total_time_ns for disk in disks)
        return DiskReads(
            size=sanitise.total(disk.stats.rd_bytes for disk in disks),
            waited=None if waited is None else waited // MICROSECOND,
        )
