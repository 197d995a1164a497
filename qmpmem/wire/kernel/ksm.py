"""Kernel samepage merging: its files, its thread, and what each process has merged.

Rules of this file:
    `qmpmem.ksm.rules` decides whether a change makes sense. Here it is carried out, one file at a
    time, and a refusal is explained.
"""

import errno
import os
from pathlib import Path
from typing import Final

from qmpmem.errors import KernelError
from qmpmem.model.host import ProcessCost
from qmpmem.model.ksm import KsmProcess, KsmState
from qmpmem.records import replace
from qmpmem.units import KIB, Bytes
from qmpmem.wire.kernel.files import is_count, pairs, read
from qmpmem.wire.kernel.host import ROOT, page_size
from qmpmem.wire.kernel.processes import pids

DIRECTORY: Final = "sys/kernel/mm/ksm"
SIGNED: Final = "general_profit"
MODE: Final = "advisor_mode"

FILES: Final = tuple(
    name for name in KsmState.__struct_fields__ if name not in ("page_size", "run", MODE)
)

_KTHREAD: Final = 0x00200000
"""Flag of a kernel thread in /proc/PID/stat (include/linux/sched.h: PF_KTHREAD). The name ksmd
alone would prove nothing: any process may call itself that."""
_SHOWN: Final = 40


def parse_number(name: str, content: str) -> int:
    """Read a file that holds one number.

    Raises:
        KernelError: it holds something else.
    """
    word = content.strip()
    digits = word.removeprefix("-") if name == SIGNED else word
    if not is_count(digits):
        raise _odd(name, "a number", word)
    return int(word)


def parse_mode(content: str) -> str:
    """Return the mode in force by advisor_mode, which lists all modes, that one in brackets.

    Raises:
        KernelError: none is in brackets.
    """
    chosen = [word[1:-1] for word in content.split() if word[0] == "[" and word[-1] == "]"]
    if len(chosen) != 1 or not chosen[0].isascii():
        raise _odd(MODE, "one mode in brackets", content.strip())
    return chosen[0]


def parse_process(content: str) -> KsmProcess:
    """Read /proc/PID/ksm_stat: ``name 123``, ``name yes``."""
    found = pairs(content)
    words = {each[0]: each[1] for line in content.splitlines() if len(each := line.split()) > 1}
    profit = words.get("ksm_process_profit", "")
    mergeable = words.get("ksm_mergeable:", "")
    return KsmProcess(
        merging_pages=found.get("ksm_merging_pages"),
        rmap_items=found.get("ksm_rmap_items"),
        zero_pages=found.get("ksm_zero_pages"),
        profit=Bytes(int(profit)) if is_count(profit.removeprefix("-")) else None,
        mergeable={"yes": True, "no": False}.get(mergeable),
    )


def parse_cost(content: str) -> ProcessCost:
    """Read /proc/PID/smaps_rollup: ``Pss:  123 kB`` (proc(5))."""
    found: dict[str, Bytes] = {}
    for line in content.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words[1:] == ["kB"] and is_count(words[0]):
            found[name] = Bytes(int(words[0]) * KIB)
    huge = [found[name] for name in ("Private_Hugetlb", "Shared_Hugetlb") if name in found]
    return ProcessCost(
        rss=found.get("Rss"),
        proportional=found.get("Pss"),
        ksm=found.get("KSM"),
        hugetlb=Bytes(sum(huge)) if huge else None,
    )


def parse_cpu_ticks(content: str) -> int | None:
    """Return how long a kernel thread ran, by /proc/PID/stat; None: it is no kernel thread."""
    fields = content.rpartition(")")[2].split()
    if len(fields) < 13 or not all(map(is_count, (fields[6], *fields[11:13]))):  # noqa: PLR2004
        return None
    return int(fields[11]) + int(fields[12]) if int(fields[6]) & _KTHREAD else None


