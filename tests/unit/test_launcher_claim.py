"""Guests' directories: claimed once, filled as others read them, taken back."""

import os
import resource
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers import kvm_claim, kvm_launch, kvm_records
from launchers.kvm_claim import claim, listen, register
from launchers.kvm_options import Line
from launchers.kvm_plan import decide
from launchers.kvm_run import ClaimError, open_run, run_directory
from launchers.kvm_settings import Settings, read_settings
from qmpmem import names, rundir
from qmpmem.rundir import GuestRecord
from qmpmem.wire import kernel
from tests.rig.launcher import leave
from tests.rig.qemu import short_directory
from tests.rig.users import NOBODY, needs_root

NAMES: Final = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="aZ09._-", max_size=60),
    st.binary(max_size=40).map(
        lambda raw: raw.replace(b"\0", b"x").decode(errors="surrogateescape")
    ),
)


@pytest.fixture
def run() -> Iterator[Path]:
    with short_directory() as directory:
        (directory / "run").mkdir(mode=0o700)
        yield directory / "run"


@contextmanager
def registered(run: Path, *words: str, **settings: str) -> Iterator[GuestRecord]:
    """Register this very process as a guest, as the launcher does before exec."""
    undo: list[Callable[[], None]] = []
    chosen = Settings({f"QMPMEM_{key.upper()}": value for key, value in settings.items()})
    plan = decide(Line(words), chosen, None)
    facts = dict(kvm_launch.facts(plan, chosen, "/usr/bin/kvm"))
    try:
        config = register(str(run), plan, facts, undo)
        record = rundir.read_record(Path(config).parent)
        assert isinstance(record, GuestRecord)
        yield record
    finally:
        for step in reversed(undo):
            step()


@given(NAMES)
def test_ids_are_made_as_others_make_them(name: str) -> None:
    assert kvm_records.safe_id(name) == names.safe_id(name)


@pytest.mark.parametrize("name", ["x" * 200, "ünïcode", "-dash", "a\nb", "../up", "", "\udcff"])
def test_odd_names_get_a_safe_id(run: Path, name: str) -> None:
    guest, directory = claim(str(run), name)
    assert names.SAFE_ID.fullmatch(guest)
    assert Path(directory).parent == run


@given(NAMES, st.integers(-(2**60), 2**60) | st.booleans() | st.none() | st.floats(0, 1e12))
def test_records_are_json(text: str, value: object) -> None:
    record = {"text": kvm_records.readable(text), "value": value}
    assert msgspec.json.decode(kvm_records.encode_record(record)) == record


def test_a_record_is_read_by_others(run: Path) -> None:
    words = ["-name", 'we"ird\n\\ \U0001f600 \udcfe', "-daemonize"]
    with registered(run, *words, ksm="off", domain="blue") as record:
        me = kernel.process(os.getpid())
        assert me is not None
        assert record.pid == os.getpid()
        assert record.start_time == me.start_time
        assert record.name == 'we"ird\n\\ \U0001f600 \\xfe'
        assert record.socket == str(run / record.id / "qmp.sock")
        assert record.id == names.safe_id(words[1])
        assert (record.version, record.uid) == (rundir.RECORD_VERSION, os.getuid())
        assert abs(record.created - time.time()) < 10
        assert (record.origin, record.mode, record.managed) == ("launcher", "balloon", True)
        assert (record.daemonize, record.listener, record.balloon) == (True, None, None)
        assert (record.emulator, record.ksm, record.domain) == ("/usr/bin/kvm", False, "blue")


def test_a_static_guest_is_not_managed(run: Path) -> None:
    with registered(run, mode="static") as record:
        assert (record.mode, record.managed, record.ksm) == ("static", False, False)


def test_every_field_of_the_record_is_written_or_has_its_default(run: Path) -> None:
    with registered(run) as record:
        text = (run / record.id / "record.json").read_text()
    missing = {field for field in GuestRecord.__struct_fields__ if f'"{field}":' not in text}
    # Where the launcher is in the root of the hierarchy, there is no group to write down.
    assert missing - {"cgroup"} == {"human", "listener"}


