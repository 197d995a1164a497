"""The plot in README.md, made again: ``.venv/bin/python -m tests.rig.picture``.

Made up, so that no change of the policy changes it: a guest that fills its cache, gives memory when
the host is short, and gets it back when it uses more; for some minutes no agent runs.
"""

import math
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from qmpmem.journal.points import Counts, GuestPoint, HostPoint, Moment, Series
from qmpmem.model.round import STATES
from qmpmem.units import GIB, MIB, Bytes
from qmpmem.view.plots import plot

if TYPE_CHECKING:
    from qmpmem.model.round import HostState

PATH: Final = Path(__file__).parents[1] / "data" / "plot.svg"
START: Final = 1_800_007_200.0
"""Seconds since 1970: ten o'clock."""
STEP: Final = 60
MINUTES: Final = 120
MAXIMUM: Final = Bytes(4 * GIB)
DOWN: Final = range(41, 47)
"""Minutes in which no agent runs."""
SILENT: Final = range(92, 96)
"""Minutes in which the guest does not report."""
GIVES: Final = {18: 3200, 20: 2900, 22: 2600, 25: 2300}
"""What it is told, in MiB, by minute."""
SUFFERS: Final = range(64, 68)
"""Minutes in which it has too little."""
TAKES: Final = {66: 2700, 68: 3200, 70: 3700}


def series() -> Series:
    """Return two hours of that guest."""
    known = [minute for minute in range(MINUTES) if minute not in DOWN]
    return Series(
        begin=START,
        end=START + STEP * MINUTES,
        step=float(STEP),
        guest="db1",
        name="db1",
        host=tuple(_host(minute) for minute in known),
        points=tuple(_moment(minute) for minute in known),
    )


def draw() -> str:
    """Draw it."""
    return plot(series(), zone=UTC)


def main() -> None:
    """Write it."""
    PATH.write_text(draw())


def _host(minute: int) -> HostPoint:
    state: HostState = (
        "BALANCED"
        if minute < 17
        else "SOFT"
        if minute < 26
        else "BALANCED"
        if minute < 60
        else "SLACK"
    )
    return HostPoint(
        begin=START + STEP * minute,
        rounds=60,
        states=cast("Counts", tuple(60 * (each == state) for each in STATES)),
    )


def _moment(minute: int) -> Moment:
    told = {**GIVES, **TAKES}
    before = [size for at, size in told.items() if at < minute]
    now = told.get(minute)
    actual = (before[-1] if before else 3600) * MIB
    has = min(actual, MAXIMUM)
    used = int((1100 + 250 * math.sin(minute / 14) + max(0, minute - 60) * 22) * MIB)
    used = min(used, has - 120 * MIB)
    cache = min(has - used - 80 * MIB, int((500 + 9 * minute) * MIB))
    is_known = minute not in SILENT
    return Moment(
        begin=START + STEP * minute,
        point=GuestPoint(
            guest="db1",
            name="db1",
            rounds=60,
            maximum=MAXIMUM,
            sized=60,
            actual=Bytes(has),
            lowest=Bytes(has),
            highest=Bytes(has),
            reported=60 if is_known else 0,
            used=Bytes(used) if is_known else None,
            peak=Bytes(used) if is_known else None,
            cache=Bytes(cache) if is_known else None,
            free=Bytes(has - used - cache) if is_known else None,
            target=None if now is None else Bytes(now * MIB),
            less=int(minute in GIVES),
            more=int(minute in TAKES),
            distress=int(minute in SUFFERS),
        ),
    )


if __name__ == "__main__":
    main()
