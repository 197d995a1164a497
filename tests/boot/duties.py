"""What the units do for a host, as whatever user the agent runs: they are in place and started.

The tests of this file run in their order, each on what the ones before have left.
"""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.boot.machine import (
    AGENT,
    CGROUPS,
    CONFIG,
    KSM_UNIT,
    MIB,
    UNITS_DIRECTORY,
    Unit,
    configure,
    done,
    guests,
    installed,
    journal,
    knobs,
    main_pid,
    override,
    properties,
    run,
    seen_by_agent,
    settings,
    start_guest,
    state,
    take_back,
    told,
    until,
)

UNITS: Final = installed()
NAMES: Final = [unit.name for unit in UNITS]
SERVICES: Final = [unit.name for unit in UNITS if unit.service]
DEFAULTS: Final = Path("/etc/default/qmpmem")
HOLDER: Final = SERVICES[0]
"""The unit whose process holds the guests' monitors."""
SIZES: Final = {"K": 1 << 10, "M": MIB, "G": 1 << 30}


def verdict_of(guest: str) -> str | None:
    """Ask the agent what it takes a guest for."""
    seen = seen_by_agent().get(guest)
    # What has its default is left out.
    return None if seen is None else str(seen.get("verdict", "normal"))


def size(word: str) -> int:
    """Read a size as systemd does."""
    return int(word[:-1]) * SIZES[word[-1]] if word[-1] in SIZES else int(word)


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    """Return KSM as this kernel has it by itself; nothing is said about it."""
    configure()
    DEFAULTS.unlink(missing_ok=True)
    for verb in ("stop", "start"):
        done("systemctl", verb, KSM_UNIT)
    return knobs()


@pytest.mark.parametrize("unit", UNITS, ids=NAMES)
def test_a_unit_in_force_is_no_more_exposed_than_its_file(unit: Unit) -> None:
    said = done("systemd-analyze", "security", "--no-pager", unit.name)
    match = re.search(r"exposure level for .*: ([0-9.]+)", said)
    assert match is not None, said
    assert float(match[1]) <= unit.exposure, said


@pytest.mark.parametrize("name", SERVICES)
def test_limits_are_in_force(name: str) -> None:
    given = settings(name)
    group = CGROUPS / properties(name, "ControlGroup")["ControlGroup"].lstrip("/")
    for key, file in (
        ("MemoryMax", "memory.max"),
        ("MemoryMin", "memory.min"),
        ("MemorySwapMax", "memory.swap.max"),
        ("TasksMax", "pids.max"),
    ):
        if key in given:
            assert int((group / file).read_text()) == size(given[key]), key
    process = Path("/proc") / str(main_pid(name))
    if "OOMScoreAdjust" in given:
        assert (process / "oom_score_adj").read_text().strip() == given["OOMScoreAdjust"]
    status = (process / "status").read_text()
    assert "NoNewPrivs:\t1\n" in status
    assert "Seccomp:\t2\n" in status
    assert f"Umask:\t{given['UMask']}\n" in status
    if given.get("LimitMEMLOCK") == "infinity":
        assert not re.search(r"(?m)^VmLck:\s+0 kB$", status)  # so it keeps its pages out of swap
    # What it takes, locked as it is, is far from the limit.
    assert int((group / "memory.current").read_text()) < size(given["MemoryMax"]) / 4
    assert int(properties(name, "NRestarts")["NRestarts"]) == 0


def test_the_agents_memory_is_guaranteed_by_all_groups_above_it() -> None:
    group = CGROUPS / properties(AGENT, "ControlGroup")["ControlGroup"].lstrip("/")
    least = size(settings(AGENT)["MemoryMin"])
    above = [each for each in group.parents if each.is_relative_to(CGROUPS) and each != CGROUPS]
    assert all(int((each / "memory.min").read_text()) >= least for each in above)


