"""What `within` counts: the time that something takes, apart from that of a busy host."""

import time
from pathlib import Path

import pytest

from tests.rig import patience

LIMIT = 0.01
TAKES = 0.03


@pytest.fixture
def pressure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for the file in which the kernel counts, and wait for nothing."""
    monkeypatch.setattr(patience, "CPU_PRESSURE", tmp_path / "cpu")
    monkeypatch.setattr(patience, "ADDED_UP", 0.0)
    monkeypatch.setattr(patience, "FACTOR", 1.0)
    return tmp_path / "cpu"


def content(total: int) -> str:
    return (
        f"some avg10=0.00 avg60=0.00 avg300=0.00 total={total}\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    )


@pytest.mark.parametrize(("before", "after"), [(None, None), (7, 7), (7, 1007)])
def test_what_takes_too_long_fails(pressure: Path, before: int | None, after: int | None) -> None:
    if before is not None:
        pressure.write_text(content(before))
    with pytest.raises(AssertionError, match=r"took 0\.\d s, expected at most 0\.01 s"):  # noqa: SIM117, PT012 - one is the other's body
        with patience.within(LIMIT):
            time.sleep(TAKES)
            if after is not None:
                pressure.write_text(content(after))


def test_time_in_which_programs_waited_for_a_processor_is_not_counted(pressure: Path) -> None:
    pressure.write_text(content(7))
    with patience.within(LIMIT):
        time.sleep(TAKES)
        pressure.write_text(content(7 + 10**9))


def test_what_is_in_time_is_not_waited_for(pressure: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "ADDED_UP", 3600.0)
    pressure.write_text(content(0))
    with patience.within(60):
        pass
