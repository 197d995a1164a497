"""What is tried by chance: other cases in each run, and the same ones again on request.

Theory of operation:
    One number, drawn when a run begins and shown at its end, gives the cases of the whole run.
    ``QMPMEM_TEST_SEED=NUMBER`` in the environment brings them back. The run hands the number on to
    its workers by the same variable. Hypothesis takes it as its seed.

    Where each case takes long, a run tries some, and `make soak` all: it sets QMPMEM_TEST_ALL. Of
    each law it tries more examples, too (hypothesis' profile ``soak``).
"""

import os
import re
import secrets
from collections.abc import Iterable, Sequence
from random import Random
from typing import Final, TypeVar, cast

import pytest
from _pytest.mark import ParameterSet
from hypothesis import settings

ALL: Final = "QMPMEM_TEST_ALL"
VARIABLE: Final = "QMPMEM_TEST_SEED"
MOST: Final = 10**9
SPREAD: Final = 10**6
"""From one run's first case to the next run's: more than any run tries."""

EXAMPLES: Final = 25
SOAK_EXAMPLES: Final = 300
"""Of each law that hypothesis tries."""

T = TypeVar("T")


def load_profile(*, in_ci: bool) -> None:
    """Tell hypothesis how much to try; the clock of a busy machine proves nothing."""
    settings.register_profile("here", max_examples=EXAMPLES, deadline=None)
    settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
    settings.register_profile("soak", max_examples=SOAK_EXAMPLES, deadline=None)
    settings.load_profile("soak" if is_soak() else "ci" if in_ci else "here")


def is_soak() -> bool:
    """Whether this run tries everything."""
    return bool(os.environ.get(ALL))


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
    numbers = range(len(cases))
    name = re.sub(" at 0x[0-9a-f]+", "", repr(cases))  # where a function lies, each worker differs
    tried = set[int]() if is_soak() else set(drawn(count, numbers, name))
    return [
        pytest.param(*_values(case), marks=() if number in tried else pytest.mark.soak)
        for number, case in enumerate(cases)
    ]


def _values(case: object) -> tuple[object, ...]:
    return cast("tuple[object, ...]", case) if isinstance(case, tuple) else (case,)


def drawn(count: int, of: Iterable[T], name: str) -> list[T]:
    """Draw so many for this run, in their order; all of them under `make soak`.

    Each name draws on its own, and each worker of a run draws the same.
    """
    whole = list(of)
    if is_soak() or count >= len(whole):
        return whole
    dice = Random(f"{draw()} {name}")  # noqa: S311 - repeatable on purpose
    return [whole[index] for index in sorted(dice.sample(range(len(whole)), count))]
