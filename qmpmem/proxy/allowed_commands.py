"""What a client of a shared session may have QEMU do.

Rules of this file:
    Pure. A session has one of these functions. What it does not name is refused, so a command that
    only a later QEMU has is refused as well.
    A command is judged by its name and all of its arguments: QEMU gets no other than those that
    were judged.
    A session that may not do everything may not say much either: its messages are short, and what
    QEMU gets of them are values of the kinds that a command takes. An empty object of two bytes
    takes QEMU 4 KiB (qobject/qdict.c: QDICT_BUCKET_MAX), and it reads a message's arguments before
    it refuses them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

from qmpmem.records import Record
from qmpmem.wire import limits

Arguments = Mapping[str, object] | None

Permit = Callable[[str, Arguments], str | None]
"""Returns why a command with such arguments is not passed on; None: it is."""

QUERIES: Final = frozenset(
    f"query-{name}"
    for name in """
    accelerators acpi-ospm-status audiodevs balloon block block-exports block-jobs blockstats
    chardev chardev-backends colo-status command-line-options commands cpu-definitions cpus
    cpus-fast cryptodev current-machine dirty-rate display-options dump
    dump-guest-memory-capability events fdsets gic-capabilities hotpluggable-cpus
    hv-balloon-status-report iothreads jobs kvm machines memdev memory-devices
    memory-size-summary mice migrate migrate-cache-size migrate-capabilities migrate-parameters
    migrationthreads name named-block-nodes pci pr-managers qmp-schema replay rocker
    rocker-of-dpa-flows rocker-of-dpa-groups rocker-ports rx-filter s390x-cpu-polarization sev
    sev-attestation-report sev-capabilities sev-launch-measure sgx sgx-capabilities spice stats
    stats-schemas status target tpm tpm-models tpm-types uuid vcpu-dirty-limit version
    vm-generation-id vnc vnc-servers xen-replication-status yank
    """.split()  # noqa: SIM905 - a table
)
"""Commands of QEMU 2.5 to 10.2 that change nothing and read nothing of the guest's memory.

A name that begins with ``query-`` is no proof of that: query-cpu-model-expansion sets any
properties of a processor that it makes, so also plugs it in (target/i386/cpu-system.c:
object_apply_props); query-firmware-log looks for a buffer in the guest's memory (QEMU 10.2)."""

SHORT: Final = 8 * 1024
"""Bytes that a message may have in a session that may not do everything. The longest that has a use
is a query-stats that names processors: some 200 of them."""
SHORT_ID: Final = 1024
"""Bytes that its id may have there. Those of libvirt and qemu.qmp have some 20."""
PROVIDERS: Final = 16
"""Objects in a query's arguments. QEMU 10.2 has two providers of statistics."""


class Kind(Record, frozen=True):
    """What a query's argument may be."""

    called: str
    """As in QEMU's own errors."""
    fits: Callable[[object], bool]


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, str) for each in cast("Sequence[object]", value)
    )


def _are_providers(value: object) -> bool:
    """Tell whether it is a list of qapi/stats.json's StatsRequest."""
    if not isinstance(value, list) or len(cast("Sequence[object]", value)) > PROVIDERS:
        return False
    return all(map(_is_provider, cast("Sequence[object]", value)))


def _is_provider(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    given = cast("Mapping[str, object]", value)
    is_named = isinstance(given.get("provider"), str) and _are_texts(given.get("names", []))
    return is_named and given.keys() <= {"provider", "names"}


_FLAG: Final = Kind(called="boolean", fits=lambda value: isinstance(value, bool))
_NUMBER: Final = Kind(called="integer", fits=lambda value: type(value) is int)
_TEXT: Final = Kind(called="string", fits=lambda value: isinstance(value, str))
_TEXTS: Final = Kind(called="array of strings", fits=_are_texts)
_PROVIDERS: Final = Kind(called="array of providers", fits=_are_providers)

TAKEN: Final[Mapping[str, Mapping[str, Kind]]] = {
    "query-blockstats": {"query-nodes": _FLAG},
    "query-command-line-options": {"option": _TEXT},
    "query-dirty-rate": {"calc-time-unit": _TEXT},
    "query-machines": {"compat-props": _FLAG},
    "query-named-block-nodes": {"flat": _FLAG},
    "query-rocker": {"name": _TEXT},
    "query-rocker-of-dpa-flows": {"name": _TEXT, "tbl-id": _NUMBER},
    "query-rocker-of-dpa-groups": {"name": _TEXT, "type": _NUMBER},
    "query-rocker-ports": {"name": _TEXT},
    "query-rx-filter": {"name": _TEXT},
    "query-sev-attestation-report": {"mnonce": _TEXT},
    "query-stats": {"target": _TEXT, "providers": _PROVIDERS, "vcpus": _TEXTS},
    "query-stats-schemas": {"provider": _TEXT},
}
"""The arguments of queries, in QEMU 2.5 to 10.2 (qapi/*.json). The others take none."""

INTERVAL: Final = "guest-stats-polling-interval"
LONGEST: Final = (1 << 32) - 1
"""Seconds between two reports that may be asked for (QEMU: hw/virtio/virtio-balloon.c,
balloon_stats_set_poll_interval)."""
LARGEST: Final = (1 << 63) - 1
"""Bytes that may be asked for as a guest's size (qapi/machine.json: balloon, int64)."""

_MACHINE: Final = re.compile(r"/machine")
_DEVICE: Final = re.compile(r"/machine/peripheral(?:-anon)?/[^/]+")
"""The path of a device that was plugged by an option or a command, a balloon among them."""
_OBJECT: Final = re.compile(r"/objects/[^/]+")
"""The path of a memory backend."""

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
`qmpmem.wire.commands` and `qmpmem.wire.guest_devices` ask for."""
LISTED: Final = frozenset({"/machine/peripheral", "/machine/peripheral-anon", "/objects"})
"""The objects whose children the agent lists."""


def everything(command: str, arguments: Arguments) -> str | None:  # noqa: ARG001 - a Permit
    """Permit all that QEMU can do."""
    return None


def queries(command: str, arguments: Arguments) -> str | None:
    """Permit what changes nothing."""
    if command in QUERIES:
        return _odd_argument(command, arguments or {})
    return f"this session only reads: {command} is not a query that is known to change nothing"


def balloon(command: str, arguments: Arguments) -> str | None:
    """Permit an agent to move the guest's memory, and to read what it decides by."""
    if command in QUERIES:
        return _odd_argument(command, arguments or {})
    judge = _JUDGES.get(command)
    if judge is None:
        return f"this session moves memory and reads, no more: {command} is not passed on"
    if judge(arguments or {}):
        return None
    return f"this session moves memory and reads, no more: {command} not with such arguments"


def longest_message(permit: Permit) -> int:
    """Return the bytes that a message may have in such a session."""
    return limits.LINE if permit is everything else SHORT


def longest_id(permit: Permit) -> int:
    """Return the bytes that an id may have in such a session."""
    return limits.LINE if permit is everything else SHORT_ID


def _odd_argument(query: str, given: Mapping[str, object]) -> str | None:
    """Name, in QEMU's words, an argument that a query does not take; None: there is none."""
    taken = TAKEN.get(query, {})
    for member, value in given.items():
        if member not in taken:
            return f"Parameter '{member}' is unexpected"
        if not taken[member].fits(value):
            return f"Invalid parameter type for '{member}', expected: {taken[member].called}"
    return None


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
