"""How far a guest's memory may be moved, and what the host keeps.

The floor follows ESX, whose balloon takes at most 65 % of a guest ("Mem.CtlMaxPercent" 65;
Waldspurger, OSDI'02, leaves the guest enough to keep running), and never less than 128 MiB, which
is about what an idle Linux server guest touches.
"""

from typing import Final

from qmpmem.errors import ConfigError
from qmpmem.units import GIB, KIB, MIB, PAGE, Bytes, format_size

FLOOR_PERCENT: Final = 35
FLOOR_LEAST: Final = Bytes(128 * MIB)

NEAR: Final = Bytes(64 * KIB)
"""Closer than this is there: a Linux guest balloons its own pages, of up to 64 KiB
(drivers/virtio/virtio_balloon.c: VIRTIO_BALLOON_PAGES_PER_PAGE)."""


def floor(maximum: Bytes) -> Bytes:
    """Name the size below which a guest is only put by force."""
    share = maximum * FLOOR_PERCENT // 100
    return Bytes(min(maximum, max(share - share % PAGE, FLOOR_LEAST)))


def check_target(target: Bytes, *, guest: str, maximum: Bytes, force: bool = False) -> None:
    """Refuse a target that the guest cannot have or should not get.

    Raises:
        ConfigError: above the maximum, below one page, or below the floor without force.
    """
    if target > maximum:
        raise ConfigError(
            f"guest {guest}: {format_size(target)} is more than its maximum {format_size(maximum)}",
            hint="the maximum is set when the guest starts (-m); a balloon only takes from it",
        )
    if target < PAGE:
        raise ConfigError(f"guest {guest}: {format_size(target)} is no memory at all")
    least = floor(maximum)
    if target < least and not force:
        raise ConfigError(
            f"guest {guest}: {format_size(target)} is less than its floor {format_size(least)}",
            hint="--force does it all the same; the guest may run out of memory and kill programs",
        )


_STEPS: Final = ((4 * GIB, 6), (8 * GIB, 4), (16 * GIB, 2), (None, 1))


def reserve(total: Bytes) -> Bytes:
    """Say what a host of this size keeps free: the sliding scale of ESX (vSphere, Mem.MinFreePct).

    6 % of the first 4 GiB, 4 % of the next 8, 2 % of the next 16, 1 % of the rest.
    """
    left, kept = int(total), 0
    for step, percent in _STEPS:
        part = left if step is None else min(left, step)
        kept += part * percent // 100
        left -= part
    return Bytes(kept)


def is_near(actual: Bytes, target: Bytes) -> bool:
    """Whether the guest got to its target."""
    return abs(actual - target) < NEAR
