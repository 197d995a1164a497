"""Guests' directories: claimed once, filled as others read them, taken back."""

import errno
import fcntl
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

from launchers import kvm_claim, kvm_launch, kvm_monitor, kvm_records
from launchers.kvm_claim import register
from launchers.kvm_options import Line
from launchers.kvm_plan import decide
from launchers.kvm_run import ClaimError, open_run, run_directory
from launchers.kvm_settings import Settings, read_settings
from qmpmem.guests import rundir
from qmpmem.guests.rundir import GuestRecord
from qmpmem.model import names
from qmpmem.wire import kernel
from tests.rig.launcher import leave, listen, opened, opened_run
from tests.rig.qemu import short_directory
from tests.rig.users import IS_ROOT, NOBODY, give_to_another_user, needs_root

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
        with opened_run(run) as opened:
            guest, _ = register(opened, plan, facts, undo)
            record = rundir.read_record(run / guest)
            assert isinstance(record, GuestRecord)
            yield record
            while undo:
                undo.pop()()
    finally:
        for step in reversed(undo):
            step()


def claim(run: Path, name: str) -> tuple[str, Path]:
    """Claim a directory, as the launcher does; returns the id and the directory."""
    with opened_run(run) as opened:
        guest, descriptor = kvm_claim.claim(opened, name)
    os.close(descriptor)
    return guest, run / guest


def make_run(run: Path, chosen: str | None = None) -> None:
    """Open the run directory, as the launcher does."""
    os.close(open_run(str(run), chosen).descriptor)


def is_kept(run: Path) -> bool:
    """Tell whether the launcher finds that none but root and its user can exchange a directory."""
    opened = open_run(str(run))
    os.close(opened.descriptor)
    return opened.kept


@contextmanager
def prepared(run: Path) -> Iterator[str]:
    """Register a guest; yields the path at which QEMU is to read of its monitor."""
    undo: list[Callable[[], None]] = []
    plan = decide(Line(["-name", "a"]), Settings({}), None)
    with opened_run(run) as opened:
        try:
            known = kvm_launch.facts(plan, Settings({}), "/usr/bin/kvm")
            yield register(opened, plan, dict(known), undo)[1]
        finally:
            while undo:
                undo.pop()()


@given(NAMES)
def test_ids_are_made_as_others_make_them(name: str) -> None:
    assert kvm_records.safe_id(name) == names.safe_id(name)


@pytest.mark.parametrize("name", ["x" * 200, "ünïcode", "-dash", "a\nb", "../up", "", "\udcff"])
def test_odd_names_get_a_safe_id(run: Path, name: str) -> None:
    guest, directory = claim(run, name)
    assert names.SAFE_ID.fullmatch(guest)
    assert directory.parent == run


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
    assert missing - {"cgroup"} == {"human", "listener", "shared"}


def test_a_guest_without_a_name_is_named_after_its_process(run: Path) -> None:
    with registered(run) as record:
        assert record.id == record.name == f"guest-{os.getpid()}"