def test_a_paused_guest_of_kvm_is_seen_and_held_by_the_agent() -> None:
    start_guest("web1", "-S", "-m", "512")
    seen = guests()["web1"]
    assert (seen["state"], seen["maximum"], seen["actual"]) == ("prelaunch", 512 * MIB, 512 * MIB)
    until(lambda: "web1" in seen_by_agent(), "the agent knows web1")
    found = told("info", "web1")
    assert found["balloon"]["driver"] == "virtio-balloon-pci"
    assert found["balloon"]["deflate_on_oom"] is True
    assert found["accelerator"] == "tcg"
    assert Path(f"/proc/{found['pid']}/comm").read_text().startswith(("kvm", "distrib-kvm"))
    # By the kernel's word: the agent's process is at the other end of the guest's socket.
    ran = run("qmpmem", "list", environ={"QMPMEM_AGENT_SOCKET": "/proc/nonexistent"})
    if HOLDER == AGENT:
        assert re.search(r"(?m)^web1 +in-use ", ran.stdout), ran.stdout
        assert str(main_pid(HOLDER)) in ran.stdout
    else:  # in a network namespace of its own, where the kernel shows others none of its sockets
        assert re.search(r"(?m)^web1 +unreachable ", ran.stdout), ran.stdout


def test_a_paused_guest_is_pinned_and_told_when_it_runs() -> None:
    ran = run("qmpmem", "set", "web1", "75%", "--no-wait")
    assert ran.returncode == 0
    assert "prelaunch" in ran.stdout + ran.stderr
    assert told("agent", "status")["pins"] == {"web1": 384 * MIB}
    assert guests()["web1"]["actual"] == 512 * MIB  # no guest runs: nothing is taken
    done("qmpmem", "unpin", "web1")
    assert told("agent", "status")["pins"] == {}


def test_rights_are_those_of_readmes_table() -> None:
    for user in ("looks", "changes"):
        assert "web1" in guests(user)
        done("loginctl", "enable-linger", user)  # as for a user who is logged in
        own = {"XDG_RUNTIME_DIR": f"/run/user/{done('id', '-u', user).strip()}"}
        until(Path(own["XDG_RUNTIME_DIR"]).is_dir, f"{user} has a directory")
        assert "web1" in run("qmpmem", "list", user=user, environ=own).stdout
        assert told("info", "web1", user=user)["actual"] == 512 * MIB
        assert run("cat", "/run/qmpmem/guests/web1/record.json", user=user).returncode != 0
    refused = run("qmpmem", "set", "web1", "75%", "--no-wait", user="looks")
    assert refused.returncode != 0
    assert told("agent", "status")["pins"] == {}
    done("qmpmem", "set", "web1", "75%", "--no-wait", user="changes")
    assert told("agent", "status")["pins"] == {"web1": 384 * MIB}
    done("qmpmem", "unpin", "web1", user="changes")
    assert "web1" not in run("qmpmem", "list", user="stranger").stdout
    for words in (("info", "web1"), ("set", "web1", "75%", "--no-wait"), ("agent", "status")):
        ran = run("qmpmem", *words, user="stranger")
        assert ran.returncode != 0
        assert "Traceback" not in ran.stderr
    assert "uid" in journal(AGENT)  # a change is logged with its user


