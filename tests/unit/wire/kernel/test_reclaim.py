"""Reclaim of a cgroup's memory: which way there is, and what is written and undone."""

import errno
import os
from pathlib import Path

import pytest

from qmpmem.errors import KernelError
from qmpmem.model.observation import Way
from qmpmem.units import MIB, Bytes
from qmpmem.wire.kernel import reclaim

TREES = Path(__file__).parents[3] / "data/kernels"


def group(tmp_path: Path, **files: str) -> Path:
    """Make a directory with files of a group; ``_`` in their names is a dot."""
    made = tmp_path / "qmpmem/a"
    made.mkdir(parents=True)
    for name, content in files.items():
        (made / name.replace("memory_", "memory.", 1)).write_text(content)
    return made


@pytest.mark.parametrize(
    ("files", "version", "made", "way"),
    [
        ({"memory_reclaim": "", "memory_high": "max\n"}, 2, True, "reclaim"),
        ({"memory_reclaim": "", "memory_high": "max\n"}, 2, False, "reclaim"),
        ({"memory_high": "max\n"}, 2, True, "high"),
        ({"memory_high": "max\n"}, 2, False, None),
        ({"memory_high": "4096\n"}, 2, True, None),
        ({}, 2, True, None),
        ({"memory_force_empty": ""}, 1, True, "empty"),
        ({"memory_force_empty": ""}, 1, False, "empty"),
        ({}, 1, True, None),
    ],
)
def test_which_way_there_is(
    tmp_path: Path, files: dict[str, str], version: int, *, made: bool, way: Way | None
) -> None:
    found = group(tmp_path, **files)
    assert reclaim.way(found, version, made=made) == way
    assert not reclaim.is_forbidden(found, version)


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "6.18"])
def test_recorded_kernels_have_the_files_that_are_looked_for(kernel: str) -> None:
    (found,) = (TREES / kernel).glob("merged/sys/fs/cgroup/**/qmrecord/guest")
    assert reclaim.usage(found) > 0
    if kernel != "6.18":  # version 1
        assert (found / "memory.high").read_text().strip() == "max"


def test_a_step_by_memory_reclaim_names_bytes(tmp_path: Path) -> None:
    found = group(tmp_path, memory_reclaim="", memory_current=f"{300 * MIB}\n")
    assert reclaim.step(found, "reclaim", Bytes(3 * MIB)) == 0
    assert (found / "memory.reclaim").read_text() == f"{3 * MIB} swappiness=200"


@pytest.mark.parametrize(("each", "pieces", "reclaimed"), [(4, 3, 12), (7, 2, 14), (0, 1, 0)])
def test_it_is_reclaimed_piece_by_piece_until_there_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, each: int, pieces: int, reclaimed: int
) -> None:
    found = group(tmp_path, memory_reclaim="", memory_current=f"{300 * MIB}")
    said: list[str] = []

    def write(_: Path, words: str) -> None:
        said.append(words)
        (found / "memory.current").write_text(str((300 - each * len(said)) * MIB))

    monkeypatch.setattr(reclaim, "_write", write)
    assert reclaim.step(found, "reclaim", Bytes(10 * MIB)) == reclaimed * MIB
    assert len(said) == pieces


@pytest.mark.parametrize(
    ("answers", "written", "fails"),
    [
        ([errno.EAGAIN], 1, False),
        ([errno.EINVAL, 0], 2, False),
        ([errno.EINVAL, errno.EAGAIN], 2, False),
        ([errno.EINVAL, errno.EINVAL], 2, True),
        ([errno.EACCES], 1, True),
    ],
)
def test_older_kernels_take_no_swappiness_and_less_may_come_free(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[int],
    written: int,
    *,
    fails: bool,
) -> None:
    found = group(tmp_path, memory_reclaim="", memory_current="4096\n")
    said: list[str] = []

    def write(_: Path, words: str) -> None:
        said.append(words)
        if number := answers[len(said) - 1]:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(reclaim, "_write", write)
    if fails:
        with pytest.raises(KernelError, match=r"memory\.reclaim: "):
            reclaim.step(found, "reclaim", Bytes(MIB))
    else:
        reclaim.step(found, "reclaim", Bytes(MIB))
    assert said == [f"{MIB} swappiness=200", str(MIB)][:written]


def _has_attributes(place: Path) -> bool:
    try:
        os.setxattr(place, "user.qmpmem.test", b"1")
    except OSError:
        return False
    return True


@pytest.fixture
def lowered(tmp_path: Path) -> Path:
    found = group(tmp_path, memory_high="max\n", memory_current=f"{300 * MIB}\n")
    if not _has_attributes(found):
        pytest.skip("expected extended attributes on the file system of the tests")
    return found


def test_a_step_by_memory_high_leaves_nothing(lowered: Path) -> None:
    said: list[tuple[str, str]] = []

    def write(path: Path, words: str) -> None:
        said.append((words, os.getxattr(lowered, reclaim.NOTE).decode()))
        path.write_text(words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reclaim, "_write", write)
        reclaim.step(lowered, "high", Bytes(100 * MIB))
    limit = str(200 * MIB)
    assert said == [(limit, limit), ("max", limit)], "it is noted before, until it is undone"
    assert reclaim.NOTE not in os.listxattr(lowered)
    assert not reclaim.restore(lowered)


def test_memory_high_is_put_back_where_the_write_fails(lowered: Path) -> None:
    said: list[str] = []

    def write(_: Path, words: str) -> None:
        said.append(words)
        if len(said) == 1:
            raise OSError(errno.EINTR, "interrupted")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reclaim, "_write", write)
        with pytest.raises(KernelError, match="interrupted"):
            reclaim.step(lowered, "high", Bytes(100 * MIB))
    assert said[-1] == "max"
    assert reclaim.NOTE not in os.listxattr(lowered)


def test_a_limit_that_another_set_is_left(lowered: Path) -> None:
    (lowered / "memory.high").write_text("12288\n")
    with pytest.raises(KernelError, match="12288"):
        reclaim.step(lowered, "high", Bytes(100 * MIB))
    assert (lowered / "memory.high").read_text() == "12288\n"


@pytest.mark.parametrize(("now", "after"), [("8192", "max"), ("12288", "12288"), ("max", "max")])
def test_what_a_killed_agent_left_is_undone_and_no_other_s_limit(
    lowered: Path, now: str, after: str
) -> None:
    os.setxattr(lowered, reclaim.NOTE, b"8192")
    (lowered / "memory.high").write_text(now)
    assert reclaim.restore(lowered)
    content = (lowered / "memory.high").read_text()
    assert content.startswith(after)
    assert not reclaim.restore(lowered), "once"


def test_a_group_that_is_gone_is_one_line(tmp_path: Path) -> None:
    for way in reclaim.FILES:
        with pytest.raises(KernelError, match="not a memory cgroup"):
            reclaim.step(tmp_path / "gone", way, Bytes(MIB))
