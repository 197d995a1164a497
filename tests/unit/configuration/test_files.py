"""Which files are read, and which are not to be trusted; nothing hangs, nothing is raised."""

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from qmpmem.configuration import load, settled
from qmpmem.configuration.files import LARGEST, MOST_FILES, decode, main_file, read, read_file
from qmpmem.errors import ConfigError
from qmpmem.files import defaults
from qmpmem.model.config import Config

NOBODY = 65534
is_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others: needs root")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory as /etc/qmpmem is, with a main file and a conf.d."""
    (tmp_path / "conf.d").mkdir(mode=0o755)
    write(tmp_path / "qmpmem.toml", "period = 2\n")
    return tmp_path


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def problem(path: Path) -> str:
    found = read_file(path)
    assert found.text == ""
    assert found.problem is not None
    return found.problem


def test_the_option_comes_before_the_environment_before_the_place_in_etc() -> None:
    environ = {"QMPMEM_CONFIG": "/b"}
    assert main_file(Path("/a"), environ) == Path("/a")
    assert main_file(None, environ) == Path("/b")
    assert main_file(None, {"QMPMEM_CONFIG": ""}) == Path("/etc/qmpmem/qmpmem.toml")
    assert main_file(None, {}) == Path("/etc/qmpmem/qmpmem.toml")


def test_without_a_file_all_are_defaults(tmp_path: Path) -> None:
    judgement = load(None, {}, default=tmp_path / "qmpmem.toml")
    assert judgement.config == Config()
    assert judgement.files == ()


def test_a_file_that_the_user_named_must_be_there(tmp_path: Path) -> None:
    missing = tmp_path / "qmpmem.toml"
    for judgement in (
        load(missing, {}),
        load(None, {"QMPMEM_CONFIG": str(missing)}),
    ):
        assert [str(each) for each in judgement.mistakes] == [
            f"{missing}: no such file or directory"
        ]


def test_a_link_to_nothing_in_etc_is_no_missing_file(tmp_path: Path) -> None:
    link = tmp_path / "qmpmem.toml"
    link.symlink_to("nowhere")
    assert load(None, {}, default=link).config is None


def test_drop_ins_are_read_also_without_a_main_file(place: Path) -> None:
    write(place / "conf.d" / "a.toml", "grace = 3\n")
    (place / "qmpmem.toml").unlink()
    assert load(None, {}, default=place / "qmpmem.toml").config == Config(grace=3.0)


def test_files_are_read_in_the_order_of_their_names(place: Path) -> None:
    for name in ("b", "a", "10", "9", "Z"):
        write(place / "conf.d" / f"{name}.toml", "")
    names = [Path(each.file).name for each in read(place / "qmpmem.toml", {})]
    assert names == ["qmpmem.toml", "10.toml", "9.toml", "Z.toml", "a.toml", "b.toml"]


def test_what_is_not_ours_in_conf_d_is_left_alone(place: Path) -> None:
    for name in ("README", "a.toml~", "a.toml.bak", "a.TOML", ".a.toml", "toml", "#a.toml#"):
        write(place / "conf.d" / name, "nonsense")
    (place / "conf.d" / ".#a.toml").symlink_to("emacs@host.1:2")
    (place / "conf.d" / "more").mkdir()
    judgement = load(place / "qmpmem.toml", {})
    assert judgement.config == Config(period=2.0)
    assert len(judgement.files) == 1


def test_a_link_to_a_file_is_followed(place: Path, tmp_path: Path) -> None:
    (place / "conf.d" / "a.toml").symlink_to(write(tmp_path / "elsewhere", "grace = 9\n"))
    assert load(place / "qmpmem.toml", {}).config == Config(period=2.0, grace=9.0)