def state(root: Path = ROOT) -> KsmState | None:
    """Read all files of KSM; None where this kernel cannot merge (no CONFIG_KSM).

    Raises:
        KernelError: a file holds what no kernel writes.
    """
    directory = root / DIRECTORY
    run = read(directory / "run")
    if run is None:
        _expect_missing(directory / "run")
        return None
    number = parse_number("run", run)
    if number > 2:  # noqa: PLR2004
        raise _odd("run", "0, 1 or 2", run.strip())
    found = {name: content for name in FILES if (content := read(directory / name)) is not None}
    mode = read(directory / MODE)
    numbers = {name: parse_number(name, content) for name, content in found.items()}
    seen = KsmState(
        page_size=page_size(), run=number, advisor_mode=None if mode is None else parse_mode(mode)
    )
    return replace(seen, **numbers)


def write(name: str, value: str, root: Path = ROOT) -> None:
    """Write one file of KSM.

    Raises:
        KernelError: the kernel refuses the value, or this user may not write.
    """
    try:
        # One write(2), and nothing is created: a value in two parts would be two values.
        descriptor = os.open(root / DIRECTORY / name, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise refused(name, value, error) from error


def refused(name: str, value: str, error: OSError) -> KernelError:
    """Return the error that tells why the kernel refused a value (kernel: mm/ksm.c, *_store)."""
    path = f"/{DIRECTORY}/{name}"
    return KernelError(
        f"{path}: writing {value} failed: {error.strerror}", hint=_HINTS.get(error.errno or 0)
    )


def ksmd(root: Path = ROOT) -> int | None:
    """Find the pid of the thread that merges."""
    proc = root / "proc"
    for pid in pids(proc):  # it is among the first, because it starts with the kernel
        content = read(proc / str(pid) / "stat")
        if content and "(ksmd)" in content and parse_cpu_ticks(content) is not None:
            return pid
    return None


def cpu_time(pid: int, root: Path = ROOT) -> float | None:
    """Return the seconds that ksmd ran since boot; None: it is not known."""
    ticks = parse_cpu_ticks(read(root / "proc" / str(pid) / "stat") or "")
    return None if ticks is None else ticks / os.sysconf("SC_CLK_TCK")


def process(pid: int, root: Path = ROOT) -> KsmProcess:
    """Return what a process has merged; what only root may see is None for other users.

    The file ksm_merging_pages is older than ksm_stat, in which later kernels repeat the number.
    """
    directory = root / "proc" / str(pid)
    found = parse_process(read(directory / "ksm_stat") or "")
    if found.merging_pages is not None:
        return found
    pages = (read(directory / "ksm_merging_pages") or "").strip()
    return replace(found, merging_pages=int(pages)) if is_count(pages) else found


def cost(pid: int, root: Path = ROOT) -> ProcessCost:
    """Return what a process costs the host, with and without what it shares.

    This takes milliseconds for a large guest, and waits while its address space is locked.
    """
    return parse_cost(read(root / "proc" / str(pid) / "smaps_rollup") or "")


_GROUP_HINT: Final = (
    "run as root, or give the group the files: "
    f"chgrp qmpmem /{DIRECTORY}/* && chmod g+w /{DIRECTORY}/*"
)
_HINTS: Final = {
    errno.EACCES: _GROUP_HINT,
    errno.EPERM: _GROUP_HINT,
    errno.EROFS: "/sys is mounted read-only here, as in a container: do it on the host",
    errno.ENOENT: "this kernel does not have it, or no longer",
    errno.EINVAL: "the kernel does not take this value in its present state",
    errno.EBUSY: "pages are merged: `qmpmem ksm unmerge` first",
}


def _expect_missing(path: Path) -> None:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise KernelError(f"{path}: {error.strerror}", hint="run as root") from error
    raise KernelError(f"{path}: cannot be read", hint="run as root")


def _odd(name: str, expected: str, found: str) -> KernelError:
    return KernelError(f"/{DIRECTORY}/{name}: expected {expected}, got {found[:_SHOWN]!r}")
