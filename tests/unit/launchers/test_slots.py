"""Whether a place is left for a balloon."""

from typing import Final

import pytest

from launchers.kvm_options import Line
from launchers.kvm_slots import (
    Place,
    find_place,
    is_pci,
    is_slot_free,
    survey,
    why_no_slot,
    why_no_transport,
)

NOTHING: Final = ("-nodefaults",)
E1000: Final = ("-device", "e1000")


def place(machine: str) -> Place:
    found = find_place(machine)
    assert found is not None
    return found


def left(machine: str, *words: str, configs: tuple[str, ...] = ()) -> int:
    """Count the slots that are left for a balloon and others."""
    line = Line(words, configs)
    _, others, free = survey(line, place(machine))
    assert (why_no_slot(line, place(machine)) is None) == (len(free) > others)
    return len(free) - others


@pytest.mark.parametrize(
    ("machine", "words", "expected"),
    [
        ("pc", [], 28),  # each as counted in a QEMU 7.2
        ("pc", ["-usb"], 28),
        ("pc", ["-nodefaults"], 30),
        ("pc", ["-vga", "none"], 29),
        ("pc", ["-vga", "std", "-device", "VGA"], 27),
        ("pc", ["-device", "VGA"], 28),
        ("pc", ["-nic", "none"], 29),
        ("pc", ["-net", "none"], 29),
        ("pc", ["-net", "user"], 29),
        ("pc", ["-net", "nic", "-net", "user"], 28),
        ("pc", ["-netdev", "user,id=n"], 29),
        ("pc", ["-audio", "driver=none,model=hda"], 27),
        ("pc", ["-soundhw", "hda,ac97"], 26),
        ("pc", ["-virtfs", "local,path=/tmp,mount_tag=x,security_model=none"], 27),
        ("q35", [], 28),
        ("q35", ["-usb"], 27),
        ("q35", ["-machine", "usb=on"], 27),
        ("q35", ["-nodefaults"], 30),
        ("q35", ["-device", '{"driver":"VGA"}'], 28),
        ("q35", ["-device", "bochs-display"], 27),
    ],
)
def test_what_a_machine_brings_itself(machine: str, words: list[str], expected: int) -> None:
    assert left(machine, *words) == expected


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        (["-device", "e1000"], 1),
        (["-device", "driver=e1000,bus=pci.0"], 1),
        (["-device", "e1000,bus=/i440FX-pcihost/pci.0"], 1),
        (["-device", "e1000,bus=/i440FX-pcihost"], 1),
        (["-device", '{"driver":"e1000","bus":"/i440FX-pcihost/"}'], 1),
        (["-device", "e1000,bus=port.1"], 0),
        (["-device", "e1000,addr=1e"], 1),
        (["-device", "e1000,addr=0x1"], 0),
        (["-device", "e1000,addr=1.5"], 0),
        (["-device", "e1000,addr=5,multifunction=on", "-device", "e1000,addr=5.1"], 1),
        (
            [
                "-device",
                '{"driver":"e1000","addr":"5.0"}',
                "-device",
                '{"driver":"e1000","addr":40}',
            ],
            1,
        ),
        (["-device", '{"driver":"e1000","bus":"b"}'], 0),
        (["-device", "e1000,addr=nonsense"], 1),
        (["-device", "e1000,id=a,addr=5", "-device", "e1000,id=b", "-set", "device.b.addr=5"], 1),
        (["-device", "usb-tablet"], 0),
        (["-device", "usb-ehci"], 1),
        (["-device", "scsi-hd,drive=d"], 0),
        (["-device", "virtio-scsi-pci"], 1),
        (["-device", "virtio-scsi"], 1),
        (["-device", "qemu64-x86_64-cpu,core-id=1"], 0),
        (["-device", "something-new"], 1),
        (["-drive", "if=virtio,file=x"], 1),
        (["-drive", "if=virtio,file=x,addr=1e"], 1),
        (["-drive", "if=scsi,file=x"], 0),
        (["-drive", "if=none,file=x"], 0),
        (["-drive", "file=x"], 0),
        (["-hda", "x", "-cdrom", "y", "z"], 0),
        (["-nic", "user"], 1),
        (["-nic", "model=virtio,addr=1e"], 1),
        (["-nic", "user,model=ne2k_isa"], 0),
        (["-net", "tap"], 0),
        (["-watchdog", "i6300esb"], 1),
        (["-watchdog", "ib700"], 0),
    ],
)
def test_what_takes_a_slot(words: list[str], taken: int) -> None:
    assert left("pc", *NOTHING, *words) == 30 - taken


