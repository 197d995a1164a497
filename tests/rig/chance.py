"""What is tried by chance: other cases in each run, and the same ones again on request.

Theory of operation:
    One number, drawn when a run begins and shown at its end, gives the cases of the whole run.
    ``QMPMEM_TEST_SEED=NUMBER`` in the environment brings them back. The run hands the number on to
    its workers by the same variable.
"""

import os
import secrets
from typing import Final

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
