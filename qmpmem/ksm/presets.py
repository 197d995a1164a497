"""Three ways to merge: quiet, balanced, eager. Pure.

Theory of operation:
    What a preset means is how long one look at all mergeable memory takes; a page is merged at the
    second look at the earliest, so memory that was just filled is merged after two to three times
    that. With an advisor the kernel finds the speed by itself; without one the speed is computed
    once, from the memory that is mergeable now.
"""

from collections.abc import Mapping
from typing import Final, Literal

from qmpmem.records import Record
from qmpmem.snapshot import KsmState
from qmpmem.units import Bytes

Name = Literal["quiet", "balanced", "eager"]


class Preset(Record, frozen=True):
    """How hard to try."""

    name: Name
    scan_time: int
    """Seconds that one scan of everything shall take."""
    max_cpu: int
    """Percent of a core that ksmd may use for it."""


PRESETS: Final[Mapping[str, Preset]] = {
    preset.name: preset
    for preset in (
        Preset(name="quiet", scan_time=200, max_cpu=20),
        Preset(name="balanced", scan_time=60, max_cpu=40),
        Preset(name="eager", scan_time=20, max_cpu=70),
    )
}
"""200 s is the kernel's own default of advisor_target_scan_time."""

SLEEP: Final = 20
"""Milliseconds between batches: the kernel's default of sleep_millisecs."""

LEAST_PAGES: Final = 100
"""The kernel's default of pages_to_scan."""

PAGES_PER_CPU_SECOND: Final = 400_000
"""How many pages ksmd looks at in a second of CPU time; keeps a preset below its share of a core
where there is no advisor to measure it."""


def settings(preset: Preset, state: KsmState, mergeable: Bytes) -> dict[str, str]:
    """Say what to write for a preset on this kernel.

    Args:
        preset: which.
        state: what the kernel has.
        mergeable: how much memory will be scanned; only needed where there is no advisor.
    """
    if state.advisor_mode is not None:
        return {
            "sleep_millisecs": str(SLEEP),
            "advisor_target_scan_time": str(preset.scan_time),
            "advisor_max_cpu": str(preset.max_cpu),
            "advisor_mode": "scan-time",
        }
    return {
        "sleep_millisecs": str(SLEEP),
        "pages_to_scan": str(_pages(preset, mergeable // state.page_size)),
    }


def _pages(preset: Preset, pages: int) -> int:
    batches = preset.scan_time * 1000 // SLEEP
    affordable = PAGES_PER_CPU_SECOND * preset.max_cpu // 100 * SLEEP // 1000
    return max(LEAST_PAGES, min(affordable, -(-pages // batches)))
