"""Guests that start with less than their maximum, with a real QEMU and, in one, a real guest."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from launchers.guest.errors import ChannelError
from qmpmem.guests import inventory, rundir
from qmpmem.guests.rundir import GuestRecord
from tests.rig.agent import running, said
from tests.rig.command import qmpmem
from tests.rig.guests import RunningGuest, boot
from tests.rig.launcher import SHIM, talking
from tests.rig.patience import patient
from tests.rig.qemu import EMULATOR, SMALL, short_directory, until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]

MIB: Final = 1 << 20
PAUSED: Final = ("-S", *SMALL)
TOLD: Final = "virtio_balloon_to_target"
"""QEMU's trace event of a balloon that gets a target (QEMU: hw/virtio/trace-events)."""


@pytest.fixture
def run() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory / "run"


def environment(run: Path, **settings: str) -> dict[str, str]:
    return {
        "QMPMEM_REAL": f"/usr/bin/{EMULATOR}",
        "QMPMEM_RUN_DIR": str(run),
        "QMPMEM_DEFAULTS": "/proc/nonexistent",
        **{f"QMPMEM_{key.upper()}": value for key, value in settings.items()},
    }


@contextmanager
def started(run: Path, *words: str, **settings: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a paused guest called `it` through the launcher, and end it."""
    log = run.parent / "log"
    command = [str(SHIM), *PAUSED, "-name", "it", "-trace", TOLD, "-D", str(log), *words]
    environ = os.environ | environment(run, **settings)
    child = subprocess.Popen(
        command, env=environ, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def targets(run: Path) -> list[int]:
    """The targets in MiB that QEMU was told until it served the first client that asks.

    No client knows of the guest before its record is there. One that looks for a listening socket
    may be there before the launcher has left its request.
    """
    until((run / "it/record.json").exists, seconds=20, what="the guest is registered")
    with talking(run / "it/qmp.sock") as monitor:
        monitor.ask("query-status")
    return logged(run)


def logged(run: Path) -> list[int]:
    """The targets in MiB that QEMU was told by now."""
    log = run.parent / "log"
    text = log.read_text() if log.exists() else ""
    return [int(found, 16) // MIB for found in re.findall(rf"{TOLD}.*target: (\w+)", text)]


def record(run: Path) -> GuestRecord:
    found = rundir.read_record(run / "it")
    assert isinstance(found, GuestRecord), found
    return found


def sockets(pid: int) -> int:
    """How many sockets a process has."""
    count = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            count += str(each.readlink()).startswith("socket:")
    return count


def ours(run: Path) -> list[int]:
    """Every process that was started for this run directory, zombies excepted."""
    mark = f"QMPMEM_RUN_DIR={run}".encode()
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("machine", ["pc", "q35", "microvm"])
@pytest.mark.parametrize(("current", "told"), [("25%", [64]), ("100M", [100]), ("100%", [])])
def test_qemu_is_told_before_it_serves_any_other(
    run: Path, machine: str, current: str, told: list[int]
) -> None:
    with started(run, "-m", "256", "-M", machine, current=current) as child:
        assert targets(run) == told
        assert record(run).current == (told or [256])[0] * MIB
        assert ours(run) == [child.pid]


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["-incoming", "defer"], {}),
        (["-device", "virtio-balloon-pci,deflate-on-oom=on"], {}),
        ([], {"balloon": "off"}),
        ([], {"mode": "static"}),
        (["-m", "256,slots=2,maxmem=1G", "-device", "virtio-mem-pci,id=v,memdev=m"], {}),
        ([], {"current": "512M"}),
        ([], {"current": "nonsense"}),
    ],
)
def test_qemu_is_told_nothing(run: Path, words: list[str], settings: dict[str, str]) -> None:
    backend = ["-object", "memory-backend-ram,id=m,size=128M"] if "memdev=m" in str(words) else []
    chosen = {"current": "25%"} | settings
    with started(run, "-m", "256", *backend, *words, **chosen) as child:
        if chosen["current"] == "nonsense":
            assert child.stderr is not None
            line = child.stderr.readline()
            assert line.startswith("qmpmem: QMPMEM_CURRENT='nonsense': expected a size such as")
            assert "the guest starts unchanged" in line
            assert child.poll() is None
        else:
            assert targets(run) == []
            assert record(run).arriving == ("-incoming" in words)


@pytest.mark.parametrize("words", [["-sandbox", "on"], ["-daemonize"], ["-msg", "timestamp=on"]])
def test_in_other_ways_to_start(run: Path, words: list[str]) -> None:
    path = run / "it/qmp.sock"
    with started(run, "-m", "256", *words, current="25%") as child:
        assert targets(run) == [64]
        if "-daemonize" in words:
            assert child.wait(timeout=patient(20)) == 0
            with talking(path) as monitor:
                monitor.quit()
            until(lambda: ours(run) == [], what="the daemon has ended")


def test_nothing_stays_open(run: Path) -> None:
    """QEMU closes the connection and the descriptor that came with the request."""
    counts: list[int] = []
    for settings in ({}, {"current": "25%"}):
        with started(run, "-m", "256", **settings) as child:
            assert targets(run) == [64] * len(settings)
            until(lambda child=child: sockets(child.pid) == 1)  # type: ignore[misc]
            counts.append(len(list(Path(f"/proc/{child.pid}/fd").iterdir())))
    assert counts[0] == counts[1]


def test_a_guest_that_fails_to_start_leaves_nothing(run: Path) -> None:
    with started(run, "-m", "256", "-device", "nosuchdevice", current="25%") as child:
        assert child.wait(timeout=patient(20)) == 1
        assert ours(run) == []
        assert inventory.take(run).guests == ()


def test_a_guest_that_is_killed_leaves_nothing(run: Path) -> None:
    """At any moment: right after its record is there, which is before QEMU works; and later."""
    for wait in (False, True):
        with started(run, "-m", "256", current="25%") as child:
            until((run / "it/record.json").exists)
            if wait:
                assert targets(run) == [64]
            child.kill()
            child.wait()
            until(lambda: ours(run) == [])
            assert inventory.take(run).guests == ()


def test_an_emulator_that_cannot_be_executed(run: Path) -> None:
    """The request goes with the socket that it was left on."""
    empty = run.parent / "empty-kvm"
    empty.write_bytes(b"\x7fELF")
    empty.chmod(0o755)
    with started(run, "-m", "256", current="25%", real=str(empty)) as child:
        assert child.wait(timeout=patient(20)) != 0
    assert ours(run) == []


@pytest.mark.parametrize("size", ["256", "0%", "101%", "1MB", "max", "+64M", "0"])
def test_a_wrong_option_starts_no_guest(run: Path, size: str) -> None:
    ran = qmpmem("run", "--current", size, "--", *PAUSED, run=run)
    assert ran.code == 2
    assert "expected a size such as 512M, at least 1 MiB, or 1% to 100%" in ran.err
    assert len(ran.err.splitlines()) == 1
    assert not list(run.glob("*"))


def test_the_option_comes_before_the_environment(run: Path) -> None:
    words = [str(word) for word in (*PAUSED, "-m", "256", "-name", "it")]
    environ = os.environ | environment(run, current="25%")
    command = [str(SHIM.parents[1] / ".venv/bin/qmpmem"), "run", "--current", "128M", "--", *words]
    child = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL)
    try:
        until((run / "it/record.json").exists, seconds=20)
        assert record(run).current == 128 * MIB
    finally:
        child.kill()
        child.wait()


@contextmanager
def booted(run: Path, *words: str, **settings: str) -> Iterator[RunningGuest]:
    extra: Sequence[str] = ["-name", "it", *words]
    with boot([str(SHIM)], memory="384M", extra=extra, environ=environment(run, **settings)) as it:
        yield it


def seen(run: Path) -> dict[str, object]:
    """The guest as `info` shows it; an error where it is not there yet."""
    found: dict[str, object] = json.loads(qmpmem("info", "it", "--json", run=run).out)
    return found


def has(run: Path, size: int) -> bool:
    actual = seen(run)["actual"]
    return isinstance(actual, int) and abs(actual - size * MIB) < MIB


def test_a_real_guest_starts_small_and_takes_what_it_needs(run: Path) -> None:
    with booted(run, current="160M") as guest:
        until(lambda: has(run, 160), seconds=30, what="it has 160 MiB")
        assert guest.meminfo("MemAvailable") < 160
        known = seen(run)
        assert (known["current"], known["maximum"]) == (160 * MIB, 384 * MIB)
        text = qmpmem("info", "it", run=run).out
        assert re.search(r"current allocation: +160 MiB \(started with 160 MiB\)", text)
        assert re.search(r"maximum allocation: +384 MiB", text)
        guest.check("eat random 200", timeout=60)
        assert "held" in guest.check("eat status")  # no program was ended
        grown = seen(run)["actual"]
        assert isinstance(grown, int)
        assert 200 * MIB < grown <= 384 * MIB
        with suppress(ChannelError):
            guest.execute("reboot -f")
        guest.wait_until_up()
        until(lambda: has(run, 160), seconds=30, what="it has 160 MiB again")


@pytest.mark.parametrize(("settings", "told"), [({}, 128), ({"current": "100%"}, 256)])
def test_the_agent_tells_what_a_rule_says(run: Path, settings: dict[str, str], told: int) -> None:
    """What the launcher was asked for comes before it, also where that is all of the memory."""
    config = run.parent / "qmpmem.toml"
    config.write_text('[[guest]]\nmatch = "*"\ncurrent = "50%"\n')
    with (
        running(run, "--config", str(config)),
        started(run, "-m", "256", **settings),
    ):
        until(lambda: seen(run).get("current") == told * MIB, seconds=20)
        until(lambda: seen(run).get("maximum") == 256 * MIB, seconds=20)
        expected = [told] if told < 256 else []
        until(lambda: logged(run) == expected, what=f"QEMU was told {expected}")


def test_the_agent_leaves_a_guest_at_the_size_that_it_starts_with(run: Path) -> None:
    config = run.parent / "qmpmem.toml"
    config.write_text("")
    with running(run, "--config", str(config)), booted(run, current="160M"):
        until(lambda: has(run, 160), seconds=5, what="it has 160 MiB")
        why = qmpmem("agent", "why", "it", run=run).out
        assert "foreign" not in why
        assert "another program" not in said(run)