def make_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o644)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(os.mkfifo, "expected a file, got a FIFO", id="fifo"),  # not waited for
        pytest.param(os.mkdir, "expected a file, got a directory", id="directory"),
        pytest.param(make_socket, "expected a file, got a socket", id="socket"),
        pytest.param(
            partial(os.symlink, "/dev/zero"), "expected a file, got a device", id="device"
        ),
        pytest.param(
            partial(os.symlink, "a.toml"), "too many levels of symbolic links", id="circle"
        ),
    ],
)
def test_what_is_no_file_is_said(place: Path, make: Callable[[Path], None], said: str) -> None:
    path = place / "conf.d" / "a.toml"
    make(path)
    assert problem(path) == said
    assert load(place / "qmpmem.toml", {}).config is None


def test_a_fifo_as_conf_d_is_not_waited_for(place: Path) -> None:
    (place / "conf.d").rmdir()
    os.mkfifo(place / "conf.d")
    [mistake] = load(place / "qmpmem.toml", {}).mistakes
    assert str(mistake) == f"{place}/conf.d: not a directory"


def test_a_file_below_a_file_is_none(place: Path) -> None:
    assert problem(place / "qmpmem.toml" / "x.toml") == "not a directory"


def test_paths_that_no_system_takes(tmp_path: Path) -> None:
    assert "null" in problem(Path("/a\0b"))
    assert problem(tmp_path / ("a" * 5000)) == "file name too long"


@pytest.mark.parametrize("mode", [0o666, 0o646, 0o602, 0o777])
def test_what_any_user_may_write_is_refused(place: Path, mode: int) -> None:
    """Row F56."""
    (place / "qmpmem.toml").chmod(mode)
    assert f"every user may write it (mode {mode:04o})" in problem(place / "qmpmem.toml")


@is_root
@pytest.mark.parametrize("group", [0, NOBODY])
def test_what_a_group_may_write_is_refused_unless_it_is_roots_or_ones_own(
    place: Path, group: int
) -> None:
    os.chown(place / "qmpmem.toml", -1, group)
    (place / "qmpmem.toml").chmod(0o660)
    found = read_file(place / "qmpmem.toml")
    if group:
        assert found.problem == f"group {group} may write it (mode 0660); chmod g-w"
    else:
        assert found.problem is None


@pytest.mark.parametrize("named", ["", "etc", "behind"])
def test_what_stands_where_others_may_put_files_is_refused(tmp_path: Path, named: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "behind").mkdir()
    write(tmp_path / "behind" / "it.toml", "grace = 9\n")
    link = tmp_path / "etc" / "qmpmem.toml"
    link.symlink_to("../behind/it.toml")
    if named:
        (tmp_path / named).chmod(0o777)
        assert (
            problem(link) == f"{tmp_path / named}: every user may write it (mode 0777); chmod o-w"
        )
    else:
        assert read_file(link).problem is None


@is_root
@pytest.mark.parametrize("unsafe", ["", "file", "directory"])
def test_the_hosts_defaults_are_not_believed_where_a_group_may_write_them(
    tmp_path: Path, unsafe: str
) -> None:
    path = write(tmp_path / "defaults", "QMPMEM_PYTHON=/tmp/x\n")
    place = tmp_path if unsafe == "directory" else path
    if unsafe:
        os.chown(place, -1, NOBODY)
        place.chmod(0o775)
    found = defaults.load({"QMPMEM_DEFAULTS": str(path)})
    assert bool(found.problem) == bool(unsafe)
    assert bool(found.values) != bool(unsafe)
    assert f"group {NOBODY} may write it" in (found.problem or "") or not unsafe


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o444, 0o664, 0o755])
def test_what_others_may_read_is_not(place: Path, mode: int) -> None:
    (place / "qmpmem.toml").chmod(mode)
    assert read_file(place / "qmpmem.toml").text == "period = 2\n"


def test_a_conf_d_that_any_user_may_write_into_is_refused(place: Path) -> None:
    write(place / "conf.d" / "a.toml", "grace = 3\n")
    (place / "conf.d").chmod(0o1777)
    [mistake] = load(place / "qmpmem.toml", {}).mistakes
    assert "every user may write it (mode 1777)" in str(mistake)


