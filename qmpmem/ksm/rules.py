"""Which values KSM's files take, and in which order they can be written. Pure.

Theory of operation:
    The kernel refuses some values by themselves and some in its present state, one file at a time
    (mm/ksm.c, *_store). Here all of a change is judged before any of it is written. One thing is
    not refused but surprising: when the advisor is switched on or off, the kernel sets
    pages_to_scan itself (set_advisor_defaults). So that is written afterwards, and never read back
    while the advisor is on.

Rules of this file:
    Values are text, as in the files: text is written, compared and remembered.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from qmpmem.errors import ConfigError
from qmpmem.model.ksm import KsmState
from qmpmem.records import Record

_UINT: Final = (1 << 32) - 1
_INT: Final = (1 << 31) - 1
_ULONG: Final = (1 << 64) - 1

MODE: Final = "advisor_mode"
MODES: Final = ("none", "scan-time")
PAGES: Final = "pages_to_scan"
DEFAULT_PAGES: Final = "100"
"""The value of pages_to_scan after the advisor was switched off (mm/ksm.c:
set_advisor_defaults)."""
RUN: Final = "run"
UNMERGE: Final = "2"
UNMERGED_ONLY: Final = ("merge_across_nodes", "max_page_sharing")
"""Files that cannot be written while pages are merged (EBUSY)."""

RANGES: Final[Mapping[str, tuple[int, int]]] = {
    PAGES: (1, _UINT),
    "sleep_millisecs": (0, _UINT),
    "merge_across_nodes": (0, 1),
    "max_page_sharing": (2, _INT),
    "stable_node_chains_prune_millisecs": (0, _UINT),
    "use_zero_pages": (0, 1),
    "smart_scan": (0, 1),
    "advisor_max_cpu": (1, 100),
    "advisor_min_pages_to_scan": (1, _UINT),
    "advisor_max_pages_to_scan": (1, _UINT),
    "advisor_target_scan_time": (1, _UINT),
}
"""The range that each file takes. The kernel checks less in places: it takes a CPU share of 900
%."""

SHOWN: Final[Mapping[str, tuple[int, int]]] = {
    **dict.fromkeys(RANGES, (0, _UINT)),
    RUN: (0, 2),
    "merge_across_nodes": (0, 1),
    "max_page_sharing": (2, _INT),
    "use_zero_pages": (0, 1),
    "smart_scan": (0, 1),
    "advisor_min_pages_to_scan": (0, _ULONG),
    "advisor_max_pages_to_scan": (0, _ULONG),
    "advisor_target_scan_time": (1, _ULONG),
}
"""What each file may show, whatever was written to it: what its variable holds (mm/ksm.c, *_store
and *_show)."""
_MODE: Final = re.compile(r"[a-z0-9_-]{1,40}")
"""A mode of any kernel: later ones may have more than `MODES`."""

KNOBS: Final = (MODE, *RANGES)
"""All files that can be tuned."""


class Write(Record, frozen=True):
    """One file to be written."""

    name: str
    before: str
    after: str


def parse(words: Iterable[str]) -> dict[str, str]:
    """Read ``KEY=VALUE`` words.

    Raises:
        ConfigError: some are not that, or name no such file; one message has all mistakes.
    """
    pairs = [(word, *word.partition("=")[::2]) for word in words]
    mistakes = [problem for word, name, value in pairs if (problem := _misspelt(word, name, value))]
    names = [name for _, name, _ in pairs]
    mistakes += [f"{name}: given twice" for name in sorted(set(names)) if names.count(name) > 1]
    if mistakes:
        raise ConfigError("; ".join(mistakes), hint=f"there are {', '.join(KNOBS)}")
    return {name: _plain(value) for _, name, value in pairs}


def current(state: KsmState) -> dict[str, str]:
    """Return as text what is in the files that can be written; missing files are left out.

    Under the advisor the kernel sets pages_to_scan, and changes it with every scan.
    """
    values = {name: getattr(state, name) for name in (MODE, *RANGES)}
    if state.advisor_mode not in (None, "none"):
        del values[PAGES]
    return {RUN: str(state.run)} | {
        name: str(value) for name, value in values.items() if value is not None
    }


def is_possible(name: str, value: str) -> bool:
    """Tell whether a kernel could have shown this in one of these files."""
    if name == MODE:
        return _MODE.fullmatch(value) is not None
    return _is_within(value, *SHOWN[name])


def under_advisor(values: Mapping[str, str]) -> bool:
    """Tell whether the kernel chooses pages_to_scan itself."""
    return values.get(MODE, MODES[0]) != MODES[0]


def check(wanted: Mapping[str, str], state: KsmState) -> None:
    """Check a change as a whole, in the kernel's present state.

    Raises:
        ConfigError: the kernel would refuse some of it; one message has all mistakes.
    """
    mistakes = list(_mistakes(wanted, state))
    if mistakes:
        raise ConfigError("; ".join(mistakes), hint="nothing was changed")


def check_return(wanted: Mapping[str, str], state: KsmState) -> None:
    """Check a return. The kernel takes again what was there, even a value that we would not set.

    Raises:
        ConfigError: some of it cannot be written while pages are merged.
    """
    mistakes = list(_busy(wanted, state))
    if mistakes:
        raise ConfigError("; ".join(mistakes), hint="nothing was changed")


def plan(wanted: Mapping[str, str], state: KsmState) -> tuple[Write, ...]:
    """Return what to write, in an order that the kernel takes, without what is so already."""
    now = current(state)
    return tuple(
        Write(name=name, before=now.get(name, wanted[name]), after=wanted[name])
        for name in _order(wanted)
        if now.get(name) != wanted[name]
    )


def _order(wanted: Mapping[str, str]) -> list[str]:
    """Return the order: the advisor goes off before pages_to_scan, and on after its own numbers."""
    off = wanted.get(MODE) == "none"
    first = [MODE] if off else []
    last = [] if off else [MODE]
    between = [name for name in RANGES if name != PAGES]
    return [name for name in (*first, PAGES, *between, *last, RUN) if name in wanted]


def _misspelt(word: str, name: str, value: str) -> str | None:
    if name == RUN:
        return f"{word!r}: use `qmpmem ksm on`, `off` or `unmerge`"
    if name not in KNOBS:
        return f"{word[:60]!r}: expected KEY=VALUE with a key of KSM"
    return None if value else f"{name}: no value given"


def _mistakes(wanted: Mapping[str, str], state: KsmState) -> Iterator[str]:
    for name, value in wanted.items():
        if getattr(state, name) is None:
            yield f"{name}: this kernel does not have it"
        elif problem := _out_of_range(name, value):
            yield problem
    yield from _busy(wanted, state)
    if PAGES in wanted and wanted.get(MODE, state.advisor_mode) not in (None, "none"):
        yield f"{PAGES}: the advisor chooses it; set {MODE}=none as well, or advisor_ values"
    yield from _crossed(wanted, state)


def _out_of_range(name: str, value: str) -> str | None:
    if name == MODE:
        return None if value in MODES else f"{name}={value!r}: expected {' or '.join(MODES)}"
    lowest, highest = (0, 2) if name == RUN else RANGES[name]
    if _is_within(value, lowest, highest):
        return None
    return f"{name}={value[:40]!r}: expected {lowest} to {highest}"


def _is_within(value: str, lowest: int, highest: int) -> bool:
    is_number = value.isascii() and value.isdigit() and len(value) <= len(str(highest))
    # It must be as the kernel prints it: else it would read back as something else.
    return is_number and lowest <= int(value) <= highest and value == _plain(value)


def _busy(wanted: Mapping[str, str], state: KsmState) -> Iterator[str]:
    for name in UNMERGED_ONLY:
        now = getattr(state, name)
        if state.pages_shared and now is not None and wanted.get(name, str(now)) != str(now):
            yield f"{name}: cannot change while pages are merged; `qmpmem ksm unmerge` first"


def _plain(value: str) -> str:
    """Return a number as the kernel prints it, without zeros before it."""
    is_number = value.isascii() and value.isdigit()
    return (value.lstrip("0") or "0") if is_number else value


def _crossed(wanted: Mapping[str, str], state: KsmState) -> Iterator[str]:
    low, high = "advisor_min_pages_to_scan", "advisor_max_pages_to_scan"
    if not {low, high} & wanted.keys():
        return
    bounds = [wanted.get(name, str(getattr(state, name))) for name in (low, high)]
    if all(bound.isascii() and bound.isdigit() for bound in bounds) and int(bounds[0]) > int(
        bounds[1]
    ):
        yield f"{low}={bounds[0]}: more than {high}={bounds[1]}"
