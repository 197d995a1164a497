"""The launcher installed before a real QEMU."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

import pytest

from qmpmem.files import launcher_paths
from qmpmem.launcher_install import Site, Step, install, installing, status, uninstall, uninstalling
from qmpmem.launcher_install.layout import NAMES
from tests.rig import mounts
from tests.rig.install_roots import run
from tests.rig.qemu import short_directory

pytestmark = pytest.mark.qemu

QEMU = "QEMU emulator version"

PAUSED = ("-S", "-nodefaults", "-display", "none", "-accel", "tcg,tb-size=32")

IN_THE_ROOT = 'mount -t overlay overlay -o lowerdir="$0":/usr /usr && exec "$@"'
"""Lay the root's /usr over this host's, in a mount namespace of our own: the host sees nothing."""


@pytest.fixture
def place() -> Iterator[Site]:
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        pytest.skip("missing: qemu-system-x86_64")
    with short_directory() as root:
        (root / "usr/bin").mkdir(parents=True)
        (root / "usr/lib").mkdir()
        (root / "var/lib/dpkg").mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        shutil.copy2(qemu, root / "usr/bin/qemu-system-x86_64")
        (root / "usr/bin/kvm").symlink_to("qemu-system-x86_64")
        launchers = launcher_paths.launchers_directory()
        yield Site(root=root, launchers=launchers, python=Path("/usr/bin/python3"), patience=0)


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("begin", [installing, uninstalling])
def test_after_each_step_the_real_one_answers(
    place: Site, begin: Callable[[Site], Generator[Step]], after: int
) -> None:
    if begin is uninstalling:
        install(place)
    with closing(begin(place)) as steps:
        for _ in islice(steps, after):
            pass
    assert run(str(place.kvm), "--version").startswith(QEMU)


@pytest.fixture
def in_the_root(place: Site) -> tuple[str, ...]:
    command = (*mounts.apart(), "sh", "-c", IN_THE_ROOT, str(place.root / "usr"))
    if subprocess.run([*command, "true"], check=False).returncode != 0:
        pytest.skip("no overlayfs here")
    return command


def test_an_installed_launcher_starts_guests_with_a_balloon(
    place: Site, in_the_root: tuple[str, ...]
) -> None:
    install(place)
    assert status(place).state == "installed"
    talk = ["qmp_capabilities", "query-balloon", "quit"]
    with short_directory() as directory:
        done = subprocess.run(
            [*in_the_root, "kvm", "-name", "one", "-m", "128", *PAUSED, "-qmp", "stdio"],
            input="".join(json.dumps({"execute": word}) for word in talk),
            env={**os.environ, "QMPMEM_RUN_DIR": str(directory)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stderr == ""
    assert '{"actual": 134217728}' in done.stdout


@contextmanager
def started(in_the_root: tuple[str, ...], command: str) -> Generator[Path]:
    """Start a guest by a command of the root, and yield its place in /proc; nothing is said."""
    with short_directory() as directory:
        guest = subprocess.Popen(
            [*in_the_root, command, "-name", "one", "-m", "128", *PAUSED, "-qmp", "stdio"],
            env={**os.environ, "QMPMEM_RUN_DIR": str(directory)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert guest.stdout is not None
            assert b"QMP" in guest.stdout.readline()
            yield Path(f"/proc/{guest.pid}")
        finally:
            guest.kill()
            _, said = guest.communicate()
    assert said == b""


@pytest.mark.parametrize(("lost", "called"), [(False, "kvm"), (True, "distrib-kvm")])
def test_a_guest_keeps_the_name_of_its_process(
    place: Site, in_the_root: tuple[str, ...], called: str, *, lost: bool
) -> None:
    install(place)
    if lost:
        shutil.rmtree(place.path(NAMES))
        assert status(place).state == "partial"
    with started(in_the_root, "kvm") as process:
        assert (process / "comm").read_text().strip() == called


@pytest.mark.parametrize("command", ["kvm", "qemu-system-x86_64"])
def test_a_launcher_in_the_place_of_several_commands_keeps_what_each_means(
    place: Site, in_the_root: tuple[str, ...], command: str
) -> None:
    install(place, ("qemu-system-x86_64",))
    with started(in_the_root, command) as process:
        assert (process / "comm").read_text().strip() == command[:15]
        words = (process / "cmdline").read_bytes().split(b"\0")
        assert words[0].endswith(command.encode()), "QEMU picks its accelerator by that"
        assert b"virtio-balloon-pci" in words[-2]


def test_an_installed_launcher_works_without_its_library(
    place: Site, in_the_root: tuple[str, ...]
) -> None:
    install(place)
    shutil.rmtree(place.sets)
    done = run(*in_the_root, "kvm", "--version")
    assert done.startswith(QEMU)
    assert status(place).state == "partial"
    uninstall(place)
    assert run(*in_the_root, "kvm", "--version").startswith(QEMU)
