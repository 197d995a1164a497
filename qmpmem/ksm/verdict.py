"""Whether merging is worth its effort: two readings of the kernel's numbers become words. Pure.

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
"""Full scans before merging is judged. The first takes a page's checksum, the second finds it
unchanged and looks for its like, and the third finds what the second passed too early."""

WASTED: Final = 16
"""Most pages that are looked at in vain for each that is saved: to keep track of 64 costs as much
as one page."""

LITTLE: Final = Bytes(4 * MIB)
"""A saving that is smaller is not worth a thread."""

MUCH_VOLATILE: Final = 50
"""Percent of all pages looked at: where more change too fast, that is given as the reason."""

STEADY_LOOKS: Final = 3
STEADY_PERCENT: Final = 1
"""Percent: a saving that changes by no more over `STEADY_LOOKS` readings has settled."""

ITEM: Final = 64
"""Bytes that the kernel needs to keep track of a page (struct ksm_rmap_item)."""


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
    """Bytes that ksmd scanned a second."""
    cpu: float | None = None
    """Percent of a core that ksmd used."""


class Verdict(Record, frozen=True):
    """A judgement in a word, and the figures from which it follows."""

    word: Word
    why: str


def saved(state: KsmState) -> Bytes:
    """Return what merging saves: each page that shares would be one of its own (kernel: ibid.)."""
    return Bytes(((state.pages_sharing or 0) + (state.ksm_zero_pages or 0)) * state.page_size)


def profit(state: KsmState) -> Bytes:
    """Return what is saved, less the kernel's own memory for it: its own figure, else computed."""
    if state.general_profit is not None:
        return state.general_profit
    return Bytes(saved(state) - looked_at(state) * ITEM)


def looked_at(state: KsmState) -> int:
    """Return how many pages the kernel keeps track of."""
    pages = (state.pages_shared, state.pages_sharing, state.pages_unshared, state.pages_volatile)
    return sum(count or 0 for count in pages)


def ratio(part: int | None, whole: int | None) -> float | None:
    """Return the ratio of two counts; None where it is not known, or means nothing."""
    return None if part is None or not whole else part / whole


def rates(first: Sample, last: Sample) -> Rates:
    """Return what happened between two samples. A counter that went backwards has no rate."""
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
    """Return whether merging is worth its effort.

    Args:
        state: what the kernel tells now.
        scans_before: full scans when merging was switched on, as far as that is known.
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
"""Verdicts while nothing is scanned: nothing more will be saved."""


def has_settled(saved_so_far: Sequence[Bytes], found: Verdict) -> bool:
    """Tell whether the saving no longer grows.

    Args:
        saved_so_far: one figure for each reading, the last one last.
        found: the verdict of the last reading.
    """
    if found.word in RESTING:
        return True
    last = saved_so_far[-STEADY_LOOKS:]
    if found.word == "still scanning" or len(last) < STEADY_LOOKS:
        return False
    return max(last) - min(last) <= max(MIB, max(last) * STEADY_PERCENT // 100)


def _resting(state: KsmState, gained: Bytes) -> Verdict:
    if state.run == 0:
        # Pages are counted when scanned: those of guests that ended or wrote since are still in it.
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
