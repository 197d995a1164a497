"""The run directory: what is read there, and what is not believed."""

import fcntl
import os
import socket
import stat
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers import kvm_claim, kvm_run
from qmpmem.errors import ConfigError, KernelError
from qmpmem.files import directories
from qmpmem.guests import rundir
from qmpmem.guests.rundir import GuestRecord, Unreadable
from qmpmem.model import names
from qmpmem.records import replace
from tests.rig.users import needs_root


def record(**changes: object) -> GuestRecord:
    base = GuestRecord(
        version=1,
        id="db1",
        name="db1",
        pid=4711,
        start_time=12345,
        socket="/run/qmpmem/guests/db1/qmp.sock",
        uid=os.getuid(),
        created=1_700_000_000.25,
        origin="adopted",
    )
    return replace(base, **changes)


def write(run: Path, content: bytes) -> Path:
    directory = run / "db1"
    directory.mkdir()
    (directory / "record.json").write_bytes(content)
    return directory


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "db1").mkdir()
    written = record(name='a "quoted"\nname, ünï', ksm=False, domain="blue", daemonize=True)
    rundir.write_record(tmp_path, written)
    assert rundir.read_records(tmp_path) == [written]
    assert [path.name for path in (tmp_path / "db1").iterdir()] == ["record.json"]


def test_a_record_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "db1").mkdir()
    (tmp_path / "db1" / "record.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        rundir.write_record(tmp_path, record())
    assert [path.name for path in (tmp_path / "db1").iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not a guest record"),
        (b"{", "not a guest record"),
        (b"[]", "not a guest record"),
        (b"\xff\xfe{\x00}\x00", "not a guest record"),
        (b'{"version": 1}', "not a guest record"),
        (b'{"version": 1, "id": "db1", "name": 5}', "not a guest record"),
        (b"[" * 60_000, "not a guest record"),
        (b" " * 70_000, "larger than"),
    ],
    ids=["empty", "cut", "list", "utf-16", "bare", "wrong-type", "deep", "large"],
)
def test_a_damaged_record_is_one_line(tmp_path: Path, content: bytes, problem: str) -> None:
    found = rundir.read_record(write(tmp_path, content))
    assert isinstance(found, Unreadable)
    assert problem in found.problem
    assert "\n" not in found.problem


