"""`qmpmem set`: it says what it did, why a guest does not move, and how to take it back."""

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmpmem.api.records import Status
from qmpmem.units import MIB
from tests.rig.agent import asking, running
from tests.rig.command import PROGRAM, Ran, called, on_terminal, plain_environment
from tests.rig.patience import patient
from tests.rig.qemu import paused, short_directory, until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(90)]

HALTED = {"new": "prelaunch", "stopped": "paused"}
"""Guests that do not run, and their states."""


@pytest.fixture(scope="module")
def run() -> Iterator[Path]:
    """Have guests of 256 MiB without an operating system: one runs, the others do not."""
    with (
        short_directory() as directory,
        paused(directory, "new"),
        paused(directory, "runs", "stopped", running=True),
    ):
        stop(directory / "stopped/qmp.sock")
        yield directory


def stop(path: Path) -> None:
    """Pause a guest by its monitor."""
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(str(path))
        lines = monitor.makefile("rw")
        for command in ("qmp_capabilities", "stop", "query-status"):
            lines.write(json.dumps({"execute": command, "id": command}) + "\n")
            lines.flush()
        for line in lines:
            if '"paused"' in line:
                return
    pytest.fail("it is not paused")


ALONE = "without an agent"


@pytest.fixture(scope="module", params=[ALONE, "with an agent"])
def agent(request: pytest.FixtureRequest, run: Path) -> Iterator[bool]:
    if request.param == ALONE:
        yield False
        return
    with running(run):
        until(lambda: is_known(run), seconds=30, what="the agent knows all guests")
        yield True


def is_known(run: Path) -> bool:
    status = asking(run).get("status", Status)
    return {guest.actual for guest in status.guests} == {256 * MIB}


alone = pytest.mark.parametrize("agent", [ALONE], indirect=True)
"""For a test that the agent of others would disturb."""


@pytest.mark.parametrize("guest", HALTED)
def test_a_guest_that_does_not_run_is_said_not_to(run: Path, guest: str, *, agent: bool) -> None:
    asked = called("set", guest, "200M", "--no-wait", run=run)
    waited = called("set", guest, "200M", "--wait", "--timeout", "300ms", run=run)
    assert (asked.code, waited.code) == (0, 1)
    assert f"it is {HALTED[guest]}, not running" in asked.out
    assert f"qmpmem: {guest}: it is {HALTED[guest]}, not running" in waited.err
    assert f"guest {guest}: {HALTED[guest]}, at 256 MiB after 0.3 s, expected" in waited.err
    assert "driver" not in asked.out + waited.err
    if agent:
        assert asked.out.startswith(f"{guest}: pinned to 200 MiB, but the agent leaves it alone: ")
        assert f"`qmpmem unpin {guest}` ends the pin" in asked.out
    else:
        assert asked.out.startswith(f"{guest}: asked to go from 256 MiB to 200 MiB; it is")
        assert "`cont` on its monitor" in asked.out


@pytest.mark.parametrize("guest", HALTED)
def test_the_same_in_a_script(run: Path, guest: str, *, agent: bool) -> None:
    text = f"set {guest} 200M\nwait {guest} 200M 300ms\n"
    ran = called("script", "-", run=run, text=text)
    assert ran.code == 1
    assert f"{HALTED[guest]}, at 256 MiB" in ran.err
    assert "driver" not in ran.err
    assert agent or "agent" not in ran.err


def test_a_pin_says_that_it_is_one(run: Path, *, agent: bool) -> None:
    assert called("set", "runs", "256M", "--no-wait", run=run).out == (
        "runs: pinned to 256 MiB, which it has already; "
        "`qmpmem unpin runs` gives it back to the agent\n"
        if agent
        else "runs: has 256 MiB already\n"
    )
    asked = called("set", "runs", "200M", "--no-wait", run=run).out
    assert asked == (
        "runs: pinned to 200 MiB; `qmpmem unpin runs` gives it back to the agent\n"
        if agent
        else "runs: asked to go from 256 MiB to 200 MiB\n"
    )


def interrupted(run: Path, number: int, *words: str, text: str = "", after: int = 0) -> Ran:
    """Begin a command that waits, and send it a signal when it has written so many lines."""
    environment = plain_environment() | {"QMPMEM_RUN_DIR": str(run)}
    with subprocess.Popen(
        [PROGRAM, *words], env=environment, stdin=-1, stdout=-1, stderr=-1, text=True
    ) as child:
        assert child.stdin is not None
        child.stdin.write(text)
        child.stdin.close()
        child.stdin = None
        mine = f"/proc/{child.pid}/status"
        until(lambda: catches(mine, signal.SIGTERM), seconds=30, what="it handles signals")
        assert child.stdout is not None
        begun = [child.stdout.readline() for _ in range(after)]
        child.send_signal(number)
        out, err = child.communicate(timeout=patient(30))
    assert "Traceback" not in err
    return Ran(code=child.returncode, out="".join(begun) + out, err=err)


