"""Why a balloon frees nothing: found by process, devices, disks and objects; put into words."""

from collections.abc import Sequence

import pytest

from launchers import kvm_memory
from qmpmem.guests import inventory
from qmpmem.guests.inventory import LiveGuest
from qmpmem.guests.rundir import GuestRecord
from qmpmem.model import obstacles
from qmpmem.model.guest import BalloonDevice, GuestDevices
from qmpmem.records import replace
from qmpmem.units import MIB, Bytes
from qmpmem.wire import guest_devices
from qmpmem.wire.kernel.processes import parse_memory
from qmpmem.wire.qmp import Session
from tests.rig.fakeqmp import Step, answer, expect, greet, negotiate, refuse, together
from tests.rig.hostile import meet

MAXIMUM = Bytes(512 * MIB)


@pytest.mark.parametrize(
    ("status", "part"),
    [
        ("VmRSS:\t9 kB\n", None),
        ("VmLck:\t524288 kB\nVmPin:\t0 kB\n", "locked"),
        ("VmLck:\t262144 kB\n", "locked"),
        ("VmLck:\t262143 kB\n", None),
        ("VmLck:\t0 kB\nVmPin:\t524288 kB\n", "pinned"),
        ("VmPin:\t1024 kB\n", None),
        ("VmLck:\t0 kB\nHugetlbPages:\t2048 kB\n", "2 MiB of its memory are in huge pages"),
        ("HugetlbPages:\t0 kB\n", None),
    ],
)
def test_what_the_kernel_says_of_a_process(status: str, part: str | None) -> None:
    memory = parse_memory(status)
    found = obstacles.of_process(memory.huge, memory.locked, memory.pinned, MAXIMUM)
    assert (found is None) == (part is None)
    assert part is None or part in str(found)


def test_of_an_unknown_size_only_huge_pages_say_something() -> None:
    assert obstacles.of_process(None, MAXIMUM, MAXIMUM, None) is None
    assert obstacles.of_process(MAXIMUM, None, None, None)


@pytest.mark.parametrize(
    ("kind", "stands"),
    [
        ("vfio-pci", True),
        ("vfio-user-pci", True),
        ("vhost-vdpa-device-pci", True),
        ("virtio-net-pci", False),
        ("nvme", False),
        ("vhost-user-fs-pci", False),
    ],
)
def test_devices(kind: str, *, stands: bool) -> None:
    assert (obstacles.of_devices(["e1000", kind]) is not None) == stands


@pytest.mark.parametrize("driver", ["nvme", "virtio-blk-vfio-pci", "virtio-blk-vhost-vdpa"])
def test_disks(driver: str) -> None:
    assert obstacles.of_disks(["raw", driver])
    assert obstacles.of_disks(["raw", "file", "nvme-io_uring", "qcow2"]) is None


@pytest.mark.parametrize(
    "reason",
    [
        "QMPMEM_BALLOON=off was set",
        "-incoming (QMPMEM_INCOMING_BALLOON=on says that the guest has one of ours)",
        "24 or more devices may leave no PCI slot",
        "the guest's memory is locked",
        "the guest's memory is in huge pages",
        "the guest's memory is encrypted",
        "the guest's memory is a private copy of a file, which a balloon would damage",
        "a device of the host has all of the guest's memory pinned",
        "machine 'isapc' has none",
        "a configuration file cannot be read",
        "its memory is preallocated: what a balloon frees is not kept for the guest",
        obstacles.NO_DEFLATE,
    ],
)
def test_there_is_something_to_do_about_each_reason(reason: str) -> None:
    assert obstacles.advice(reason)
    assert obstacles.advice(None) is None


def test_launcher_and_library_say_the_same() -> None:
    assert kvm_memory.NO_DEFLATE == obstacles.NO_DEFLATE


LIST = "qom-list"
GET = "qom-get"


def replies(command: str, value: object) -> Step:
    return together(expect(command), answer(value))


def refuses(command: str) -> Step:
    return together(expect(command), refuse())


def child(name: str, kind: str) -> dict[str, str]:
    return {"name": name, "type": f"child<{kind}>"}


def look(*steps: Step) -> GuestDevices:
    script = [together(greet(), negotiate()), *steps]

    async def ask(session: Session) -> GuestDevices:
        return await guest_devices.look(session, lambda path: path == "/srv/template")

    met = meet(script, ask)
    assert isinstance(met.value, GuestDevices), met
    return met.value


