"""A kernel that merges: the rules of mm/ksm.c as a state machine over a tree of files.

Rules of this file:
    Each file takes exactly what its *_store function takes, and refuses with the same error. What
    is stricter in qmpmem is not known here. Nothing of `qmpmem.ksm` is used.
"""

import errno
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from qmpmem.wire.kernel import ksm

OLD: Final[Mapping[str, str]] = {
    "run": "0",
    "pages_to_scan": "100",
    "sleep_millisecs": "20",
    "merge_across_nodes": "1",
    "max_page_sharing": "256",
    "stable_node_chains_prune_millisecs": "2000",
    "use_zero_pages": "0",
    "pages_shared": "0",
    "pages_sharing": "0",
    "pages_unshared": "0",
    "pages_volatile": "0",
    "full_scans": "0",
    "stable_node_chains": "0",
    "stable_node_dups": "0",
}
"""As 6.1 starts."""

NEW: Final[Mapping[str, str]] = {
    **OLD,
    "smart_scan": "1",
    "advisor_mode": "none",
    "advisor_max_cpu": "70",
    "advisor_min_pages_to_scan": "500",
    "advisor_max_pages_to_scan": "30000",
    "advisor_target_scan_time": "200",
    "pages_skipped": "0",
    "pages_scanned": "0",
    "ksm_zero_pages": "0",
    "general_profit": "0",
}
"""As 6.8 and later start."""

KNOBS: Final = (
    *("run", "pages_to_scan", "sleep_millisecs", "merge_across_nodes", "max_page_sharing"),
    *("stable_node_chains_prune_millisecs", "use_zero_pages", "smart_scan", "advisor_mode"),
    *("advisor_max_cpu", "advisor_min_pages_to_scan", "advisor_max_pages_to_scan"),
    "advisor_target_scan_time",
)

Trip = Callable[[int, str, str], None]
"""Called before each write with its number, from 1; may raise, or change the kernel."""


def store(name: str, value: str, root: Path = Path("/")) -> None:
    """Write a file of KSM as `ksm.write` does, whole or not at all, as sysfs takes a value.

    An ordinary file that was opened with O_TRUNC is empty until it is written. A process that is
    killed in between would leave what no kernel shows.

    Raises:
        KernelError: there is no such file, and none is created.
    """
    path = root / ksm.DIRECTORY / name
    beside = path.with_name(f".{name}")
    try:
        path.stat()
        beside.write_text(value)
        beside.replace(path)
    except OSError as error:
        raise ksm.refused(name, value, error) from error


class Kernel:
    """The files of KSM under a root.

    Args:
        root: a directory of the test's own; None: only what is written matters, and no file.
        values: what the files hold at first, over those of a new kernel.
        kind: the files of a kernel.
    """

    def __init__(
        self,
        root: Path | None,
        values: Mapping[str, str] | None = None,
        kind: Mapping[str, str] = NEW,
    ) -> None:
        self.root = root
        self.values = {**kind, **(values or {})}
        self.trip: Trip | None = None
        self.written: list[tuple[str, str]] = []
        if root is not None:
            (root / ksm.DIRECTORY).mkdir(parents=True, exist_ok=True)
        for name in self.values:
            self._show(name)

    def write(self, name: str, value: str) -> None:
        """Write as the program does.

        Raises:
            KernelError: as the wire would say it.
        """
        self.written.append((name, value))
        try:
            if self.trip is not None:
                self.trip(len(self.written), name, value)
            self.store(name, value)
        except OSError as error:
            raise ksm.refused(name, value, error) from error

    def store(self, name: str, value: str) -> None:
        """Do what the kernel does when any process writes.

        Raises:
            OSError: what write(2) fails with.
        """
        if name not in self.values:
            raise OSError(errno.ENOENT, "No such file or directory")
        now = dict(self.values)
        if name == "advisor_mode":
            _switch(now, value.removesuffix("\n"))
        elif name == "pages_to_scan" and now.get("advisor_mode", "none") != "none":
            raise _invalid()
        else:
            now[name] = _TAKES[name](value)
        if name in _UNMERGED and now[name] != self.values[name] and now["pages_shared"] != "0":
            raise OSError(errno.EBUSY, "Device or resource busy")
        if name == "run" and now[name] == "2":
            now |= {"pages_shared": "0", "pages_sharing": "0"}
        self.put(now)

    def put(self, values: Mapping[str, str]) -> None:
        """Change what is there by itself, as merging does."""
        changed = [name for name, value in values.items() if self.values.get(name) != value]
        self.values.update(values)
        for name in changed:
            self._show(name)

    def knobs(self) -> dict[str, str]:
        """Say what is in the files that can be written; under the advisor one is the kernel's."""
        names = set(KNOBS) & self.values.keys()
        if self.values.get("advisor_mode", "none") != "none":
            names.discard("pages_to_scan")
        return {name: self.values[name] for name in sorted(names)}

    def _show(self, name: str) -> None:
        if self.root is None:
            return
        text = self.values[name]
        if name == "advisor_mode":
            text = " ".join(f"[{mode}]" if mode == text else mode for mode in ("none", "scan-time"))
        (self.root / ksm.DIRECTORY / name).write_text(f"{text}\n")


def _switch(now: dict[str, str], mode: str) -> None:
    """advisor_mode_store, set_advisor_defaults."""
    if mode not in ("none", "scan-time"):
        raise _invalid()
    if mode != now["advisor_mode"]:
        now["advisor_mode"] = mode
        now["pages_to_scan"] = "100" if mode == "none" else now["advisor_min_pages_to_scan"]


def _number(highest: int, lowest: int = 0) -> Callable[[str], str]:
    """Kstrtouint and its like, base 10."""

    def read(text: str) -> str:
        if not re.fullmatch(r"\+?[0-9]+\n?", text, re.ASCII) or not lowest <= int(text) <= highest:
            raise _invalid()
        return str(int(text))

    return read


def _truth(text: str) -> str:
    """Kstrtobool: the first letter, or the first two."""
    if re.match("[yYtT1]|[oO][nN]", text):
        return "1"
    if re.match("[nNfF0]|[oO][fF]", text):
        return "0"
    raise _invalid()


def _invalid() -> OSError:
    return OSError(errno.EINVAL, "Invalid argument")


_UINT: Final = (1 << 32) - 1
_INT: Final = (1 << 31) - 1
_ULONG: Final = (1 << 64) - 1
_UNMERGED: Final = ("merge_across_nodes", "max_page_sharing")
_TAKES: Final[Mapping[str, Callable[[str], str]]] = {
    "run": _number(2),
    "pages_to_scan": _number(_UINT),
    "sleep_millisecs": _number(_UINT),
    "merge_across_nodes": _number(1),
    "max_page_sharing": _number(_INT, lowest=2),
    "stable_node_chains_prune_millisecs": _number(_UINT),
    "use_zero_pages": _truth,
    "smart_scan": _truth,
    "advisor_max_cpu": _number(_ULONG),
    "advisor_min_pages_to_scan": _number(_ULONG),
    "advisor_max_pages_to_scan": _number(_ULONG),
    "advisor_target_scan_time": _number(_ULONG, lowest=1),
}
