"""Whether KVM can really be used here, and why not.

Theory of operation:
    QEMU takes KVM for usable when /dev/kvm opens. In some virtual machines it opens although the
    processor that they are shown has no virtualisation extension, and guests then hang in their
    first instructions. /proc/cpuinfo lists the extensions. So on x86 the device must open, and the
    flags must name vmx (Intel) or svm (AMD). Other architectures have no such flag.
"""

import errno
import os
from pathlib import Path
from typing import Final

from qmpmem.records import Record

X86: Final = ("x86_64", "i386", "i486", "i586", "i686")
"""Architectures, as uname(2) calls them, whose /proc/cpuinfo shows vmx or svm."""

EXTENSIONS: Final = frozenset({"vmx", "svm"})

_LOAD: Final = "load the module kvm_intel or kvm_amd, and see whether the firmware allows it"

_OBSTACLES: Final = {
    errno.ENOENT: ("there is none", _LOAD),
    errno.ENODEV: ("nothing is behind it", _LOAD),
    errno.ENXIO: ("nothing is behind it", _LOAD),
    errno.EACCES: ("not permitted", "join the group kvm"),
    errno.EPERM: ("not permitted", "allow the device in this container"),
}


class Usable(Record, frozen=True):
    """Whether guests can run under KVM."""

    usable: bool
    reason: str
    """Why, or why not, in one line."""
    hint: str | None = None


def usable(root: Path, machine: str | None = None) -> Usable:
    """Return whether KVM can be used, and why.

    Args:
        root: the directory that has dev/kvm and proc/cpuinfo; ``/`` but in tests.
        machine: the architecture as uname(2) names it; this host's if not given.
    """
    device = root / "dev/kvm"
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        text, hint = _OBSTACLES.get(error.errno or 0, (error.strerror or str(error), None))
        return Usable(usable=False, reason=f"{device}: {text}", hint=hint)
    if (machine or os.uname().machine) not in X86:
        return Usable(usable=True, reason=f"{device} opens")
    found = extensions(_cpuinfo(root))
    if not found:
        return Usable(
            usable=False,
            reason=f"{device} opens, but the processor shows neither vmx nor svm",
            hint="turn virtualisation on in the firmware, or nested virtualisation below this one",
        )
    return Usable(usable=True, reason=f"{device} opens, and the processor has {found[0]}")


def extensions(cpuinfo: str) -> list[str]:
    """Return the virtualisation extensions that /proc/cpuinfo shows for the first processor."""
    for line in cpuinfo.splitlines():
        key, _, flags = line.partition(":")
        if key.strip() == "flags":
            return sorted(EXTENSIONS.intersection(flags.split()))
    return []


def _cpuinfo(root: Path) -> str:
    try:
        return (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return ""