NONE = replies(LIST, [])
NODES = replies("query-named-block-nodes", [{"drv": "qcow2"}, {"drv": "file"}])


@pytest.mark.parametrize(
    ("steps", "part"),
    [
        ([replies(LIST, [child("v", "vfio-pci")]), NONE], "vfio-pci"),
        ([NONE, replies(LIST, [child("device[0]", "vfio-ap")])], "vfio-ap"),
        ([NONE, NONE, replies("query-named-block-nodes", [{"drv": "nvme"}])], "nvme"),
        ([NONE, NONE, NODES, replies(GET, "/objects/sev0")], "encrypted"),
        (
            [
                *(NONE, NONE, NODES, refuses(GET)),
                replies(LIST, [child("m", "memory-backend-memfd")]),
                replies(GET, value=True),
            ],
            "huge pages",
        ),
        (
            [
                *(NONE, NONE, NODES, replies(GET, "")),
                replies(LIST, [child("m", "memory-backend-file")]),
                *(replies(GET, value=False), replies(GET, "/srv/template")),
            ],
            "private copy",
        ),
        (
            [
                *(NONE, NONE, NODES, replies(GET, "")),
                replies(LIST, [child("m", "memory-backend-file")]),
                *(replies(GET, value=False), replies(GET, "/dev/shm")),
            ],
            None,
        ),
        (
            [
                *(NONE, NONE, NODES, replies(GET, "")),
                replies(LIST, [child("m", "memory-backend-file")]),
                replies(GET, value=True),
            ],
            None,
        ),
        ([NONE, NONE, refuses("query-named-block-nodes"), refuses(GET), refuses(LIST)], None),
    ],
)
def test_what_qemu_says(steps: Sequence[Step], part: str | None) -> None:
    found = look(*steps).obstacle
    assert (found is None) == (part is None)
    assert part is None or part in str(found)


@pytest.mark.parametrize(("count", "asked"), [(4, True), (5, False)])
def test_of_many_disks_nothing_is_asked_as_the_answer_is_too_long(
    count: int, *, asked: bool
) -> None:
    found = [child(f"d{number}", "virtio-blk-pci") for number in range(count)]
    nvme = replies("query-named-block-nodes", [{"drv": "nvme"}])
    rest = [nvme] if asked else [replies(GET, ""), NONE]
    assert bool(look(NONE, replies(LIST, found), *rest).obstacle) == asked


def test_cxl_memory_is_found_by_its_backends() -> None:
    found = look(
        *(replies(LIST, [child("c", "cxl-type3")]), NONE, NODES, replies(GET, ""), NONE),
        refuses(GET),
        *(replies(GET, "/objects/m"), replies(GET, 256 * MIB)),
        replies(GET, ""),
    )
    assert found == GuestDevices(cxl=Bytes(256 * MIB))


RECORD = GuestRecord(
    version=1, id="g", name="g", pid=1, start_time=1, socket="/s", uid=0, created=0.0
)


@pytest.mark.parametrize(
    ("kept", "problem", "said"),
    [
        ({}, None, None),
        ({}, obstacles.NO_DEVICE, "no balloon device"),
        ({"no_balloon": "24 devices"}, obstacles.NO_DEVICE, "no balloon device: 24 devices"),
        ({"unmovable": "huge pages"}, obstacles.NO_DEVICE, "no balloon device: huge pages"),
        ({"unmovable": "huge pages"}, None, "a balloon frees nothing: huge pages"),
        ({"note": "preallocated"}, None, "preallocated"),
        ({"note": "n", "unmovable": "u"}, None, "a balloon frees nothing: u; n"),
    ],
)
def test_one_line_says_all(kept: dict[str, str], problem: str | None, said: str | None) -> None:
    base = inventory.silent(LiveGuest(record=replace(RECORD, **kept), pid=None), None)
    assert inventory.remarks(base, base, problem) == said


def test_a_balloon_without_deflate_on_oom_is_said_once() -> None:
    note = replace(RECORD, note=obstacles.NO_DEFLATE)
    base = inventory.silent(LiveGuest(record=note, pid=None), None)
    device = BalloonDevice(driver="virtio-balloon-pci", path="/b", deflate_on_oom=False)
    assert inventory.remarks(base, replace(base, balloon=device), None) == obstacles.NO_DEFLATE
