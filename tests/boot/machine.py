"""The booted machine, by the commands that its administrator has."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

CGROUPS: Final = Path("/sys/fs/cgroup")
KSM: Final = Path("/sys/kernel/mm/ksm")
UNITS_DIRECTORY: Final = Path("/etc/systemd/system")
CONFIG: Final = Path("/etc/qmpmem/qmpmem.toml")
MIB: Final = 1 << 20
SLOWLY: Final = 'period = "5s"'
"""A round takes nearly a second on emulated processors, and the guests need those, too."""

PATIENCE: Final = 180.0
"""Seconds: a program of Python takes ten to begin where two processors are emulated."""


AGENT: Final = "qmpmem-agent.service"
BROKER: Final = "qmpmem-broker.service"
KSM_UNIT: Final = "qmpmem-ksm.service"


class Unit(NamedTuple):
    """A unit of ours."""

    name: str
    exposure: float
    """What `systemd-analyze security` may say at the most, of 10."""
    user: str = "root"
    service: bool = True
    """Whether it is a service that goes on running, and so has a main process."""


KNOWN: Final = (
    Unit(KSM_UNIT, 1.5, service=False),
    Unit(BROKER, 1.0),
    Unit(AGENT, 2.9),
    Unit(AGENT, 0.8, user="qmpmem-agent"),
    Unit(AGENT, 1.0, user="kim"),
)
"""All units of ours, in the order in which they are started."""


def installed() -> list[Unit]:
    """Find those that are in place."""
    return [unit for unit in KNOWN if user_of(unit.name) == unit.user]


def user_of(name: str) -> str | None:
    """Read the user of a unit; None: it is not in place."""
    path = UNITS_DIRECTORY / name
    return settings(name).get("User", "root") if path.exists() else None


def run(
    *words: str,
    user: str = "root",
    environ: Mapping[str, str] | None = None,
    seconds: float = PATIENCE,
) -> subprocess.CompletedProcess[str]:
    """Run a command as a user, with that user's groups, whatever its exit code."""
    become = [] if user == "root" else ["runuser", "-u", user, "--"]
    given = [f"{name}={value}" for name, value in (environ or {}).items()]
    done = subprocess.run(
        [*become, *(["env", *given] if given else []), *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    print(f"$ {' '.join(words)}   [{user}, exit code {done.returncode}]")
    print(done.stdout[-3000:] + done.stderr[-3000:])
    return done


def done(*words: str, user: str = "root", seconds: float = PATIENCE) -> str:
    """Run a command that must succeed; return its output."""
    ran = run(*words, user=user, seconds=seconds)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def told(*words: str, user: str = "root") -> Any:  # noqa: ANN401 - JSON
    """Ask qmpmem for JSON."""
    return json.loads(done("qmpmem", *words, "--json", user=user))


def guests(user: str = "root") -> dict[str, Any]:
    """Ask for all guests, by id."""
    return {each["id"]: each for each in told("list", user=user)}


def seen_by_agent() -> dict[str, Any]:
    """Ask the agent for all guests that it knows, by id; nothing where there is no agent."""
    ran = run("qmpmem", "agent", "status", "--json")
    if ran.returncode != 0:
        return {}
    return {each["guest"]: each for each in json.loads(ran.stdout)["guests"]}


def properties(unit: str, *names: str) -> dict[str, str]:
    """Ask systemd for some properties of a unit."""
    said = done("systemctl", "show", unit, *(f"--property={name}" for name in names))
    return dict(line.split("=", 1) for line in said.splitlines())


def state(unit: str) -> str:
    """Ask systemd for a unit's state, such as ``active``."""
    return properties(unit, "ActiveState")["ActiveState"]


def main_pid(unit: str) -> int:
    """Ask systemd for a unit's main process; 0: it has none."""
    return int(properties(unit, "MainPID")["MainPID"])


def journal(unit: str) -> str:
    """Read what a unit has said since the machine was booted."""
    return done("journalctl", "--boot", "--no-pager", "--output=cat", f"--unit={unit}")


def knobs() -> dict[str, str]:
    """Read all of KSM that can be changed."""
    files = (path for path in KSM.iterdir() if path.stat().st_mode & 0o200)
    return {path.name: path.read_text().strip() for path in files}


def configure(*lines: str) -> None:
    """Write the agent's configuration: these lines after `SLOWLY`."""
    CONFIG.parent.mkdir(exist_ok=True)
    CONFIG.write_text("".join(f"{line}\n" for line in (SLOWLY, *lines)))


def until(holds: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until something holds; fail the test when it does not come to hold."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not so after {seconds:g} s: {what}"
        time.sleep(0.5)


def override(unit: str, *lines: str) -> Path:
    """Add lines to a unit's section [Service], as `systemctl edit` does."""
    path = Path(f"/run/systemd/system/{unit}.d/test.conf")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[Service]\n" + "".join(f"{line}\n" for line in lines))
    done("systemctl", "daemon-reload")
    return path


def allow_time(unit: str) -> None:
    """Have systemd wait for a unit's programs as long as an emulated machine needs.

    Where two processors are emulated, a program of Python takes long to begin, also the one that
    runs when the agent has stopped, and one that is busy may not run for half a minute.
    """
    path = UNITS_DIRECTORY / f"{unit}.d/emulated.conf"
    path.parent.mkdir(exist_ok=True)
    path.write_text("[Service]\nTimeoutStopSec=120\nWatchdogSec=120\n")
    done("systemctl", "daemon-reload")


def take_back(path: Path) -> None:
    """Remove lines that were added to a unit."""
    path.unlink()
    done("systemctl", "daemon-reload")


def settings(unit: str) -> dict[str, str]:
    """Read a unit's file: the last value of each key."""
    text = (UNITS_DIRECTORY / unit).read_text()
    return dict(re.findall(r"(?m)^(\w+)=(.*)$", text))


def start_guest(name: str, *words: str) -> None:
    """Start a guest by the kvm command, in a unit of its own."""
    given = ["kvm", "-name", name, "-display", "none", "-accel", "tcg,tb-size=64", *words]
    done("systemd-run", "--quiet", f"--unit={name}", "--collect", *given)
    until(lambda: name in guests(), f"{name} is listed")


def verified(unit: str) -> None:
    """Have systemd read a unit: it must understand all of it, and find all that it runs."""
    ran = run("systemd-analyze", "verify", "--man=no", str(UNITS_DIRECTORY / unit))
    assert (ran.returncode, ran.stderr) == (0, "")
