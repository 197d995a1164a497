"""Files of state: what is believed, and what is never written through."""

import os
import stat
from pathlib import Path

import pytest

from qmpmem.agent.requests import RequestStore
from qmpmem.files import directories, state_files
from qmpmem.files.directories import UntrustedError
from tests.rig import odd
from tests.rig.users import NOBODY, needs_root

LIMIT = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path / "state" / "kept"


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", odd.EVERY)
def test_what_is_no_file_of_ours_is_not_read_and_is_replaced(path: Path, make: odd.Make) -> None:
    make(path)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its text is compared below
        state_files.read(path, LIMIT)
    assert caught.value.filename == str(path)
    assert caught.value.strerror
    if make is odd.directory:
        with pytest.raises(IsADirectoryError):
            state_files.write(path, b"new")
        return
    state_files.write(path, b"new")
    assert state_files.read(path, LIMIT) == b"new"
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    if make is odd.link:
        assert odd.victim(path).read_bytes() == odd.WORDS


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", odd.EVERY)
def test_what_is_in_the_way_of_the_file_beside_is_never_written_through(
    path: Path, make: odd.Make
) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    make(beside)
    if make is odd.directory:
        with pytest.raises(IsADirectoryError):
            state_files.write(path, b"new")
    else:
        state_files.write(path, b"new")
        assert path.read_bytes() == b"new"
        assert list(path.parent.iterdir()) == [path]
    if make is odd.link:
        assert odd.victim(path).read_bytes() == odd.WORDS


@pytest.mark.parametrize("umask", [0, 0o077])
def test_its_mode_does_not_depend_on_the_umask(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        state_files.write(path, b"", 0o640)
        os.close(state_files.open_file(path.with_name("other"), os.O_RDWR | os.O_CREAT, 0o640))
    finally:
        os.umask(before)
    assert [stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()] == [0o640, 0o640]


def test_the_old_one_stays_where_the_new_one_cannot_be_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state_files.write(path, b"old")
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(OSError, match="No space"):
        state_files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("mode", "group", "is_safe"),
    [
        (0o700, None, True),
        (0o755, None, True),
        (0o775, None, True),
        (0o777, None, False),
        (0o1777, None, True),
        pytest.param(0o2770, NOBODY, False, marks=needs_root("gives a directory to a group")),
        pytest.param(0o2750, NOBODY, True, marks=needs_root("gives a directory to a group")),
    ],
)
@pytest.mark.parametrize("depth", [0, 1])
def test_a_directory_that_others_may_change_holds_no_state(
    path: Path, mode: int, group: int | None, *, is_safe: bool, depth: int
) -> None:
    place = path.parent
    for _ in range(depth):
        place /= "below"
        place.mkdir(mode=0o700)
    if group is not None:
        os.chown(path.parent, -1, group)
    path.parent.chmod(mode)
    if is_safe:
        state_files.write(place / "kept", b"new")
        assert state_files.read(place / "kept", LIMIT) == b"new"
        return
    (place / "kept").write_bytes(b"old")
    (place / "kept").chmod(0o600)
    for work in (
        lambda: state_files.read(place / "kept", LIMIT),
        lambda: state_files.write(place / "kept", b"new"),
        lambda: state_files.remove(place / "kept"),
    ):
        with pytest.raises(UntrustedError, match="may write it"):
            work()
    assert (place / "kept").read_bytes() == b"old"


@needs_root("gives files to another user")
def test_a_link_of_another_user_on_the_way_is_not_followed(path: Path) -> None:
    place = path.parent.parent / "sticky"
    place.mkdir()
    place.chmod(0o1777)
    (place / "there").symlink_to(path.parent)
    state_files.write(place / "there" / "kept", b"new")
    os.chown(place / "there", NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(UntrustedError, match=f"a link of uid {NOBODY}"):
        state_files.write(place / "there" / "kept", b"other")
    assert path.read_bytes() == b"new"


def test_links_of_ones_own_are_followed_and_loops_end(path: Path) -> None:
    here = path.parent.parent
    (here / "one").symlink_to("two")
    (here / "two").symlink_to(here / "state")
    state_files.write(here / "one" / ".." / "one" / "kept", b"new")
    assert path.read_bytes() == b"new"
    (here / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        state_files.write(here / "loop" / "kept", b"new")


def test_what_is_missing_is_removed_already(path: Path) -> None:
    state_files.write(path, b"new")
    state_files.remove(path)
    state_files.remove(path)
    assert not path.exists()


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", odd.EVERY)
def test_orders_that_are_no_file_of_ours_are_said_in_a_line_and_not_obeyed(
    path: Path, make: odd.Make
) -> None:
    make(path)
    said: list[str] = []
    orders = RequestStore(path, said.append)
    assert not orders.in_force.hold
    [line] = said
    assert line.startswith(f"{path}: ")
    assert "\n" not in line


@needs_root("gives files to groups")
def test_only_a_file_of_ones_own_is_given_to_a_group(path: Path) -> None:
    victim, strange = path.with_name("victim"), path.with_name("strange")
    for each in (path, victim, strange):
        each.write_bytes(b"x")
    strange.chmod(0o600)
    os.chown(strange, NOBODY, 0)
    link = path.with_name("link")
    link.symlink_to(victim)
    with directories.opened(path.parent) as directory:
        for each in (path, link, strange, path.with_name("missing")):
            state_files.give(each, NOBODY, directory)
    assert [each.lstat().st_gid for each in (path, link, victim, strange)] == [NOBODY, NOBODY, 0, 0]