@pytest.mark.timeout(2000)
def test_a_running_guest_gives_memory_and_is_squeezed_into_a_budget() -> None:
    words = done("launchers/tinyguest", "args", "--channel", "/run/vm1.channel").split()
    start_guest("vm1", "-m", "256M", *words)
    done("launchers/tinyguest", "wait", "/run/vm1.channel", "--timeout", "900", seconds=930)
    # Its statistics come seldom at first, of a guest that is emulated twice.
    until(lambda: verdict_of("vm1") == "normal", "the agent knows what vm1 uses", 600)
    done("qmpmem", "set", "vm1", "200M", "--wait", "--timeout", "600", seconds=630)
    assert abs(guests()["vm1"]["actual"] - 200 * MIB) <= MIB
    done("qmpmem", "unpin", "vm1")
    # They may cost no more than they do, so there is no reserve: what is free in the one that runs
    # goes into its balloon.
    cost = sum(each["rss"] for each in guests().values())
    configure(f'budget = "{cost // MIB}M"', 'reserve = "128M"', 'grace = "5s"')
    done("systemctl", "reload", AGENT)
    until(lambda: "configuration read again" in journal(AGENT), "it is read again")
    until(lambda: guests()["vm1"]["actual"] < 190 * MIB, "vm1 gives what is free", 600)
    assert guests()["vm1"]["actual"] >= 127 * MIB  # its floor
    assert guests()["web1"]["actual"] == 512 * MIB
    assert re.search(r"(?m)^[A-Z]+ vm1 → ", journal(AGENT))


def test_a_configuration_with_mistakes_changes_nothing() -> None:
    configure("budget = 7")
    run("systemctl", "reload", AGENT)
    until(lambda: "the configuration stays as it was" in journal(AGENT), "it is refused")
    assert f"{CONFIG}" in journal(AGENT)
    configure()
    assert state(AGENT) == "active"


def test_one_that_is_killed_comes_back_and_its_ksm_is_put_back(before: dict[str, str]) -> None:
    for name in ("idle1", "idle2"):  # one guest that runs has none to share pages with
        start_guest(name, "-nodefaults", "-m", "64")
    configure("[ksm]", "managed = true", "across_domains = true")
    done("systemctl", "restart", AGENT)
    until(lambda: knobs()["run"] == "1", "the agent steers KSM")
    path = override(AGENT, "RestartSec=20")
    known, pid = seen_by_agent(), main_pid(AGENT)
    done("systemctl", "kill", "--signal=KILL", AGENT)
    until(lambda: properties(AGENT, "SubState")["SubState"] == "auto-restart", "it has ended")
    assert knobs() == before
    post = properties(AGENT, "ExecStopPost")["ExecStopPost"]  # forgotten at the next start
    assert "restore --agents" in post
    assert re.search(r"code=exited ; status=0", post), post
    until(lambda: main_pid(AGENT) not in (0, pid), "systemd started it again")
    take_back(path)
    until(lambda: set(seen_by_agent()) == set(known), "it has its guests again")
    until(lambda: knobs()["run"] == "1", "the new agent steers KSM")
    assert int(properties(AGENT, "NRestarts")["NRestarts"]) >= 1


@pytest.mark.parametrize("name", [name for name in SERVICES if name != AGENT])
def test_a_killed_helper_of_the_agent_comes_back(name: str) -> None:
    pid = main_pid(name)
    done("systemctl", "kill", "--signal=KILL", name)
    until(lambda: main_pid(name) not in (0, pid), "systemd started it again")
    until(lambda: seen_by_agent().get("web1", {}).get("actual"), "the agent has its guests again")
    assert state(AGENT) == "active"


def test_one_that_hangs_is_started_again_by_the_watchdog() -> None:
    path = override(AGENT, "WatchdogSec=10")
    done("systemctl", "restart", AGENT)
    until(lambda: "web1" in seen_by_agent(), "it has its guests")
    pid = main_pid(AGENT)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    until(lambda: main_pid(AGENT) not in (0, pid), "systemd started it again", 120)
    print(f"after {time.monotonic() - began:.1f} s")
    take_back(path)
    assert "Watchdog timeout" in journal(AGENT)
    until(lambda: "web1" in seen_by_agent(), "it has its guests again")


