"""What others do about memory, as functions of the same shape as ours.

Rules of this file:
    Written from what their authors publish: documents and default settings. Each knows only what
    it knows in its own world, whatever else a snapshot holds. What is remembered from one turn to
    the next is when the last one was: `History.host.time`.
"""

from collections.abc import Callable, Mapping
from typing import Final

from qmpmem.actions import Plan, SetBalloon, SetKsm
from qmpmem.config import Config
from qmpmem.policy import History, decide
from qmpmem.policy.history import HostTrend
from qmpmem.policy.host import available_of, total_of
from qmpmem.records import Record
from qmpmem.sight import GuestSight, Snapshot
from qmpmem.units import MIB, PAGE, Bytes

Policy = Callable[[Snapshot, History, Config], tuple[Plan, History]]


class Rival(Record, frozen=True):
    """A policy, and how it looks at guests."""

    name: str
    policy: Policy
    adapts: bool = False
    """It looks more often when the host is short."""


def static(_: Snapshot, history: History, __: Config) -> tuple[Plan, History]:
    """Nothing is ever moved: every guest keeps what it was started with."""
    return Plan(), history


PVE_PERIOD: Final = 10.0
PVE_GOAL_PERCENT: Final = 80
"""Of the host's memory that shall be in use."""
PVE_CHANGE: Final = Bytes(100 * MIB)
"""The most for one guest in one turn."""
PVE_LITTLE: Final = Bytes(10 * MIB)
PVE_FREE_PERCENT: Final = 25
"""Of its minimum: who has more than that free gives first, who has less gets first."""


def proxmox(snapshot: Snapshot, history: History, config: Config) -> tuple[Plan, History]:
    """Proxmox VE: towards 80 % of the host in use, in steps of 100 MiB, by shares.

    Source: Proxmox VE Administration Guide, "Memory", and the defaults of its pvestatd.
    """
    total, available = total_of(snapshot.host), available_of(snapshot.host)
    if not _is_turn(snapshot, history, PVE_PERIOD) or total is None or available is None:
        return Plan(), _looked(snapshot, history, PVE_PERIOD)
    goal = total * PVE_GOAL_PERCENT // 100 - (total - available)
    targets: dict[str, int] = {}
    guests = [guest for guest in snapshot.guests if _is_movable(guest, config)]
    if abs(goal) >= PVE_LITTLE:
        first = [guest for guest in guests if _has_free(guest, config) == (goal < 0)]
        rest = [guest for guest in guests if guest not in first]
        for group in (first, rest):
            goal -= _spread(group, goal, targets, config)
    return _plan(snapshot, targets, "towards 80 % of the host"), _looked(
        snapshot, history, PVE_PERIOD
    )


def _has_free(guest: GuestSight, config: Config) -> bool:
    minimum = config.limits(guest.id, guest.maximum or PAGE).minimum
    return (guest.free or 0) * 100 > minimum * PVE_FREE_PERCENT


def _spread(guests: list[GuestSight], goal: int, targets: dict[str, int], config: Config) -> int:
    """Share a change out by shares, as far as steps and limits allow; say how much that was."""
    limits = {guest.id: config.limits(guest.id, guest.maximum or PAGE) for guest in guests}
    shares = sum(each.shares for each in limits.values())
    spread = 0
    for guest in guests:
        actual = guest.actual or 0
        part = goal * limits[guest.id].shares // shares if shares else 0
        wanted = actual + max(-PVE_CHANGE, min(PVE_CHANGE, part))
        bounded = max(limits[guest.id].minimum, min(limits[guest.id].maximum, wanted))
        targets[guest.id] = bounded
        spread += bounded - actual
    return spread


MOM_PERIOD: Final = 10.0
MOM_PRESSURE: Final = 0.20
"""Of the host free: below, every guest shrinks."""
MOM_GUEST_FREE: Final = 0.20
"""Of a guest that is left free, where the host is just at `MOM_PRESSURE`; less below."""
MOM_CHANGE: Final = 0.05
MOM_LEAST: Final = 0.0025
"""Of its size: what is less is not worth a command."""


