"""Why a balloon frees nothing of a guest, or why there is none: found out, and put into words.

Rules of this file:
    Pure. A reason is a phrase that fits after a colon; it is None where there is none.
"""

from collections.abc import Iterable
from typing import Final

from qmpmem.model.guest import BalloonDevice
from qmpmem.units import Bytes, format_size

LOCKED_PERCENT: Final = 50
"""Percent of its memory: a guest with so much locked gives nothing back."""

NO_DEVICE: Final = "no balloon device"
NO_DEFLATE: Final = (
    "its balloon lacks deflate-on-oom: its kernel ends programs before it takes memory back"
)

_PASSED: Final = ("vfio-", "vhost-vdpa", "x-vfio-")
"""How the names of QEMU's devices begin that pass a device of the host on to the guest."""
_PINNING_BLOCKS: Final = frozenset({"nvme", "virtio-blk-vfio-pci", "virtio-blk-vhost-vdpa"})
"""Block drivers that map all of a guest's memory for a device (QEMU: block/nvme.c; libblkio)."""

_ADVICE: Final = (
    ("QMPMEM_BALLOON", "start it without QMPMEM_BALLOON=off"),
    ("QMPMEM_INCOMING", "start it anew, or with QMPMEM_INCOMING_BALLOON=on where it has one"),
    ("QMPMEM_ASK_SCRIPT", "start it with QMPMEM_ASK_SCRIPT=on"),
    ("slot", "start it with fewer devices, or with a balloon device of its own"),
    ("locked", "start it without locked memory (-overcommit mem-lock)"),
    ("huge page", "start it without huge pages (-mem-path, hugetlb=on)"),
    ("private copy", "start it with share=on, or without a file behind its memory"),
    ("encrypted", "nothing: encrypted memory stays with its guest"),
    ("pinned", "start it without that device of the host"),
    ("preallocated", "QMPMEM_MODE=static keeps all of its memory for it"),
    ("deflate-on-oom", "start it with deflate-on-oom=on, or without a balloon of its own"),
    ("machine", "start it on a machine with PCI, such as q35"),
    ("configuration file", "make the file readable for who starts the guest"),
)
"""What to do, by a part of the reason; the first part that is in the reason counts."""


def of_process(
    huge: Bytes | None, locked: Bytes | None, pinned: Bytes | None, maximum: Bytes | None
) -> str | None:
    """Return the reason that the kernel's figures of a guest's process give.

    Args:
        huge: its huge pages (proc(5): HugetlbPages).
        locked: what is locked (VmLck), as mem-lock and VFIO's first interface count it.
        pinned: what is pinned (VmPin), as vDPA and iommufd count it.
        maximum: the guest's memory; None: not known.
    """
    if huge:
        return f"{format_size(huge)} of its memory are in huge pages"
    for size, word in ((locked, "locked (mem-lock"), (pinned, "pinned (vDPA")):
        if size and maximum and size * 100 >= maximum * LOCKED_PERCENT:
            return f"its memory is {word}, or a passed-through device)"
    return None


def of_devices(types: Iterable[str]) -> str | None:
    """Return the reason that the types of a guest's devices give."""
    found = next((each for each in types if each.startswith(_PASSED)), None)
    return None if found is None else f"a device of the host has its memory pinned ({found:.40})"


def of_disks(drivers: Iterable[str]) -> str | None:
    """Return the reason that the drivers of a guest's disks give."""
    found = next((each for each in drivers if each in _PINNING_BLOCKS), None)
    return None if found is None else f"a disk of the host has its memory pinned ({found})"


def advice(reason: str | None) -> str | None:
    """Return what to do about a reason, or None where nothing is known to help."""
    if reason is None:
        return None
    return next((text for part, text in _ADVICE if part in reason), None)


def no_device(reason: str | None) -> str:
    """Return the remark that there is no balloon, and why where that is known."""
    return NO_DEVICE if reason is None else f"{NO_DEVICE}: {reason}"


def frees_nothing(reason: str) -> str:
    """Return the remark that a balloon moves and frees nothing."""
    return f"a balloon frees nothing: {reason}"


def lacks_deflate(device: BalloonDevice | None) -> bool:
    """Tell whether a balloon stays inflated while its guest kills programs for want of memory."""
    return device is not None and device.deflate_on_oom is False


def joined(*parts: str | None) -> str | None:
    """Return remarks as one line, each once, or None where there are none."""
    said = list(dict.fromkeys(part for part in parts if part))
    return "; ".join(said) or None
