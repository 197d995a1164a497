"""The agent's systemd unit, and what the agent tells systemd.

How units are put in place is in test_cli_unit.
"""

import socket
import subprocess

import pytest

from qmpmem.agent.systemd_notify import Notifier, watchdog_period
from qmpmem.agent.systemd_units import UNIT
from qmpmem.files.launcher_paths import launchers_directory
from tests.rig.command import PROGRAM, plain_environment
from tests.rig.patience import patient
from tests.rig.qemu import short_directory


def lines() -> dict[str, list[str]]:
    """Give the unit's settings, each with its values."""
    found: dict[str, list[str]] = {}
    for line in (launchers_directory() / UNIT.name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_nothing_in_it_hides_guests_or_ends_them() -> None:
    """Each of these was tempting, and each would have broken something: see the unit's words."""
    settings = lines()
    for never in (
        "PrivateNetwork",
        "PrivateTmp",
        "PrivateUsers",
        "ProtectControlGroups",  # memory of guests' own groups is reclaimed there
        "ProcSubset",
    ):
        assert never not in settings, never
    # Guests' sockets are beside it: systemd removes and gives away no directory that they are in.
    assert settings["RuntimeDirectory"] == ["qmpmem/agent"]
    assert settings["RuntimeDirectoryPreserve"] == ["yes"]
    # Read-only but for KSM, and cgroups stay writable (systemd.exec(5)).
    assert settings["ProtectKernelTunables"] == ["yes"]
    assert "-/sys/kernel/mm/ksm" in settings["ReadWritePaths"]
    # Processes that may be traced are seen, and root's guests may be only with this capability.
    assert settings["ProtectProc"] == ["invisible"]
    assert "CAP_SYS_PTRACE" in settings["CapabilityBoundingSet"][0].split()
    assert settings["ProtectHome"] == ["read-only"]
    families = set(settings["RestrictAddressFamilies"][0].split())
    assert families == {"AF_UNIX", "AF_NETLINK", "AF_INET", "AF_INET6"}
    # An adopted guest's QMP may be on TCP, and that on loopback only.
    assert (settings["IPAddressDeny"], settings["IPAddressAllow"]) == (["any"], ["localhost"])
    assert settings["Type"] == ["notify"]
    assert int(settings["WatchdogSec"][0]) >= 10
    assert int(settings["TimeoutStopSec"][0]) > 10, "a stop in order may take 10 s"


def test_the_watchdogs_time_is_the_agents_own() -> None:
    assert watchdog_period({"WATCHDOG_USEC": "30000000"}) == 30.0
    assert watchdog_period({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_period({}) is None
    for odd in ("²", "9" * 5000, "-1"):
        assert watchdog_period({"WATCHDOG_USEC": odd}) is None
    Notifier({"NOTIFY_SOCKET": "/proc/none/such"}).tell("READY=1")


@pytest.mark.parametrize(("period", "asked"), [("1s", 5_000_000), ("10s", 30_000_000)])
def test_systemd_hears_of_each_round_and_waits_for_long_ones(period: str, asked: int) -> None:
    with short_directory() as run, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(run / ".notify"))
        systemd.settimeout(patient(10))
        config = run / ".config.toml"
        config.write_text(f'period = "{period}"\n')
        told = {"NOTIFY_SOCKET": f"{run}/.notify", "WATCHDOG_USEC": "5000000"}
        words = [str(PROGRAM), "agent", "--config", str(config)]
        environment = plain_environment() | {"QMPMEM_RUN_DIR": str(run)} | told
        agent = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *words], env=environment)
        try:
            heard = [systemd.recv(100).decode() for _ in range(2)]
            assert heard == [f"WATCHDOG_USEC={asked}", "READY=1"]
            if period == "1s":
                assert systemd.recv(100) == b"WATCHDOG=1"
        finally:
            agent.terminate()
            assert agent.wait(timeout=patient(10)) == 0
        while (last := systemd.recv(100)) == b"WATCHDOG=1":
            pass
        assert last == b"STOPPING=1"
