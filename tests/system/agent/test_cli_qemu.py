"""Real agents with real guests, asked and told as a user asks and tells them."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from qmpmem.agent.systemd_units import UNIT
from qmpmem.api.records import Status, Why
from qmpmem.files.launcher_paths import launchers_directory
from qmpmem.guests import rundir
from qmpmem.guests.inventory import look_up
from qmpmem.guests.rundir import GuestRecord
from qmpmem.wire import kernel
from tests.rig.agent import asking, running, said, stop
from tests.rig.command import PROGRAM, Ran, called, plain_environment
from tests.rig.guests import RunningGuest, boot, end
from tests.rig.patience import within
from tests.rig.qemu import (
    BALLOON,
    EMULATOR,
    SMALL,
    WITH_US,
    listens,
    paused,
    short_directory,
    until,
)
from tests.rig.users import needs_root

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[3]
MIB = 1 << 20

PLAIN_BALLOON = ("-device", "virtio-balloon-pci,deflate-on-oom=on")
"""Without free-page-reporting: what the guest touched once stays the host's cost."""


class World(NamedTuple):
    """A run directory with a guest in it, and a place for a configuration."""

    run: Path
    guest: RunningGuest
    config: Path


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Have web1, of 512 MiB, which touched most of it and needs little."""
    with short_directory() as directory:
        run = directory / "guests"
        run.mkdir()
        with boot(
            [str(ROOT / "launchers" / "kvm")],
            memory="512M",
            extra=["-name", "web1", *PLAIN_BALLOON],
            environ={"QMPMEM_RUN_DIR": str(run)},
        ) as guest:
            guest.check("eat random 350; eat stop")
            yield World(run, guest, directory / "config.toml")


@pytest.fixture(autouse=True)
def at_full_size(world: World) -> Iterator[None]:
    yield
    assert called("set", "web1", "100%", "--wait", run=world.run).code == 0


def told(world: World, *words: str) -> Ran:
    return called(*words, run=world.run)


def seen(world: World, name: str = "web1") -> dict[str, object]:
    found: dict[str, object] = json.loads(told(world, "info", name, "--json").out)
    return found


def configured(world: World, text: str) -> list[str]:
    world.config.write_text(f'period = "250ms"\ngrace = "0s"\non_stop = "keep"\n{text}\n')
    return ["--config", str(world.config)]


def balanced(world: World) -> str:
    """Have the host in a state in which guests report every two seconds, and nothing is short."""
    held = seen(world)["rss"]
    assert isinstance(held, int)
    return f'reserve = "128M"\nbudget = "{held // MIB + 256}M"'


def wait_for_reports(world: World) -> None:
    """Wait until the agent knows what web1 works with."""
    client = asking(world.run)

    def is_known() -> bool:
        told_of = client.get("guests/web1/why", Why).explanation
        return told_of.verdict == "normal" and told_of.used is not None

    until(is_known, seconds=60, what="web1 has reported twice")


WRONG = [
    ["info", "none"],
    ["set", "none", "256M"],
    ["set", "web1", "10M"],
    ["set", "web1", "2G"],
    ["set", "web1", "2G", "--force"],
    ["set", "web1", "256"],
    ["stats", "none"],
    ["set", "web1", "300M", "--dry-run"],
]


def test_everything_looks_the_same_with_an_agent_and_without(world: World) -> None:
    def volatile(text: str) -> str:
        """Leave out sizes and counts that change by themselves, and the width they give."""
        return re.sub(r" +", " ", re.sub(r"[0-9.]+ ?(KiB|MiB|GiB|B|s|minor)?\b", "N", text))

    commands = [["list"], ["info", "web1"], ["stats", "web1"], *WRONG]
    without = [told(world, *words) for words in commands]
    keys = json.loads(told(world, "list", "--json").out)[0]
    with running(world.run, *configured(world, balanced(world))):
        wait_for_reports(world)
        for words, before in zip(commands, without, strict=True):
            after = told(world, *words)
            assert after.code == before.code, words
            # What helps may differ: the agent's configuration knows no --force.
            assert after.err.partition("; ")[0] == before.err.partition("; ")[0], words
            assert volatile(after.out) == volatile(before.out), words
        listed = json.loads(told(world, "list", "--json").out)[0]
        assert listed.keys() == keys.keys()
        # What is free in a guest goes into its balloon meanwhile.
        assert {key for key in keys if keys[key] != listed[key]} <= {"actual", "rss"}


def test_a_set_is_a_pin_that_the_policy_goes_to_and_keeps(world: World) -> None:
    with running(world.run, *configured(world, "")):
        wait_for_reports(world)
        before = world.guest.meminfo("MemFree")
        done = told(world, "set", "web1", "448M", "--wait")
        assert (done.code, done.out) == (
            0,
            "web1: 448 MiB, pinned; `qmpmem unpin web1` gives it back to the agent\n",
        ), done.err
        assert world.guest.meminfo("MemFree") < before - 40
        status = json.loads(told(world, "agent", "status", "--json").out)
        assert status["pins"] == {"web1": 448 * MIB}
        why = told(world, "agent", "why", "web1").out
        assert "pinned to:" in why
        assert "pinned by an operator" in why
        assert told(world, "unpin", "web1").out == "web1: unpinned\n"
        assert told(world, "agent", "unpin", "web1").out == "web1: was not pinned\n"
        # It stays there, and has more as soon as it needs that.
        assert seen(world)["actual"] == 448 * MIB
        world.guest.check("eat random 400")
        until(lambda: seen(world)["actual"] != 448 * MIB, seconds=60, what="it has more again")
        world.guest.check("eat stop")


def test_a_pin_outlives_the_agent_and_not_the_guest(world: World) -> None:
    with running(world.run, *configured(world, "")):
        assert told(world, "agent", "pin", "web1", "75%").out == "web1: pinned to 384 MiB\n"
    with running(world.run, *configured(world, "")) as agent:
        assert "pin web1:" in told(world, "agent", "status").out
        agent.kill()
        agent.wait()
    with running(world.run, *configured(world, "")):
        assert told(world, "agent", "unpin", "web1").out == "web1: unpinned\n"


def test_hold_takes_nothing_until_it_is_released(world: World) -> None:
    with running(world.run, *configured(world, balanced(world))):
        wait_for_reports(world)
        assert told(world, "set", "web1", "448M", "--wait").code == 0
        assert told(world, "agent", "hold").code == 0
        asked = told(world, "set", "web1", "384M", "--wait", "--timeout", "4")
        assert asked.code == 1
        assert "at 448 MiB after 4 s, expected 384 MiB" in asked.err
        plan = json.loads(told(world, "agent", "plan", "--json").out)
        assert plan.get("balloons", []) == []
        assert told(world, "agent", "release").code == 0
        assert told(world, "set", "web1", "384M", "--wait").code == 0
        assert told(world, "unpin", "web1").code == 0  # a pin outlives its agent


def test_a_single_look_says_what_would_be_decided_now(world: World) -> None:
    world.guest.check("eat random 350; eat stop")
    held = seen(world)["rss"]
    assert isinstance(held, int)
    world.config.write_text(f'reserve = "64M"\nbudget = "{held // MIB}M"\n')
    ran = told(world, "agent", "--once", "--config", str(world.config))
    assert ran.code == 0, ran.err
    why = r"(?:gives because the host is in|what is free goes into the balloon)"
    assert re.search(rf"^web1: 512 MiB → \S+ MiB: {why}", ran.out, re.MULTILINE), ran.out
    assert seen(world)["actual"] == 512 * MIB
    live = [*configured(world, f'reserve = "64M"\nbudget = "{held // MIB}M"'), "--dry-run"]
    with running(world.run, *live):
        out = world.run / ".out"
        until(lambda: "would: web1 →" in out.read_text(), seconds=30, what="it is shown")
    assert seen(world)["actual"] == 512 * MIB


def test_a_script_goes_by_way_of_the_agent(world: World) -> None:
    script = "set web* 448M\nwait web* 448M 60s\nget web1\nset web1 10M\n"
    with running(world.run, *configured(world, balanced(world))):
        wait_for_reports(world)
        ran = called("script", "-", run=world.run, text=script)
        results = [json.loads(line) for line in ran.out.splitlines()]
        assert [each.get("ok", True) for each in results] == [True, True, True, False], ran.err
        assert results[2]["guest"]["actual"] == 448 * MIB
        assert ran.code == 2
        assert told(world, "unpin", "web1").code == 0


def test_an_agent_that_hangs_is_named_as_the_holder_of_the_guest(world: World) -> None:
    with running(world.run, *configured(world, "")) as agent:
        agent.send_signal(signal.SIGSTOP)
        with within(8):
            ran = told(world, "list")
        assert f"the agent, pid {agent.pid}, does not answer; asking QEMU itself" in ran.err
        assert re.search(rf"web1  in-use .* process {agent.pid} \(", ran.out), ran.out
        assert told(world, "info", "web1").code == 5
        agent.send_signal(signal.SIGCONT)
        until(lambda: "running" in told(world, "list").out, what="the agent is back")


def test_room_is_made_and_what_cannot_be_is_named_in_time(world: World) -> None:
    world.guest.check("eat random 350; eat stop")
    held = seen(world)["rss"]
    assert isinstance(held, int)
    budget = held // MIB + 120
    with running(world.run, *configured(world, f'reserve = "64M"\nbudget = "{budget}M"')):
        wait_for_reports(world)
        made = told(world, "agent", "reserve", "160M", "--timeout", "180", "--json")
        assert made.code == 0, made.err
        lease = json.loads(made.out)
        assert lease["size"] == 160 * MIB
        assert [each["guest"] for each in lease["gave"]] == ["web1"]
        assert lease["gave"][0]["gave"] > 0
        assert f"lease {lease['lease']}:" in told(world, "agent", "status").out
        with within(6):
            failed = told(world, "agent", "reserve", "400M", "--timeout", "3")
        assert failed.code == 1
        assert "no room for 400 MiB after 3 s" in failed.err
        assert re.search(r"web1 gave \d", failed.err)
        assert told(world, "agent", "reserve", "64G").code == 2
        assert told(world, "agent", "unreserve", lease["lease"]).code == 0
        assert told(world, "agent", "unreserve", lease["lease"]).code == 2
        assert json.loads(told(world, "agent", "status", "--json").out)["leases"] == []


def test_a_guest_is_started_when_there_is_room_and_the_lease_is_its_own(world: World) -> None:
    with running(world.run, *configured(world, "")):
        words = ["run", "--reserve", "96M", "--name", "new1", "--", "-S", *SMALL, "-m", "64"]
        guest = subprocess.Popen(
            [*WITH_US, PROGRAM, *words],
            env=plain_environment() | {"QMPMEM_RUN_DIR": str(world.run)},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until(
                lambda: [lease.guest for lease in status(world).leases] == ["new1"],
                what=f"the lease is taken; {guest.poll()}",
            )
            assert "new1" in told(world, "list").out
        finally:
            end(guest)
        until(lambda: status(world).leases == (), what="it ended with its guest")
    assert "taken by guest new1" in said(world.run)


def test_no_guest_is_started_without_the_room_that_was_asked_for(world: World) -> None:
    words = ["run", "--reserve", "1G", "--name", "new2", "--", "-S", *SMALL]
    without = told(world, *words)
    assert (without.code, without.err) == (
        5,
        "qmpmem: no agent runs; `qmpmem agent` starts one\n",
    )
    with running(world.run, *configured(world, 'budget = "512M"\nreserve = "64M"')):
        never = told(world, *words)
        assert (never.code, "ever" in never.err) == (2, True)
        words[2] = "400M"
        late = told(world, *words[:3], "--timeout", "1", *words[3:])
        assert (late.code, "no room for 400 MiB" in late.err) == (1, True)
    assert look_up(world.run, "new2") is None


def test_what_is_stopped_in_order_lets_go_of_its_guests(world: World) -> None:
    with running(world.run, *configured(world, balanced(world))) as agent:
        socket = world.run / ".agent/agent.sock"
        assert f"qmpmem: at work on guests in {world.run}; asked at {socket}\n" in said(world.run)
        assert told(world, "set", "web1", "448M", "--wait").code == 0
        assert "left below" not in said(world.run)
        with within(10):
            assert stop(agent) == 0
        left = "qmpmem: stopped; left below their maximum: web1 (448 MiB of 512 MiB)\n"
        assert said(world.run).endswith(left)
        ran = told(world, "list")
        assert (ran.err, "running" in ran.out) == ("", True)


def status(world: World) -> Status:
    return asking(world.run).get("status", Status)


def test_ten_guests_cost_the_agent_less_than_64_mib() -> None:
    ids = [f"g{number}" for number in range(10)]
    with short_directory() as run, paused(run, *ids), running(run) as agent:
        client = asking(run)
        until(lambda: client.get("status", Status).number >= 10, seconds=30, what="ten rounds")
        for _ in range(50):
            client.get("status", Status)
        memory = kernel.memory(agent.pid).rss
    assert memory is not None
    assert memory < 64 * MIB, memory


@needs_root("may not run a guest as another user")
def test_the_units_capabilities_are_all_that_the_agent_needs() -> None:
    """Another user's guest is seen and told, with no more rights than systemd would leave."""
    text = (launchers_directory() / UNIT.name).read_text()
    names = [
        name.removeprefix("CAP_").lower()
        for line in text.splitlines()
        if line.startswith("CapabilityBoundingSet=")
        for name in line.partition("=")[2].split()
    ]
    assert "dac_override" in names
    bounding = ",".join(["-all", *(f"+{name}" for name in names)])
    with short_directory() as run:
        guest = start_as_another_user(run)
        try:
            limited = ["setpriv", f"--bounding-set={bounding}", "--inh-caps=-all", "--no-new-privs"]
            with running(run, before=limited):
                listed = json.loads(called("list", "--json", run=run).out)
                assert [(each["id"], each["state"]) for each in listed] == [("theirs", "prelaunch")]
                assert listed[0]["rss"] > 0
                assert listed[0]["actual"] == 256 * MIB
                held = called("agent", "hold", run=run)
                assert held.code == 0, held.err
        finally:
            end(guest)


def start_as_another_user(run: Path) -> "subprocess.Popen[bytes]":
    """Start a guest whose socket is for its own user alone."""
    run.chmod(0o755)
    directory = run / "theirs"
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    path = directory / "qmp.sock"
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--pdeathsig", "KILL"]
    monitor = f"unix:{path},server=on,wait=off"
    guest = subprocess.Popen(
        [*drop, EMULATOR, "-S", *SMALL, "-m", "256", "-qmp", monitor, *BALLOON],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: listens(path) or guest.poll() is not None, seconds=30, what="it listens")
    path.chmod(0o600)
    process = kernel.process(guest.pid)
    assert process is not None
    record = GuestRecord(
        version=rundir.RECORD_VERSION,
        id="theirs",
        name="theirs",
        pid=guest.pid,
        start_time=process.start_time,
        socket=str(path),
        uid=65534,
        created=time.time(),
    )
    rundir.write_record(run, record)
    return guest