def test_a_configuration_file_takes_slots() -> None:
    text = (
        '[device "a"]\n driver = "e1000"\n addr = "9"\n'
        '[nic]\n type = "user"\n[device]\n driver = "isa-serial"\n'
    )
    assert left("pc", *NOTHING, configs=(text,)) == 28


@pytest.mark.parametrize(("machine", "disks"), [("virt", 4), ("pc", 0)])
def test_a_disk_without_an_interface(machine: str, disks: int) -> None:
    words = ("-hda", "x", "y", "-drive", "file=z", "-drive", "if=none,file=z", "-cdrom", "c")
    assert left(machine, *NOTHING) - left(machine, *NOTHING, *words) == disks


def test_many_behind_ports_take_nothing() -> None:
    """As libvirt writes a q35 guest: ports as functions of few slots, a device behind each."""
    ports = [
        word
        for port in range(14)
        for word in (
            "-device",
            f"pcie-root-port,port={16 + port},chassis={port + 1},id=pci.{port + 1},bus=pcie.0,"
            + (f"multifunction=on,addr={2 + port // 8:#x}" if port % 8 == 0 else "")
            + (f"addr={2 + port // 8:#x}.{port % 8:#x}" if port % 8 else ""),
        )
    ]
    devices = [
        word
        for port in range(14)
        for word in ("-device", f"virtio-net-pci,bus=pci.{port + 1},addr=0x0")
    ]
    assert left("q35", *NOTHING, *ports, *devices) == 28


@pytest.mark.parametrize(
    ("words", "fits"),
    [
        (["-device", "e1000,addr=2.1"], False),  # it would get 2.0
        (["-device", "e1000,addr=3.1"], True),
        ([*E1000, "-device", "e1000,addr=3.1"], False),
        ([*E1000, "-device", "e1000,addr=3.1", "-device", "e1000,addr=3,multifunction=on"], True),
        (E1000 * 29, True),
        (E1000 * 30, False),
    ],
)
def test_where_it_would_go(words: list[str], fits: bool) -> None:  # noqa: FBT001 - a table
    assert (why_no_slot(Line([*NOTHING, *words]), place("pc")) is None) == fits


@pytest.mark.parametrize(
    ("words", "free"),
    [
        ([], True),
        (["-device", "e1000,addr=1e"], False),
        (["-device", "e1000,addr=1e.3"], False),
        (E1000 * 28, True),
        (E1000 * 29, False),
    ],
)
def test_a_slot_by_number(words: list[str], free: bool) -> None:  # noqa: FBT001 - a table
    assert is_slot_free(Line([*NOTHING, *words]), place("pc"), 0x1E) == free


@pytest.mark.parametrize(
    ("words", "transports"),
    [
        ([], 24),
        (["-machine", "ioapic2=off"], 8),
        (["-machine", "acpi=off"], 8),
        (["-no-acpi"], 8),
        (["-machine", "pcie=on"], 24),
    ],
)
def test_the_transports_of_a_microvm(words: list[str], transports: int) -> None:
    device = ["-device", "virtio-rng-device", "-device", "virtio-net-pci", "-device", "isa-serial"]
    assert why_no_transport(Line([*words, *device * (transports - 1)])) is None
    assert why_no_transport(Line([*words, *device * transports]))


def test_what_is_not_known_may_be_pci() -> None:
    assert is_pci("")
    assert is_pci("some-thing")
