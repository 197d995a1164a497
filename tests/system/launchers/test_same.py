"""A guest is the same with the launcher and without, but for the balloon and the monitor."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.rig.launcher import SHIM, Monitor, monitored
from tests.rig.pairs import GENERATED, OWN, prune
from tests.rig.qemu import EMULATOR, short_directory

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]

QEMU: Final = f"/usr/bin/{EMULATOR}"
PAUSED: Final = ("-S", "-display", "none", "-accel", "tcg,tb-size=32", "-m", "256")
TWO_DISKS: Final = (
    *("-drive", "file=null-co://,if=virtio,format=raw,id=one"),
    *("-device", "e1000"),
    *("-drive", "file=null-co://,if=virtio,format=raw,id=two"),
    *("-device", '{"driver":"virtio-rng-pci","id":"rng"}'),
)
GUESTS: Final = {
    "pc": (),
    "pc-disks": TWO_DISKS,
    "pc-nodefaults": ("-nodefaults", *TWO_DISKS),
    "pc-vga-usb": ("-vga", "none", "-usb", "-device", "usb-tablet", "-nic", "none"),
    "pc-old-type": ("-M", "pc-i440fx-2.4", *TWO_DISKS),
    "pc-plain-options": ("-machine", "vmport=off", *TWO_DISKS),
    "q35": ("-M", "q35", *TWO_DISKS),
    "q35-ports": ("-M", "q35", "-device", "pcie-root-port,id=p1,slot=1", *TWO_DISKS),
    "q35-twice": ("-M", "pc,vmport=off", "-machine", "type=q35", *TWO_DISKS),
    "microvm": (
        *("-M", "microvm", "-drive", "file=null-co://,if=none,format=raw,id=one"),
        *("-device", "virtio-blk-device,drive=one"),
    ),
    "isapc": ("-M", "isapc"),
    "serial": ("-serial", "null", "-parallel", "none", "-monitor", "none"),
    "globals": ("-global", "virtio-blk-pci.disable-legacy=on", *TWO_DISKS),
}


@contextmanager
def without(directory: Path, *words: str) -> Iterator[Monitor]:
    """Start a guest as if there were no launcher."""
    path = directory / "own.sock"
    config = directory / "own.conf"
    config.write_text(OWN.format(path=path))
    with monitored([QEMU, *PAUSED, *words, "-readconfig", str(config)], path) as monitor:
        yield monitor


@contextmanager
def wrapped(directory: Path, *words: str, **settings: str) -> Iterator[Monitor]:
    """Start a guest with the launcher."""
    run = directory / "run"
    chosen = {"QMPMEM_REAL": QEMU, "QMPMEM_RUN_DIR": str(run)} | settings
    command = [str(SHIM), *PAUSED, *words, "-name", "guest=it,debug-threads=on"]
    with monitored(command, run / "it" / "qmp.sock", **chosen) as monitor:
        yield monitor


def describe(monitor: Monitor) -> dict[str, Any]:
    """All that can be seen of a guest's hardware and of its monitors."""
    chardevs = [
        (entry["label"], entry["filename"].split(",")[0].split(":")[0])
        for entry in monitor.ask("query-chardev")
        if entry["label"] not in ("own", "qmpmem0")
    ]
    pci = monitor.say("info pci")
    return {
        "machine": monitor.ask("qom-get", path="/machine", property="type"),
        "kvm": monitor.ask("query-kvm"),
        "pci": [part for part in pci.split("  Bus ") if "qmpmem0" not in part],
        "tree": GENERATED.sub("#", prune(monitor.say("info qtree"))),
        "chardev": sorted(chardevs),
        "block": GENERATED.sub("#", monitor.say("info block")),
        "network": GENERATED.sub("#", monitor.say("info network")),
        "cpus": len(monitor.ask("query-cpus-fast")),
        "memory": monitor.ask("query-memdev"),
        "status": monitor.ask("query-status")["status"],
    }


@pytest.mark.parametrize("guest", GUESTS)
def test_nothing_else_changes(guest: str) -> None:
    words = GUESTS[guest]
    with short_directory() as directory:
        with without(directory, *words) as monitor:
            before = describe(monitor)
        with wrapped(directory, *words) as monitor:
            after = describe(monitor)
            tree = monitor.say("info qtree")
    assert (tree.count('id "qmpmem0"') == 0) == (guest == "isapc")
    assert after == before


@pytest.mark.parametrize(("machine", "devices"), [("microvm", 24), ("microvm,ioapic2=off", 8)])
def test_a_microvm_with_every_slot_taken_starts(machine: str, devices: int) -> None:
    with (
        short_directory() as directory,
        wrapped(directory, "-M", machine, *["-device", "virtio-rng-device"] * devices) as monitor,
    ):
        assert "virtio-balloon" not in monitor.say("info qtree")


def test_an_emulator_without_json_gets_its_balloon_at_a_high_slot() -> None:
    """The form for an emulator that knows no JSON moves nothing, either."""
    device = "virtio-balloon-pci,id=qmpmem0,addr=0x1e,deflate-on-oom=on,free-page-reporting=on"
    for machine in ("pc", "q35"):
        words = ("-M", machine, *TWO_DISKS)
        with short_directory() as directory:
            with without(directory, *words) as monitor:
                before = describe(monitor)
            with without(directory, *words, "-device", device) as monitor:
                assert 'id "qmpmem0"' in monitor.say("info qtree")
                assert describe(monitor) == before