def mom(snapshot: Snapshot, history: History, config: Config) -> tuple[Plan, History]:
    """OVirt's Memory Overcommitment Manager: all shrink below 20 % free, all grow above.

    It takes free memory alone as unused, so page cache counts as in use.

    Source: its documentation and the constants at the head of its balloon rules.
    """
    total, available = total_of(snapshot.host), available_of(snapshot.host)
    if not _is_turn(snapshot, history, MOM_PERIOD) or total is None or available is None:
        return Plan(), _looked(snapshot, history, MOM_PERIOD)
    free = available / total
    targets: dict[str, int] = {}
    for guest in snapshot.guests:
        if _is_movable(guest, config) and guest.free is not None:
            targets[guest.id] = _mom_target(guest, free, config)
    return _plan(snapshot, targets, "below 20 % free all shrink, above all grow"), _looked(
        snapshot, history, MOM_PERIOD
    )


def _mom_target(guest: GuestSight, host_free: float, config: Config) -> int:
    limits = config.limits(guest.id, guest.maximum or PAGE)
    actual = guest.actual or 0
    if host_free < MOM_PRESSURE:
        room = MOM_GUEST_FREE * host_free / MOM_PRESSURE * actual
        wanted = max(actual - (guest.free or 0) + room, actual * (1 - MOM_CHANGE))
        wanted = max(float(limits.minimum), min(wanted, float(actual)))
    else:
        wanted = min(float(limits.maximum), actual * (1 + MOM_CHANGE))
    return int(wanted) if abs(wanted - actual) > MOM_LEAST * actual else actual


TUNED_PERIOD: Final = 60.0
TUNED_FREE_PERCENT: Final = 20
TUNED_FREE: Final = Bytes(2048 * MIB)
TUNED_BOOST: Final = 300
TUNED_DECAY: Final = 50
TUNED_LEAST: Final = 64
TUNED_MOST: Final = 1250
TUNED_SLEEP: Final = 10
"""Milliseconds, on a host of 16 GiB; on a larger one less, but not below this."""
TUNED_SCALE: Final = Bytes(16 * 1024 * MIB)


def ksmtuned_only(snapshot: Snapshot, history: History, _: Config) -> tuple[Plan, History]:
    """Balloons stay empty; ksmtuned drives merging by how much of the host is free.

    Source: the defaults in its configuration file.
    """
    total, available, seen = snapshot.host.total, snapshot.host.available, snapshot.ksm
    after = _looked(snapshot, history, TUNED_PERIOD)
    if not _is_turn(snapshot, history, TUNED_PERIOD) or None in (total, available, seen):
        return Plan(), after
    if total is None or available is None or seen is None:
        return Plan(), after
    enough = max(total * TUNED_FREE_PERCENT // 100, TUNED_FREE)
    committed = sum(guest.maximum or 0 for guest in snapshot.guests)
    if committed + enough <= total:
        return Plan(ksm=SetKsm(changes={"run": "0"}, reason="all fits")), after
    change = TUNED_BOOST if available < enough else -TUNED_DECAY
    pages = max(TUNED_LEAST, min(TUNED_MOST, (seen.pages_to_scan or 0) + change))
    sleep = max(TUNED_SLEEP, TUNED_SLEEP * TUNED_SCALE // total)
    changes = {"run": "1", "pages_to_scan": str(pages), "sleep_millisecs": str(sleep)}
    return Plan(ksm=SetKsm(changes=changes, reason="by what is free")), after


def _is_turn(snapshot: Snapshot, history: History, period: float) -> bool:
    """Whether it is time to look again; the first time is a period after the start."""
    last = history.host.time
    return last is not None and snapshot.time - last >= period


def _looked(snapshot: Snapshot, history: History, period: float) -> History:
    if history.host.time is None or _is_turn(snapshot, history, period):
        return History(host=HostTrend(time=snapshot.time))
    return history


def _is_movable(guest: GuestSight, config: Config) -> bool:
    return (
        guest.exempt is None
        and guest.state == "running"
        and guest.actual is not None
        and guest.maximum is not None
        and config.limits(guest.id, guest.maximum).managed
    )


def _plan(snapshot: Snapshot, targets: Mapping[str, int], reason: str) -> Plan:
    return Plan(
        balloons=tuple(
            SetBalloon(guest=guest.id, target=_whole(targets[guest.id]), reason=reason)
            for guest in snapshot.guests
            if guest.id in targets and _whole(targets[guest.id]) != guest.actual
        )
    )


def _whole(size: int) -> Bytes:
    return Bytes(size - size % PAGE)


RIVALS: Final[Mapping[str, Rival]] = {
    rival.name: rival
    for rival in (
        Rival(name="ours", policy=decide, adapts=True),
        Rival(name="static", policy=static),
        Rival(name="proxmox", policy=proxmox),
        Rival(name="mom", policy=mom),
        Rival(name="ksmtuned-only", policy=ksmtuned_only),
    )
}
