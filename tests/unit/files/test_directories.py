"""Directories that are made: only where no other user can lead this process elsewhere."""

import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from qmpmem.broker.directory import opened as broker_directory
from qmpmem.errors import QmpmemError
from qmpmem.files import directories
from qmpmem.guests import rundir
from qmpmem.journal import writer
from qmpmem.ksm import ledger
from qmpmem.launcher_install import scripts
from tests.rig.users import give_to_another_user

MODE = 0o2775


def make_by_ledger(path: Path) -> None:
    with ledger.locked(path):
        pass


def make_by_broker(path: Path) -> None:
    with broker_directory(path, os.getegid()):
        pass


def make_scripts(path: Path) -> None:
    scripts._own({"XDG_CACHE_HOME": str(path)})


Maker = Callable[[Path], object]

MAKERS: list[Maker] = [
    rundir.make_run_directory,
    make_by_ledger,
    writer.make_directory,
    make_by_broker,
    make_scripts,
]


@contextmanager
def umask(mask: int) -> Generator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def opened(path: Path) -> Generator[int]:
    descriptor = os.open(path, os.O_PATH)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """Make a directory that other users' link leads to."""
    inside = tmp_path / "inside"
    inside.mkdir()
    inside.chmod(MODE)
    anybodys = tmp_path / "anybodys"
    anybodys.mkdir()
    anybodys.chmod(0o777)
    (anybodys / "link").symlink_to(inside)
    (anybodys / "dangling").symlink_to(inside / "new")
    return inside


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("way", ["link", "link/a", "link/a/b", "dangling", "dangling/a", "a/b"])
def test_nothing_is_made_or_changed_where_others_lead_the_way(
    inside: Path, make: Maker, way: str
) -> None:
    anybodys = inside.parent / "anybodys"
    before = sorted(anybodys.iterdir())
    with suppress(OSError, QmpmemError):
        make(anybodys / way)
    assert list(inside.iterdir()) == []
    assert mode_of(inside) == MODE
    assert sorted(anybodys.iterdir()) == before
    assert mode_of(anybodys) == 0o777


def test_a_path_leads_where_the_kernel_has_it_lead(tmp_path: Path) -> None:
    """Two dots behind a link are the directory above what it leads to."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    for path in (tmp_path / "link/..", tmp_path / "link/../b/..", tmp_path / "./a/."):
        with directories.opened(path) as descriptor:
            assert os.path.samestat(os.fstat(descriptor), path.stat())
    os.close(directories.open_or_make(tmp_path / "link/../c/d", 0o700)[0])
    assert (tmp_path / "a/c/d").is_dir()


def test_a_relative_path_begins_in_this_process_s_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.close(directories.open_or_make(Path("a/b"), 0o700)[0])
    assert (tmp_path / "a/b").is_dir()
    monkeypatch.chdir(tmp_path / "a/b")
    (tmp_path / "a/b").rmdir()
    os.close(directories.open_directory(tmp_path / "a"))  # which needs none


@pytest.mark.parametrize("make", MAKERS)
def test_elsewhere_all_that_is_missing_is_made(tmp_path: Path, make: Maker) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    with umask(0o077):
        make(tmp_path / "link/a/b")
    assert (tmp_path / "there/a/b").is_dir()
    passable = directories.PRIVATE if make is make_scripts else directories.PASSABLE
    assert mode_of(tmp_path / "there/a") == passable


@pytest.mark.parametrize("mask", [0, 0o077, 0o777])
def test_a_new_directory_has_its_mode_whatever_the_umask_is(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        descriptor, is_new = directories.open_or_make(tmp_path / "a/b/c", 0o750)
        os.close(descriptor)
    assert is_new
    assert [mode_of(tmp_path / each) for each in ("a", "a/b", "a/b/c")] == [0o755, 0o755, 0o750]


def test_a_list_of_other_users_is_no_group_s_right(tmp_path: Path) -> None:
    """The mode shows the most that the list gives as the group's (acl(5))."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").touch()
    for path, kind in ((tmp_path / "a/file", stat.S_IFREG), (tmp_path / "a", stat.S_IFDIR)):
        path.chmod(0o775)
        with opened(path) as descriptor:
            assert directories.problem_of(descriptor, kind) is None
            give_to_another_user(path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o775
            problem = directories.problem_of(descriptor, kind)
            assert problem is not None
            assert "access control list" in problem
            path.chmod(0o755)
            assert directories.problem_of(descriptor, kind) is None
        path.chmod(0o775)
    with pytest.raises(directories.UntrustedError, match="access control list"):
        directories.open_directory(tmp_path / "a")


def test_one_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o711)
    descriptor, is_new = directories.open_or_make(tmp_path / "a", 0o700)
    assert not is_new
    assert os.path.samestat(os.fstat(descriptor), (tmp_path / "a").stat())
    os.close(descriptor)
    assert mode_of(tmp_path / "a") == 0o711


def test_a_link_does_not_stand_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    with pytest.raises(OSError, match=r"link|Not a directory|Too many"):
        directories.open_or_make(tmp_path / "link", 0o700)


def test_a_run_directory_that_others_lead_to_keeps_its_mode(inside: Path) -> None:
    run = inside.parent / "anybodys/link/run"
    (inside / "run").mkdir()
    (inside / "run").chmod(MODE)
    assert not rundir.make_run_directory(run)
    rundir.read_records(run)
    assert mode_of(inside / "run") == MODE
    own = inside / "run"
    inside.chmod(0o755)
    assert not rundir.make_run_directory(own)
    assert mode_of(own) == rundir.PRIVATE
