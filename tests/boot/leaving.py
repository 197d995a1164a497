"""An agent of one user, and then all of it is removed as the manual says.

The tests of this file run in their order, each on what the ones before have left.
"""

import re
from pathlib import Path
from typing import Final

from tests.boot.machine import (
    AGENT,
    CONFIG,
    MIB,
    UNITS_DIRECTORY,
    done,
    guests,
    journal,
    knobs,
    main_pid,
    run,
    state,
    until,
)

KIM: Final = {"XDG_RUNTIME_DIR": "/run/user/1003"}


def test_an_agent_of_one_user() -> None:
    done("systemctl", "stop", AGENT)
    done("qmpmem", "agent", "service", "install", "--user", "kim")
    done("systemctl", "daemon-reload")
    done("systemctl", "start", AGENT)
    assert Path(f"/proc/{main_pid(AGENT)}/status").read_text().count("CapEff:\t0000000000000000")
    words = ["kvm", "-name", "hers", "-display", "none", "-accel", "tcg", "-S", "-m", "256"]
    unit = ("--quiet", "--unit=hers", "--collect", "--uid=kim")
    environ = [f"--setenv={name}={value}" for name, value in KIM.items()]
    done("systemd-run", *unit, *environ, *words)
    until(lambda: "hers" in run("qmpmem", "list", user="kim", environ=KIM).stdout, "it is listed")

    def knows() -> bool:
        return "hers" in run("qmpmem", "agent", "status", user="kim", environ=KIM).stdout

    until(knows, "her agent knows it")
    ran = run("qmpmem", "info", "hers", "--json", user="kim", environ=KIM)
    assert f'"maximum":{256 * MIB}' in ran.stdout.replace(" ", "")
    said = done("systemd-analyze", "security", "--no-pager", AGENT)
    match = re.search(r"exposure level for .*: ([0-9.]+)", said)
    assert match is not None
    assert float(match[1]) <= 1.0
    assert "Traceback" not in journal(AGENT)
    done("systemctl", "stop", AGENT)
    done("systemctl", "stop", "hers")


def test_removing_leaves_what_the_manual_says() -> None:
    for name in guests():
        done("systemctl", "stop", name)
    done("qmpmem", "agent", "service", "uninstall")
    done("qmpmem", "ksm", "restore")
    done("qmpmem", "ksm", "service", "uninstall")
    done("qmpmem", "launcher", "uninstall")
    done("systemctl", "daemon-reload")
    assert not [path for path in UNITS_DIRECTORY.rglob("qmpmem*") if not path.name.endswith(".d")]
    assert knobs()["run"] == "0"
    assert Path("/usr/bin/kvm").is_symlink()
    assert not Path("/usr/lib/qmpmem").exists()
    assert not run("dpkg", "--verify", "qemu-system-x86").stdout
    assert not run("dpkg-divert", "--list", "*kvm*").stdout
    assert "QEMU emulator version" in done("kvm", "-version")
    assert Path("/var/lib/qmpmem/journal.db").exists()
    assert CONFIG.exists()
    assert state(AGENT) in ("inactive", "failed")
