"""The garbage collector rests while the guests stay the same."""

import gc

from qmpmem.agent.garbage_collection import SETTLED, Collector
from tests.rig.rounds import tick


def test_it_rests_when_all_is_settled_and_wakes_when_a_guest_goes() -> None:
    heard: list[str] = []
    garbage = Collector(lambda: heard.append("freeze"), lambda: heard.append("unfreeze"))
    for number in range(2 * SETTLED):
        garbage.publish(tick(number, guests=3))
    assert heard == ["freeze"]
    garbage.publish(tick(0, guests=2))
    assert heard == ["freeze", "unfreeze"]
    for number in range(SETTLED - 1):
        garbage.publish(tick(number, guests=2))
        garbage.publish(tick(number, guests=3))
    assert heard == ["freeze", "unfreeze"]


def test_what_lives_is_not_looked_at_meanwhile() -> None:
    garbage = Collector()
    try:
        for number in range(SETTLED + 1):
            garbage.publish(tick(number))
        assert gc.get_freeze_count() > 0
        garbage.publish(tick(0, guests=2))
        assert gc.get_freeze_count() == 0
    finally:
        gc.unfreeze()
