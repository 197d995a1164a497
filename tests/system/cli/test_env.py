"""Programs that start QEMU by a name of their own, and the launcher in front of them."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import pytest

from tests.rig import readme
from tests.rig.command import PROGRAM, Ran
from tests.rig.launcher import PLAYED, Emulator
from tests.rig.patience import patient
from tests.rig.qemu import short_directory

NAME: Final = "qemu-system-x86_64"
OTHER: Final = "qemu-system-z80"
"""An emulator that no package has."""

WAYS: Final = {
    "by name": 'exec {name} "$@"',
    "by name, then by path": 'QEMU=$(command -v {name}); exec "$QEMU" "$@"',
    "by name, links resolved": 'exec "$(realpath "$(command -v {name})")" "$@"',
    "by name, from Python": (
        f"exec {shlex.quote(sys.executable)} -c "
        "'import shutil, subprocess, sys; name = shutil.which(sys.argv[1]); "
        'sys.exit(subprocess.run([name, *sys.argv[2:]]).returncode)\' {name} "$@"'
    ),
}
"""How programs look for their emulator; the manual's table names a way for each program."""

OTHER_WAYS: Final = {"a path of its own", "in a container"}
"""For these, the manual says something else than `qmpmem env`."""


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with short_directory() as directory:
        (directory / "bin").mkdir()
        emulator = Emulator(directory / "bin", NAME)
        emulator.run = directory / "run"
        yield emulator


def run(emulator: Emulator, *words: str, **environ: str) -> Ran:
    """Run `qmpmem env` where the emulator is on PATH, as an ordinary user has it."""
    home = emulator.path.parent.parent
    settings = {
        "QMPMEM_REAL": "",
        "HOME": str(home),
        "PATH": f"{emulator.path.parent}:/bin:/usr/bin",
    }
    done = subprocess.run(
        [PROGRAM, "env", *words],
        env=emulator.settings(settings | environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=patient(60),
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("way", WAYS)
def test_a_program_starts_its_guest_through_the_launcher(emulator: Emulator, way: str) -> None:
    tool = WAYS[way].replace("{name}", NAME)
    ran = run(emulator, "--", "sh", "-c", tool, "tool", "-m", "256", "-name", "it")
    assert (ran.code, ran.err) == (PLAYED, "")
    words = emulator.words()
    assert words[:4] == [b"-m", b"256", b"-name", b"it"]
    assert words[4] == b"-readconfig"
    assert b"virtio-balloon-pci" in words[-1]
    path = emulator.environment()[b"PATH"].decode().split(":")
    assert path[0].endswith("/.cache/qmpmem/bin")


def test_a_shell_takes_the_directory_into_its_path(emulator: Emulator) -> None:
    ran = run(emulator)
    assert ran.code == 0
    shell = ["sh", "-c", f"{ran.out}{ran.out}command -v {NAME}; exec {NAME} -m 256 -name it"]
    done = subprocess.run(
        shell,
        env=emulator.settings({"QMPMEM_REAL": "", "PATH": f"{emulator.path.parent}:/bin:/usr/bin"}),
        capture_output=True,
        text=True,
        timeout=patient(60),
        check=False,
    )
    assert (done.returncode, done.stderr) == (PLAYED, "")
    assert done.stdout.endswith(f"/.cache/qmpmem/bin/{NAME}\n")
    assert b"virtio-balloon-pci" in emulator.words()[-1]


def test_an_emulator_is_never_replaced_by_one_of_another_processor(emulator: Emulator) -> None:
    other = Emulator(emulator.path.parent, OTHER)
    tool = f"rm {other.path}; exec {OTHER} -m 256"
    ran = run(emulator, "--", "sh", "-c", tool, QMPMEM_REAL=str(emulator.path))
    assert ran.code == 127
    assert "no emulator found: expected" in ran.err
    assert f"{OTHER} on PATH" in ran.err
    assert not emulator.path.with_name(f"{NAME}.words").exists()


def test_what_the_administrator_names_for_kvm_is_not_used_for_another_processor(
    emulator: Emulator,
) -> None:
    other = Emulator(emulator.path.parent, OTHER)
    ran = run(emulator, "--", OTHER, "-name", "it", QMPMEM_REAL=str(emulator.path))
    assert (ran.code, ran.err) == (PLAYED, "")
    assert other.words()[:2] == [b"-name", b"it"]


def test_a_script_that_is_launched_and_starts_another_emulator_gets_that_one(
    emulator: Emulator,
) -> None:
    other = Emulator(emulator.path.parent, OTHER)
    script = emulator.path.with_name("qemu-kvm")
    script.write_text(f'#!/bin/sh\nexec {OTHER} "$@"\n')
    script.chmod(0o755)
    ran = run(emulator, "--", "qemu-kvm", "-name", "it", QMPMEM_ASK_SCRIPT="")
    assert ran.code == PLAYED
    assert other.words()[:2] == [b"-name", b"it"]


def test_what_cannot_be_run_is_named(emulator: Emulator) -> None:
    ran = run(emulator, "--", "no-such-program")
    assert ran == (3, "", "qmpmem: no-such-program: No such file or directory\n")


def test_the_manual_names_a_way_that_is_tried_here_for_each_program() -> None:
    table = readme.chapter("launcher").partition("| program | finds QEMU |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| (.+) \|$", table, re.MULTILINE)
    programs = {name: (way, advice) for names, way, advice in rows for name in names.split(", ")}
    assert {
        "quickemu", "lima", "packer", "vagrant-qemu", "systemd-vmspawn", "autopkgtest", "labgrid",
        "libvirt", "Proxmox",
    } <= programs.keys()  # fmt: skip
    for name, (way, advice) in programs.items():
        assert way in WAYS or way in OTHER_WAYS, name
        assert ("`qmpmem env -- " in advice) == (way in WAYS), name
