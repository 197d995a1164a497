"""Three ways to merge: quiet, balanced, eager. Pure.

Theory of operation:
    A preset sets how long one scan of all mergeable memory takes. A page is merged at the second
    scan, and one in a huge page at the third, so memory that was just filled is merged after two to
    three times that. The speed is computed once, from the memory that is mergeable now.

    The kernel's advisor (6.8) is switched off (mm/ksm.c: scan_time_advisor). It never aims at less
    than a tenth of a core, also when all that is equal has long been merged. And its first
    correction takes all CPU time that ksmd has used since boot for that of one scan
    (advisor_ctx.cpu_time begins at 0), so that it makes the second scan as slow as it can: as many
    pages a batch as advisor_max_cpu has percent. Measured on 6.18 with six guests of half a GiB,
    which ksmd at full speed merges within 15 s: with a target of 20 s, 90 % were merged after
    130 s; with one of 5 s, it looked at 70 pages a batch, and had merged a twentieth after 60 s.
"""

from collections.abc import Mapping
from typing import Final, Literal

from qmpmem.model.ksm import KsmState
from qmpmem.records import Record
from qmpmem.units import Bytes

Name = Literal["quiet", "balanced", "eager"]


class Preset(Record, frozen=True):
    """How hard to try."""

    name: Name
    scan_time: int
    """Seconds that one full scan shall take."""
    max_cpu: int
    """Percent of a core that ksmd may use for it."""
    sleep: int
    """Milliseconds between batches. The kernel rounds them up to its own ticks: with HZ=250 its
    default of 20 takes 24. Fewer and longer batches take up to a fifth less CPU time for a page."""


PRESETS: Final[Mapping[str, Preset]] = {
    preset.name: preset
    for preset in (
        # Three scans in five minutes; two wake-ups a second instead of the default's forty.
        Preset(name="quiet", scan_time=90, max_cpu=20, sleep=500),
        Preset(name="balanced", scan_time=40, max_cpu=40, sleep=100),
        # 90 % merged after 14 s. With twice the time it is 24 s, and what ksmd goes on to take when
        # all is merged falls to half.
        Preset(name="eager", scan_time=5, max_cpu=70, sleep=20),
    )
}

LEAST_PAGES_PER_SECOND: Final = 5000
"""Least pages a second: the kernel's defaults are 100 pages every 20 ms."""

PAGES_PER_CPU_SECOND: Final = 120_000
"""Pages that ksmd looks at in a second of CPU time while it merges, measured on Linux 6.18. Looking
alone is six times as fast; so a preset keeps below its share of a core in the worst case."""


def settings(preset: Preset, state: KsmState, mergeable: Bytes) -> dict[str, str]:
    """Return what to write for a preset on this kernel.

    Args:
        preset: the preset.
        state: what the kernel has.
        mergeable: how much memory will be scanned.
    """
    advisor = {} if state.advisor_mode is None else {"advisor_mode": "none"}
    pages = _pages(preset, mergeable // state.page_size)
    return {**advisor, "sleep_millisecs": str(preset.sleep), "pages_to_scan": str(pages)}


def _pages(preset: Preset, pages: int) -> int:
    batches = preset.scan_time * 1000 // preset.sleep
    least = LEAST_PAGES_PER_SECOND * preset.sleep // 1000
    return max(least, min(_affordable(preset), -(-pages // batches)))


def _affordable(preset: Preset) -> int:
    """Return the pages of a batch that takes the preset's share of the time between two sleeps."""
    busy = preset.sleep * preset.max_cpu / (100 - preset.max_cpu)
    return int(PAGES_PER_CPU_SECOND * busy / 1000)
