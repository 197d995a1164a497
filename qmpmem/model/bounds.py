"""How far a guest's memory may be moved, and what the host keeps.

The floor follows ESX, whose balloon takes at most 65 % of a guest ("Mem.CtlMaxPercent" 65;
Waldspurger, OSDI'02, leaves the guest enough to keep running). It is never less than 128 MiB, which
is about what an idle Linux server guest touches.
"""

from functools import lru_cache
from typing import Final

from qmpmem.errors import ConfigError
from qmpmem.units import GIB, KIB, MIB, PAGE, Bytes, format_size

FLOOR_PERCENT: Final = 35
FLOOR_LEAST: Final = Bytes(128 * MIB)

NOTHING: Final = Bytes(0)

NEAR: Final = Bytes(64 * KIB)
"""Distance below which a guest is at its target: a Linux guest balloons its own pages, of up to
64 KiB (drivers/virtio/virtio_balloon.c: VIRTIO_BALLOON_PAGES_PER_PAGE)."""


def floor(maximum: Bytes, beyond: Bytes = NOTHING) -> Bytes:
    """Return the size below which a guest is put only by force.

    Args:
        maximum: what an empty balloon leaves it with.
        beyond: the part of `maximum` that no balloon takes. The rest keeps a floor of its own, as a
            kernel cannot use memory for everything that may be taken away again (virtio-mem).
    """
    share = maximum * FLOOR_PERCENT // 100
    whole = Bytes(min(maximum, max(share - share % PAGE, FLOOR_LEAST)))
    return whole if beyond <= 0 else Bytes(max(whole, beyond + floor(Bytes(maximum - beyond))))


def check_target(
    target: Bytes,
    *,
    guest: str,
    maximum: Bytes,
    beyond: Bytes = NOTHING,
    force: bool = False,
) -> None:
    """Refuse a target that the guest cannot have or should not get.

    Args:
        target: the size.
        guest: its id.
        maximum: what an empty balloon leaves it with.
        beyond: the part of `maximum` that no balloon takes.
        force: whether a target below the floor is accepted as well.

    Raises:
        ConfigError: it is above the maximum, below one page, or below the floor without force.
    """
    if target > maximum:
        raise ConfigError(
            f"guest {guest}: {format_size(target)} is more than its maximum {format_size(maximum)}",
            hint="the maximum is set when the guest starts (-m); a balloon only takes from it",
        )
    if target < PAGE:
        raise ConfigError(f"guest {guest}: {format_size(target)} is no memory at all")
    if target < beyond + PAGE and beyond:
        raise ConfigError(
            f"guest {guest}: expected more than {format_size(beyond)}, which no balloon takes "
            f"(virtio-mem, CXL or NVDIMM), got {format_size(target)}",
            hint="unplug that memory, as by requested-size of virtio-mem",
        )
    least = floor(maximum, beyond)
    if target < least and not force:
        raise ConfigError(
            f"guest {guest}: {format_size(target)} is less than its floor {format_size(least)}",
            hint="--force does it all the same; the guest may run out of memory and kill programs",
        )


_STEPS: Final = ((4 * GIB, 6), (8 * GIB, 4), (16 * GIB, 2), (None, 1))


@lru_cache(maxsize=16)  # called several times in each round
def reserve(total: Bytes) -> Bytes:
    """Return what a host of this size keeps free: ESX's sliding scale (vSphere, Mem.MinFreePct).

    That is 6 % of the first 4 GiB, 4 % of the next 8, 2 % of the next 16, and 1 % of the rest.
    """
    left, kept = int(total), 0
    for step, percent in _STEPS:
        part = left if step is None else min(left, step)
        kept += part * percent // 100
        left -= part
    return Bytes(kept)


def is_near(actual: Bytes, target: Bytes) -> bool:
    """Tell whether the guest has reached its target."""
    return abs(actual - target) < NEAR