def test_a_guest_without_a_name_is_named_after_its_process(run: Path) -> None:
    with registered(run) as record:
        assert record.id == record.name == f"guest-{os.getpid()}"


def test_undoing_leaves_nothing(run: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with registered(run, "-name", "a"):
        assert (run / "a").is_dir()
    assert list(run.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


class TestModes:
    @pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
    def test_the_umask_does_not_matter(self, run: Path, mask: int) -> None:
        before = os.umask(mask)
        try:
            with registered(run, "-name", "a"):
                found = {
                    path.name: stat.S_IMODE(path.lstat().st_mode)
                    for path in [run / "a", *(run / "a").iterdir()]
                }
        finally:
            os.umask(before)
        expected = {"a": 0o700, "qmp.sock": 0o660, "record.json": 0o640, "monitor.conf": 0o640}
        assert found == expected

    @needs_root("has no group to share with")
    def test_a_group_that_shares_the_run_directory_shares_guests(self, run: Path) -> None:
        os.chown(run, 0, NOBODY)
        run.chmod(0o2770)
        with registered(run, "-name", "a"):
            for path in [run / "a", *(run / "a").iterdir()]:
                assert path.stat().st_gid == NOBODY
            assert stat.S_IMODE((run / "a").stat().st_mode) == 0o2770

    def test_a_missing_run_directory_is_made_for_us_alone(self, run: Path) -> None:
        open_run(str(run / "new"))
        assert stat.S_IMODE((run / "new").stat().st_mode) in (0o700, 0o2770)


class TestUnsafeRunDirectories:
    def test_everybody_can_write(self, run: Path) -> None:
        run.chmod(0o1777)
        with pytest.raises(ClaimError, match="everybody"):
            open_run(str(run))

    @needs_root("cannot give a directory away")
    def test_somebody_elses(self, run: Path) -> None:
        os.chown(run, NOBODY, NOBODY)
        with pytest.raises(ClaimError, match="belongs to user 65534"):
            open_run(str(run))

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("link", "not a directory"),
            ("file", "not a directory"),
            ("a/b", r"/a/b: No such file or directory \(QMPMEM_RUN_DIR: .*/a must be there"),
            ("\udcff", "UTF-8"),
        ],
    )
    def test_none(self, run: Path, name: str, why: str) -> None:
        (run / "real").mkdir()
        (run / "link").symlink_to("real")
        (run / "file").touch()
        with pytest.raises(ClaimError, match=why):
            open_run(f"{run}/{name}", "/chosen")


class TestLongPaths:
    def test_a_long_name_gives_way(self, run: Path) -> None:
        deep = run / ("d" * (107 - len(f"{run}//{'i' * 20}/qmp.sock")))
        deep.mkdir()
        guest, directory = claim(str(deep), "n" * 48)
        assert guest.startswith("g-")
        os.close(listen(f"{directory}/qmp.sock"))

    def test_too_long_for_any(self, run: Path) -> None:
        deep = run / ("d" * 80)
        deep.mkdir()
        with pytest.raises(ClaimError, match="too long"):
            claim(str(deep), "a")
        assert list(deep.iterdir()) == []

    @pytest.mark.parametrize("spare", range(6))
    def test_at_the_edge(self, run: Path, spare: int) -> None:
        deep = run / ("d" * (107 - len(f"{run}//abcd/qmp.sock") - spare))
        deep.mkdir()
        for number in range(3):
            try:
                guest, directory = claim(str(deep), "abcd")
            except ClaimError:
                assert number
                assert spare < 2
                break
            assert guest == ("abcd" if number == 0 else f"abcd-{number + 1}")
            os.close(listen(f"{directory}/qmp.sock"))


