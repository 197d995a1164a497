"""Snapshots and migrations of guests with the launcher and without, with a real QEMU."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from launchers.kvm_slots import find_place
from qmpmem.launcher_install import BALLOON
from tests.rig.launcher import SHIM, Monitor, monitored
from tests.rig.qemu import EMULATOR, make_qcow2, short_directory, until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]

WORDS: Final = ("-name", "it", "-display", "none", "-accel", "tcg,tb-size=32", "-m", "64")
MACHINES: Final = ("pc", "q35", "microvm")
SIDES: Final = tuple(itertools.product(("bare", "launched"), repeat=2))


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as made:
        yield made


@contextmanager
def guest(directory: Path, side: str, *words: str) -> Iterator[Monitor]:
    """Start a guest; `bare`: through the launcher, too, but without a balloon."""
    run = directory / side
    settings = {
        "QMPMEM_REAL": f"/usr/bin/{EMULATOR}",
        "QMPMEM_RUN_DIR": str(run),
        "QMPMEM_DEFAULTS": "/proc/nonexistent",
        "QMPMEM_BALLOON": "off" if side == "bare" else "on",
    }
    command = [str(SHIM), *WORDS, *words]
    with monitored(command, run / "it" / "qmp.sock", **settings) as monitor:
        yield monitor


def disk(directory: Path, machine: str) -> tuple[str, ...]:
    path = directory / "s.qcow2"
    if not path.exists():
        make_qcow2(path)
    driver = "virtio-blk-device" if machine == "microvm" else "virtio-blk-pci"
    return (
        *("-M", machine, "-device", f"{driver},drive=d"),
        *("-drive", f"file={path},if=none,id=d,file.locking=off"),
    )


def save(directory: Path, side: str, *words: str) -> None:
    with guest(directory, side, *words) as monitor:
        assert monitor.say("savevm one") == ""
        assert ("qmpmem0" in monitor.say("info qtree")) == (side == "launched")


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("taken", ["bare", "launched"])
def test_a_snapshot_loads_through_the_launcher(directory: Path, machine: str, taken: str) -> None:
    words = disk(directory, machine)
    save(directory, taken, *words)
    with guest(directory, "launched", *words, "-loadvm", "one") as monitor:
        assert monitor.ask("query-status")["status"] == "running"
        assert "qmpmem0" in monitor.say("info qtree")


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_a_snapshot_loads_without_the_launcher(directory: Path, machine: str) -> None:
    """With the words that `launcher uninstall` and the manual tell."""
    words = disk(directory, machine)
    save(directory, "launched", *words)
    place = find_place(machine)
    assert place is not None
    device = BALLOON.replace("pci.0", place.bus)
    with guest(directory, "bare", *words, "-loadvm", "one", "-device", device) as monitor:
        assert monitor.ask("query-status")["status"] == "running"


def test_the_manual_tells_the_same_words() -> None:
    assert (
        f"-device '{BALLOON}'" in (SHIM.parents[1] / "qmpmem" / "manual" / "install.md").read_text()
    )


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("source", "destination"), SIDES)
def test_migration(directory: Path, machine: str, source: str, destination: str) -> None:
    """All ways but one; that one is why a guest that arrives gets a balloon."""
    words, path = disk(directory, machine), directory / "m.sock"
    with guest(directory, source, *words) as old:
        arriving = directory / "new"
        arriving.mkdir()
        with guest(arriving, destination, *words, "-incoming", f"unix:{path}") as new:
            old.ask("migrate", uri=f"unix:{path}")
            done = ("completed", "failed")
            until(lambda: old.ask("query-migrate").get("status") in done, seconds=30)
            if (source, destination) == ("launched", "bare"):
                with pytest.raises((OSError, ValueError)):
                    new.ask("query-status")
            else:
                until(lambda: new.ask("query-status")["status"] == "running", seconds=30)
