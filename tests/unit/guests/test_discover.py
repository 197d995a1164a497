"""Strangers judged by what was seen of them, and recorded /proc trees of QEMUs and of liars."""

import os
import shlex
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.guests import qemu_binaries, qemu_processes, rundir
from qmpmem.guests.discover import Category, classify, discover, suggest, survey
from qmpmem.guests.qemu_command_line import CommandLine
from qmpmem.guests.qemu_processes import Facts, Monitor
from qmpmem.model import names
from qmpmem.wire.sock_diag import Holder

EMULATOR = "/usr/bin/qemu-system-x86_64"
SOCAT = Holder(pid=7, uid=0, comm="socat")


def seen(
    *monitors: Monitor,
    line: CommandLine | None = None,
    home: str | None = None,
    lost: str | None = None,
    manager: str | None = None,
) -> Facts:
    line = line or CommandLine(name="db 1", paths=tuple(monitor.path for monitor in monitors))
    return Facts(
        pid=9, uid=1000, line=line, monitors=monitors, home=home, lost=lost, manager=manager
    )


FREE = Monitor(path="q", address="/tmp/a b/q")
HELD = Monitor(path="h", address="/tmp/h", holder=SOCAT)
LOST = Monitor(path="l", address=None)


@pytest.mark.parametrize(
    ("facts", "category"),
    [
        (seen(FREE), "adoptable"),
        (seen(HELD, LOST, FREE), "adoptable"),
        (seen(HELD), "in-use"),
        (seen(LOST, HELD), "in-use"),
        (seen(LOST), "no-qmp"),
        (seen(), "no-qmp"),
        (seen(FREE, manager="libvirt"), "libvirt"),
        (seen(FREE, manager="Proxmox VE"), "managed"),
        (seen(FREE, home="/run/x", manager="Ganeti"), "managed"),
        (seen(FREE, home="/run/user/7/qmpmem"), "elsewhere"),
        (Facts(pid=9), "unreadable"),
    ],
)
def test_classes(facts: Facts, category: Category) -> None:
    found = classify(facts, "db1")
    assert found.category == category
    assert found.pid == 9
    assert bool(found.command) == (category in ("adoptable", "elsewhere"))


def test_the_command_survives_a_shell() -> None:
    found = classify(seen(FREE), "db1")
    assert found.socket == "/tmp/a b/q"
    assert found.command is not None
    assert shlex.split(found.command) == ["qmpmem", "adopt", "db1", "/tmp/a b/q"]


def test_the_holder_of_a_socket_is_named_and_what_to_do() -> None:
    found = classify(seen(HELD), "x")
    assert found.holder == SOCAT
    assert "process 7 (socat, uid 0) holds its monitor: end that, or" in (found.note or "")
    ours = Monitor(path="h", address="/tmp/h", holder=Holder(pid=8, uid=0, command="qmpmem agent"))
    assert "an agent of another run directory" in (classify(seen(ours), "x").note or "")


def test_what_another_manager_runs_is_left_to_it() -> None:
    found = classify(seen(FREE, manager="Proxmox VE"), "x")
    assert (found.manager, found.command) == ("Proxmox VE", None)
    assert found.note == "Proxmox VE manages it and its memory; use qm"


def test_a_path_that_would_play_with_a_terminal_is_no_command() -> None:
    found = classify(seen(Monitor(path="\x1b[2J", address="/tmp/\x1b[2J")), "x")
    assert found.category == "adoptable"
    assert found.command is None
    assert found.note


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (seen(LOST), "gone"),
        (seen(line=CommandLine(paths=("/tmp/q",))), "listen"),
        (seen(lost="/tmp/run/web1/qmp.sock"), "run directory /tmp/run, whose files are gone"),
        (seen(line=CommandLine(other=True)), "on no socket"),
        (seen(line=CommandLine(unread=("/a.cfg",))), "readconfig cannot be read"),
        (seen(line=CommandLine()), "restart it through the launcher"),
    ],
)
def test_why_there_is_no_qmp_is_said(facts: Facts, word: str) -> None:
    assert word in (classify(facts, "x").note or "")


def test_ids_are_proposed_that_are_free() -> None:
    assert suggest("db1", 9, set()) == "db1"
    assert suggest("db1", 9, {"db1", "db1-2"}) == "db1-3"
    assert suggest(None, 9, set()) == "guest-9"


@given(st.text(), st.integers(min_value=1))
def test_a_proposed_id_is_safe(name: str, pid: int) -> None:
    first = suggest(name, pid, set())
    assert names.SAFE_ID.fullmatch(first)
    assert names.SAFE_ID.fullmatch(suggest(name, pid, {first}))


