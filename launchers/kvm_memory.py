"""Whether a balloon frees anything of a guest's memory, by what its command line asks for.

Theory of operation:
    A balloon gives memory back page by page: QEMU discards what the guest names (QEMU:
    hw/virtio/virtio-balloon.c, balloon_inflate_page). Measured with QEMU 7.2 and a Linux guest of
    256 MiB that gave 128: anonymous memory, memfd, files in tmpfs or on a disk, shared or not, and
    preallocated memory are freed in full. Of huge pages and of locked memory nothing is freed. With
    a device that may write to all of the memory, or encrypted memory, QEMU discards nothing
    (system/physmem.c, ram_block_discard_disable).

    A private mapping of a file is a case of its own: what is discarded becomes a hole in the file,
    which may be the template of other guests.

Rules of this file:
    A text of the host is read only where a path is named that could be on huge pages.
    In doubt there is no balloon: a guest that keeps its memory is harmed by nothing.
"""

import os

from launchers.kvm_options import Line, Section, merge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Mounts = Callable[[], str]

MOUNTS = "/proc/self/mountinfo"
MOUNTS_LIMIT = 1 << 20

OFF = ("off", "no", "false", "n")
ON = ("on", "yes", "true", "y")
"""What QEMU takes for a boolean (QEMU: qapi/qapi-util.c, qapi_bool_parse)."""

UNFIT = frozenset(
    [("reserve", word) for word in OFF]
    + [(key, word) for key in ("readonly", "rom") for word in ON]
)
"""What memory cannot be allocated up front with."""

PASSED = ("vfio", "vhost-vdpa", "iommufd")
"""Parts of the names of all devices, networks and objects that pass a device of the host on.
vfio-ap and vfio-ccw are among them: they might go with a balloon, which was not measured."""
PINNING_BLOCKS = ("nvme", "virtio-blk-vfio-pci", "virtio-blk-vhost-vdpa")
"""Block drivers that map all of the guest's memory for a device (QEMU: block/nvme.c; libblkio)."""
CONFIDENTIAL = ("memory-encryption", "confidential-guest-support")


NO_DEFLATE = (
    "its balloon lacks deflate-on-oom: its kernel ends programs before it takes memory back"
)
"""As in `qmpmem.model.obstacles`."""


class Memory:
    """What is known of a guest's memory before it starts."""

    __slots__ = ("note", "unmovable")

    def __init__(self, unmovable: "str | None" = None, note: "str | None" = None) -> None:
        self.unmovable = unmovable
        """Why a balloon would free nothing; None: it would."""
        self.note = note
        """What the user should know of a balloon that does."""


def look(line: Line, mounts: "Mounts | None" = None) -> Memory:
    """Judge the memory that a command line asks for.

    Args:
        line: the user's words and configuration files.
        mounts: gives the text of /proc/self/mountinfo (proc(5)); read only where it is needed.
    """
    return Memory(
        why_locked(line)
        or why_encrypted(line)
        or why_pinned(line)
        or why_huge(line, mounts or read_mounts)
        or why_template(line),
        "its memory is preallocated: what a balloon frees is not kept for the guest"
        if is_preallocated(line)
        else None,
    )


def why_locked(line: Line) -> "str | None":
    """Return why a balloon is of no use where memory is locked, or None where it is not.

    Locked pages cannot be discarded, also if they are locked only when they are touched.
    """
    locked = merge(line.sections, "overcommit").get("mem-lock", "off")
    mlock = line.options.has("realtime") and merge(line.sections, "realtime").get("mlock", "on")
    if locked not in OFF or (mlock and mlock not in OFF):
        return "the guest's memory is locked"
    return None


def why_encrypted(line: Line) -> "str | None":
    """Return why a balloon is of no use where memory is encrypted, or None where it is not.

    Memory of a confidential guest (SEV, TDX, Secure Execution) is no longer the host's.
    """
    said = [section.text for section in line.sections if section.group == "machine"]
    named = any(key in text for key in CONFIDENTIAL for text in said)
    if named or any(key in line.machine for key in CONFIDENTIAL):
        return "the guest's memory is encrypted"
    return None


def why_pinned(line: Line) -> "str | None":
    """Return why a balloon is of no use where memory is pinned, or None where it is not.

    A device of the host may write anywhere into the guest's memory, which is pinned for it.
    """
    devices = [*line.drivers(), *line.options.values("netdev", "nic", "net")]
    devices += [values(section, "qom-type") for section in of(line, "object")]
    devices += [values(section, "type") for section in of(line, "netdev")]
    if any(word in text for text in devices for word in PASSED):
        return "a device of the host has all of the guest's memory pinned"
    if any(map(is_pinning_disk, disks(line))):
        return "a disk that the guest has through VFIO has all of its memory pinned"
    return None


def why_huge(line: Line, mounts: "Mounts") -> "str | None":
    """Return why a balloon is of no use where memory is in huge pages, or None where it is not.

    A balloon takes single pages of a guest, and no huge page of the host comes free by that.
    """
    huge = any(values(section, "hugetlb") in ON for section in backends(line))
    paths = [*line.options.values("mem-path"), *backend_files(line)]
    table = mounts() if paths and not huge else ""
    if huge or any(is_on_hugetlbfs(path, table) for path in paths):
        return "the guest's memory is in huge pages"
    return None


