"""The balloon on each machine of a real QEMU: on the root bus, and only where there is room."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pytest

from launchers.kvm_slots import find_place, is_pci
from tests.rig.pairs import Failed, Ground, Started
from tests.rig.qemu import EMULATOR, short_directory

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]

PAUSED: Final = ("-S", "-display", "none", "-accel", "tcg,tb-size=32", "-m", "64")
OTHERS: Final = ("aarch64", "arm", "ppc64", "s390x", "riscv64", "riscv32", "loongarch64")
E1000: Final = ("-device", "e1000")


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with short_directory() as directory:
        yield Ground(directory, directory / "run")


def machines(emulator: str) -> list[str]:
    """The machines of an emulator; none where it is not installed."""
    if shutil.which(emulator) is None:
        return []
    done = subprocess.run([emulator, "-M", "help"], capture_output=True, text=True, check=True)
    return [line.split()[0] for line in done.stdout.splitlines()[1:]]


def same(ground: Ground, *words: str, balloon: bool) -> None:
    """Hold a guest with the launcher against one without; `balloon`: whether it has ours.

    Where this QEMU lacks what the words are about, it refuses them through the launcher, too.
    """
    bare, launched = ground.bare(*PAUSED, *words), ground.launched(*PAUSED, *words)
    if isinstance(bare, Failed):
        assert re.search("Property .* not found|not available", bare.said), bare
        assert launched == bare
        return
    assert isinstance(launched, Started), launched
    assert (launched.tree, launched.pci) == (bare.tree, bare.pci)
    assert launched.balloon == balloon


@pytest.mark.parametrize("machine", machines(EMULATOR))
def test_every_machine(ground: Ground, machine: str) -> None:
    expected = machine.startswith(("pc", "q35", "ubuntu", "microvm"))
    same(ground, "-M", machine, balloon=expected)


@pytest.mark.parametrize(
    ("emulator", "machine"),
    [
        (emulator, machine)
        for emulator in (f"qemu-system-{name}" for name in OTHERS)
        for machine in machines(emulator)
        if find_place(machine) is not None and not re.search(r"\d\.\d", machine)
    ],
)
def test_every_machine_of_other_emulators(ground: Ground, emulator: str, machine: str) -> None:
    path = shutil.which(emulator)
    assert path is not None
    words = (*PAUSED, "-m", "2G", "-M", machine)
    there = Ground(ground.directory, ground.run, path)
    bare, launched = there.bare(*words), there.launched(*words)
    if isinstance(bare, Failed):  # some need a firmware that is another package
        assert launched == bare
    else:
        assert launched == replace(bare, balloon=True)


PXB: Final = ("-device", "pxb-pcie,id=p,bus_nr=8,bus=pcie.0")
PORT: Final = ("-device", "pcie-root-port,bus=p,id=r,slot=1")


@pytest.mark.parametrize(
    "words",
    [
        ["-M", "q35", *PXB, *PORT],
        ["-M", "q35", *PXB, *PORT, "-device", "e1000e,bus=r"],
        ["-M", "q35", "-nodefaults", *PXB],
        ["-M", "q35", *PXB, "-device", "pxb-pcie,id=p2,bus_nr=40,bus=pcie.0"],
        ["-M", "q35", "-device", '{"driver":"pxb-pcie","id":"p","bus_nr":8,"bus":"pcie.0"}'],
        ["-M", "q35,cxl=on", "-device", "pxb-cxl,id=p,bus_nr=12,bus=pcie.0"],
        ["-M", "pc", "-device", "pxb,id=p,bus_nr=8"],
        ["-device", "pxb,id=p,bus_nr=8,bus=pci.0", "-device", "e1000,bus=p,addr=1"],
        ["-M", "q35", "-device", "pcie-pci-bridge,id=b", "-device", "e1000,bus=b,addr=1"],
        [
            "-M",
            "q35",
            "-device",
            "i82801b11-bridge,id=b",
            "-device",
            "pci-bridge,id=c,bus=b,chassis_nr=1",
        ],
        ["-M", "pc", "-device", "pci-bridge,id=b,chassis_nr=1", "-device", "e1000,bus=b,addr=1"],
        ["-M", "microvm,pcie=on", "-device", "pcie-root-port,id=r,slot=1"],
        ["-M", "q35", "-nic", "none", "-global", "virtio-pci.disable-legacy=on"],
    ],
)
def test_several_buses(ground: Ground, words: list[str]) -> None:
    same(ground, *words, balloon=True)


@pytest.mark.parametrize(
    "words",
    [
        ["-device", "pxb,id=pci.0,bus_nr=8"],
        ["-M", "q35", "-device", "pxb-pcie,id=pcie.0,bus_nr=8"],
        [
            "-nic",
            "none",
            "-global",
            "virtio-pci.disable-modern=on",
            "-global",
            "virtio-pci.disable-legacy=on",
        ],
        ["-nic", "none", "-global", "virtio-pci.iommu_platform=on"],
        ["-nic", "none", "-global", "driver=virtio-device,property=iommu_platform,value=on"],
        ["-nic", "none", "-global", "virtio-pci.vectors=3"],
        ["-nodefaults", "-device", "e1000,addr=2.1"],
        ["-nodefaults", "-device", "e1000,addr=3.1", *E1000],
    ],
)
def test_what_would_not_start_with_ours(ground: Ground, words: list[str]) -> None:
    same(ground, *words, balloon=False)


PORTS: Final = tuple(
    word
    for number in range(14)
    for word in (
        "-device",
        f"pcie-root-port,port={16 + number},chassis={number + 1},id=pci.{number + 1},bus=pcie.0,"
        + (f"addr={2 + number // 8:#x}.{number % 8:#x}" if number % 8 else "")
        + ("" if number % 8 else f"multifunction=on,addr={2 + number // 8:#x}"),
    )
)
BEHIND: Final = tuple(
    word
    for number in range(10)
    for word in ("-device", f"virtio-net-pci,id=n{number},bus=pci.{number + 1},addr=0x0")
)
MIXED: Final = (
    *("-drive", "file=null-co://,if=virtio,format=raw", "-device", "usb-ehci,id=u"),
    *("-nic", "user,model=virtio", "-virtfs", "local,path=.,mount_tag=t,security_model=none"),
    *("-device", "usb-tablet,bus=u.0", "-device", '{"driver":"virtio-rng-pci","bus":"pci.0"}'),
    *("-device", "virtio-scsi", "-drive", "file=null-co://,if=none,id=d,format=raw"),
    *("-device", "scsi-hd,drive=d", "-device", "e1000,addr=0x1b,multifunction=on"),
    *("-device", "e1000,addr=0x1b.1", "-audio", "driver=none,model=hda"),
)
"""Takes eight slots, by each way there is."""


@pytest.mark.parametrize(
    ("words", "room"),
    [
        (["-M", "pc"], 28),
        (["-M", "pc", "-usb"], 28),
        (["-M", "pc", "-nodefaults"], 30),
        (["-M", "q35"], 28),
        (["-M", "q35", "-usb", "-vga", "none"], 28),
        (["-M", "q35", "-nodefaults"], 30),
        (["-M", "q35", "-nodefaults", *PORTS, *BEHIND], 28),
        (["-M", "pc", "-vga", "qxl", "-device", "VGA"], 27),
        (["-M", "pc", "-vga", "none", *MIXED], 22),
    ],
)
def test_the_last_slot(ground: Ground, words: list[str], room: int) -> None:
    """The balloon takes the last slot, and is left out where the devices need it."""
    same(ground, *words, *E1000 * (room - 1), balloon=True)
    same(ground, *words, *E1000 * room, balloon=False)


@pytest.mark.parametrize(("machine", "room"), [("microvm", 24), ("microvm,ioapic2=off", 8)])
def test_the_last_transport(ground: Ground, machine: str, room: int) -> None:
    device = ("-device", "virtio-rng-device")
    same(ground, "-M", machine, *device * (room - 1), balloon=True)
    same(ground, "-M", machine, *device * room, balloon=False)


@pytest.mark.parametrize("emulator", [EMULATOR, "qemu-system-s390x"])
def test_which_devices_are_pci(emulator: str) -> None:
    if shutil.which(emulator) is None:
        pytest.skip(f"{emulator} is not installed")
    words = [emulator, "-M", "none", "-device", "help"]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r'^name "([^"]+)"(.*)$', text, flags=re.MULTILINE)
    taken = {name for name, rest in listed if "bus PCI" in rest or 'bus "PCI' in rest}
    assert len(taken) > 50
    assert {name for name, _ in listed if is_pci(name)} == taken


@pytest.mark.parametrize(
    "words",
    [
        ["memory-backend-ram,id=v,size=64M,reserve=off"],
        ["memory-backend-ram,id=v,size=64M,reserve=off,prealloc=off"],
        ['{"qom-type":"memory-backend-ram","id":"v","size":67108864,"reserve":false}'],
        ["memory-backend-file,id=v,size=64M,mem-path=ram.img,share=on,readonly=on"],
        ["memory-backend-ram,id=v,size=64M,reserve=off", "-device", "virtio-mem-pci,memdev=v"],
        ["memory-backend-ram,id=v,size=64M", "-device", "virtio-mem-pci,memdev=v"],
        ["memory-backend-file,id=v,size=64M,mem-path=ram.img", "-device", "nvdimm,memdev=v"],
        ["memory-backend-ram,id=v,size=64M", "-device", "pc-dimm,memdev=v"],
        ["memory-backend-memfd,id=v,size=64M,share=on", "-machine", "memory-backend=v"],
    ],
)
def test_static_memory(ground: Ground, words: list[str]) -> None:
    with (ground.directory / "ram.img").open("wb") as file:
        file.truncate(64 << 20)
    words = ["-m", "64M,slots=2,maxmem=1G", "-M", "pc,nvdimm=on", "-object", *words]
    bare = ground.bare(*PAUSED, *words)
    launched = ground.launched(*PAUSED, *words, mode="static")
    assert isinstance(bare, Started)
    assert launched == bare
