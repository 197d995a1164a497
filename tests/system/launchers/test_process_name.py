"""What a guest's process is called, by which killall, pgrep -x and start-stop-daemon find it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.rig.launcher import LAUNCHERS, SHIM
from tests.rig.qemu import short_directory

TELL: Final = 'read -r name </proc/$$/comm; echo "$name"'
"""Run by bash as the emulator: a real program, which says what it is called."""


@pytest.fixture
def here() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


def install(here: Path, name: str, program: Path, *, linked: bool = True) -> Path:
    """Put a launcher before a program, as `qmpmem launcher install` does; returns the command."""
    directory, library = here / "bin", here / "lib"
    directory.mkdir()
    (library / "distrib").mkdir(parents=True)
    shutil.copytree(LAUNCHERS, library / "launchers-1", ignore=shutil.ignore_patterns("guest"))
    text = SHIM.read_text().replace("\nlaunchers=${0%/*}\n", f"\nlaunchers={library}/launchers-1\n")
    (directory / name).write_text(text)
    (directory / name).chmod(0o755)
    (directory / f"distrib-{name}").symlink_to(program)
    if linked:
        (library / "distrib" / name).symlink_to(f"../../bin/distrib-{name}")
    return directory / name


def launch(here: Path, command: Path, *words: str, **settings: str) -> str:
    chosen = {"QMPMEM_RUN_DIR": f"{here}/run", "QMPMEM_DEFAULTS": "/proc/nonexistent", **settings}
    environ = {"PATH": os.environ["PATH"], **chosen}
    done = subprocess.run(
        [command, *words], env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def bash() -> Path:
    found = shutil.which("bash")
    if found is None:
        pytest.skip("missing: bash")
    return Path(found).resolve()


@pytest.mark.parametrize("name", ["kvm", "qemu-system-x86_64"])
@pytest.mark.parametrize(
    "settings", [{}, {"QMPMEM_PYTHON": "/proc/nonexistent"}], ids=["", "plain"]
)
def test_it_is_called_as_the_command_is(here: Path, name: str, settings: dict[str, str]) -> None:
    command = install(here, name, bash())
    assert launch(here, command, "-c", TELL, **settings) == name[:15]


def test_without_the_link_it_starts_all_the_same(here: Path) -> None:
    command = install(here, "kvm", bash(), linked=False)
    assert launch(here, command, "-c", TELL) == "distrib-kvm"


def test_a_link_to_another_program_is_not_followed(here: Path) -> None:
    command = install(here, "kvm", bash(), linked=False)
    (here / "lib/distrib/kvm").symlink_to("/bin/false")
    assert launch(here, command, "-c", TELL) == "distrib-kvm"


@pytest.mark.parametrize(
    ("line", "called"),
    [
        ("echo ${0##*/}", "kvm"),
        ('basename "$0"', "kvm"),
        ("echo it", "it"),
        ('cat "$(dirname "$0")/beside"', "beside"),
        ('cat "${0%/*}/beside"', "beside"),
        ('cat "$0.conf"', "conf"),
    ],
)
def test_a_script_finds_its_name_and_what_is_beside_it(here: Path, line: str, called: str) -> None:
    script = here / "script"
    script.write_text(f"#!/bin/sh\n{line}\n")
    script.chmod(0o755)
    command = install(here, "kvm", script)
    (here / "bin/beside").write_text("beside\n")
    (here / "bin/distrib-kvm.conf").write_text("conf\n")
    assert launch(here, command, "-version") == called
