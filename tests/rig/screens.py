"""A host with guests of all kinds, as `qmpmem top` shows it, made up."""

from collections.abc import Sequence
from typing import Final

from qmpmem.feed import Round
from qmpmem.model.ksm import KsmState
from qmpmem.model.observation import GuestReading, HostReading, Lease, OperatorRequests, Snapshot
from qmpmem.model.round import Explanation, Plan, SetBalloon
from qmpmem.top.figures import Shown, shown
from qmpmem.top.header import Names, Where
from qmpmem.top.history import History
from qmpmem.top.view_state import Scene
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.readings import changed

WALL: Final = 1_790_517_802.0
"""14:03:22 of a day in 2026, in UTC."""


def size(gib: float) -> Bytes:
    """Return so many GiB, whole pages."""
    return Bytes(int(gib * GIB) // 4096 * 4096)


def guest(
    ident: str, maximum: float, actual: float, used: float | None, **more: object
) -> GuestReading:
    """Make a guest; sizes in GiB."""
    available = None if used is None else Bytes(size(actual) - size(used))
    fields: dict[str, object] = {
        "maximum": size(maximum),
        "actual": size(actual),
        "available": available,
        "free": None if available is None else Bytes(available // 3),
        "rss": size(actual),
        "age": 1.0,
        "every": 2.0,
        "up": 5000.0,
    }
    return changed(GuestReading(id=ident, state="running"), **(fields | more))


Kind = tuple[GuestReading, str, float | None, str]

GUESTS: Final[tuple[Kind, ...]] = (
    (guest("db1", 8, 6.1, 3.2), "normal", 6.0, "gives because the host is in SOFT"),
    (guest("db2", 8, 5.0, 2.9), "normal", None, "pinned"),
    (guest("web1", 2, 1.4, 1.4), "distress", 1.6, "swaps in 3.1 MiB/s; is given more"),
    (guest("build-07", 4, 3.4, 0.4), "normal", 3.3, "gives because the host is in SOFT"),
    (guest("win10", 4, 3.0, None, age=41.0, name="Windows 10"), "stale", None, "no report"),
    (guest("desk3", 4, 2.0, 1.0), "normal", None, "it has what it needs"),
    (guest("new1", 2, 2.0, None, age=None), "grace", None, "it has only just started"),
    (guest("gpu0", 16, 16, None, age=None, exempt="vfio"), "exempt", None, "vfio"),
    (guest("mail", 1, 0.75, 0.5, age=12.0), "normal", None, "it has what it needs"),
    (guest("stuck", 2, 2.0, 0.3), "uncooperative", 1.0, "its balloon does not move"),
    (guest("ci-1", 4, 1.0, 0.6), "normal", None, "it has what it needs"),
    (guest("ci-2", 4, 1.0, 0.9), "stalled", None, "its driver does not answer"),
)


def round_at(number: int, *, count: int | None = None, used: float = 0.0) -> Round:
    """Make a round at second `number`.

    Args:
        number: of the round.
        count: how many guests; None: one of each kind.
        used: GiB that the first guest uses more.
    """
    kinds: list[Kind] = list(GUESTS if count is None else GUESTS[:0])
    for each in range(count or 0):
        reading, verdict, target, reason = GUESTS[each % len(GUESTS)]
        fields = {"id": f"{reading.id}-{each:03}"}
        kinds.append((changed(reading, **fields), verdict, target, reason))
    if used:
        reading = kinds[0][0]
        available = reading.stats.available
        assert available is not None
        kinds[0] = (
            changed(reading, available=Bytes(available - size(used))),
            *kinds[0][1:],
        )
    told = number % 30 == 0
    return Round(
        source="agent",
        wall=WALL + number,
        number=number,
        snapshot=Snapshot(
            time=float(number),
            wall=WALL + number,
            host=HostReading(
                total=size(64),
                available=size(3.1 + number % 7 / 10),
                swap_total=size(8),
                swap_free=size(7.5),
                some=0.4,
                full=0.0,
            ),
            guests=tuple(reading for reading, *_ in kinds),
            ksm=KsmState(page_size=Bytes(4096), run=1, pages_sharing=300_000, pages_shared=9000),
            requests=OperatorRequests(
                pins={each.id: size(5.0) for each, *_ in kinds if each.id.startswith("db2")},
                leases=(
                    Lease(
                        id="1f",
                        owner="kvm",
                        size=Bytes(256 * MIB),
                        until=number + 21.0,
                        meant="new1",
                    ),
                ),
            ),
        ),
        plan=Plan(
            state="SOFT",
            reason="1.22 times the reserve is available",
            reserve=size(2.5),
            spare=size(0.4),
            debt=size(0.9),
            balloons=tuple(
                SetBalloon(guest=reading.id, target=size(target), reason=reason)
                for reading, _, target, reason in kinds
                if told and target is not None
            ),
            guests=tuple(
                Explanation(
                    guest=reading.id,
                    name=reading.name,
                    verdict=verdict,  # type: ignore[arg-type]
                    reason=reason,
                    bound="spare" if verdict == "distress" else "none",
                    actual=reading.actual,
                    working=reading.actual,
                    demand=reading.maximum,
                    entitlement=reading.maximum,
                    minimum=Bytes((reading.maximum or 0) * 35 // 100),
                    maximum=reading.maximum,
                    target=None if target is None or not told else size(target),
                )
                for reading, verdict, target, reason in kinds
            ),
        ),
    )


def scene(rounds: Sequence[Round], **more: object) -> Scene:
    """Make what is to be seen after some rounds."""
    history = History()
    for each in rounds:
        history.add(each)
    last = rounds[-1]
    drawn: Shown = shown(last, history, lambda guest, _: "database" if "db" in guest else "default")
    fields: dict[str, object] = {
        "history": history,
        "where": Where(now=last.wall + 0.5),
        "names": Names(host="vmhost3", agent="0.2.0"),
        "seen": last,
        "shown": drawn,
        "may_write": True,
    }
    return Scene(**(fields | more))  # type: ignore[arg-type]
