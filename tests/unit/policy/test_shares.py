"""Entitlements: shares of a budget, with a tax on memory that lies idle."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.model.config import Limits
from qmpmem.policy.shares import Claim, activity, cost, entitlements, price
from qmpmem.units import GIB, MIB, Bytes

TAX = 0.75


def claim(
    guest: str, *, low: int = 128, high: int = 1024, shares: int = 1000, active: float = 1.0
) -> Claim:
    limits = Limits(
        minimum=Bytes(low * MIB),
        maximum=Bytes(high * MIB),
        shares=shares,
        headroom_percent=20,
        managed=True,
    )
    return Claim(guest=guest, limits=limits, active=active)


@st.composite
def claims(draw: st.DrawFn) -> list[Claim]:
    count = draw(st.integers(0, 12))
    return [
        claim(
            f"g{index}",
            low=low,
            high=low + draw(st.integers(0, 4096)),
            shares=draw(st.integers(1, 10_000)),
            active=draw(st.floats(0.05, 1)),
        )
        for index in range(count)
        for low in [draw(st.integers(1, 512))]
    ]


@given(claims(), st.integers(-GIB, 64 * GIB))
def test_no_guest_gets_less_than_its_minimum_or_more_than_its_maximum(
    given_claims: list[Claim], budget: int
) -> None:
    shared = entitlements(given_claims, budget, TAX)
    assert shared.keys() == {each.guest for each in given_claims}
    for each in given_claims:
        assert each.limits.minimum <= shared[each.guest] <= each.limits.maximum


@given(claims(), st.integers(-GIB, 64 * GIB))
def test_the_budget_is_shared_out_and_not_overdrawn(given_claims: list[Claim], budget: int) -> None:
    shared = sum(entitlements(given_claims, budget, TAX).values())
    least = sum(each.limits.minimum for each in given_claims)
    most = sum(each.limits.maximum for each in given_claims)
    expected = min(most, max(least, budget))
    assert expected - 4096 * (len(given_claims) + 1) <= shared <= expected + len(given_claims)


@given(claims(), st.integers(0, 64 * GIB), st.integers(0, GIB))
def test_more_to_share_takes_from_no_guest(
    given_claims: list[Claim], budget: int, more: int
) -> None:
    before = entitlements(given_claims, budget, TAX)
    after = entitlements(given_claims, budget + more, TAX)
    assert all(after[guest] >= before[guest] - 1 for guest in before)


@given(claims(), st.integers(0, 64 * GIB), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(given_claims: list[Claim], budget: int, random: Random) -> None:
    shuffled = list(given_claims)
    random.shuffle(shuffled)
    assert entitlements(shuffled, budget, TAX) == entitlements(given_claims, budget, TAX)


def test_twice_the_shares_is_twice_as_much_above_the_minimum() -> None:
    shared = entitlements([claim("a", shares=2000), claim("b")], 556 * MIB, TAX)
    assert shared["a"] - 128 * MIB == pytest.approx(2 * (shared["b"] - 128 * MIB), abs=4096)


def test_an_idle_guest_is_entitled_to_less() -> None:
    shared = entitlements([claim("busy"), claim("idle", active=0.05)], 1024 * MIB, TAX)
    busy, idle = shared["busy"] - 128 * MIB, shared["idle"] - 128 * MIB
    assert busy == pytest.approx(idle * cost(0.05, TAX), rel=0.001)
    untaxed = entitlements([claim("busy"), claim("idle", active=0.05)], 1024 * MIB, 0.0)
    assert untaxed["busy"] == untaxed["idle"]


def test_an_idle_page_costs_as_much_as_four_active_ones() -> None:
    assert cost(0.0, TAX) == 4
    assert cost(1.0, TAX) == 1


def test_a_guest_that_is_idle_and_large_gives_first() -> None:
    idle, busy = claim("a", active=0.1), claim("b")
    assert price(idle, GIB, TAX) < price(busy, GIB, TAX)
    assert price(busy, 2 * GIB, TAX) < price(busy, GIB, TAX)


@pytest.mark.parametrize(("working", "actual", "active"), [(0, 0, 0.05), (1, 0, 1.0), (5, 10, 0.5)])
def test_activity_is_a_part(working: int, actual: int, active: float) -> None:
    assert activity(working, actual) == active
