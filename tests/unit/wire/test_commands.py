"""What our commands make of QEMU's answers, right ones and wrong ones."""

import pytest

from qmpmem.model.guest import BalloonDevice
from qmpmem.model.sizes import Sizes
from qmpmem.units import MIB, Bytes
from qmpmem.wire import commands
from tests.rig.fakeqmp import Step, answer, expect, greet, negotiate, together
from tests.rig.hostile import Met, meet

OPEN = together(greet(), negotiate())
SUMMARY = {"base-memory": 256 * MIB, "plugged-memory": 192 * MIB}
DIMM = {"type": "dimm", "data": {"size": 64 * MIB, "hotplugged": False}}
OTHERS = [
    {"type": "nvdimm", "data": {"size": 128 * MIB}},
    {"type": "virtio-pmem", "data": {"size": 128 * MIB}},
    {"type": "virtio-mem", "data": {"size": 128 * MIB, "max-size": 256 * MIB}},
    {"type": "sgx-epc", "data": {"size": 128 * MIB}},
    {"type": "hv-balloon", "data": {"max-size": 128 * MIB}},
]


def replies(command: str, value: object) -> Step:
    return together(expect(command), answer(value))


def size_with(devices: object) -> Met:
    script = [
        OPEN,
        replies("query-memory-size-summary", SUMMARY),
        replies("query-memory-devices", devices),
    ]
    return meet(script, commands.sizes)


def test_plugged_memory_is_told_apart_by_kind() -> None:
    expected = Sizes(
        boot=Bytes(256 * MIB),
        dimms=Bytes(128 * MIB),
        movable=Bytes(128 * MIB),
        storage=Bytes(256 * MIB),
        pluggable=Bytes(128 * MIB),
    )
    assert size_with([DIMM, *OTHERS, DIMM]).value == expected


def test_without_plugged_memory_nothing_more_is_asked() -> None:
    summary = {"base-memory": 256 * MIB, "plugged-memory": 0}
    met = meet([OPEN, replies("query-memory-size-summary", summary)], commands.sizes)
    assert met.value == Sizes(boot=Bytes(256 * MIB))
    assert met.conversation.commands == ["qmp_capabilities", "query-memory-size-summary"]


@pytest.mark.parametrize("word", ["running", "finish-migrate", "guest-panicked", "x" * 32])
def test_a_run_state_is_qemus_word(word: str) -> None:
    met = meet([OPEN, replies("query-status", {"status": word})], commands.run_state)
    assert met.value == word


@pytest.mark.parametrize(
    "word",
    [
        *("unreachable", "busy", "in-use", "gone"),
        *("", "-", "Running", "run ning", "running\n", "running1", "gone\n", "\x1b[2J", "x" * 33),
    ],
)
def test_a_run_state_that_qemu_does_not_have_is_a_protocol_error(word: str) -> None:
    met = meet([OPEN, replies("query-status", {"status": word})], commands.run_state)
    assert met.reason == "protocol"


@pytest.mark.parametrize(
    "devices",
    [{}, [5], [{"type": "dimm"}], [{"type": "dimm", "data": {}}], [{"type": 5, "data": {}}]],
)
def test_memory_devices_of_another_shape_are_a_protocol_error(devices: object) -> None:
    assert size_with(devices).reason == "protocol"


@pytest.mark.parametrize(
    ("kind", "is_balloon"),
    [
        ("virtio-balloon-pci", True),
        ("virtio-balloon-pci-transitional", True),
        ("virtio-balloon-pci-non-transitional", True),
        ("virtio-balloon-device", True),
        ("virtio-balloon-ccw", True),
        ("virtio-rng-pci", False),
        ("virtio-blk-pci-non-transitional", False),
    ],
)
def test_a_balloon_is_known_by_its_type_and_not_by_its_id(kind: str, is_balloon: bool) -> None:  # noqa: FBT001 - a column of the table
    entries = [{"name": "virtio-balloon-pci", "type": "string"}]
    found = [{"name": "b", "type": f"child<{kind}>"}]
    script = [OPEN, replies("qom-list", entries), replies("qom-list", found)]
    met = meet(
        [*script, *(replies("qom-get", value=False) for _ in range(2))], commands.find_balloon
    )
    device = met.value
    assert isinstance(device, BalloonDevice) == is_balloon
    if isinstance(device, BalloonDevice):
        assert (device.driver, device.path) == (kind, "/machine/peripheral-anon/b")
