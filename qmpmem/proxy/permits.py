"""What a client of a shared session may have QEMU do.

Rules of this file:
    Pure. A session has one of these functions. What it does not name is refused, so a command that
    only a later QEMU has is refused as well.
    A command is judged by its name and all of its arguments: QEMU gets no other than those that
    were judged.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

Arguments = Mapping[str, object] | None

Permit = Callable[[str, Arguments], str | None]
"""Returns why a command with such arguments is not passed on; None: it is."""

READING: Final = re.compile(r"query-[a-z0-9-]+")
"""Commands that change nothing. All of QEMU's of that name are such."""

INTERVAL: Final = "guest-stats-polling-interval"
LONGEST: Final = (1 << 32) - 1
"""Seconds (QEMU: hw/virtio/virtio-balloon.c, balloon_stats_set_poll_interval)."""
LARGEST: Final = (1 << 63) - 1
"""Bytes (qapi/machine.json: balloon, int64)."""

_MACHINE: Final = re.compile(r"/machine")
_DEVICE: Final = re.compile(r"/machine/peripheral(?:-anon)?/[^/]+")
"""What was plugged by option or command, a balloon among it."""
_OBJECT: Final = re.compile(r"/objects/[^/]+")
"""A memory backend."""

READABLE: Final[Mapping[str, re.Pattern[str]]] = {
    "type": _MACHINE,
    "confidential-guest-support": _MACHINE,
    "guest-stats": _DEVICE,
    INTERVAL: _DEVICE,
    "deflate-on-oom": _DEVICE,
    "free-page-reporting": _DEVICE,
    "memdev": _DEVICE,
    "volatile-memdev": _DEVICE,
    "persistent-memdev": _DEVICE,
    "hugetlb": _OBJECT,
    "share": _OBJECT,
    "mem-path": _OBJECT,
    "size": _OBJECT,
}
"""The properties that the agent reads, each with the objects that have it: all that
`qmpmem.wire.commands` and `qmpmem.wire.surroundings` ask for."""
LISTED: Final = frozenset({"/machine/peripheral", "/machine/peripheral-anon", "/objects"})
"""The objects whose children the agent lists."""


def everything(command: str, arguments: Arguments) -> str | None:  # noqa: ARG001 - a Permit
    """Permit all that QEMU can do."""
    return None


def queries(command: str, arguments: Arguments) -> str | None:  # noqa: ARG001 - a Permit
    """Permit what changes nothing."""
    if READING.fullmatch(command):
        return None
    return f"this session only reads: {command} is not a query"


def balloon(command: str, arguments: Arguments) -> str | None:
    """Permit an agent to move the guest's memory, and to read what it decides by."""
    if READING.fullmatch(command):
        return None
    judge = _JUDGES.get(command)
    if judge is None:
        return f"this session moves memory and reads, no more: {command} is not passed on"
    if judge(arguments or {}):
        return None
    return f"this session moves memory and reads, no more: {command} not with such arguments"


def _may_move(given: Mapping[str, object]) -> bool:
    return set(given) == {"value"} and _is_within(given["value"], 1, LARGEST)


def _may_list(given: Mapping[str, object]) -> bool:
    return set(given) == {"path"} and isinstance(given["path"], str) and given["path"] in LISTED


def _may_get(given: Mapping[str, object]) -> bool:
    if set(given) != {"path", "property"}:
        return False
    path, name = given["path"], given["property"]
    return (
        isinstance(path, str)
        and isinstance(name, str)
        and name in READABLE
        and READABLE[name].fullmatch(path) is not None
    )


def _may_set(given: Mapping[str, object]) -> bool:
    if set(given) != {"path", "property", "value"} or given["property"] != INTERVAL:
        return False
    path = given["path"]
    is_device = isinstance(path, str) and _DEVICE.fullmatch(path) is not None
    return is_device and _is_within(given["value"], 0, LONGEST)


def _is_within(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


_JUDGES: Final[Mapping[str, Callable[[Mapping[str, object]], bool]]] = {
    "balloon": _may_move,
    "qom-list": _may_list,
    "qom-get": _may_get,
    "qom-set": _may_set,
}
