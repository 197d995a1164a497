"""The laws of the policy, tried on hosts made by chance: 1,000 other ones in each run.

`make soak` tries 10,000. A thousand take a minute of a processor. A breach names the seed of its
host, which goes into tests/unit/policy/test_laws.py when the policy is mended.
"""

from typing import Final

import pytest

from tests.rig import chance, laws

PARTS: Final = 20
SOAK_PARTS: Final = 200
ENOUGH: Final = 20
"""Breaches that are shown."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_host_breaks_a_law(part: int) -> None:
    check(chance.cases(1_000, part, PARTS))


@pytest.mark.soak
@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", range(SOAK_PARTS))
def test_no_host_of_many_breaks_a_law(part: int) -> None:
    check(chance.cases(10_000, part, SOAK_PARTS))


def check(seeds: range) -> None:
    broken = laws.try_seeds(seeds)
    assert not broken, "\n".join(str(each) for each in broken[:ENOUGH])
