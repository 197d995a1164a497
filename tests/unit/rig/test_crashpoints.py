"""The points at which agents are killed are in the program."""

import pytest

import qmpmem.cli.agent_run  # noqa: F401 - what it imports looks for libraries, by a process
from tests.rig.crashpoints import POINTS, found


@pytest.mark.parametrize("name", sorted(POINTS))
def test_every_point_is_a_function_of_the_program(name: str) -> None:
    _, _, function = found(POINTS[name].target)
    assert callable(function)