def catches(status: str, number: int) -> bool:
    """Whether a process handles a signal (proc(5): SigCgt)."""
    lines = Path(status).read_text().splitlines()
    [mask] = [line.split()[1] for line in lines if line.startswith("SigCgt:")]
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_says_how_far_it_came_and_how_to_take_it_back(
    run: Path, number: int, *, agent: bool
) -> None:
    ran = interrupted(run, number, "set", "runs", "200M", "--wait", "--timeout", "1min")
    assert (ran.code, ran.out) == (130, "")
    assert ran.err == (
        "qmpmem: runs: at 256 MiB, pinned to 200 MiB; "
        "`qmpmem unpin runs` gives it back to the agent\n"
        if agent
        else "qmpmem: runs: at 256 MiB, goes on to 200 MiB; "
        "`qmpmem set runs 256M` takes that back\n"
    )


@alone
@pytest.mark.usefixtures("agent")
def test_ctrl_c_on_a_terminal_wipes_the_bar_and_says_the_same(run: Path) -> None:
    ran = on_terminal("set", "runs", "200M", run=run, until="→")
    assert ran.code == 130
    assert "runs: at 256 MiB, goes on to 200 MiB" in ran.out
    assert ran.out.count("\x1b[?25l") == ran.out.count("\x1b[?25h")


@alone
@pytest.mark.usefixtures("agent")
def test_ctrl_c_in_a_script_says_it_of_each_guest(run: Path) -> None:
    text = "set runs 200M\nset stopped 50%\nwait runs 200M 1min\n"
    ran = interrupted(run, signal.SIGINT, "script", "-", text=text, after=2)
    assert ran.code == 130
    assert "runs: at 256 MiB, goes on to 200 MiB; `qmpmem set runs 256M` takes that" in ran.err
    assert "stopped: at 256 MiB, goes on to 128 MiB when it runs: it is paused now" in ran.err
    assert ran.err.count("\n") == 2


KEYS = {
    *("id", "name", "before", "target", "actual", "reached", "state", "pinned", "exempt"),
    "dry_run",
}


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (["runs", "200M", "--no-wait"], 0, None),
        (["runs", "200M", "--dry-run"], 0, None),
        (["new", "200M"], 0, None),
        (["runs", "200M", "--wait", "--timeout", "0.1"], 1, "NotReached"),
        (["runs", "1T"], 2, "ConfigError"),
        (["runs", "1M"], 2, "ConfigError"),
        (["none", "200M"], 2, "ConfigError"),
        (["runs", "200M", "--quickly"], 2, "ConfigError"),
    ],
)
def test_json_is_json_whatever_comes_of_it(
    run: Path, words: list[str], code: int, kind: str | None, *, agent: bool
) -> None:
    ran = called("set", *words, "--json", run=run)
    assert ran.code == code
    seen = json.loads(ran.out)
    if kind is None or kind == "NotReached":
        assert seen.keys() - {"error"} == KEYS
        assert (seen["before"], seen["target"]) == (256 * MIB, 200 * MIB)
        assert seen["pinned"] is (agent and "--dry-run" not in words)
    if kind is not None:
        assert (seen["error"]["kind"], seen["error"]["exit_code"]) == (kind, code)
        assert seen["error"]["message"] in ran.err


@alone
@pytest.mark.usefixtures("agent")
def test_json_is_json_after_ctrl_c(run: Path) -> None:
    ran = interrupted(run, signal.SIGINT, "set", "runs", "200M", "--wait", "--json")
    assert ran.code == 130
    seen = json.loads(ran.out)
    assert (seen["actual"], seen["error"]["kind"]) == (256 * MIB, "Interrupted")


@pytest.mark.parametrize("command", [("set",), ("agent", "pin")])
def test_arguments_in_the_wrong_order_are_said_to_be(run: Path, command: tuple[str, ...]) -> None:
    ran = called(*command, "200M", "runs", run=run)
    assert ran.code == 2
    assert "the guest comes first: `qmpmem set runs 200M`" in ran.err


@pytest.mark.parametrize("pattern", ["run*", "r?ns", "[rs]uns"])
def test_a_pattern_is_for_scripts(run: Path, pattern: str, *, agent: bool) -> None:
    ran = called("set", pattern, "200M", run=run)
    assert ran.code == 2
    assert f"`echo 'set {pattern} 50%' | qmpmem script -`" in ran.err
    assert agent in (True, False)