def test_undoing_leaves_nothing(run: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with registered(run, "-name", "a"):
        assert (run / "a").is_dir()
    assert list(run.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_undoing_leaves_what_another_launcher_has_put_there(run: Path) -> None:
    """It took the directory over while this launcher was stopped."""
    with registered(run, "-name", "a"):
        for path in (run / "a").iterdir():
            path.unlink()
        (run / "a").rmdir()
        (run / "a").mkdir()
        for name in ("qmp.sock", "record.json"):
            (run / "a" / name).touch()
    assert {path.name for path in (run / "a").iterdir()} == {"qmp.sock", "record.json"}


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
        expected = {"a": 0o700, "qmp.sock": 0o600, "record.json": 0o600}
        assert found == expected

    @needs_root("has no group to share with")
    def test_no_group_gets_at_a_guest(self, run: Path) -> None:
        """The run directory is another group's, which new entries get: still ours alone."""
        os.chown(run, 0, NOBODY)
        run.chmod(0o2750)
        with registered(run, "-name", "a"):
            for path in [run / "a", *(run / "a").iterdir()]:
                assert not path.lstat().st_mode & 0o077

    @pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
    def test_a_missing_run_directory_is_made_for_us_alone(self, run: Path, mask: int) -> None:
        before = os.umask(mask)
        try:
            make_run(run / "new")
            assert os.umask(mask) == mask
        finally:
            os.umask(before)
        assert stat.S_IMODE((run / "new").stat().st_mode) == 0o700

    @pytest.mark.parametrize("mode", [0o770, 0o2770, 0o775])
    @pytest.mark.parametrize("inside", [(), ("guest", ".lock")])
    def test_a_run_directory_of_the_group_s_is_made_ours_alone(
        self, run: Path, mode: int, inside: tuple[str, ...]
    ) -> None:
        if inside:
            (run / "a").mkdir()
            (run / "a/qmp.sock").touch()
            (run / ".lock").touch()
        run.chmod(mode)
        make_run(run)
        assert stat.S_IMODE(run.stat().st_mode) == 0o700

    @pytest.mark.parametrize("other", ["file", "directory", "link"])
    def test_a_directory_with_other_things_in_it_keeps_its_mode(
        self, run: Path, other: str
    ) -> None:
        """The user has named a directory that other programs may need as it is."""
        match other:
            case "file":
                (run / "disk.qcow2").touch()
            case "directory":
                (run / "vms/web1").mkdir(parents=True)
            case _:
                (run / "link").symlink_to(run)
        run.chmod(0o775)
        with pytest.raises(ClaimError, match="its group can write there"):
            make_run(run)
        assert stat.S_IMODE(run.stat().st_mode) == 0o775

    @pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o711])
    def test_a_directory_that_others_only_read_keeps_its_mode(self, run: Path, mode: int) -> None:
        run.chmod(mode)
        make_run(run)
        assert stat.S_IMODE(run.stat().st_mode) == mode


