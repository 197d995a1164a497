"""The changes that `make mutants` tries."""

import ast

import pytest

from tests import mutants


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("SECONDS = 60.0", ["60.0 * 2", "60.0 / 2"]),
        ("x = 1", ["2", "0"]),
        ("x = 0", ["1"]),
        ("x = True", []),
        ("if a < b: pass", ["a >= b"]),
        ("x = not a", ["a"]),
        ("x = a and b", ["a or b"]),
        ("x = a < b < c", []),
    ],
)
def test_what_is_changed(code: str, expected: list[str]) -> None:
    found = [after for node in ast.walk(ast.parse(code)) for after in mutants.turned(node)]
    assert found == expected


def test_each_change_is_one_of_a_module_that_can_be_run() -> None:
    made = list(mutants.changes("shares"))
    assert len(made) > 10
    assert len({change.source for change in made}) == len(made)
    for change in made:
        compile(change.source, "shares", "exec")
