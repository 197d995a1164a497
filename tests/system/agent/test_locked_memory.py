"""An agent's own memory: locked where that is permitted without a bound, and no larger by it."""

import os
import resource
import subprocess
from pathlib import Path
from typing import Final

import pytest

from qmpmem.agent import locked_memory
from tests.rig.agent import running
from tests.rig.patience import patient
from tests.rig.qemu import short_directory
from tests.rig.users import needs_root

BOUNDED: Final = ("prlimit", "--memlock=1048576")
WITHOUT: Final = ("setpriv", "--inh-caps=-ipc_lock", "--bounding-set=-ipc_lock")
UNIT: Final = Path(__file__).resolve().parents[3] / "launchers/qmpmem-agent.service"


def sizes(pid: int) -> dict[str, int]:
    """Read what a process has, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}


@needs_root("may not lock memory")
@pytest.mark.timeout(60)
def test_an_agent_locks_what_it_touches_and_no_more() -> None:
    with short_directory() as run, running(run) as agent:
        seen = sizes(agent.pid)
    assert seen["VmLck"] > 0
    assert seen["VmRSS"] < seen["VmSize"] // 2
    with short_directory() as run, running(run, before=(*BOUNDED, *WITHOUT)) as agent:
        other = sizes(agent.pid)
    assert other["VmLck"] == 0
    assert seen["VmRSS"] < other["VmRSS"] + 8 * 1024


@needs_root("may not lock memory")
def test_a_bound_that_will_be_reached_is_no_permission(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    limits = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limits[0] == resource.RLIM_INFINITY:
        pytest.skip("locked memory is not bounded here")
    for mapped, permissions, expected in (
        ("0 0 4294967295", "000001fffeffffff", True),
        ("0 0 4294967295", "000001fffeffbfff", False),
        ("0 1000 1", "000001fffeffffff", False),
        ("", "000001fffeffffff", False),
    ):
        (tmp_path / "proc/self/uid_map").write_text(f"         {mapped}\n")
        status = f"Name:\tx\nCapPrm:\t000001fffeffffff\nCapEff:\t{permissions}\n"
        (tmp_path / "proc/self/status").write_text(status)
        assert locked_memory.is_permitted(tmp_path) is expected, (mapped, permissions)


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    unit = UNIT.read_text().replace("@RUN@", "/run/qmpmem/guests")
    copy.write_text(unit.replace("ExecStart=qmpmem", "ExecStart=/bin/true"))
    try:
        done = subprocess.run(
            ["systemd-analyze", "verify", str(copy)],
            env=os.environ | {"SYSTEMD_LOG_LEVEL": "warning"},
            capture_output=True,
            text=True,
            timeout=patient(30),
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no systemd-analyze here")
    mistakes = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, mistakes) == (0, [])