class TestTellingQemuOfItsMonitor:
    def test_by_a_sealed_file_in_memory(self, run: Path) -> None:
        with prepared(run) as config:
            descriptor = int(config.removeprefix("/proc/self/fd/"))
            assert Path(config).read_text().startswith("# written by qmpmem\n[chardev")
            with pytest.raises(PermissionError):
                os.write(descriptor, b"x")
            with pytest.raises(PermissionError):
                os.ftruncate(descriptor, 0)
            assert os.get_inheritable(descriptor)
            assert {path.name for path in (run / "a").iterdir()} == {"qmp.sock", "record.json"}

    def test_by_one_on_a_kernel_that_does_not_know_the_flag(
        self, run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make = os.memfd_create

        def refuse(name: str, flags: int) -> int:
            if flags & kvm_monitor.NOT_EXECUTABLE:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return make(name, flags)

        monkeypatch.setattr(os, "memfd_create", refuse)
        with prepared(run) as config:
            assert Path(config).read_text().startswith("# written by qmpmem\n[chardev")

    @pytest.mark.parametrize("lacks", ["Python", "kernel", "proc"])
    def test_by_a_file_of_ours_where_there_are_none(
        self, run: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
    ) -> None:
        self.take_away(monkeypatch, lacks)
        with prepared(run) as config:
            assert config == f"{run}/a/monitor.conf"
            assert stat.S_IMODE(Path(config).stat().st_mode) == 0o600
            assert Path(config).read_text().startswith("# written by qmpmem\n[chardev")

    @pytest.mark.parametrize("lacks", ["Python", "kernel"])
    def test_not_by_a_file_that_others_could_exchange(
        self, run: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
    ) -> None:
        self.take_away(monkeypatch, lacks)
        run.parent.chmod(0o777)
        with (
            pytest.raises(ClaimError, match="others can exchange a directory on the way"),
            prepared(run),
        ):
            pass
        assert list(run.iterdir()) == []

    @staticmethod
    def take_away(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
        def refuse(*_: object) -> int:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        match what:
            case "Python":
                monkeypatch.delattr(os, "memfd_create")
            case "kernel":
                monkeypatch.setattr(os, "memfd_create", refuse)
            case _:
                monkeypatch.setattr(kvm_monitor, "DESCRIPTORS", "/proc/nonexistent")


class TestTheWayToTheRunDirectory:
    @pytest.mark.parametrize(
        ("mode", "group", "kept"),
        [
            (0o700, None, True),
            (0o755, None, True),
            (0o775, None, True),
            (0o777, None, False),
            (0o1777, None, True),
            pytest.param(0o775, NOBODY, False, marks=needs_root("cannot give to a group")),
        ],
    )
    def test_is_kept_where_none_can_be_exchanged(
        self, run: Path, mode: int, group: int | None, *, kept: bool
    ) -> None:
        (run / "below").mkdir(0o700)
        os.chown(run.parent, -1, -1 if group is None else group)
        run.parent.chmod(mode)
        for path in (run, run / "below", run / "new"):
            assert is_kept(path) is kept

    def test_is_not_kept_where_a_list_has_other_users(self, run: Path) -> None:
        run.parent.chmod(0o775)
        give_to_another_user(run.parent)
        assert not is_kept(run)

    @needs_root("cannot give a directory away")
    def test_is_not_kept_in_another_users(self, run: Path) -> None:
        os.chown(run.parent, NOBODY, NOBODY)
        assert not is_kept(run)

    def test_a_link_of_ours_leads_there(self, run: Path) -> None:
        (run / "there").mkdir(0o700)
        (run / "link").symlink_to("there")
        (run / "long").symlink_to(run / "link/../link")
        (run / "root").symlink_to("/")
        for way in ("link", "long", f"root/{run}/long", "link/../there", "./there/."):
            assert is_kept(run / way / "below")
            (run / "there/below").rmdir()

    def test_a_link_that_others_may_exchange_leads_nowhere(self, run: Path) -> None:
        anybodys = run.parent / "anybodys"
        anybodys.mkdir()
        anybodys.chmod(0o777)
        (anybodys / "link").symlink_to(run)
        with pytest.raises(ClaimError, match=f"{anybodys}/link: others may exchange"):
            make_run(anybodys / "link/below")
        assert list(run.iterdir()) == []

    @needs_root("cannot give a link away")
    def test_nor_does_a_link_of_another_user(self, run: Path) -> None:
        run.parent.chmod(0o1777)
        (run.parent / "link").symlink_to(run)
        os.chown(run.parent / "link", NOBODY, NOBODY, follow_symlinks=False)
        with pytest.raises(ClaimError, match="link: others may exchange"):
            make_run(run.parent / "link/below")

    def test_links_in_a_circle_end(self, run: Path) -> None:
        (run / "a").symlink_to("b")
        (run / "b").symlink_to("a")
        with pytest.raises(ClaimError, match="not a directory"):
            make_run(run / "a/below")

    @needs_root("gives a directory to a group")
    @pytest.mark.parametrize("kept", [True, False])
    def test_a_mode_changes_only_where_others_cannot_lead(self, run: Path, *, kept: bool) -> None:
        run.chmod(0o2775)
        run.parent.chmod(0o755 if kept else 0o777)
        if kept:
            make_run(run)
        else:
            with pytest.raises(ClaimError, match="its group can write there"):
                make_run(run)
        assert stat.S_IMODE(run.stat().st_mode) == (0o700 if kept else 0o2775)

    def test_a_socket_that_was_led_elsewhere_is_not_handed_on(self, run: Path) -> None:
        for name in ("ours", "elsewhere"):
            (run / name).mkdir()
        with opened(run / "ours") as descriptor, pytest.raises(OSError, match="No such file"):
            kvm_monitor.listen(descriptor, f"{run}/elsewhere")
        (run / "ours/qmp.sock").touch()
        (run / "elsewhere/qmp.sock").unlink()
        with opened(run / "ours") as descriptor, pytest.raises(OSError, match="not the directory"):
            kvm_monitor.listen(descriptor, f"{run}/elsewhere")

    @pytest.mark.parametrize("mode", [0o700, 0o777])
    def test_a_guest_is_reached_at_its_socket_either_way(self, run: Path, mode: int) -> None:
        run.parent.chmod(mode)
        with registered(run, "-name", "a", current="25%") as record:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(record.socket)
            assert stat.S_IMODE(Path(record.socket).stat().st_mode) == 0o600


class TestUnsafeRunDirectories:
    def test_every_user_can_write(self, run: Path) -> None:
        run.chmod(0o1777)
        with pytest.raises(ClaimError, match="any user can write there"):
            make_run(run)

    @needs_root("cannot give a directory away")
    def test_another_users(self, run: Path) -> None:
        os.chown(run, NOBODY, NOBODY)
        with pytest.raises(ClaimError, match="belongs to user 65534"):
            make_run(run)

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
        guest, directory = claim(deep, "n" * 48)
        assert guest.startswith("g-")
        os.close(listen(directory))

    def test_too_long_for_any(self, run: Path) -> None:
        deep = run / ("d" * 80)
        deep.mkdir()
        with pytest.raises(ClaimError, match="too long"):
            claim(deep, "a")
        assert list(deep.iterdir()) == []

    @pytest.mark.parametrize("spare", range(6))
    def test_at_the_edge(self, run: Path, spare: int) -> None:
        deep = run / ("d" * (107 - len(f"{run}//abcd/qmp.sock") - spare))
        deep.mkdir()
        for number in range(3):
            try:
                guest, directory = claim(deep, "abcd")
            except ClaimError:
                assert number
                assert spare < 2
                break
            assert guest == ("abcd" if number == 0 else f"abcd-{number + 1}")
            os.close(listen(directory))


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

    def test_a_claim_without_a_record_is_a_guest_that_starts(self, run: Path) -> None:
        (run / "a").mkdir()
        assert claim(run, "a")[0] == "a-2"

    def test_unless_it_is_old(self, run: Path) -> None:
        (run / "a").mkdir()
        (run / "a" / "monitor.conf").touch()
        then = time.time() - 60
        os.utime(run / "a", (then, then))
        assert claim(run, "a")[0] == "a"
        assert list((run / "a").iterdir()) == []

    def test_an_old_claim_whose_socket_answers_lives(self, run: Path) -> None:
        (run / "a").mkdir()
        descriptor = listen(run / "a")
        then = time.time() - 60
        os.utime(run / "a", (then, then))
        assert claim(run, "a")[0] == "a-2"
        os.close(descriptor)
        os.utime(run / "a", (then, then))
        assert claim(run, "a")[0] == "a"

    def test_a_dead_guests_name_is_free(self, run: Path) -> None:
        leave(run, pid=2**22, started=1)
        assert claim(run, "a")[0] == "a"

    def test_a_live_guest_whose_socket_was_deleted_lives(self, run: Path) -> None:
        me = kernel.process(os.getpid())
        assert me is not None
        leave(run, pid=os.getpid(), started=me.start_time)
        (run / "a" / "qmp.sock").unlink()
        assert claim(run, "a")[0] == "a-2"

    def test_a_pid_that_was_used_again_is_another_process(self, run: Path) -> None:
        leave(run, pid=os.getpid(), started=1)
        assert claim(run, "a")[0] == "a"

    def test_a_daemon_lives_on_its_socket(self, run: Path) -> None:
        """After -daemonize the recorded process is gone; the socket is open in its child."""
        leave(run, pid=2**22, started=1)
        descriptor = self.answer(run)
        assert claim(run, "a")[0] == "a-2"
        os.close(descriptor)

    def test_an_adopted_guest_lives_on_a_socket_elsewhere(self, run: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"{run}/else where.sock")
            server.listen()
            leave(run, pid=2**22, started=1, path=f"{run}/else where.sock")
            assert claim(run, "a")[0] == "a-2"

    @pytest.mark.parametrize("text", ["", "{}", "nonsense", '{"pid":"x"}', "\\", '{"pid": 1}'])
    def test_a_record_that_makes_no_sense_is_left_alone(self, run: Path, text: str) -> None:
        (run / "a").mkdir()
        (run / "a" / "record.json").write_text(text)
        then = time.time() - 60
        os.utime(run / "a", (then, then))
        assert claim(run, "a")[0] == "a-2"
        assert (run / "a" / "record.json").read_text() == text

    def test_what_is_no_directory_is_left_alone(self, run: Path) -> None:
        (run / "a").write_text("x")
        (run / "a-2").symlink_to("/proc/nonexistent")
        assert claim(run, "a")[0] == "a-3"

    @pytest.mark.parametrize("real", [True, False])
    def test_nothing_is_removed_through_a_link(self, run: Path, *, real: bool) -> None:
        """Neither where it leads, nor the files with names of ours that are there."""
        victim = run.parent / "victim"
        victim.mkdir()
        (victim / ("qmp.sock" if real else "data")).write_text("x")
        os.utime(victim, (0, 0))
        (run / "a").symlink_to(victim)
        os.utime(run / "a", (0, 0), follow_symlinks=False)
        assert claim(run, "a")[0] == "a-2"
        assert len(list(victim.iterdir())) == 1
        with opened_run(run) as opened, pytest.raises(OSError, match="Not a directory"):
            kvm_claim.remove(opened.descriptor, "a")
        assert len(list(victim.iterdir())) == 1

    @needs_root("cannot give a directory away")
    def test_another_users_directory_is_left_alone(self, run: Path) -> None:
        (run / "a").mkdir()
        os.chown(run / "a", NOBODY, NOBODY)
        os.utime(run / "a", (0, 0))
        assert claim(run, "a")[0] == "a-2"
        assert (run / "a").stat().st_uid == NOBODY

    @needs_root("cannot give a file away")
    def test_a_record_that_another_user_wrote_keeps_no_id(self, run: Path) -> None:
        """It names a process that lives."""
        me = kernel.process(os.getpid())
        assert me is not None
        leave(run, pid=os.getpid(), started=me.start_time)
        os.utime(run / "a", (0, 0))
        assert claim(run, "a")[0] == "a-2"
        os.chown(run / "a/record.json", NOBODY, NOBODY)
        assert claim(run, "a")[0] == "a"

    @pytest.mark.parametrize("kind", ["file", "directory"])
    def test_a_directory_with_other_things_in_it_is_left_alone(self, run: Path, kind: str) -> None:
        leave(run, pid=2**22, started=1)
        if kind == "file":
            (run / "a" / "notes").touch()
        else:
            (run / "a" / "monitor.conf").mkdir()
        assert claim(run, "a")[0] == "a-2"
        assert (run / "a" / "record.json").exists()

    @pytest.mark.parametrize("lock", ["directory", "link"])
    def test_where_there_is_no_lock_the_next_id_is_taken(self, run: Path, lock: str) -> None:
        leave(run, pid=2**22, started=1)
        if lock == "directory":
            (run / ".lock").mkdir()
        else:
            (run / ".lock").symlink_to("/dev/null")
        assert claim(run, "a")[0] == "a-2"

    @pytest.mark.parametrize("there", [None, 0o600, 0o660, 0o666])
    def test_the_lock_is_ours_alone_whatever_the_umask(self, run: Path, there: int | None) -> None:
        leave(run, pid=2**22, started=1)
        if there is not None:
            (run / ".lock").touch()
            (run / ".lock").chmod(there)
        before = os.umask(0o000)
        try:
            assert claim(run, "a")[0] == "a"
        finally:
            os.umask(before)
        assert stat.S_IMODE((run / ".lock").stat().st_mode) == 0o600

    @pytest.mark.parametrize("owner", [None, NOBODY])
    def test_an_id_is_not_lost_to_a_lock_that_others_hold(
        self, run: Path, owner: int | None
    ) -> None:
        """The others opened it while it was the group's, or they own it, and they never let go."""
        if owner is not None and not IS_ROOT:
            pytest.skip("not root: cannot give a file away")
        leave(run, pid=2**22, started=1)
        with (run / ".lock").open("w") as held:
            (run / ".lock").chmod(0o660)
            if owner is not None:
                os.chown(run / ".lock", owner, owner)
            fcntl.flock(held, fcntl.LOCK_EX)
            assert claim(run, "a")[0] == "a"

    def test_nothing_else_is_left_in_the_run_directory(self, run: Path) -> None:
        leave(run, pid=2**22, started=1)
        claim(run, "a")
        assert {path.name for path in run.iterdir()} == {"a", ".lock"}

    @staticmethod
    def answer(run: Path) -> int:
        """Listen where the guest that was left behind did."""
        (run / "a" / "qmp.sock").unlink()
        return listen(run / "a")


def test_a_descriptor_never_takes_the_place_of_a_standard_stream() -> None:
    saved = os.dup(0)
    try:
        os.close(0)
        low = os.open("/dev/null", os.O_RDONLY)
        assert low == 0
        high = kvm_monitor.out_of_the_way(low)
        assert high >= kvm_monitor.FIRST_DESCRIPTOR
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
        kept = kvm_monitor.out_of_the_way(low)
        assert 3 <= kept < 100
        assert os.get_inheritable(kept)
        os.close(kept)
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