def why_template(line: Line) -> "str | None":
    """Return why a balloon would damage a private copy of a file, or None where there is none.

    What is discarded of a private mapping becomes a hole in the file itself.

    In a directory QEMU makes a file of its own, and unlinks it.
    """
    named = [*line.options.values("mem-path")]
    named += [
        values(section, "mem-path")
        for section in backends(line)
        if values(section, "share") not in ON
    ]
    if any(path and not os.path.isdir(path) for path in named):
        return "the guest's memory is a private copy of a file, which a balloon would damage"
    return None


def is_preallocated(line: Line) -> bool:
    """Tell whether all of the memory is touched before the guest starts."""
    asked = line.options.has("mem-prealloc")
    return asked or any(values(section, "prealloc") in ON for section in backends(line))


def why_not_preallocated(line: Line) -> "str | None":
    """Return why -mem-prealloc, which is for all memory backends, would not do; None: it does.

    QEMU refuses it beside reserve=off and crashes with memory that is only read (QEMU:
    backends/hostmem.c). For memory that is a device's, such as virtio-mem's or an NVDIMM's, it
    would allocate what the guest may never be given, or fill a disk.
    """
    if line.unread or any(section.text for section in line.sections):
        return "not all of the arguments can be read"
    for backend in backends(line):
        unfit = [f"{key}={value}" for key, value in backend.values.items() if (key, value) in UNFIT]
        if unfit:
            return f"a memory backend has {unfit[0]}"
    owners = [device.get("driver", "") for device in line.of_group("device") if "memdev" in device]
    others = [driver for driver in owners if driver != "pc-dimm"]
    return f"{others[0]} has memory of its own" if others else None


def lacks_deflate(line: Line) -> bool:
    """Tell whether a balloon of the user's keeps what it has while the guest ends programs."""
    mine = [
        section
        for section in of(line, "device")
        if "virtio-balloon" in (section.text or section.values.get("driver", ""))
    ]
    default = any(
        "virtio-balloon" in text and "deflate-on-oom" in text
        for text in line.options.values("global")
    )
    return any(values(each, "deflate-on-oom") not in ON for each in mine) and not default


def of(line: Line, group: str) -> "list[Section]":
    """Return the sections of one group."""
    return [section for section in line.sections if section.group == group]


def backends(line: Line) -> "list[Section]":
    """Return the memory backends."""
    return [
        section
        for section in of(line, "object")
        if values(section, "qom-type").startswith("memory-backend-")
    ]


def backend_files(line: Line) -> "Iterator[str]":
    """Return the files that back memory."""
    return filter(None, (values(section, "mem-path") for section in backends(line)))


def values(section: Section, key: str) -> str:
    """Return a value of a section, of JSON the first of this key; "" where there is none."""
    if not section.text:
        return section.values.get(key, "")
    rest = section.text.partition(f'"{key}"')[2].lstrip(" \t\n:")
    if rest.startswith('"'):
        return rest[1:].partition('"')[0]
    return rest.partition(",")[0].partition("}")[0].strip()


def disks(line: Line) -> "Iterator[str]":
    """Yield what a command line says of each disk, as one text."""
    yield from line.options.disks
    yield from line.options.values("drive", "hda", "hdb", "hdc", "hdd", "cdrom", "sd", "pflash")
    for text in line.options.values("blockdev"):
        yield f"driver={text}" if "=" not in text.partition(",")[0] else text
    for section in of(line, "drive"):
        yield ",".join(f"{key}={value}" for key, value in section.values.items())


def is_pinning_disk(text: str) -> bool:
    """Tell whether a disk is reached through VFIO: nvme://…, driver=nvme, or the same as JSON."""
    if "nvme://" in text:
        return True
    plain = "".join(text.replace('"', "").split()).replace(":", "=")
    for mark in "{}[]":
        plain = plain.replace(mark, ",")
    pairs = [part.partition("=") for part in plain.split(",")]
    return any(
        key.rpartition(".")[2] == "driver" and value in PINNING_BLOCKS for key, _, value in pairs
    )


def is_on_hugetlbfs(path: str, mountinfo: str) -> bool:
    """Tell whether a file is, or would be, in a file system of huge pages."""
    real = os.path.realpath(path)
    best, kind = "", ""
    for entry in mountinfo.splitlines():
        head, _, tail = entry.partition(" - ")
        point = unescape(head.split(" ")[4]) if head.count(" ") >= 4 else ""  # noqa: PLR2004
        # What was mounted later lies above.
        if point and len(point) >= len(best) and f"{real}/".startswith(f"{point.rstrip('/')}/"):
            best, kind = point, tail.partition(" ")[0]
    return kind == "hugetlbfs"


def unescape(text: str) -> str:
    r"""Read what the kernel writes as \040 (fs/proc_namespace.c: mangle)."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def read_mounts() -> str:
    """Read which file systems are mounted where; "" where that cannot be read."""
    try:
        with open(MOUNTS, "rb") as file:
            return file.read(MOUNTS_LIMIT).decode(errors="surrogateescape")
    except OSError:
        return ""
