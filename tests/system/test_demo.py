"""`make demo`: the main job, and that nothing is left of it, also when it is cut off."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qmpmem.policy.host import SOFT_BEGINS
from qmpmem.wire import kernel
from tests import demo as script
from tests.rig import chance, ksm
from tests.rig.patience import patient
from tests.rig.qemu import until
from tests.rig.users import AS_ORDINARY, needs_root

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]

DEMO = Path(__file__).resolve().parents[1] / "demo.py"


def started_by(pid: int) -> list[int]:
    """Processes with this demo's directory on their command line: guests, agent, janitor."""
    mark = f"/tmp/qmpmem-demo-{pid}-"
    return [
        other
        for other in kernel.pids()
        if any(mark in word for word in kernel.command_line(other) or ())
    ]


def stages_of(pid: int) -> list[Path]:
    return list(Path("/tmp").glob(f"qmpmem-demo-{pid}-*"))


@pytest.fixture(scope="module")
def shown() -> str:
    """Play the acts that do not need what a host has once; returns what is on the screen."""
    assert list(script.ACTS) == ["ballooning", "merging", "sharing"], "all that `make demo` plays"
    with subprocess.Popen(
        [sys.executable, DEMO, "ballooning", "sharing"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        shown = demo.stdout.read()
        assert demo.wait() == 0, shown
    assert started_by(demo.pid) == []
    assert stages_of(demo.pid) == []
    return shown


@pytest.mark.timeout(300)
def test_the_demo_gives_the_host_its_memory_back(shown: str) -> None:
    row = re.compile(r"^web1 +running +512 MiB +(\d+) MiB +\S+ M?i?B +([\d.]+) MiB", re.MULTILINE)
    lines = row.findall(shown)
    (first, rss_before), (second, rss_after) = lines
    assert (first, second) == ("512", "256")
    # It held 300 MiB once; what it got beyond 256 MiB must be the host's again.
    assert float(rss_before) > 400
    assert float(rss_after) < float(rss_before) - 150
    assert "web1: 256 MiB" in shown
    assert "web1: 512 MiB" in shown


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_cut_off_leaves_no_guest(end: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, DEMO], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as demo:
        until(lambda: len(started_by(demo.pid)) >= 3, seconds=30, what="guests started")
        demo.send_signal(end)
        demo.wait(timeout=patient(30))
    until(lambda: not started_by(demo.pid), seconds=10, what="guests gone")
    until(lambda: not stages_of(demo.pid), seconds=10, what="its directory gone")


def test_an_act_that_is_not_there_is_one_line_and_a_wrong_usage() -> None:
    done = subprocess.run(
        [sys.executable, DEMO, "sleeping"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "sleeping: there is no such act; the acts are ballooning," in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_demo_starts_is_not_begun_when_the_demo_has_ended() -> None:
    """The kernel tells no process of a death that was before that process asked to be told."""
    words = script.tied("echo begun")
    by_us = subprocess.run(words, capture_output=True, text=True, check=True)
    assert by_us.stdout == "begun\n"
    other = ["sh", "-c", '"$@"; exit $?', "sh", *words]
    by_another = subprocess.run(other, capture_output=True, text=True, check=False)
    assert (by_another.returncode, by_another.stdout) == (1, "")


PATIENT = os.environ | {script.PATIENCE: "900"}
steers_ksm = needs_root("may not steer KSM")
takes_long = pytest.mark.timeout(300)  # on a loaded machine; half a minute is the policy's own
waits_for_others = pytest.mark.timeout(1200)  # of which nearly all is waiting until KSM is free


def as_found() -> dict[str, str]:
    """KSM as it is when no process uses it."""
    with ksm.held() as machine:
        return {**machine.before, "pages_shared": machine.get("pages_shared")}


@steers_ksm
@waits_for_others
@pytest.mark.host
def test_the_second_act_shows_what_merging_saves() -> None:
    before = as_found()
    with subprocess.Popen(
        [sys.executable, DEMO, "merging"], env=PATIENT, stdout=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        shown = demo.stdout.read()
        assert demo.wait() == 0, shown
    assert as_found() == before
    first, last = re.findall(r"^saved: +(\S+ \S+)$", shown, re.MULTILINE)
    assert first == "0 B"
    watched = re.findall(
        r"^ +([\d.]+) [KM]?i?B .*(still scanning|good sharing)$", shown, re.MULTILINE
    )
    assert len(watched) >= 3
    assert watched[0][1] == "still scanning"
    assert watched[-1][1] == "good sharing"
    assert last.endswith(" MiB")
    # 100 MiB of each of the four are the same: three of them are saved, at the least.
    assert float(last.split()[0]) > 300
    rows = re.findall(r"^(eq\d) .* ([\d.]+) MiB +([\d.]+) MiB$", shown, re.MULTILINE)
    assert [row[0] for row in rows] == [*script.EQUALS] * 2
    for (_, _, alone), (_, _, together) in zip(rows[:4], rows[4:], strict=True):
        assert float(together) < float(alone) - 70
    assert started_by(demo.pid) == []
    assert stages_of(demo.pid) == []


@steers_ksm
@waits_for_others
@pytest.mark.host
@pytest.mark.parametrize("end", chance.some([signal.SIGINT, signal.SIGTERM, signal.SIGKILL]))
def test_a_second_act_that_is_cut_off_leaves_ksm_as_it_was(end: signal.Signals) -> None:
    before = as_found()
    with subprocess.Popen(
        [sys.executable, DEMO, "merging"],
        env=PATIENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        assert any(re.match(r" +[\d.]+ MiB ", line) for line in demo.stdout)  # so much is saved
        demo.send_signal(end)
        demo.stdout.read()
        demo.wait(timeout=patient(30))
    until(lambda: not started_by(demo.pid), seconds=10, what="guests gone")
    assert Path("/", ksm.BEFORE).exists() or end != signal.SIGKILL
    assert as_found() == before  # after SIGKILL, by the process that takes the lock next
    until(lambda: not stages_of(demo.pid), seconds=10, what="its directory gone")


@takes_long
def test_the_third_act_moves_memory_to_the_guest_that_eats(shown: str) -> None:
    gives = r"^\w+ (vm\d) → [\d.]+ MiB: (?:gives because|what is free goes)"
    donors = set(re.findall(gives, shown, re.MULTILINE))
    assert {"vm2", "vm3", "vm4"} <= donors
    rows = re.findall(r"^(vm\d) +(\w+) +([\d.]+) MiB +([\d.]+) MiB", shown, re.MULTILINE)
    idle, ate, after = rows[:4], rows[4:8], rows[8:12]
    assert [row[1] for row in idle] == ["normal"] * 4
    assert float(ate[0][3]) > float(idle[0][3]) + 60  # it works with what it ate
    assert float(ate[0][2]) > float(ate[0][3])  # and has room for it
    assert [row[1] for row in after] == ["normal"] * 4
    states = re.findall(r"^host: +\w+: ([\d.]+) times the reserve", shown, re.MULTILINE)
    # The state itself may be worse: tasks of other programs on this machine wait for memory.
    first, _, last = map(float, states)
    assert (first > 2, last > SOFT_BEGINS) == (True, True), states
    for before, now in zip(idle[1:], ate[1:], strict=True):  # of 384 MiB
        assert float(now[2]) < min(float(before[2]) + 1, 300)
    assert re.search(r"^FROM .*REASON$", shown, re.MULTILINE)
    page = re.search(r"^qmpmem: the page is at http://127\.0\.0\.1:\d+/$", shown, re.MULTILINE)
    assert page is not None, "the demo itself looks whether its guests are there"
    screen = shown[page.end() :]
    assert re.match(r"\n\n\$ qmpmem top --once  .*\n qmpmem top  ", screen), "right below it"
    assert all(f"  {guest} " in screen for guest in script.SHARERS)


@takes_long
@pytest.mark.parametrize("end", chance.some([signal.SIGTERM, signal.SIGKILL]))
def test_a_third_act_that_is_cut_off_leaves_no_agent(end: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, DEMO, "sharing"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        assert any(re.match(r"\w+ vm\d → ", line) for line in demo.stdout)
        assert len(started_by(demo.pid)) == 6
        demo.send_signal(end)
        demo.stdout.read()  # ends when no process has it open any more
        demo.wait(timeout=patient(30))
    until(lambda: not started_by(demo.pid), seconds=15, what="guests and agent gone")
    until(lambda: not stages_of(demo.pid), seconds=10, what="its directory gone")


@pytest.mark.skipif(not AS_ORDINARY and script.why_not() is None, reason="may steer KSM anyway")
def test_a_user_that_may_not_steer_ksm_is_told_so_in_one_line() -> None:
    if subprocess.run([*AS_ORDINARY, "test", "-r", DEMO], check=False).returncode != 0:
        pytest.skip(f"an ordinary user may not read {DEMO}")
    done = subprocess.run(
        [*AS_ORDINARY, sys.executable, DEMO, "merging"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, end = done.stdout.split("\n")[1::2]
    assert said == "demo: merging is not shown: only root may change KSM"
    assert end.startswith("demo: done")
    assert done.stderr == ""
