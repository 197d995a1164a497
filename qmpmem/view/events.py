"""QEMU's events as lines for people. Pure.

Source: QEMU docs/interop/qemu-qmp-ref, "Events" and "ShutdownCause".
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from qmpmem.model.escapes import printable
from qmpmem.model.guest import GuestEvent
from qmpmem.units import Bytes, format_size
from qmpmem.view.rows import label

Data = Mapping[str, object]

_CAUSES: Final = {
    "none": "",
    "host-error": "because of an error on the host",
    "host-qmp-quit": "by QMP's quit",
    "host-qmp-system-reset": "by QMP's system_reset",
    "host-signal": "by a signal to QEMU",
    "host-ui": "by a user of its window",
    "guest-shutdown": "by the guest itself",
    "guest-reset": "by the guest itself",
    "guest-panic": "because the guest's kernel panicked",
    "subsystem-reset": "by a subsystem of the machine",
    "snapshot-load": "to load a snapshot",
}


def line(event: GuestEvent) -> str:
    """Return an event as one line: when, which guest, QEMU's name of it, what it means."""
    clock = time.strftime("%H:%M:%S", time.localtime(event.time))
    guest, meaning = label(event.id, event.name), words(event.event, event.data)
    return printable(f"{clock} {guest} {event.event} {meaning}".rstrip())


def words(name: str, data: Data) -> str:
    """Return what an event means; where that is not known here, what QEMU sent, as JSON."""
    say = _WORDS.get(name)
    said = None if say is None else say(data)
    return said if said is not None else msgspec.json.encode(data).decode() if data else ""


def _plain(text: str) -> Callable[[Data], str]:
    return lambda _: text


def _caused(text: str) -> Callable[[Data], str]:
    return lambda data: f"{text} {_cause(data)}".rstrip()


def _cause(data: Data) -> str:
    reason = data.get("reason")
    if not isinstance(reason, str):
        return "by the guest itself" if data.get("guest") is True else ""
    return _CAUSES.get(reason, f"({reason})")


def _size(data: Data, key: str, text: str) -> str | None:
    value = data.get(key)
    return f"{text} {format_size(Bytes(value))}" if type(value) is int and value >= 0 else None


def _field(text: str, *keys: str) -> Callable[[Data], str | None]:
    def say(data: Data) -> str | None:
        found = next((data[key] for key in keys if isinstance(data.get(key), str)), None)
        return None if found is None else f"{text} {found}"

    return say


_WORDS: Final[Mapping[str, Callable[[Data], str | None]]] = {
    "BALLOON_CHANGE": lambda data: _size(data, "actual", "the guest now has"),
    "DEVICE_DELETED": _field("unplugged:", "device", "path"),
    "DEVICE_UNPLUG_GUEST_ERROR": _field("the guest refused to unplug", "device", "path"),
    "GUEST_CRASHLOADED": _field("the guest's kernel crashed and loaded another; action:", "action"),
    "GUEST_PANICKED": _field("the guest's kernel panicked; action:", "action"),
    "MEMORY_DEVICE_SIZE_CHANGE": lambda data: _size(data, "size", "a memory device now has"),
    "MEM_UNPLUG_ERROR": _field("memory could not be unplugged:", "msg"),
    "MIGRATION": _field("migration:", "status"),
    "POWERDOWN": _plain("the guest is asked to power down"),
    "RESET": _caused("reset"),
    "RESUME": _plain("runs again"),
    "SHUTDOWN": _caused("shut down"),
    "STOP": _plain("paused"),
    "SUSPEND": _plain("the guest suspended itself to RAM"),
    "SUSPEND_DISK": _plain("the guest suspended itself to disk"),
    "WAKEUP": _plain("woken up"),
    "WATCHDOG": _field("the guest's watchdog ran out; action:", "action"),
}
