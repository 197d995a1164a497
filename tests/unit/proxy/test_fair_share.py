"""How much of the event loop clients may have."""

import pytest

from qmpmem.proxy.fair_share import BURST, RATE, FairShare


def test_a_burst_costs_nothing() -> None:
    pace = FairShare()
    assert pace.wait(0.0) == 0
    pace.spend(BURST, 0.0)
    assert pace.wait(0.0) == 0


def test_what_is_spent_is_waited_for() -> None:
    pace = FairShare()
    pace.spend(BURST + 1.0, 10.0)
    assert pace.wait(10.0) == pytest.approx(1.0 / RATE)
    assert pace.wait(11.0) == pytest.approx(1.0 / RATE - 1.0)
    assert pace.wait(10.0 + 1.0 / RATE) == pytest.approx(0.0)
    assert pace.wait(9.0) == pytest.approx(1.0 / RATE), "a clock that goes back gives nothing"


def test_over_time_it_is_a_part_of_the_time() -> None:
    pace, now, spent = FairShare(), 0.0, 0.0
    while now < 100.0:
        if pace.wait(now) == 0:
            pace.spend(0.15, now)
            spent += 0.15
            now += 0.15
        now += 0.01
    assert spent == pytest.approx(100.0 * RATE, rel=0.1)
