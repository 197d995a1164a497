"""Which guests there are: what is put into a directory within the tick of a look is seen, too."""

import os
from pathlib import Path
from typing import Final

import pytest

from qmpmem.agent.finder import TICK, Finder
from tests.rig.fakeguest import register

MADE: Final = 1_700_000_000_000_000_000
"""Nanoseconds: the time of change of every directory here, as within one tick."""


class Directory:
    """A run directory whose times stand still, and a finder by a clock that the test sets."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.now = MADE
        self.finder = Finder(run, wall=lambda: self.now)
        self._rounds = 0

    def start(self, guest: str, name: str = "") -> None:
        """Write the record of a guest, which is this process."""
        (self.run / guest).mkdir(exist_ok=True)
        register(self.run, guest, os.getpid(), name=name)
        for directory in (self.run / guest, self.run):
            os.utime(directory, ns=(MADE, MADE))

    def find(self) -> dict[str, str]:
        """Look once; gives the guests' names by their ids."""
        self._rounds += 1
        return {each.record.id: each.record.name for each in self.finder.find(self._rounds)}


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


@pytest.mark.parametrize("passed", [0, TICK // 2, TICK])
def test_a_guest_that_starts_within_the_tick_of_a_look_is_seen_by_the_next(
    directory: Directory, passed: int
) -> None:
    directory.start("a")
    directory.now += passed
    assert directory.find().keys() == {"a"}
    directory.start("b")
    directory.now += TICK
    assert directory.find().keys() == {"a", "b"}


@pytest.mark.parametrize("passed", [0, 2 * TICK])
def test_a_record_that_is_written_anew_within_the_tick_of_a_look_is_read_again(
    directory: Directory, passed: int
) -> None:
    directory.start("a", "old")
    assert directory.find() == {"a": "old"}
    directory.start("a", "new")
    directory.now += passed
    assert directory.find() == {"a": "new"}


def test_what_has_not_changed_for_a_tick_is_not_read_again(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.start("a")
    directory.now += TICK + 1
    assert directory.find().keys() == {"a"}
    monkeypatch.setattr("qmpmem.agent.finder.os.scandir", None)
    monkeypatch.setattr("qmpmem.agent.finder.rundir.read_record", None)
    assert directory.find().keys() == {"a"}


def test_a_clock_that_was_set_back_costs_looks_and_loses_nothing(directory: Directory) -> None:
    directory.now -= 3600 * 10**9
    directory.start("a")
    assert directory.find().keys() == {"a"}
    directory.start("b")
    assert directory.find().keys() == {"a", "b"}
