"""A Debian becomes a host of qmpmem, as README.md and the manual say.

The tests of this file run in their order, each on what the ones before have left.
"""

import re
from pathlib import Path
from typing import Final

from tests.boot.machine import (
    AGENT,
    KSM_UNIT,
    allow_time,
    configure,
    done,
    installed,
    properties,
    run,
    verified,
)

CHAPTER: Final = Path("qmpmem/manual/install.md")
INSTALL: Final = (("ksm", "service", "install"), ("agent", "service", "install"))
"""What puts the units in place, as the words after `qmpmem`."""


def test_the_machine_has_booted() -> None:
    said = run("systemctl", "is-system-running", "--wait").stdout.strip()
    assert said == "running", done("systemctl", "--failed")


def test_the_launcher_takes_the_place_of_kvm() -> None:
    assert Path("/usr/bin/kvm").is_symlink()  # to Debian's own emulator
    done("qmpmem", "launcher", "install")
    assert not Path("/usr/bin/kvm").is_symlink()
    assert Path("/usr/bin/distrib-kvm").exists()
    assert "QEMU emulator version" in done("kvm", "-version")
    assert done("qmpmem", "launcher", "install") == "installed already\n"
    assert not run("dpkg", "--verify", "qemu-system-x86").stdout


def test_the_groups_of_the_manual_are_made() -> None:
    text = CHAPTER.read_text()
    for group in ("qmpmem", "qmpmem-admin"):
        command = f"groupadd --system {group}"
        assert f"`{command}`" in text
        done(*command.split())
    done("usermod", "-aG", "qmpmem", "looks")
    done("usermod", "-aG", "qmpmem,qmpmem-admin", "changes")


def test_the_units_are_installed_and_start() -> None:
    configure()
    for words in INSTALL:
        assert "next: " in run("qmpmem", *words).stderr
    allow_time(AGENT)
    names = [unit.name for unit in installed()]
    assert names == [KSM_UNIT, AGENT]
    done("systemctl", "enable", *names)
    for name in names:
        done("systemctl", "start", name)
        assert properties(name, "ActiveState", "Result", "UnitFileState") == {
            "ActiveState": "active",
            "Result": "success",
            "UnitFileState": "enabled",
        }
        verified(name)
    for words in (("agent", "service", "status"), ("ksm", "service", "status")):
        assert re.search(r"(?m)^runs: +active$", done("qmpmem", *words))
