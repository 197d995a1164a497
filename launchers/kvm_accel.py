"""Whether a guest is to run under a KVM that only seems to work.

Theory of operation:
    QEMU takes KVM for usable when /dev/kvm opens. In some virtual machines it opens although the
    processor has no virtualisation extension, and guests hang or reset without end. So it is with
    `qmpmem.wire.kvm`, which knows the same. Which accelerator a guest gets is not changed here.

Rules of this file:
    Loaded only where neither of the kernel's modules for KVM on x86 is loaded.
"""

import os

from launchers.kvm_options import merge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launchers.kvm_options import Line

X86 = ("x86_64", "i386", "i486", "i586", "i686")
"""Architectures, as uname(2) calls them, whose /proc/cpuinfo shows vmx or svm."""
EXTENSIONS = frozenset(("vmx", "svm"))
PART = 16 * 1024
"""Longer than what /proc/cpuinfo says of one processor."""
WORDS = (
    "/dev/kvm opens, but the processor shows neither vmx nor svm: "
    "if the guest hangs or resets, start it with -accel tcg"
)


def why_doubtful(line: "Line", name: str, root: str = "", machine: str = "") -> "str | None":
    """Return why the guest may not run well; None: nothing speaks against it.

    Args:
        line: the user's words and configuration files.
        name: what the emulator is called by, argv[0].
        root: where dev/kvm and proc/cpuinfo are, but in tests.
        machine: the architecture as uname(2) says it; this host's if not given.
    """
    if first_accelerator(line, name) != "kvm" or (machine or os.uname().machine) not in X86:
        return None
    if not os.access(f"{root}/dev/kvm", os.R_OK | os.W_OK):
        return None
    return None if EXTENSIONS & read_flags(f"{root}/proc/cpuinfo") else WORDS


def first_accelerator(line: "Line", name: str) -> str:
    """Name the accelerator that is tried first (QEMU: softmmu/vl.c, configure_accelerators)."""
    given = line.options.values("accel")
    given += [section.get("accel", "") for section in line.of_group("accel")]
    if given:
        return given[0].partition(",")[0].removeprefix("accel=")
    if line.options.has("enable-kvm"):
        return "kvm"
    chosen = merge(line.sections, "machine").get("accel", "kvm" if name.endswith("kvm") else "tcg")
    return chosen.partition(":")[0]


def read_flags(path: str) -> "set[str]":
    """Read the flags of the first processor; all that are asked for where it cannot be read."""
    try:
        with open(path, "rb") as file:
            text = file.read(PART).decode("ascii", "replace")
    except OSError:
        return set(EXTENSIONS)
    for entry in text.splitlines():
        key, _, flags = entry.partition(":")
        if key.strip() == "flags":
            return set(flags.split())
    return set(EXTENSIONS)
