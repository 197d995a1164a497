"""Which guests live: records against processes and sockets."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qmpmem.guests import inventory, rundir
from qmpmem.guests.rundir import GuestRecord
from qmpmem.records import replace
from qmpmem.wire import kernel
from tests.rig.forger import forged
from tests.rig.qemu import short_directory
from tests.rig.users import AS_ORDINARY, ORDINARY, needs_root


def register(
    run: Path, guest: str, *, pid: int, start_time: int, daemonize: bool = False
) -> GuestRecord:
    (run / guest).mkdir()
    record = GuestRecord(
        version=1,
        id=guest,
        name=guest,
        pid=pid,
        start_time=start_time,
        socket=str(run / guest / "qmp.sock"),
        uid=os.getuid(),
        created=0.0,
        daemonize=daemonize,
    )
    rundir.write_record(run, record)
    return record


@contextmanager
def listening(path: str) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        yield


@pytest.fixture
def dead_pid() -> int:
    with subprocess.Popen(["true"]) as child:
        child.wait()
        return child.pid


def me() -> kernel.Process:
    process = kernel.process(os.getpid())
    assert process is not None
    return process


def test_a_guest_whose_process_lives_is_live(tmp_path: Path) -> None:
    record = register(tmp_path, "a", pid=os.getpid(), start_time=me().start_time)
    assert inventory.take(tmp_path).guests == (inventory.LiveGuest(record=record, pid=os.getpid()),)


def test_one_guest_is_looked_up_by_its_id(tmp_path: Path, dead_pid: int) -> None:
    record = register(tmp_path, "a", pid=os.getpid(), start_time=me().start_time)
    register(tmp_path, "gone", pid=dead_pid, start_time=1)
    assert inventory.look_up(tmp_path, "a") == inventory.LiveGuest(record=record, pid=os.getpid())
    assert inventory.look_up(tmp_path, "gone") is None
    assert inventory.look_up(tmp_path, "missing") is None


@pytest.mark.parametrize("name", ["../a", "sub/../a", "", "a/", ".", "a" * 49, "a\0"])
def test_what_is_no_id_is_never_made_a_path(tmp_path: Path, name: str) -> None:
    register(tmp_path, "a", pid=os.getpid(), start_time=me().start_time)
    (tmp_path / "sub").mkdir()
    assert inventory.look_up(tmp_path / "sub", name) is None


def test_a_pid_used_again_is_not_the_guest(tmp_path: Path) -> None:
    record = register(tmp_path, "a", pid=os.getpid(), start_time=me().start_time - 1)
    assert inventory.take(tmp_path).stale == (record,)


def test_a_zombie_is_not_a_guest(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        process = kernel.process(child.pid)
        assert process is not None
        register(tmp_path, "a", pid=child.pid, start_time=process.start_time)
        assert [record.id for record in inventory.take(tmp_path).stale] == ["a"]


def test_a_guest_that_forked_is_found_by_its_socket(tmp_path: Path, dead_pid: int) -> None:
    record = register(tmp_path, "a", pid=dead_pid, start_time=1, daemonize=True)
    with listening(record.socket):
        assert inventory.take(tmp_path).guests == (
            inventory.LiveGuest(record=record, pid=os.getpid()),
        )


def test_a_socket_that_answers_from_elsewhere_keeps_its_guest(
    tmp_path: Path, dead_pid: int
) -> None:
    record = register(tmp_path, "a", pid=dead_pid, start_time=1, daemonize=True)
    with listening(record.socket):
        # An empty /proc stands for another network namespace: the socket is not in the table.
        found = inventory.take(tmp_path, proc=tmp_path / "empty")
    assert found.guests == (inventory.LiveGuest(record=record, pid=None),)


@pytest.mark.parametrize("proc", ["/proc", "/proc/nonexistent"])
def test_a_stranger_on_the_path_of_a_dead_guest_is_not_taken_for_it(
    tmp_path: Path, dead_pid: int, proc: str
) -> None:
    record = register(tmp_path, "a", pid=dead_pid, start_time=1)
    with listening(record.socket):
        found = inventory.take(tmp_path, Path(proc))
        assert (found.guests, found.stale) == ((), ())
        [doubt] = found.unreadable
        assert "another one answers" in doubt.problem
        assert inventory.look_up(tmp_path, "a", Path(proc)) is None
        assert inventory.sweep(tmp_path, [record], Path(proc)) == ()


def test_lines_that_a_stranger_forges_do_not_name_a_guests_process(dead_pid: int) -> None:
    with short_directory() as run:
        record = register(run, "dm1", pid=dead_pid, start_time=1, daemonize=True)
        with listening(record.socket), forged(run, record.socket):
            [found] = inventory.take(run).guests
            assert found.pid == os.getpid()
            assert inventory.look_up(run, "dm1") == found


def test_lines_that_a_stranger_forges_do_not_keep_a_guest_that_is_gone(dead_pid: int) -> None:
    with short_directory() as run:
        record = register(run, "db1", pid=dead_pid, start_time=1)
        with forged(run, record.socket, count=3):
            found = inventory.take(run)
            assert (found.guests, found.stale) == ((), (record,))
            assert inventory.sweep(run, [record]) == ("db1",)


def test_a_link_at_the_socket_of_a_dead_guest_is_not_followed(
    tmp_path: Path, dead_pid: int
) -> None:
    record = register(tmp_path, "a", pid=dead_pid, start_time=1)
    with listening(str(tmp_path / "other")):
        Path(record.socket).symlink_to(tmp_path / "other")
        assert inventory.take(tmp_path).stale == (record,)


def test_a_dead_guest_is_swept_away(tmp_path: Path, dead_pid: int) -> None:
    record = register(tmp_path, "a", pid=dead_pid, start_time=1)
    with listening(record.socket):
        pass  # the file stays, and refuses
    found = inventory.take(tmp_path)
    assert found.stale == (record,)
    assert inventory.sweep(tmp_path, found.stale) == ("a",)
    assert not (tmp_path / "a").exists()


def test_a_guest_that_took_the_place_since_is_not_swept(tmp_path: Path, dead_pid: int) -> None:
    stale = register(tmp_path, "a", pid=dead_pid, start_time=1)
    rundir.remove_guest(tmp_path, "a")
    register(tmp_path, "a", pid=os.getpid(), start_time=me().start_time)
    assert inventory.sweep(tmp_path, [stale]) == ()
    assert (tmp_path / "a" / "record.json").exists()


def test_nothing_is_swept_while_a_launcher_clears_away(tmp_path: Path, dead_pid: int) -> None:
    record = register(tmp_path, "a", pid=dead_pid, start_time=1)
    with rundir.removing(tmp_path) as alone:
        assert alone
        assert inventory.sweep(tmp_path, [record]) == ()
    assert inventory.sweep(tmp_path, [record]) == ("a",)


def test_where_nothing_may_be_removed_nothing_is(tmp_path: Path, dead_pid: int) -> None:
    record = register(tmp_path, "a", pid=dead_pid, start_time=1)
    (tmp_path / ".lock").symlink_to("/proc/nonexistent")
    assert inventory.sweep(tmp_path, [record]) == ()


def test_one_damaged_record_hides_no_other(tmp_path: Path) -> None:
    register(tmp_path, "a", pid=os.getpid(), start_time=me().start_time)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "record.json").write_text("{")
    found = inventory.take(tmp_path)
    assert [guest.record.id for guest in found.guests] == ["a"]
    assert [entry.path for entry in found.unreadable] == [str(tmp_path / "b" / "record.json")]


@needs_root("cannot start another user's process")
@pytest.mark.parametrize(
    ("process", "listener", "uid", "counts"),
    [
        ("theirs", None, ORDINARY, True),
        ("theirs", "theirs", ORDINARY, True),
        ("theirs", None, 0, True),
        ("ours", None, ORDINARY, False),
        ("theirs", "ours", ORDINARY, False),
        ("theirs", None, ORDINARY - 1, False),
    ],
)
def test_a_record_speaks_for_processes_of_its_user_alone(
    process: str, listener: str | None, uid: int, *, counts: bool
) -> None:
    """A user may write what it likes about its own guests; what says root, root has written."""
    with short_directory() as run, sleeping() as theirs:
        pids = {"theirs": theirs, "ours": os.getpid()}
        seen = kernel.process(pids[process])
        assert seen is not None
        made = register(run, "a", pid=pids[process], start_time=seen.start_time)
        heard = None if listener is None else pids[listener]
        claim = replace(made, uid=uid, listener=heard)
        found = inventory.judge(claim)
        assert isinstance(found, inventory.LiveGuest) is counts
        if not counts:
            assert isinstance(found, rundir.Unreadable)
            assert f"and the record of uid {uid}" in found.problem


@contextmanager
def sleeping() -> Iterator[int]:
    """Have a process of another user's."""
    words = [*AS_ORDINARY, "/bin/sh", "-c", "echo; exec sleep 60"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            yield child.pid
        finally:
            child.kill()


def test_of_lines_for_one_inode_none_is_believed() -> None:
    with short_directory() as run, forged(run, "/x", count=2):
        path = str(run / "qmp.sock")
        with listening(path):
            known = kernel.unix_sockets()
        assert path in {entry.path for entry in known}
        assert "/x" not in {entry.path for entry in known}
