"""How long an answer is waited for: an agent that waits is not one that hangs (row F80)."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from qmpmem.api import deadlines as module
from qmpmem.api.deadlines import AT_ONCE, LONGEST, AnswerDeadline
from qmpmem.wire.kernel.processes import queued

SECONDS = 2.0
NONE: Mapping[str, float] = MappingProxyType({})


class Host:
    """A clock, and a /proc in which threads wait for a processor while time passes.

    Args:
        proc: where its files are.
        share: of the time, for each thread that waits, as in ``{"7/task/8": 0.9}``.
        disk: for how many seconds a thread waits for a disk, as in ``{"7/task/8": 3.0}``.
    """

    def __init__(
        self, proc: Path, share: Mapping[str, float], disk: Mapping[str, float] = NONE
    ) -> None:
        self.proc = proc
        self.share = share
        self.disk = disk
        self.now = 1000.0
        for thread in share.keys() | disk.keys():
            (proc / thread).mkdir(parents=True)
        self.pass_time(0.0)

    def clock(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for thread, share in self.share.items():
            delay = int(5e9 + share * (self.now - 1000.0) * 1e9)
            (self.proc / thread / "schedstat").write_text(f"1234567 {delay} 89\n")
        for thread, end in self.disk.items():
            state = "D" if self.now - 1000.0 < end else "S"
            (self.proc / thread / "stat").write_text(f"8 (R (D) {state}{' 1' * 48}\n")


def waited(host: Host) -> tuple[float, int]:
    """Wait in vain for agent 7; return the seconds that it took, and the number of looks."""
    patience = AnswerDeadline(7, SECONDS, clock=host.clock, proc=host.proc)
    looks = 1
    while left := patience.left():
        host.pass_time(left)
        looks += 1
    return host.now - 1000.0, looks


@pytest.mark.parametrize(
    ("share", "least", "most"),
    [
        ({}, SECONDS, SECONDS + 0.1),
        ({"7/task/7": 0.0, "self/task/1": 0.0}, SECONDS, SECONDS + 0.1),  # it hangs
        ({"7/task/7": 0.5}, 2 * SECONDS - 2 * AT_ONCE, 2 * SECONDS + 0.1),
        ({"7/task/7": 0.0, "7/task/8": 0.5}, 2 * SECONDS - 2 * AT_ONCE, 2 * SECONDS + 0.1),
        ({"self/task/1": 0.5}, 2 * SECONDS - 2 * AT_ONCE, 2 * SECONDS + 0.1),
        ({"9/task/9": 1.0}, SECONDS, SECONDS + 0.1),  # another program
        ({"7/task/7": 1.0}, SECONDS + LONGEST, SECONDS + LONGEST + 0.1),
        ({f"7/task/{thread}": 1.0 for thread in range(7, 30)}, LONGEST, SECONDS + LONGEST + 0.1),
    ],
)
def test_time_in_which_the_agent_waits_for_a_processor_does_not_count(
    tmp_path: Path, share: Mapping[str, float], least: float, most: float
) -> None:
    took, looks = waited(Host(tmp_path, share))
    assert least <= took <= most
    assert looks < 100  # it does not spin


@pytest.mark.parametrize(
    ("share", "disk", "expected"),
    [
        ({}, {"7/task/7": 0.0}, SECONDS),
        ({}, {"7/task/7": 1.0}, SECONDS),  # it had time enough since
        ({}, {"7/task/7": 5.0}, 5.0 + AT_ONCE),  # it has what it waited for, and answers
        ({}, {"7/task/7": 0.0, "7/task/8": 5.0}, 5.0 + AT_ONCE),
        ({}, {"9/task/9": 9.0, "self/task/1": 9.0}, SECONDS),  # this process waits for the answer
        ({}, {"7/task/7": 900.0}, SECONDS + LONGEST),
        ({"7/task/7": 0.5}, {"7/task/8": 5.0}, 5.0 + 2 * AT_ONCE),
        ({"7/task/7": 0.9}, {"7/task/8": 900.0}, SECONDS + LONGEST),
    ],
)
def test_an_agent_that_waits_for_a_disk_is_given_time_to_answer(
    tmp_path: Path, share: Mapping[str, float], disk: Mapping[str, float], expected: float
) -> None:
    took, looks = waited(Host(tmp_path, share, disk))
    assert expected <= took <= expected + 2 * AT_ONCE
    assert looks < 8 * took  # it does not spin


def test_what_is_answered_at_once_costs_no_look_at_the_kernel(tmp_path: Path) -> None:
    patience = AnswerDeadline(7, SECONDS, proc=tmp_path / "none")
    assert patience.left() == AT_ONCE
    assert AnswerDeadline(7, 0.1, proc=tmp_path / "none").left() == 0.1


def test_an_answer_in_many_pieces_costs_no_look_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    def look(pid: str, _: Path) -> float:
        looks.append(pid)
        return 0.0

    monkeypatch.setattr(module, "queued", look)
    host = Host(tmp_path, {})
    patience = AnswerDeadline(7, SECONDS, clock=host.clock, proc=tmp_path)
    for _ in range(5):
        assert patience.left() == AT_ONCE
        host.pass_time(AT_ONCE / 8)
    assert looks == []
    host.pass_time(AT_ONCE)
    assert 0.0 < patience.left() < SECONDS
    assert looks == ["7", "self"]


def test_a_thread_that_has_ended_takes_nothing_back(tmp_path: Path) -> None:
    host = Host(tmp_path, {"7/task/7": 0.0, "7/task/8": 1.0})
    patience = AnswerDeadline(7, SECONDS + AT_ONCE, clock=host.clock, proc=tmp_path)
    host.pass_time(patience.left())
    patience.left()
    host.pass_time(1.9)
    assert patience.left() == pytest.approx(2.0)
    (tmp_path / "7/task/8/schedstat").unlink()
    assert patience.left() == pytest.approx(2.0)


@pytest.mark.parametrize("content", ["", "1", "1 x 2", "1 -5 2"])
def test_what_the_kernel_does_not_count_is_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "7/task/7").mkdir(parents=True)
    (tmp_path / "7/task/7/schedstat").write_text(content)
    assert queued(7, tmp_path) == 0.0
    assert queued(8, tmp_path) == 0.0
