"""The laws of the policy, tried on hosts made by chance; each law fails where its guard is gone.

QMPMEM_LAW_HOSTS says how many hosts; in CI there are ten thousand.
"""

import math
from collections.abc import Callable, Iterator
from random import Random

import pytest

from qmpmem.actions import Plan, SetBalloon
from qmpmem.config import Config, Rule
from qmpmem.policy import History, conduct, decide, demand, moves
from qmpmem.policy.history import GuestTrend
from qmpmem.records import replace
from qmpmem.sight import GuestSight, Snapshot
from qmpmem.simulate.kinds import Range, make
from qmpmem.simulate.loads import Steady
from qmpmem.simulate.rivals import RIVALS, Policy
from qmpmem.simulate.spec import GuestSpec, HostSpec, World
from qmpmem.simulate.tally import Tally, measure
from qmpmem.units import GIB, MIB, PAGE, Bytes
from tests.rig import laws
from tests.rig.laws import Law, Seen

pytestmark = pytest.mark.timeout(60 + laws.HOSTS // 4)

CALM: float = 120.0
"""Seconds after which a steady world has settled."""


@pytest.fixture(scope="module")
def breaches() -> dict[str, list[laws.Breach]]:
    return laws.try_all()


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
def test_no_host_breaks_it(law: Law, breaches: dict[str, list[laws.Breach]]) -> None:
    broken = breaches[law.__name__]
    assert not broken, "\n".join(str(each) for each in broken[: laws.ENOUGH])