def test_ksm_is_set_up_and_put_back(before: dict[str, str]) -> None:
    configure()
    done("systemctl", "restart", AGENT)
    assert knobs() == before  # the agent put it back when it stopped
    done("systemctl", "stop", KSM_UNIT)
    assert knobs() == before
    DEFAULTS.write_text("KSM_ENABLED=1\nKSM_PRESET=quiet\n")
    done("systemctl", "start", KSM_UNIT)
    assert knobs()["run"] == "1"
    assert knobs()["pages_to_scan"] != before["pages_to_scan"]
    assert "run: 0 → 1" in journal(KSM_UNIT)
    done("systemctl", "stop", KSM_UNIT)
    assert knobs() == before
    done("systemctl", "start", KSM_UNIT)


def test_stopping_leaves_the_guests_and_no_sockets() -> None:
    pids = {name: seen["pid"] for name, seen in guests().items()}
    done("systemctl", "stop", AGENT)
    assert properties(AGENT, "ActiveState", "Result") == {
        "ActiveState": "inactive",
        "Result": "success",
    }
    assert "stopped" in journal(AGENT)
    left = guests()  # without an agent, root asks QEMU itself
    assert {name: seen["pid"] for name, seen in left.items()} == pids
    assert left["web1"]["state"] == "prelaunch"
    assert not list(Path("/run/qmpmem/agent").glob("*.sock"))
    assert run("qmpmem", "list", user="looks").stdout.count("web1") == 0
    done("systemctl", "start", AGENT)
    until(lambda: "web1" in seen_by_agent(), "it has its guests again")


@pytest.fixture
def sockets() -> Iterator[tuple[str, ...]]:
    """Have systemd listen where the agent does, which is stopped; yields the units' names."""
    done("systemctl", "stop", AGENT)
    names = ("agent", "agent-admin")
    units = tuple(f"test-{name}.socket" for name in names)
    for name, unit, group in zip(names, units, ("qmpmem", "qmpmem-admin"), strict=True):
        (UNITS_DIRECTORY / unit).write_text(
            f"[Socket]\nListenStream=/run/qmpmem/agent/{name}.sock\nFileDescriptorName={name}\n"
            f"SocketMode=0660\nSocketGroup={group}\nService={AGENT}\nRemoveOnStop=yes\n"
        )
    done("systemctl", "daemon-reload")
    done("systemctl", "start", *units)
    yield units
    # Else a client that waits there has the agent started again and again, whatever it says.
    run("systemctl", "stop", *units, AGENT)
    for unit in units:
        (UNITS_DIRECTORY / unit).unlink()
    done("systemctl", "daemon-reload")


def test_systemd_may_make_the_sockets(sockets: tuple[str, ...]) -> None:
    assert state(AGENT) == "inactive"
    # The client that asks first starts it, and where that takes long, waits for it in vain.
    until(lambda: "web1" in run("qmpmem", "list", user="looks").stdout, "the agent answers")
    assert state(AGENT) == "active"
    done("qmpmem", "set", "web1", "75%", "--no-wait", user="changes")
    done("qmpmem", "unpin", "web1", user="changes")
    assert run("qmpmem", "agent", "status", user="stranger").returncode != 0
    done("systemctl", "stop", AGENT, *sockets)
    assert not list(Path("/run/qmpmem/agent").glob("*.sock"))


def test_one_that_cannot_start_is_not_started_again_and_again() -> None:
    configure("budget = 7")
    run("systemctl", "restart", AGENT)
    until(lambda: state(AGENT) == "failed", "it has failed")
    assert properties(AGENT, "ExecMainStatus", "NRestarts") == {
        "ExecMainStatus": "2",
        "NRestarts": "0",
    }
    configure()
    done("systemctl", "start", AGENT)
    assert state(AGENT) == "active"


def test_the_journal_has_no_traceback_and_no_refused_system_call() -> None:
    for name in NAMES:
        said = journal(name)
        assert "Traceback" not in said
        assert "SIGSYS" not in said
        assert "Operation not permitted" not in said
        assert "Permission denied" not in said
    assert "at work on guests in /run/qmpmem/" in journal(AGENT)
    run("qmpmem", "doctor")
