"""What the kernel brings: KVM, KSM, pressure stall information."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qmpmem.doctor.finding import Finding, Host, ok, warning
from qmpmem.units import format_size
from qmpmem.wire import kvm
from qmpmem.wire.kernel import process_limits

_KSM: Final = "sys/kernel/mm/ksm/run"
"""0: stopped, 1: running, 2: stopped and unmerging (kernel: admin-guide/mm/ksm)."""
_PRESSURE: Final = "proc/pressure/memory"


def check_kvm(host: Host) -> Iterator[Finding]:
    """Tell whether guests can run under KVM."""
    found = kvm.usable(host.root, host.machine)
    if found.usable:
        yield ok("KVM", found.reason)
    else:
        yield warning("KVM", f"not usable, guests run emulated: {found.reason}", found.hint)


def check_ksm(host: Host) -> Iterator[Finding]:
    """Tell whether equal pages are merged."""
    content = _read(host.root / _KSM)
    match content:
        case "1":
            yield ok("KSM", "running")
        case "0":
            yield warning("KSM", "not running: no pages are merged", "`qmpmem ksm on`")
        case "2":
            said = "stopped, and what was merged is being unmerged"
            yield warning("KSM", said, "`qmpmem ksm on`")
        case None:
            yield warning("KSM", "not in this kernel: no pages are merged", None)
        case _:
            yield warning("KSM", f"/{_KSM}: {content[:20]!r}, expected 0, 1 or 2", None)


def check_pressure(host: Host) -> Iterator[Finding]:
    """Tell whether the kernel tells how short of memory the host is."""
    content = _read(host.root / _PRESSURE)
    if content and content.startswith("some "):
        yield ok("pressure", f"/{_PRESSURE}: {content.splitlines()[0]}")
    else:
        said = f"/{_PRESSURE}: not there, so shortage is only seen in free memory"
        yield warning("pressure", said, "boot with psi=1 (CONFIG_PSI)")


def check_limit(host: Host) -> Iterator[Finding]:
    """Tell whether a cgroup leaves less memory than the host has, as in a container."""
    found = process_limits.tightest(process_limits.groups("self", host.root))
    if found is None:
        yield ok("memory limit", "none, by any cgroup that this process is in")
        return
    said = (
        f"cgroup {found.path}: {format_size(found.limit)}, {format_size(found.headroom)} left; "
        "an agent takes that as its budget where it holds for all guests"
    )
    yield warning("memory limit", said, "raise the limit, or run fewer guests")


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:  # with psi=0, reading fails rather than opening
        return None
