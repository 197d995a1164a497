"""`qmpmem run`: the process becomes the guest, set up as it was told."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qmpmem.guests import inventory, rundir
from qmpmem.wire import commands
from qmpmem.wire.qmp import connect
from tests.rig.command import PROGRAM, qmpmem
from tests.rig.patience import patient
from tests.rig.qemu import short_directory, until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]

GUEST = ("-S", "-nodefaults", "-vga", "none", "-display", "none", "-m", "256")


@contextmanager
def running(
    run: Path, options: Sequence[str], words: Sequence[str] = GUEST
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a guest by `qmpmem run` and wait until it is registered and listens."""
    environ = os.environ | {"QMPMEM_RUN_DIR": str(run), "QMPMEM_DEFAULTS": "/proc/nonexistent"}
    with subprocess.Popen(
        [PROGRAM, "run", *options, "--", *words], env=environ, stderr=subprocess.PIPE
    ) as child:
        try:
            until(lambda: inventory.take(run).guests or child.poll() is not None, seconds=20)
            yield child
        finally:
            child.kill()


def shown(run: Path, guest: str) -> dict[str, Any]:
    ran = qmpmem("info", guest, "--json", run=run)
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


@pytest.fixture
def run() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


def test_the_process_becomes_the_guest(run: Path) -> None:
    with running(run, ["--name", "r1, the first"]) as child:
        [found] = inventory.take(run).guests
        assert found.record.name == "r1, the first"
        guest = shown(run, found.record.id)
        assert guest["pid"] == child.pid
        assert guest["actual"] == guest["maximum"] == 256 << 20
        assert guest["balloon"]["deflate_on_oom"] is True
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=patient(20)) == 0


def test_without_a_processor_for_kvm_it_runs_emulated_and_says_so_to_qemu(run: Path) -> None:
    from qmpmem.wire import kvm  # noqa: PLC0415 - only this test asks

    expected = "kvm" if kvm.usable(Path("/")).usable else "tcg"
    with running(run, ["--name", "r1"]):
        assert shown(run, "r1")["accelerator"] == expected


@pytest.mark.parametrize(
    "choice",
    [
        ["-accel", "tcg,tb-size=16"],
        ["--M", "pc,accel=tcg"],
        ["-machine", "q35,accel=tcg"],
        ["-readconfig", "CONFIG"],
    ],
    ids=" ".join,
)
def test_an_accelerator_that_was_asked_for_stays(
    run: Path, tmp_path: Path, choice: list[str]
) -> None:
    (tmp_path / "config").write_text('[machine]\n  accel = "tcg"\n')
    words = [str(tmp_path / "config") if word == "CONFIG" else word for word in choice]
    with running(run, ["--name", "r1"], [*GUEST, *words]) as child:
        assert shown(run, "r1")["accelerator"] == "tcg"
        given = Path(f"/proc/{child.pid}/cmdline").read_bytes().split(b"\0")
        assert given.count(b"-accel") == choice.count("-accel")


def test_what_only_looks_like_an_accelerator_is_none(run: Path) -> None:
    from qmpmem.wire import kvm  # noqa: PLC0415 - only these tests ask

    words = [*GUEST, "-name", "-accel"]
    with running(run, [], words) as child:
        [found] = inventory.take(run).guests
        assert shown(run, found.record.id)["name"] == "-accel"
        given = Path(f"/proc/{child.pid}/cmdline").read_bytes().split(b"\0")
        expected = 1 if kvm.usable(Path("/")).usable else 2
        assert given.count(b"-accel") == expected


def test_static_guests_are_never_ballooned_and_never_merged(run: Path) -> None:
    with running(run, ["--name", "s1", "--mode", "static"]):
        guest = shown(run, "s1")
        assert (guest["managed"], guest["mode"], guest["balloon"]) == (False, "static", None)
        assert guest["rss"] > 256 << 20  # all of it is there from the start
        refused = qmpmem("set", "s1", "200M", run=run)
        assert refused.code == 6
        assert "mode static, never ballooned" in refused.err


@pytest.mark.parametrize(("choice", "merge"), [("off", False), ("on", True)])
async def test_merging_is_as_it_was_told(run: Path, choice: str, merge: bool) -> None:  # noqa: FBT001
    with running(run, ["--name", "k1", "--ksm", choice, "--domain", "blue"]):
        record = rundir.read_record(run / "k1")
        assert isinstance(record, rundir.GuestRecord)
        assert (record.ksm, record.domain) == (merge, "blue")
        async with connect(record.socket, guest="k1") as session:
            devices = await commands.memory_devices(session)
            assert [device.merge for device in devices] == [merge]


def test_a_wrong_option_starts_no_guest(run: Path) -> None:
    ran = qmpmem("run", "--mode", "elastic", "--", *GUEST, run=run)
    assert ran.code == 2
    assert "elastic" in ran.err
    assert inventory.take(run).guests == ()


def test_an_argument_that_qemu_refuses_is_its_own_error(run: Path) -> None:
    ran = qmpmem("run", "--", "-nosuchoption", run=run)
    assert ran.code == 1
    assert "-nosuchoption: invalid option" in ran.err
