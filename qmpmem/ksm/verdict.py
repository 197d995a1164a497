"""Is merging worth its effort? Two looks at the kernel's numbers become words. Pure.

Sources: kernel, admin-guide/mm/ksm: "a high ratio of pages_sharing to pages_shared indicates good
sharing, but a high ratio of pages_unshared to pages_sharing indicates wasted effort"; volatile
pages "embrace several different kinds of activity, but a high proportion there would also indicate
poor use of madvise MADV_MERGEABLE".
"""

from collections.abc import Sequence
from typing import Final, Literal

from qmpmem.model.ksm import KsmState
from qmpmem.records import Record
from qmpmem.units import MIB, Bytes, format_size

Word = Literal[
    "off", "unmerged", "still scanning", "nothing to merge", "good sharing", "wasted effort"
]

SETTLED: Final = 3
"""Scans. The first takes a page's checksum, the second finds it unchanged and looks for its like,
the third finds what the second passed too early."""

WASTED: Final = 16
"""Pages looked at in vain, for each that is saved. Keeping account of 64 costs as much as one."""

LITTLE: Final = Bytes(4 * MIB)
"""Not worth a thread."""

MUCH_VOLATILE: Final = 50
"""Percent of all pages looked at."""

STEADY_LOOKS: Final = 3
STEADY_PERCENT: Final = 1
"""A saving that changes by less over some looks has settled."""

ITEM: Final = 64
"""Bytes that the kernel spends on each page under account (struct ksm_rmap_item)."""


class Sample(Record, frozen=True):
    """KSM at one moment."""

    time: float
    """Seconds of any steady clock."""
    state: KsmState
    cpu: float | None = None
    """Seconds that ksmd ran since boot."""


class Rates(Record, frozen=True):
    """What happened between two samples; None where that is not known."""

    scanned: Bytes | None = None
    """A second."""
    cpu: float | None = None
    """Percent of a core."""


class Verdict(Record, frozen=True):
    """What it comes to, and the figures that led there."""

    word: Word
    why: str


def saved(state: KsmState) -> Bytes:
    """Say what merging saves: each page that shares would be one of its own (kernel: ibid.)."""
    return Bytes(((state.pages_sharing or 0) + (state.ksm_zero_pages or 0)) * state.page_size)


def profit(state: KsmState) -> Bytes:
    """Say what is saved less what it costs to keep account: the kernel's figure, else computed."""
    if state.general_profit is not None:
        return state.general_profit
    return Bytes(saved(state) - looked_at(state) * ITEM)


def looked_at(state: KsmState) -> int:
    """Count the pages that are under account."""
    pages = (state.pages_shared, state.pages_sharing, state.pages_unshared, state.pages_volatile)
    return sum(count or 0 for count in pages)


def ratio(part: int | None, whole: int | None) -> float | None:
    """Divide two counts; None where that says nothing."""
    return None if part is None or not whole else part / whole


def rates(first: Sample, last: Sample) -> Rates:
    """Compare two samples. A counter that went backwards gives no rate."""
    seconds = last.time - first.time
    if seconds <= 0:
        return Rates()
    pages = _growth(first.state.pages_scanned, last.state.pages_scanned)
    cpu = _growth(first.cpu, last.cpu)
    return Rates(
        scanned=None if pages is None else Bytes(int(pages * last.state.page_size / seconds)),
        cpu=None if cpu is None else cpu / seconds * 100,
    )


def judge(state: KsmState, scans_before: int = 0) -> Verdict:
    """Say whether merging is worth its effort.

    Args:
        state: what the kernel says now.
        scans_before: full scans when merging was switched on, as far as is known.
    """
    scans = (state.full_scans or 0) - scans_before
    if scans < 0:
        scans = state.full_scans or 0
    gained, looked = saved(state), looked_at(state)
    if state.run != 1:
        return _resting(state, gained)
    if scans < SETTLED:
        return Verdict(
            word="still scanning",
            why=f"{scans} of {SETTLED} full scans done, {format_size(gained)} saved so far",
        )
    if not looked and not gained:
        return Verdict(
            word="nothing to merge",
            why=f"{scans} full scans, and no process offers memory (madvise MADV_MERGEABLE)",
        )
    return _weigh(state, gained, looked)


RESTING: Final[frozenset[Word]] = frozenset({"off", "unmerged"})
"""Nothing is scanned, so nothing will be saved that is not already."""


def has_settled(saved_so_far: Sequence[Bytes], found: Verdict) -> bool:
    """Tell whether the saving no longer grows.

    Args:
        saved_so_far: one figure for each look, the last one last.
        found: what the last look came to.
    """
    if found.word in RESTING:
        return True
    last = saved_so_far[-STEADY_LOOKS:]
    if found.word == "still scanning" or len(last) < STEADY_LOOKS:
        return False
    return max(last) - min(last) <= max(MIB, max(last) * STEADY_PERCENT // 100)


def _resting(state: KsmState, gained: Bytes) -> Verdict:
    if state.run == 0:
        # Counted when scanned: guests that ended or wrote since are still in it.
        kept = (
            f"{format_size(gained)} were merged when it last did"
            if gained
            else "no pages are merged"
        )
        return Verdict(word="off", why=f"not scanning; {kept}")
    return Verdict(word="unmerged", why="everything was unmerged, and nothing is scanned")


def _weigh(state: KsmState, gained: Bytes, looked: int) -> Verdict:
    vain = (state.pages_unshared or 0) + (state.pages_volatile or 0)
    figures = (
        f"{format_size(gained)} saved, {format_size(profit(state))} after costs; "
        f"{vain} of {looked} pages are looked at in vain"
    )
    volatile = 100 * (state.pages_volatile or 0) > MUCH_VOLATILE * looked
    sharing = (state.pages_sharing or 0) + (state.ksm_zero_pages or 0)
    if profit(state) <= 0 or gained < LITTLE or vain > WASTED * sharing:
        reason = ", and most of them change too fast" if volatile else ""
        return Verdict(word="wasted effort", why=figures + reason)
    return Verdict(word="good sharing", why=figures)


def _growth(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None or after < before else after - before
