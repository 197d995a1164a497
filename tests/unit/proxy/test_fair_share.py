"""How much of the event loop clients may have."""

import pytest

from qmpmem.proxy.fair_share import BURST, RATE, SMALL, FairShare

LONG = SMALL + 1


@pytest.mark.parametrize("size", [1, SMALL, LONG])
def test_a_burst_costs_nothing(size: int) -> None:
    pace = FairShare()
    assert pace.wait(1, size, 0.0) == 0
    pace.spend(1, size, BURST, 0.0)
    assert pace.wait(1, size, 0.0) == 0


@pytest.mark.parametrize("size", [1, LONG])
def test_what_is_spent_is_waited_for(size: int) -> None:
    pace = FairShare()
    pace.spend(1, size, BURST + 1.0, 10.0)
    assert pace.wait(1, size, 10.0) == pytest.approx(1.0 / RATE)
    assert pace.wait(1, size, 9.0) == pytest.approx(1.0 / RATE), "a clock that goes back gives none"
    assert pace.wait(1, size, 11.0) == pytest.approx(1.0 / RATE - 1.0)
    assert pace.wait(1, size, 10.0 + 1.0 / RATE) == pytest.approx(0.0)


def test_a_user_that_used_little_waits_for_no_other() -> None:
    pace = FairShare()
    for user in range(1, 4):
        pace.spend(user, 1, 10.0, 0.0)
    assert pace.wait(0, 1, 0.0) == 0
    pace.spend(0, 1, 0.001, 0.0)
    assert pace.wait(0, 1, 0.0) == 0
    assert pace.wait(1, 1, 0.0) > 10.0


def test_long_messages_of_a_user_do_not_delay_its_short_ones_nor_these_the_long_ones() -> None:
    pace = FairShare()
    pace.spend(1, LONG, 10.0, 0.0)
    assert (pace.wait(1, SMALL, 0.0), pace.wait(1, LONG, 0.0) > 0) == (0, True)
    pace.spend(2, SMALL, 10.0, 0.0)
    assert (pace.wait(2, LONG, 0.0), pace.wait(2, SMALL, 0.0) > 0) == (0, True)


def test_a_user_that_owes_nothing_any_more_is_forgotten() -> None:
    pace = FairShare()
    for user in range(1000):
        pace.spend(user, 1, 0.001, 0.0)
    pace.spend(1, 1, 0.001, 1000.0)
    assert len(pace._short._debts) == 1


@pytest.mark.parametrize("users", [1, 2, 5])
def test_over_time_it_is_a_part_of_the_time_however_many_users_there_are(users: int) -> None:
    pace, now = FairShare(), 0.0
    spent = [0.0] * users
    while now < 200.0:
        for user in range(users):
            if pace.wait(user, 1, now) == 0:
                pace.spend(user, 1, 0.15, now)
                spent[user] += 0.15
                now += 0.15
        now += 0.01
    assert sum(spent) == pytest.approx(200.0 * RATE, rel=0.1)
    assert min(spent) == pytest.approx(max(spent), rel=0.1), "users have the same"
