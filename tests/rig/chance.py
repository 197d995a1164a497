"""What is tried by chance: other cases in each run, and the same ones again on request.

Theory of operation:
    One number, drawn when a run begins and shown at its end, gives the cases of the whole run.
    ``QMPMEM_TEST_SEED=NUMBER`` in the environment brings them back. The run hands the number on to
    its workers by the same variable.

    Where each case takes long, a run tries some, and `make soak` all: it sets QMPMEM_TEST_ALL.
"""

import os
import secrets
from collections.abc import Sequence
from random import Random
from typing import Final

import pytest
from _pytest.mark import ParameterSet

ALL: Final = "QMPMEM_TEST_ALL"
VARIABLE: Final = "QMPMEM_TEST_SEED"
MOST: Final = 10**9
SPREAD: Final = 10**6
"""From one run's first case to the next run's: more than any run tries."""


def draw() -> int:
    """Take the number from the environment, or draw one and put it there."""
    return int(os.environ.setdefault(VARIABLE, str(secrets.randbelow(MOST))))


def cases(count: int, part: int, parts: int) -> range:
    """Give one of the parts of this run's cases, each a seed of its own."""
    start = draw() * SPREAD
    return range(start + count * part // parts, start + count * (part + 1) // parts)


def some(cases: Sequence[object], count: int = 1) -> list[ParameterSet]:
    """Give the cases to parametrize a test with, of which a run tries so many by chance.

    The others are marked `soak`; under `make soak` all are.

    Args:
        cases: values; a tuple is one for each argument.
        count: how many a run tries.
    """
    tried = set[int]()
    if not os.environ.get(ALL):
        dice = Random(f"{draw()} {cases!r}")  # noqa: S311 - repeatable on purpose
        tried.update(dice.sample(range(len(cases)), count))
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=() if number in tried else pytest.mark.soak,
        )
        for number, case in enumerate(cases)
    ]
