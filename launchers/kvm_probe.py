"""The questions to an emulator that has just been met, and how its answers are read.

Rules of this file:
    Pure. Loaded only then: json takes 10 ms.
"""

import json

from launchers.kvm_balloon import WANTED_PROPERTIES
from launchers.kvm_slots import DRIVERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

REQUESTS = b"".join(
    json.dumps(request).encode() + b"\n"
    for request in (
        {"execute": "qmp_capabilities"},
        {"execute": "query-machines", "id": "machines"},
        {"execute": "query-qmp-schema", "id": "schema"},
        *(
            {"execute": "device-list-properties", "id": driver, "arguments": {"typename": driver}}
            for driver in DRIVERS
        ),
        {"execute": "query-version", "id": "qmpmem-last"},
    )
)
LAST = b'"qmpmem-last"'
"""Stands in the last answer."""


def read_answers(output: bytes) -> "Iterator[str]":
    """Write an emulator's answers as `kvm_emulator.decode` reads them; nonsense gives nothing."""
    try:
        answers = {
            message["id"]: message["return"]
            for message in map(json.loads, output.splitlines())
            if "id" in message and "return" in message
        }
        yield "json " + ("yes" if _takes_json(answers["schema"]) else "no")
        for machine in answers["machines"]:
            if machine.get("is-default"):
                yield "machine " + machine["name"]
        for driver in DRIVERS:
            if driver in answers:
                names = {entry["name"] for entry in answers[driver]}
                yield " ".join((driver, *(key for key in WANTED_PROPERTIES if key in names)))
    except (ValueError, LookupError, TypeError, AttributeError):
        return


def _takes_json(schema: "list[dict[str, object]]") -> bool:
    """Tell whether -device takes JSON (QEMU: qapi/qdev.json, feature json-cli, since 6.2)."""
    features = [entry.get("features") for entry in schema if entry.get("name") == "device_add"]
    return any(isinstance(found, list) and "json-cli" in found for found in features)
