"""QEMU's events: which are accepted, their shape, and the bounded queue in which they wait.

Rules of this file:
    An event is news, never a fact to act on alone: read again what it is about. Some are lost when
    they come too fast, and counted.

Source: QEMU docs/interop/qemu-qmp-ref, "Events".
"""

from collections.abc import Mapping
from typing import Final, cast

from qmpmem.records import Record
from qmpmem.wire.limits import TokenBucket

ALLOWED: Final = frozenset(
    {
        "ACPI_DEVICE_OST",
        "BALLOON_CHANGE",
        "DEVICE_DELETED",
        "DEVICE_UNPLUG_GUEST_ERROR",
        "GUEST_CRASHLOADED",
        "GUEST_PANICKED",
        "MEMORY_DEVICE_SIZE_CHANGE",
        "MEM_UNPLUG_ERROR",
        "MIGRATION",
        "POWERDOWN",
        "RESET",
        "RESUME",
        "SHUTDOWN",
        "STOP",
        "SUSPEND",
        "SUSPEND_DISK",
        "WAKEUP",
        "WATCHDOG",
    }
)
"""The events about a guest's memory, or about its start and end. The rest (disks, VNC, ...) is
dropped and not counted."""

WAITING: Final = 256
"""Most events that wait for a reader; then the oldest is dropped, because the newest tells the
state."""

BURST: Final = 256
RATE: Final = 50.0
"""Most events at once, and per second. QEMU limits BALLOON_CHANGE to 1/s itself (monitor/monitor.c:
monitor_qapi_event_conf). A guest that reboots as fast as it can makes 3 events, 20 times a
second."""

SIZE: Final = 4096
"""Most bytes of an event's line. The longest of those allowed, GUEST_PANICKED, has about 300."""

_LARGEST: Final = 1 << 63


class Event(Record, frozen=True):
    """An event that QEMU reports."""

    name: str
    data: Mapping[str, object]
    """What QEMU sent with it: valid JSON, and not checked further."""
    when: float | None = None
    """Seconds since 1970 by the clock of QEMU's host."""


class EventQueue:
    """The events of one session that wait for their reader."""

    def __init__(self, now: float) -> None:
        self._waiting: list[Event] = []  # mostly empty: a deque would take room for 64
        self._gauge = TokenBucket(now, burst=BURST, rate=RATE)
        self.dropped = 0
        self.malformed = 0

    def offer(self, message: Mapping[str, object], size: int, now: float) -> None:
        """Queue an event, if it is allowed, well-formed and not one too many."""
        if _name(message) not in ALLOWED:
            return
        event = read_event(message) if size <= SIZE else None
        if event is None:
            self.malformed += 1
            return
        if not self._gauge.take(1, now):
            self.dropped += 1
            return
        self._waiting.append(event)
        self.dropped += len(self._waiting) > WAITING
        del self._waiting[:-WAITING]

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Event:
        """Take the oldest event; there must be one."""
        return self._waiting.pop(0)


def read_event(message: Mapping[str, object]) -> Event | None:
    """Read an event message; None where it has not the shape that QEMU documents."""
    name, given = message.get("event"), message.get("data", {})
    if not isinstance(name, str) or not isinstance(given, dict):
        return None
    data = cast("dict[str, object]", given)
    if name == "BALLOON_CHANGE" and not _is_size(data.get("actual")):
        return None
    return Event(name=name, data=data, when=_read_time(message.get("timestamp")))


def _is_size(value: object) -> bool:
    """Tell whether a number that the guest wrote can be a size; QEMU 7.2 does not check it."""
    return type(value) is int and 0 < value < _LARGEST


def _read_time(stamp: object) -> float | None:
    match stamp:
        case {"seconds": int(seconds), "microseconds": int(micro)} if 0 <= seconds < _LARGEST:
            return seconds + micro / 1e6 if 0 <= micro < 10**6 else None
        case _:
            return None


def _name(message: Mapping[str, object]) -> str:
    name = message.get("event")
    return name if isinstance(name, str) else ""
