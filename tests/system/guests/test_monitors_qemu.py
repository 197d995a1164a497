"""Monitors that are no QMP on a unix socket's file: TCP on loopback, and human monitors."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmpmem.guests.discover import Discovered, survey
from qmpmem.wire import loopback
from tests.rig import qemu
from tests.rig.agent import running
from tests.rig.command import called
from tests.rig.foreign_qemu import started
from tests.rig.patience import patient

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]


@pytest.fixture
def here() -> Iterator[Path]:
    with qemu.short_directory() as directory:
        yield directory


def free_port(family: socket.AddressFamily = socket.AF_INET, host: str = "127.0.0.1") -> int:
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "written",
    [
        ("-qmp", "tcp:127.0.0.1:{port},server=on,wait=off"),
        ("-qmp", "tcp:localhost:{port},server,nowait"),
        ("-chardev", "socket,id=m,host=127.0.0.1,port={port},server=on,wait=off", "-mon",
         "m,mode=control"),
        ("-qmp", "tcp::{port},server=on,wait=off"),
    ],
)  # fmt: skip
def test_qmp_over_tcp_is_a_monitor_like_others(here: Path, written: tuple[str, ...]) -> None:
    run, port = here / "run", free_port()
    words = [word.format(port=port) for word in written]
    with started(*words, *qemu.BALLOON) as child:
        qemu.until(lambda: seen(run, child.pid).category == "adoptable", seconds=30)
        command = shlex.split(seen(run, child.pid).command or "")
        assert command[3] in (f"tcp:127.0.0.1:{port}", f"tcp:[::1]:{port}")
        done = called(*command[1:], run=run)
        assert (done.code, "adopted, prelaunch, 64 MiB" in done.out) == (0, True), done
        guest = command[2]
        record = json.loads((run / guest / "record.json").read_text())
        assert (record["pid"], record["uid"]) == (child.pid, os.getuid())
        assert called("set", guest, "50%", "--force", "--no-wait", run=run).code == 0
        assert "virtio-balloon-pci" in called("info", guest, run=run).out
        assert not [entry for entry in survey(run).found if entry.pid == child.pid]
        with socket.create_connection(loopback.end(command[3]), timeout=patient(10)) as client:
            assert b"QMP" in client.recv(1000)
            listed = called("list", run=run).out
            assert "in-use" in listed
            assert f"process {os.getpid()} " in listed
        child.kill()
        child.wait()
        assert guest not in called("list", run=run).out


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("tcp:192.0.2.1:4444", "loopback"),
        ("tcp:0.0.0.0:4444", "loopback"),
        ("tcp:example.org:4444", "loopback"),
        ("tcp:127.0.0.1:0", "expected tcp:127.0.0.1:PORT"),
        ("tcp:127.0.0.1:99999", "expected tcp:127.0.0.1:PORT"),
        ("tcp:127.0.0.1", "expected tcp:127.0.0.1:PORT"),
        ("tcp:", "expected tcp:127.0.0.1:PORT"),
    ],
)
def test_another_address_is_refused(here: Path, address: str, word: str) -> None:
    done = called("adopt", "a", address, run=here / "run")
    assert (done.code, word in done.err, len(done.err.splitlines())) == (2, True, 1)
    assert not (here / "run").exists()


def test_nothing_there_is_said(here: Path) -> None:
    done = called("adopt", "a", f"tcp:127.0.0.1:{free_port()}", run=here / "run")
    assert (done.code, "no process listens" in done.err) == (5, True)
    assert not (here / "run").exists()


def test_a_process_that_takes_the_port_is_not_the_guest(here: Path) -> None:
    run, port = here / "run", free_port()
    words = ("-qmp", f"tcp:127.0.0.1:{port},server=on,wait=off")
    with (
        started(*words) as child,
        started("-qmp", f"unix:{here}/q,server=on,wait=off", wait_for=here / "q"),
    ):
        qemu.until(lambda: seen(run, child.pid).category == "adoptable", seconds=30)
        assert called("adopt", "a", f"tcp:127.0.0.1:{port}", run=run).code == 0
        assert called("adopt", "b", f"{here}/q", run=run).code == 0
        record = json.loads((run / "b/record.json").read_text())
        record["socket"] = f"tcp:127.0.0.1:{port}"
        (run / "b/record.json").write_text(json.dumps(record))
        assert "listens there, expected" in called("info", "b", run=run).err


HUMAN = [
    ("-monitor", "unix:{here}/m,server=on,wait=off"),
    ("-chardev", "socket,id=c,path={here}/m,server=on,wait=off", "-mon", "c,mode=readline"),
]


@pytest.mark.parametrize("written", HUMAN)
def test_a_human_monitor_tells_and_sets_sizes(here: Path, written: tuple[str, ...]) -> None:
    run = here / "run"
    words = [word.format(here=here) for word in written]
    with started(*words, *qemu.BALLOON, "-name", "db1", wait_for=here / "m") as child:
        entry = seen(run, child.pid)
        assert (entry.category, entry.note) == ("adoptable", "human monitor: no statistics")
        # Another guest of this host, such as that of another test, may be called the same.
        assert re.search(rf"qmpmem adopt db1(-\d+)? {here}/m", called("discover", run=run).out)
        done = called("adopt", "db1", f"{here}/m", run=run)
        assert (done.code, "adopted, prelaunch, 64 MiB of 64 MiB" in done.out) == (0, True), done
        assert "human monitor: no statistics" in called("list", run=run).out
        shown = called("info", "db1", run=run).out
        assert "virtio-balloon-pci, deflate-on-oom on" in shown
        assert "human monitor: no statistics" in shown
        assert "pc-i440fx" in shown
        assert called("stats", "db1", run=run).code == 0
        assert called("set", "db1", "32M", "--force", "--no-wait", run=run).code == 0
        refused = called("set", "db1", "32M", "--no-wait", run=run)
        assert refused.code == 2
        with running(run):
            qemu.until(
                lambda: "no statistics" in called("agent", "why", "db1", run=run).out,
                what="the agent leaves it alone",
            )
            assert "human monitor: no statistics" in called("list", run=run).out
            with socket.socket(socket.AF_UNIX) as person:
                person.settimeout(patient(10))
                person.connect(f"{here}/m")
                assert person.recv(100).startswith(b"QEMU ")
            set_it = ("set", "db1", "48M", "--force", "--no-wait")
            qemu.until(lambda: called(*set_it, run=run).code == 0)


def test_a_human_monitor_of_a_guest_without_a_balloon(here: Path) -> None:
    run = here / "run"
    with started("-monitor", f"unix:{here}/m,server=on,wait=off", wait_for=here / "m"):
        done = called("adopt", "a", f"{here}/m", "--add-balloon", run=run)
        assert (done.code, "adopted without a balloon" in done.err) == (6, True)
        assert "a " in called("list", run=run).out
        refused = called("set", "a", "50%", "--no-wait", run=run)
        assert (refused.code, "no balloon device" in refused.err) == (6, True)


def test_a_stopped_human_monitor_delays_no_command_for_long(here: Path) -> None:
    run = here / "run"
    with started("-monitor", f"unix:{here}/m,server=on,wait=off", wait_for=here / "m") as child:
        assert called("adopt", "a", f"{here}/m", run=run).code == 0
        child.send_signal(signal.SIGSTOP)
        listed = called("list", run=run)
        assert (listed.code, "unreachable" in listed.out) == (0, True)
        child.send_signal(signal.SIGCONT)
        qemu.until(lambda: "prelaunch" in called("list", run=run).out)


def test_a_socket_that_was_removed_is_said_to_be(here: Path) -> None:
    """As cleaners of old temporary files do."""
    run = here / "run"
    with qemu.paused(run, "web1") as children:
        (run / "web1/qmp.sock").unlink()
        listed = called("list", run=run).out
        assert "unreachable" in listed
        assert f"removed while the guest runs (process {children['web1'].pid})" in listed
        assert "start it again when that suits" in listed
        assert called("info", "web1", run=run).code == 5
        line = next(each for each in called("doctor", run=run).out.splitlines() if "web1" in each)
        assert line.startswith("warning")
        assert "start it again" in line
        shutil.rmtree(run / "web1")
        assert "web1" not in called("list", run=run).out


def seen(run: Path, pid: int) -> Discovered:
    qemu.until(lambda: any(entry.pid == pid for entry in survey(run).found))
    [entry] = [entry for entry in survey(run).found if entry.pid == pid]
    return entry