@is_root
def test_another_users_file_is_refused(place: Path) -> None:
    os.chown(place / "qmpmem.toml", NOBODY, 0)
    assert "owned by uid 65534, expected root" in problem(place / "qmpmem.toml")


@is_root
def test_another_users_conf_d_is_refused(place: Path) -> None:
    os.chown(place / "conf.d", NOBODY, 0)
    [mistake] = load(place / "qmpmem.toml", {}).mistakes
    assert "owned by uid 65534" in str(mistake)


@is_root
def test_what_may_not_be_read_is_said(place: Path) -> None:
    """Also where nothing tells whether there are files."""
    write(place / "conf.d" / "a.toml", "grace = 3\n")
    (place / "qmpmem.toml").chmod(0o600)
    for path in [place, *place.parents]:
        if path.stat().st_uid == os.geteuid() and path.stat().st_mode & stat.S_IXOTH == 0:
            path.chmod(path.stat().st_mode | stat.S_IXOTH)
    (place / "conf.d").chmod(0o711)
    os.seteuid(NOBODY)
    try:
        mistakes = load(place / "qmpmem.toml", {}).mistakes
    finally:
        os.seteuid(0)
    assert [str(each) for each in mistakes] == [
        f"{place}/qmpmem.toml: permission denied",
        f"{place}/conf.d: permission denied",
    ]


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    """Row F56."""
    path = write(tmp_path / "a.toml", "")
    os.truncate(path, 10 << 30)
    assert problem(path) == "expected at most 1 MiB"
    os.truncate(path, 0)
    write(path, "#" * LARGEST)
    assert read_file(path).problem is None
    write(path, "#" * (LARGEST + 1))
    assert problem(path) == "expected at most 1 MiB"


def test_too_many_files_are_not_read(place: Path) -> None:
    for number in range(MOST_FILES + 1):
        write(place / "conf.d" / f"{number}.toml", "")
    [mistake] = load(place / "qmpmem.toml", {}).mistakes
    assert f"{MOST_FILES + 1} files, expected at most {MOST_FILES}" in str(mistake)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"\xff\xfeg\0r\0", 1),
        (b"period = 1\n# caf\xe9\n", 2),
        (b"\x7fELF\x02\x01\x01\0\0\0", 1),
        (b"period = 1\n\n\0", 3),
        (b"\x1f\x8b\x08", 1),
        (b"a = '\xed\xa0\x80'", 1),
    ],
)
def test_what_is_no_text_is_said_with_its_line(content: bytes, line: int) -> None:
    found = decode("f", content)
    assert (found.text, found.line, found.problem) == ("", line, "expected text in UTF-8")


def test_a_byte_order_mark_is_no_mistake(place: Path) -> None:
    (place / "qmpmem.toml").write_bytes(b"\xef\xbb\xbfperiod = 4\r\n")
    assert load(place / "qmpmem.toml", {}).config == Config(period=4.0)


def test_no_descriptor_is_left_open(place: Path) -> None:
    os.mkfifo(place / "conf.d" / "a.toml")
    write(place / "conf.d" / "b.toml", "")
    before = sorted(Path("/proc/self/fd").iterdir())
    load(place / "qmpmem.toml", {})
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_what_is_wrong_can_be_raised_in_one_line(place: Path) -> None:
    write(place / "qmpmem.toml", "a = 1\nb = 2\n")
    with pytest.raises(ConfigError, match=r"qmpmem.toml:1: a: unknown key.* \(and 1 more\)"):
        settled(load(place / "qmpmem.toml", {}))
    write(place / "qmpmem.toml", "a = 1\n")
    with pytest.raises(ConfigError) as raised:
        settled(load(place / "qmpmem.toml", {}))
    assert "more" not in raised.value.message
    write(place / "qmpmem.toml", "period = 3\n")
    assert settled(load(place / "qmpmem.toml", {})) == Config(period=3.0)
