"""Pressure stall information: the parser, and what a trigger is where there is none."""

import contextlib
import os
import select
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.model.host import PressureLine
from qmpmem.wire.kernel import pressure

SOME: Final = "some avg10=1.50 avg60=0.25 avg300=0.00 total=123456"
FULL: Final = "full avg10=0.10 avg60=0.00 avg300=100.00 total=18446744073709551615"


def test_both_lines_are_read() -> None:
    seen = pressure.parse_pressure(f"{SOME}\n{FULL}\n")
    assert seen is not None
    assert seen.some == PressureLine(avg10=1.5, avg60=0.25, avg300=0.0, total=123456)
    assert seen.full == PressureLine(avg10=0.1, avg60=0.0, avg300=100.0, total=(1 << 64) - 1)


def test_older_kernels_have_no_full_line_everywhere() -> None:
    seen = pressure.parse_pressure(SOME)
    assert seen is not None
    assert seen.full is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        FULL,
        "some",
        SOME.replace("1.50", "100.01"),
        SOME.replace("1.50", "-1.50"),
        SOME.replace("1.50", "1.5"),
        SOME.replace("1.50", "nan"),
        SOME.replace("1.50", "\u0661.50"),
        SOME.replace("123456", "9" * 21),
        SOME.replace("total=123456", ""),
        SOME + " more=1",
        "many" + SOME.removeprefix("some"),
    ],
)
def test_what_is_no_line_is_not_known(line: str) -> None:
    assert pressure.parse_pressure(line) is None


def test_a_line_that_is_odd_does_not_hide_the_other() -> None:
    seen = pressure.parse_pressure(f"{SOME}\nfull avg10=nonsense\n")
    assert seen is not None
    assert seen.full is None


@given(
    averages=st.lists(st.integers(0, 10_000), min_size=3, max_size=3),
    total=st.integers(0, (1 << 64) - 1),
)
def test_what_a_kernel_prints_is_read_to_the_hundredth(averages: list[int], total: int) -> None:
    ten, sixty, more = (f"{each // 100}.{each % 100:02}" for each in averages)
    seen = pressure.parse_pressure(f"some avg10={ten} avg60={sixty} avg300={more} total={total}\n")
    assert seen is not None
    read = (seen.some.avg10, seen.some.avg60, seen.some.avg300)
    assert [round(each * 100) for each in read] == averages
    assert seen.some.total == total


@given(content=st.text())
def test_any_text_is_pressure_or_nothing(content: str) -> None:
    seen = pressure.parse_pressure(content)
    assert seen is None or seen.some.avg10 >= 0


def test_a_kernel_without_it_says_nothing(tmp_path: Path) -> None:
    assert pressure.pressure(root=tmp_path) is None
    with pressure.trigger(100_000, root=tmp_path) as descriptor:
        assert descriptor is None


def make_pressure(root: Path) -> Path:
    path = root / pressure.MEMORY
    path.parent.mkdir(parents=True)
    path.write_text(SOME)
    return path


def make_pipe(root: Path) -> Path:
    """A file that can be waited for, and keeps what is written to it, as no recorded one does."""
    path = root / pressure.MEMORY
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    return path


def test_a_threshold_is_one_line_that_ends_in_a_null(tmp_path: Path) -> None:
    make_pipe(tmp_path)
    with pressure.trigger(100_000, root=tmp_path) as descriptor:
        assert descriptor is not None
        assert os.read(descriptor, 100) == b"some 100000 2000000\0"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_what_cannot_be_waited_for_is_not_written_to(tmp_path: Path) -> None:
    path = make_pressure(tmp_path)
    with pressure.trigger(100_000, root=tmp_path) as descriptor:
        assert descriptor is None
    assert path.read_text() == SOME


def test_what_the_kernel_does_not_grant_is_none_and_closed(tmp_path: Path) -> None:
    full = os.open(make_pipe(tmp_path), os.O_RDWR | os.O_NONBLOCK)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(full, bytes(4096))
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pressure.trigger(100_000, root=tmp_path) as descriptor:
            assert descriptor is None
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    finally:
        os.close(full)


def test_no_event_is_no_stall() -> None:
    reader, writer = os.pipe()
    try:
        assert pressure.wait(reader, 0.01) is False
    finally:
        os.close(reader)
        os.close(writer)


def test_a_trigger_that_is_gone_is_told_from_one_that_waits() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        poll = select.poll()
        poll.register(writer, select.POLLPRI)
        assert poll.poll(0)[0][1] & select.POLLERR  # as for a cgroup that was removed
        assert pressure.wait(writer, 5) is None
    finally:
        os.close(writer)
