"""What each guest is entitled to: shares, with a tax on memory that lies idle.

    E_i = clamp(min_i + λ · S_i / cost_i, min_i, max_i), with the λ at which Σ E_i is the budget
    cost_i = f_i + k · (1 - f_i), f_i: the part that it works with, k = 1 / (1 - tax)

Source: ESX (Waldspurger, OSDI'02, 5.1 and 5.2): min-funding revocation, idle memory tax of 75 %.
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Final

from qmpmem.model.config import Limits
from qmpmem.records import Record
from qmpmem.units import Bytes

LEAST_ACTIVE: Final = 0.05
"""Least part of its memory that a guest counts as working with."""


class Claim(Record, frozen=True):
    """One guest's claim on the budget."""

    guest: str
    limits: Limits
    active: float
    """f: the part of its memory that it works with, LEAST_ACTIVE to 1."""


def activity(working: int, actual: int) -> float:
    """Return the part of its memory that a guest works with, LEAST_ACTIVE to 1."""
    return min(1.0, max(LEAST_ACTIVE, working / max(1, actual)))


def cost(active: float, tax: float) -> float:
    """Return what a byte costs a guest: an idle one 1 / (1 - tax) times an active one."""
    return active + (1 - active) / (1 - tax)


def price(claim: Claim, size: int, tax: float) -> float:
    """Return what a guest pays for its memory: shares for each byte at its cost (rho in the paper).

    The guest that pays least gives first.
    """
    return claim.limits.shares / (max(1, size) * cost(claim.active, tax))


def entitlements(claims: Sequence[Claim], budget: int, tax: float) -> Mapping[str, Bytes]:
    """Share the budget out. The order of the guests does not matter.

    Where not even the minima fit, each guest has its minimum: that is a promise.
    """
    ordered = sorted(claims, key=attrgetter("guest"))
    weights = [claim.limits.shares / cost(claim.active, tax) for claim in ordered]
    level = _level(ordered, weights, budget)
    return {
        claim.guest: Bytes(min(claim.limits.maximum, int(claim.limits.minimum + level * weight)))
        for claim, weight in zip(ordered, weights, strict=True)
    }


def _level(claims: Sequence[Claim], weights: Sequence[float], budget: int) -> float:
    """Find the λ at which the entitlements add up to the budget, by filling one after another."""
    left = budget - sum([claim.limits.minimum for claim in claims])
    if left <= 0:
        return 0.0
    filling = sorted(
        [
            ((claim.limits.maximum - claim.limits.minimum) / weight, claim.guest, weight)
            for claim, weight in zip(claims, weights, strict=True)
            if weight > 0
        ]
    )
    weight = sum([part for _, _, part in filling])
    level = 0.0
    for full, _, part in filling:
        if weight <= 0 or (full - level) * weight >= left:
            break
        left -= int((full - level) * weight)
        level = full
        weight -= part
    else:
        return level
    return level + left / weight if weight > 0 else level