class TestRunDirectoryName:
    @pytest.mark.parametrize(
        "environment",
        [
            {},
            {"XDG_RUNTIME_DIR": "/run/user/7"},
            {"XDG_RUNTIME_DIR": ""},
            {"XDG_RUNTIME_DIR": "/run/user/7", "QMPMEM_RUN_DIR": "/srv/guests"},
        ],
    )
    @pytest.mark.parametrize("uid", [0, 1000])
    @pytest.mark.parametrize("host", ["", "QMPMEM_RUN_DIR=/srv/all", 'QMPMEM_RUN_DIR="/srv/all"'])
    def test_is_what_others_expect(
        self,
        environment: dict[str, str],
        uid: int,
        host: str,
        run: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(os, "getuid", lambda: uid)
        (run / "defaults").write_text(host)
        known = environment | {"QMPMEM_DEFAULTS": str(run / "defaults")}
        expected = str(rundir.run_directory(known, uid))
        assert run_directory(read_settings(known, host).run, known) == expected


class TestTakenNames:
    def test_a_second_guest_of_one_name(self, run: Path) -> None:
        with registered(run, "-name", "a") as one, registered(run, "-name", "a") as two:
            assert (one.id, two.id, two.name) == ("a", "a-2", "a")

    def test_a_long_name_keeps_its_length(self, run: Path) -> None:
        with registered(run, "-name", "a" * 48) as one, registered(run, "-name", "a" * 48) as two:
            assert (one.id, two.id) == ("a" * 48, "a" * 46 + "-2")

    def test_a_claim_without_a_record_is_somebody_starting(self, run: Path) -> None:
        (run / "a").mkdir()
        assert claim(str(run), "a")[0] == "a-2"

    def test_unless_it_is_old(self, run: Path) -> None:
        (run / "a").mkdir()
        (run / "a" / "monitor.conf").touch()
        then = time.time() - 60
        os.utime(run / "a", (then, then))
        assert claim(str(run), "a")[0] == "a"
        assert list((run / "a").iterdir()) == []

    def test_an_old_claim_whose_socket_answers_lives(self, run: Path) -> None:
        (run / "a").mkdir()
        descriptor = listen(f"{run}/a/qmp.sock")
        then = time.time() - 60
        os.utime(run / "a", (then, then))
        assert claim(str(run), "a")[0] == "a-2"
        os.close(descriptor)
        os.utime(run / "a", (then, then))
        assert claim(str(run), "a")[0] == "a"

    def test_a_dead_guests_name_is_free(self, run: Path) -> None:
        leave(run, pid=2**22, started=1)
        assert claim(str(run), "a")[0] == "a"

    def test_a_live_guest_whose_socket_was_deleted_lives(self, run: Path) -> None:
        me = kernel.process(os.getpid())
        assert me is not None
        leave(run, pid=os.getpid(), started=me.start_time)
        (run / "a" / "qmp.sock").unlink()
        assert claim(str(run), "a")[0] == "a-2"

    def test_a_pid_that_was_used_again_is_another_process(self, run: Path) -> None:
        leave(run, pid=os.getpid(), started=1)
        assert claim(str(run), "a")[0] == "a"

    def test_a_daemon_lives_on_its_socket(self, run: Path) -> None:
        """After -daemonize the recorded process is gone; the socket is open in its child."""
        leave(run, pid=2**22, started=1)
        descriptor = self.answer(run)
        assert claim(str(run), "a")[0] == "a-2"
        os.close(descriptor)

    def test_a_socket_in_another_network_namespace_lives(
        self, run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        leave(run, pid=2**22, started=1)
        descriptor = self.answer(run)
        monkeypatch.setattr(kvm_claim, "SOCKETS", "/dev/null")
        assert claim(str(run), "a")[0] == "a-2"
        os.close(descriptor)

    def test_an_adopted_guest_lives_on_a_socket_elsewhere(self, run: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"{run}/else where.sock")
            server.listen()
            leave(run, pid=2**22, started=1, path=f"{run}/else where.sock")
            assert claim(str(run), "a")[0] == "a-2"

    @pytest.mark.parametrize("text", ["", "{}", "nonsense", '{"pid":"x"}', "\\", '{"pid": 1}'])
    def test_a_record_that_makes_no_sense_is_left_alone(self, run: Path, text: str) -> None:
        (run / "a").mkdir()
        (run / "a" / "record.json").write_text(text)
        then = time.time() - 60
        os.utime(run / "a", (then, then))
        assert claim(str(run), "a")[0] == "a-2"
        assert (run / "a" / "record.json").read_text() == text

    def test_what_is_no_directory_is_left_alone(self, run: Path) -> None:
        (run / "a").write_text("x")
        (run / "a-2").symlink_to("/proc/nonexistent")
        assert claim(str(run), "a")[0] == "a-3"

    @pytest.mark.parametrize("real", [True, False])
    def test_nothing_is_removed_through_a_link(self, run: Path, *, real: bool) -> None:
        """Neither where it leads, nor the files with names of ours that are there."""
        victim = run.parent / "victim"
        victim.mkdir()
        (victim / ("qmp.sock" if real else "data")).write_text("x")
        os.utime(victim, (0, 0))
        (run / "a").symlink_to(victim)
        os.utime(run / "a", (0, 0), follow_symlinks=False)
        assert claim(str(run), "a")[0] == "a-2"
        assert len(list(victim.iterdir())) == 1
        with pytest.raises(OSError, match="Not a directory"):
            kvm_claim.remove(str(run / "a"))
        assert len(list(victim.iterdir())) == 1

    @needs_root("cannot give a directory away")
    def test_somebody_elses_directory_is_left_alone(self, run: Path) -> None:
        (run / "a").mkdir()
        os.chown(run / "a", NOBODY, NOBODY)
        os.utime(run / "a", (0, 0))
        assert claim(str(run), "a")[0] == "a-2"
        assert (run / "a").stat().st_uid == NOBODY

    @pytest.mark.parametrize("kind", ["file", "directory"])
    def test_a_directory_with_other_things_in_it_is_left_alone(self, run: Path, kind: str) -> None:
        leave(run, pid=2**22, started=1)
        if kind == "file":
            (run / "a" / "notes").touch()
        else:
            (run / "a" / "monitor.conf").mkdir()
        assert claim(str(run), "a")[0] == "a-2"
        assert (run / "a" / "record.json").exists()

    @pytest.mark.parametrize("lock", ["directory", "link"])
    def test_where_there_is_no_lock_the_next_id_is_taken(self, run: Path, lock: str) -> None:
        leave(run, pid=2**22, started=1)
        if lock == "directory":
            (run / ".lock").mkdir()
        else:
            (run / ".lock").symlink_to("/dev/null")
        assert claim(str(run), "a")[0] == "a-2"

    @pytest.mark.parametrize("there", [True, False])
    def test_the_lock_is_the_groups_whatever_the_umask(self, run: Path, *, there: bool) -> None:
        leave(run, pid=2**22, started=1)
        if there:
            (run / ".lock").touch(mode=0o600)
        before = os.umask(0o077)
        try:
            assert claim(str(run), "a")[0] == "a"
        finally:
            os.umask(before)
        assert stat.S_IMODE((run / ".lock").stat().st_mode) == 0o660

    def test_nothing_else_is_left_in_the_run_directory(self, run: Path) -> None:
        leave(run, pid=2**22, started=1)
        claim(str(run), "a")
        assert {path.name for path in run.iterdir()} == {"a", ".lock"}

    @staticmethod
    def answer(run: Path) -> int:
        """Listen where the guest that was left behind did."""
        (run / "a" / "qmp.sock").unlink()
        return listen(f"{run}/a/qmp.sock")


def test_a_descriptor_never_takes_the_place_of_a_standard_stream() -> None:
    saved = os.dup(0)
    try:
        os.close(0)
        low = os.open("/dev/null", os.O_RDONLY)
        assert low == 0
        high = kvm_claim.out_of_the_way(low)
        assert high >= kvm_claim.FIRST_DESCRIPTOR
        assert os.get_inheritable(high)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(0)
        os.close(high)
    finally:
        os.dup2(saved, 0)
        os.close(saved)


def test_a_limit_keeps_a_descriptor_where_it_may_be() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    saved = os.dup(0)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        os.close(0)
        low = os.open("/dev/null", os.O_RDONLY)
        kept = kvm_claim.out_of_the_way(low)
        assert 3 <= kept < 100
        assert os.get_inheritable(kept)
        os.close(kept)
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