@pytest.mark.parametrize(
    "program",
    [
        "/usr/bin/qemu-system-x86_64",
        "/usr/bin/qemu-system-x86_64-microvm",
        "/usr/libexec/qemu-kvm",
    ],
)
def test_a_qemu_is_known_by_its_file(program: str) -> None:
    assert qemu_binaries.has_usual_name(program)


@pytest.mark.parametrize(
    "program", ["/usr/bin/qemu-img", "/usr/bin/qemu-x86_64-static", "/usr/bin/python3"]
)
def test_other_programs_are_no_qemu_that_runs_machines(program: str) -> None:
    assert not qemu_binaries.has_usual_name(program)


def record_process(
    proc: Path,
    pid: int,
    *,
    exe: str | None = EMULATOR,
    words: tuple[str, ...] = ("kvm",),
    comm: str = "qemu-system-x86",
) -> Path:
    """Write what /proc would show of a process, as far as it is read."""
    directory = proc / str(pid)
    (directory / "fd").mkdir(parents=True)
    (directory / "stat").write_text(f"{pid} ({comm}) S " + "1 " * 18 + "4711 0 0\n")
    (directory / "status").write_text("Name:\tx\nUid:\t0\t65534\t0\t0\n")
    (directory / "cmdline").write_text("".join(f"{word}\0" for word in words))
    if exe is not None:
        (directory / "exe").symlink_to(exe)
    return directory


def test_a_qemu_is_found_and_described(tmp_path: Path) -> None:
    record_process(tmp_path, 9, words=("kvm", "-name", "db1"))
    record_process(tmp_path, 10, exe=EMULATOR + " (deleted)")
    first, second = survey(tmp_path / "run", tmp_path).found
    assert (first.pid, first.uid, first.name, first.category) == (9, 65534, "db1", "no-qmp")
    assert second.pid == 10


def test_a_forged_name_is_never_listed_and_costs_next_to_nothing(tmp_path: Path) -> None:
    """Row F73."""
    for pid in range(100, 1100):
        words = ("qemu-system-x86_64", "-name", "db1", "-qmp", "unix:/tmp/x,server=on")
        record_process(tmp_path, pid, exe="/usr/bin/python3.11", words=words)
    began = time.process_time()
    found = survey(tmp_path / "run", tmp_path)
    assert time.process_time() - began < 0.5  # 10 ms; a tenth of that rate would be 1 % of a core
    assert found.found == ()
    assert found.hidden == 0


def test_what_may_not_be_looked_at_is_counted_and_not_believed(tmp_path: Path) -> None:
    record_process(tmp_path, 9, exe=None)
    record_process(tmp_path, 10, exe=None, comm="kvm")
    record_process(tmp_path, 11, exe=None, comm="kworker/u8:1")
    found = survey(tmp_path / "run", tmp_path)
    assert found.found == ()
    assert found.hidden == 2


def test_a_guest_of_ours_is_no_stranger(tmp_path: Path) -> None:
    record_process(tmp_path, 9)
    run = tmp_path / "run"
    (run / "a").mkdir(parents=True)
    record = rundir.GuestRecord(
        version=1,
        id="a",
        name="a",
        pid=9,
        start_time=4711,
        socket=str(run / "a/qmp.sock"),
        uid=0,
        created=0.0,
    )
    rundir.write_record(run, record)
    assert survey(run, tmp_path).found == ()


def test_processes_that_block_their_readers_delay_no_other(tmp_path: Path) -> None:
    """A FIFO in the place of cmdline: opening it waits, as a locked address space does."""
    stuck = [record_process(tmp_path, pid) / "cmdline" for pid in range(1, 4)]
    for fifo in stuck:
        fifo.unlink()
        os.mkfifo(fifo)
    record_process(tmp_path, 9, words=("kvm", "-name", "db1"))
    before = threading.active_count()
    found = survey(tmp_path / "run", tmp_path, patience=0.3)
    assert {entry.pid: entry.category for entry in found.found} == {
        1: "unreadable",
        2: "unreadable",
        3: "unreadable",
        9: "no-qmp",
    }
    assert threading.active_count() - before <= qemu_processes.THREADS
    release(stuck)


def test_at_most_four_readers_wait(tmp_path: Path) -> None:
    stuck = [record_process(tmp_path, pid) / "cmdline" for pid in range(1, 10)]
    for fifo in stuck:
        fifo.unlink()
        os.mkfifo(fifo)
    before = threading.active_count()
    assert len(survey(tmp_path / "run", tmp_path, patience=0.2).found) == 9
    assert threading.active_count() - before <= 4
    release(stuck)


def release(fifos: list[Path]) -> None:
    """Let the readers go that wait for a writer."""
    for fifo in fifos:
        try:
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # no reader waits there
            continue


async def test_the_event_loop_is_not_blocked(tmp_path: Path) -> None:
    record_process(tmp_path, 9)
    assert len((await discover(tmp_path / "run", tmp_path)).found) == 1