def test_a_record_of_another_version_or_id_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "db1").mkdir()
    for odd, problem in ((record(version=2), "version 2"), (record(name="x"), "")):
        rundir.write_record(tmp_path, odd)
        found = rundir.read_record(tmp_path / "db1")
        assert isinstance(found, Unreadable) is bool(problem)
    (tmp_path / "other").mkdir()
    (tmp_path / "db1" / "record.json").rename(tmp_path / "other" / "record.json")
    found = rundir.read_record(tmp_path / "other")
    assert isinstance(found, Unreadable)
    assert "expected 'other'" in found.problem


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "missing"])
def test_what_is_no_regular_file_is_not_read(tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "db1"
    directory.mkdir()
    target = directory / "record.json"
    match kind:
        case "symlink":
            target.symlink_to("/etc/passwd")
        case "fifo":
            os.mkfifo(target)
        case "directory":
            target.mkdir()
        case _:
            pass
    assert isinstance(rundir.read_record(directory), Unreadable)


OTHER: Final = 4711
"""A user."""


def owned(path: Path, uid: int, mode: int) -> None:
    path.chmod(mode)
    if os.getuid() != uid:
        os.chown(path, uid, uid)


@needs_root("cannot give files away")
@pytest.mark.parametrize(
    ("folder", "file", "changes", "problem"),
    [
        ((0, 0o700), (0, 0o600), {}, None),
        ((0, 0o700), (0, 0o600), {"uid": OTHER}, None),
        ((OTHER, 0o700), (OTHER, 0o600), {"uid": OTHER}, None),
        ((OTHER, 0o700), (0, 0o600), {"uid": OTHER}, None),
        ((0, 0o755), (0, 0o644), {}, None),
        ((0, 0o700), (0, 0o664), {}, None),
        ((OTHER, 0o700), (OTHER, 0o600), {}, "names a process of uid 0"),
        ((0, 0o700), (OTHER, 0o600), {}, "belongs to uid 4711"),
        ((OTHER, 0o700), (0, 0o600), {}, "belongs to uid 4711"),
        ((OTHER, 0o700), (OTHER, 0o600), {"uid": OTHER + 1}, "belongs to uid 4711"),
        ((0, 0o775), (0, 0o600), {}, "others may write in its directory, mode 0775"),
        ((0, 0o777), (0, 0o600), {}, "others may write in its directory, mode 0777"),
        ((OTHER, 0o2770), (OTHER, 0o600), {"uid": OTHER}, "others may write in its directory"),
        ((0, 0o2770), (0, 0o664), {}, "others may write in its directory"),
        ((0, 0o755), (0, 0o664), {}, "others may write it, mode 0664"),
    ],
)
def test_a_record_counts_only_where_none_but_its_guests_user_can_have_written_it(
    tmp_path: Path,
    folder: tuple[int, int],
    file: tuple[int, int],
    changes: dict[str, int],
    problem: str | None,
) -> None:
    (tmp_path / "db1").mkdir()
    rundir.write_record(tmp_path, record(**changes))
    owned(tmp_path / "db1/record.json", *file)
    owned(tmp_path / "db1", *folder)
    found = rundir.read_record(tmp_path / "db1")
    if problem is None:
        assert found == record(**changes)
    else:
        assert isinstance(found, Unreadable)
        assert problem in found.problem


@pytest.mark.parametrize(
    ("socket", "counts"),
    [
        ("{run}/db1/qmp.sock", True),
        ("{run}/./db1/qmp.sock", True),
        ("{run}/link/qmp.sock", True),
        ("{run}/db1/other.sock", False),
        ("{run}/db2/qmp.sock", False),
        ("{run}/gone/qmp.sock", False),
        ("{run}/db1/../qmp.sock", False),
        ("@db1/qmp.sock", False),
        ("tcp:127.0.0.1:4444", False),
        ("", False),
        ("\0/qmp.sock", False),
    ],
)
def test_a_guest_of_the_launcher_has_its_socket_in_its_own_directory(
    tmp_path: Path,
    socket: str,
    counts: bool,  # noqa: FBT001 - a column
) -> None:
    for name in ("db1", "db2"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("db1")
    made = record(origin="launcher", socket=socket.format(run=tmp_path))
    rundir.write_record(tmp_path, made)
    found = rundir.read_record(tmp_path / "db1")
    assert (found == made) is counts
    if not counts:
        assert "expected" in getattr(found, "problem", "")


@needs_root("cannot give directories away")
@pytest.mark.parametrize(
    ("which", "uid", "mode"),
    [
        *(("run", OTHER, 0o700), ("run", 0, 0o1777), ("run", 0, 0o1770)),
        *((".", OTHER, 0o755), (".", 0, 0o775)),
    ],
)
def test_nothing_is_written_or_removed_where_others_may_lead_elsewhere(
    tmp_path: Path, which: str, uid: int, mode: int
) -> None:
    """The run directory, or the one that it is in, is another user's to change."""
    top, run = tmp_path / "top", tmp_path / "top/run"
    rundir.make_run_directory(run)
    rundir.make_directory(run / "db1")
    rundir.write_record(run, record())
    (top / which).chmod(mode)
    os.chown(top / which, uid, OTHER)
    with pytest.raises(directories.UntrustedError):
        rundir.write_record(run, record(name="other"))
    with pytest.raises(directories.UntrustedError):
        rundir.make_directory(run / "db2")
    with rundir.removing(run) as alone:
        assert not alone
    rundir.remove_guest(run, "db1")
    assert rundir.read_record(run / "db1") == record()
    assert [path.name for path in run.iterdir()] == ["db1"]


@pytest.mark.parametrize("done", ["filled", "given up"])
def test_a_claim_that_another_process_has_by_now_is_lost_without_harm(
    tmp_path: Path, done: str
) -> None:
    """One without a record may be taken over while its process is slow or stopped."""
    run = tmp_path / "run"
    rundir.make_run_directory(run)
    claimed = rundir.claim(run, "db1")
    assert claimed is not None
    try:
        (run / "db1").rmdir()
        rundir.make_directory(run / "db1")
        rundir.write_record(run, record(name="another"))
        (run / "db1/qmp.sock").touch()
        if done == "filled":
            with pytest.raises(FileNotFoundError):
                rundir.fill(claimed, record())
        else:
            rundir.give_up(run, "db1", claimed)
        assert rundir.read_record(run / "db1") == record(name="another")
        assert (run / "db1/qmp.sock").exists()
        assert not rundir.rewrite_record(run, record(), record(name="new"))
        assert rundir.read_record(run / "db1") == record(name="another")
        assert rundir.rewrite_record(run, record(name="another"), record(name="new"))
        assert rundir.read_record(run / "db1") == record(name="new")
    finally:
        os.close(claimed)


@pytest.mark.parametrize("filled", [False, True])
def test_a_claim_is_given_up_whole(tmp_path: Path, *, filled: bool) -> None:
    claimed = rundir.claim(tmp_path, "db1")
    assert claimed is not None
    assert rundir.claim(tmp_path, "db1") is None
    if filled:
        rundir.fill(claimed, record())
    rundir.give_up(tmp_path, "db1", claimed)
    os.close(claimed)
    assert not (tmp_path / "db1").exists()


def test_a_link_in_the_place_of_a_directory_is_none(tmp_path: Path) -> None:
    (tmp_path / "db1").mkdir()
    rundir.write_record(tmp_path, record())
    (tmp_path / "run").mkdir()
    (tmp_path / "run/db1").symlink_to(tmp_path / "db1")
    assert isinstance(rundir.read_record(tmp_path / "run/db1"), Unreadable)


class TestOfAnEarlierVersion:
    """Root's directories were for a group, too: the next look makes them root's alone."""

    def test_a_guests_directory_and_socket_are_made_private(self, tmp_path: Path) -> None:
        guest = tmp_path / "db1"
        guest.mkdir()
        rundir.write_record(tmp_path, record())
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(guest / "qmp.sock"))
        (guest / "qmp.sock").chmod(0o660)
        guest.chmod(0o2770)
        assert rundir.read_record(guest) == record()
        assert stat.S_IMODE(guest.stat().st_mode) == 0o700
        assert stat.S_IMODE((guest / "qmp.sock").stat().st_mode) == 0o600

    def test_a_link_in_the_place_of_its_socket_is_not_followed(self, tmp_path: Path) -> None:
        guest, victim = tmp_path / "db1", tmp_path / "victim"
        victim.touch(mode=0o644)
        guest.mkdir()
        rundir.write_record(tmp_path, record())
        (guest / "qmp.sock").symlink_to(victim)
        guest.chmod(0o2770)
        assert rundir.read_record(guest) == record()
        assert stat.S_IMODE(victim.stat().st_mode) == 0o644

    @pytest.mark.parametrize("content", [None, b"{}"])
    def test_what_is_no_guests_keeps_its_mode(self, tmp_path: Path, content: bytes | None) -> None:
        (tmp_path / "www").mkdir()
        if content is not None:
            (tmp_path / "www/record.json").write_bytes(content)
        (tmp_path / "www").chmod(0o2770)
        assert isinstance(rundir.read_record(tmp_path / "www"), Unreadable)
        assert stat.S_IMODE((tmp_path / "www").stat().st_mode) == 0o2770

    @pytest.mark.parametrize(
        ("mode", "group", "after"),
        [
            (0o2770, "qmpmem", 0o700),
            (0o2770, "other", 0o2770),
            (0o770, "qmpmem", 0o770),
            (0o755, "qmpmem", 0o755),
        ],
    )
    def test_the_run_directory_is_made_private(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, group: str, after: int
    ) -> None:
        known = {group: SimpleNamespace(gr_gid=tmp_path.stat().st_gid)}
        monkeypatch.setattr("grp.getgrnam", known.__getitem__)
        tmp_path.chmod(mode)
        rundir.read_records(tmp_path)
        assert stat.S_IMODE(tmp_path.stat().st_mode) == after
        tmp_path.chmod(mode)
        rundir.make_run_directory(tmp_path)  # empty but for guests: they are put there now
        assert stat.S_IMODE(tmp_path.stat().st_mode) == (after if mode == 0o755 else 0o700)

    @pytest.mark.parametrize("mode", [0o2770, 0o770, 0o775])
    @pytest.mark.parametrize(
        ("files", "after"),
        [
            (("db1/record.json", "db1/qmp.sock", ".lock", ".python", ".agent/agent.sock"), 0o700),
            (("www/index.html",), None),
            (("notes",), None),
        ],
    )
    def test_a_directory_that_other_things_are_in_keeps_its_mode(
        self, tmp_path: Path, mode: int, files: tuple[str, ...], after: int | None
    ) -> None:
        for file in files:
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).touch()
        tmp_path.chmod(mode)
        rundir.make_run_directory(tmp_path)
        assert stat.S_IMODE(tmp_path.stat().st_mode) == (after or mode)

    @pytest.mark.parametrize("mode", [0o2770, 0o770])
    def test_a_guest_counts_again_whose_directory_others_could_write_in(
        self, tmp_path: Path, mode: int
    ) -> None:
        guest = tmp_path / "db1"
        guest.mkdir()
        rundir.write_record(tmp_path, record())
        guest.chmod(mode)
        assert rundir.read_record(guest) == record()
        assert stat.S_IMODE(guest.stat().st_mode) == 0o700

    @pytest.mark.parametrize("mode", [0o2770, 0o700])
    @pytest.mark.parametrize(
        ("case", "taken"),
        [
            ("old", True),
            ("new", False),
            ("filled", False),
            pytest.param("others", False, marks=needs_root("cannot give a directory away")),
        ],
    )
    def test_an_empty_directory_of_ours_is_taken_over(
        self, tmp_path: Path, mode: int, case: str, *, taken: bool
    ) -> None:
        run, guest = tmp_path / "run", tmp_path / "run/db1"
        rundir.make_run_directory(run)
        guest.mkdir()
        if case == "filled":
            (guest / "qmp.sock").touch()
        if case == "others":
            os.chown(guest, OTHER, OTHER)
        guest.chmod(mode)
        then = time.time() - (1 if case == "new" else 60)
        os.utime(guest, (then, then))
        before = os.open(guest, os.O_PATH)
        claimed = rundir.claim(run, "db1")
        is_anew = os.fstat(before).st_nlink == 0
        os.close(before)
        assert (claimed is not None, is_anew) == (taken, taken)
        assert stat.S_IMODE(guest.stat().st_mode) == (0o700 if taken else mode)
        if claimed is not None:
            os.close(claimed)

    def test_the_launcher_knows_the_same_names(self) -> None:
        assert rundir.HIDDEN == kvm_run.HIDDEN
        assert set(kvm_run.FILES) == rundir.FILES
        assert kvm_claim.STARTING == rundir.STARTING

    @needs_root("cannot give a directory away")
    def test_another_users_keeps_its_mode(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = {"qmpmem": SimpleNamespace(gr_gid=OTHER)}
        monkeypatch.setattr("grp.getgrnam", known.__getitem__)
        (tmp_path / "run").mkdir()
        os.chown(tmp_path / "run", OTHER, OTHER)
        (tmp_path / "run").chmod(0o2770)
        rundir.make_private(tmp_path / "run")
        assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o2770


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_directories_are_made_for_their_user_alone(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        assert rundir.make_run_directory(tmp_path / "run")
        rundir.make_directory(tmp_path / "run/db1")
    finally:
        os.umask(before)
    for path in (tmp_path / "run", tmp_path / "run/db1"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_the_lock_is_not_lost_to_a_process_that_had_it_open(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as held:
        (tmp_path / ".lock").chmod(0o660)
        fcntl.flock(held, fcntl.LOCK_EX)
        with rundir.removing(tmp_path) as alone:
            assert alone
        assert stat.S_IMODE((tmp_path / ".lock").stat().st_mode) == 0o600
        with rundir.removing(tmp_path), rundir.removing(tmp_path) as alone:
            assert not alone


def test_no_run_directory_means_no_guests(tmp_path: Path) -> None:
    assert rundir.read_records(tmp_path / "missing") == []


def test_guests_come_in_the_order_in_which_people_count(tmp_path: Path) -> None:
    for guest in ("web10", "web2", "db", "web2-2", "10", "9"):
        (tmp_path / guest).mkdir()
        rundir.write_record(tmp_path, record(id=guest))
    found = [entry.id for entry in rundir.read_records(tmp_path) if isinstance(entry, GuestRecord)]
    assert found == ["9", "10", "db", "web2", "web2-2", "web10"]


def test_a_run_directory_that_cannot_be_listed_is_said_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as error:
        rundir.read_records(tmp_path / "file")
    assert error.value.hint == "set QMPMEM_RUN_DIR to a directory"


NO_DEFAULTS = {"QMPMEM_DEFAULTS": "/proc/nonexistent"}


def test_each_user_has_a_place() -> None:
    assert rundir.run_directory(NO_DEFAULTS, 0) == Path("/run/qmpmem/guests")
    assert rundir.run_directory(NO_DEFAULTS, 1000) == Path("/run/user/1000/qmpmem")
    user = NO_DEFAULTS | {"XDG_RUNTIME_DIR": "/x"}
    assert rundir.run_directory(user, 1000) == Path("/x/qmpmem")
    assert rundir.run_directory({"QMPMEM_RUN_DIR": "/y"}, 0) == Path("/y")


def test_the_hosts_defaults_say_where_guests_are_unless_the_environment_does(
    tmp_path: Path,
) -> None:
    file = tmp_path / "defaults"
    file.write_text("QMPMEM_MODE=static\nQMPMEM_RUN_DIR='/srv/guests'\n")
    host = {"QMPMEM_DEFAULTS": str(file), "XDG_RUNTIME_DIR": "/x"}
    for uid in (0, 1000):
        assert rundir.run_directory(host, uid) == Path("/srv/guests")
        assert rundir.run_directory(host | {"QMPMEM_RUN_DIR": ""}, uid) == Path("/srv/guests")
        assert rundir.run_directory(host | {"QMPMEM_RUN_DIR": "/y"}, uid) == Path("/y")


def test_a_relative_run_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absolute"):
        rundir.run_directory({"QMPMEM_RUN_DIR": "guests"}, 0)
    (tmp_path / "defaults").write_text("QMPMEM_RUN_DIR=guests\n")
    with pytest.raises(ConfigError, match=r"defaults: QMPMEM_RUN_DIR='guests': .*absolute"):
        rundir.run_directory({"QMPMEM_DEFAULTS": str(tmp_path / "defaults")}, 0)


@given(st.text())
def test_every_name_has_a_safe_id(name: str) -> None:
    made = names.safe_id(name)
    assert names.SAFE_ID.fullmatch(made)
    assert names.safe_id(made) == made


@pytest.mark.parametrize("guest", ["..", ".", "", "a/b", "/etc", "-rf", "a\n", "x" * 49])
def test_an_unsafe_id_never_removes_anything(tmp_path: Path, guest: str) -> None:
    (tmp_path / "keep").mkdir()
    with pytest.raises(ConfigError):
        rundir.remove_guest(tmp_path, guest)
    assert (tmp_path / "keep").exists()


def test_a_link_that_waits_where_a_record_is_written_is_no_way_out(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "db1").mkdir()
    (tmp_path / "db1" / f".record.{os.getpid()}").symlink_to(victim)
    rundir.write_record(tmp_path, record())
    assert victim.read_text() == "precious"
    assert rundir.read_record(tmp_path / "db1") == record()


def test_a_deep_record_is_not_a_record(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/record.json").write_text("[" * 60_000)
    assert isinstance(rundir.read_record(tmp_path / "a"), rundir.Unreadable)


def test_a_run_directory_that_is_not_ours_to_list_is_the_administrators(tmp_path: Path) -> None:
    for run, hint in (
        (rundir.ROOTS, "`qmpmem agent service install`, and `usermod -aG qmpmem USER`"),
        (tmp_path, "run it as the owner of that directory, or as root"),
    ):
        said = rundir.refused(run, PermissionError(13, "Permission denied"))
        assert isinstance(said, KernelError)
        assert "its guests are its owner's alone" in said.message
        assert hint in str(said.hint)
    full = rundir.refused(tmp_path, OSError(28, "No space left on device"))
    assert isinstance(full, KernelError)
    assert "join" not in str(full.hint)
