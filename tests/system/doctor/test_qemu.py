"""The doctor on this host, with real QEMUs on it."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qmpmem.doctor import Finding, Host, check, examine
from tests.rig import qemu
from tests.rig.foreign_qemu import qmp

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]


@pytest.fixture
def here() -> Iterator[Path]:
    with qemu.short_directory() as directory:
        yield directory


def said(lines: tuple[Finding, ...], what: str) -> list[Finding]:
    return [line for line in lines if line.what == what]


def test_the_real_emulator_is_found_with_its_version(here: Path) -> None:
    lines = asyncio.run(examine(here / "run", environ={"PATH": os.environ["PATH"]}))
    version = subprocess.run(
        [qemu.EMULATOR, "-version"], capture_output=True, text=True, check=True
    )
    [found] = said(lines, "emulator")
    assert found.status == "ok"
    assert found.said.rpartition("QEMU ")[2] in version.stdout


async def test_a_guest_that_was_killed_leaves_a_record_and_a_socket(here: Path) -> None:
    run = here / "run"
    with qemu.paused(run, "a", "b") as children:
        [alive] = said(await examine(run), "leftovers")
        assert alive.said == "none beside 2 live guests"
        children["a"].kill()
        children["a"].wait()
        assert (run / "a/qmp.sock").exists()
        [found] = said(await examine(run), "leftovers")
        assert found.said == "records of guests that are gone: a"


@contextmanager
def called(name: str, here: Path) -> Iterator[int]:
    """Start a QEMU by another name, and leave the accelerator to it."""
    words = ["-S", "-nodefaults", "-vga", "none", "-display", "none", "-m", "64", *qmp(here / "q")]
    with subprocess.Popen(
        [name, *words], executable=f"/usr/bin/{qemu.EMULATOR}", stdin=subprocess.DEVNULL
    ) as child:
        try:
            qemu.until(lambda: qemu.listens(here / "q") or child.poll() is not None)
            yield child.pid
        finally:
            child.kill()


def test_the_old_recipe_runs_guests_emulated(here: Path) -> None:
    """A root whose processor has vmx, with one real process: a QEMU called kvm.real."""
    root = here / "root"
    for directory in ("dev", "proc"):
        (root / directory).mkdir(parents=True)
    (root / "dev/kvm").touch()
    (root / "proc/cpuinfo").write_text("flags\t: vmx\n")
    (root / "proc/self").symlink_to("/proc/self")
    with called("/usr/bin/kvm.real", here) as pid:
        (root / "proc" / str(pid)).symlink_to(f"/proc/{pid}")
        host = Host(
            root=root, run=here / "run", environ={}, uid=0, groups=frozenset(), machine="x86_64"
        )
        [found] = said(check(host), "emulated guests")
        assert found.status == "warning"
        assert f"process {pid} runs emulated" in found.said
        assert "/usr/bin/kvm.real" in (found.todo or "")
