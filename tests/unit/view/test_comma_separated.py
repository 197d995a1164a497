"""Comma-separated values: one line for a row, and no formula by a guest's owner."""

import csv
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.records import Record
from qmpmem.view import comma_separated


class Row(Record, frozen=True):
    at: float | None
    name: str | None
    size: int | None = None
    yes: bool = False


def written(*rows: Row) -> list[str]:
    return list(comma_separated.lines(Row, rows, ("at",), UTC))


def test_fields_are_named_and_times_are_of_the_zone() -> None:
    assert written(Row(at=1_800_007_200.5, name="a, b", size=-3, yes=True)) == [
        "at,name,size,yes",
        '2027-01-15T10:00:00.500+00:00,"a, b",-3,true',
    ]
    assert written(Row(at=None, name=None))[1] == ",,,false"
    assert written(Row(at=1e30, name=""))[1] == "1e+30,,,false"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1"])
def test_no_name_is_a_formula(name: str) -> None:
    [cell] = [row[1] for row in csv.reader(written(Row(at=None, name=name))[1:])]
    assert cell.startswith("'")


@given(st.text())
def test_a_row_is_one_line_that_can_be_read(name: str) -> None:
    lines = written(Row(at=None, name=name))
    assert all(line.isprintable() for line in lines)
    assert [len(row) for row in csv.reader(lines)] == [4, 4]
