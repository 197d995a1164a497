"""What a guest is called that was given no name: by what tells it from others at each start.

Theory of operation:
    The first disk that the guest writes to is its own, so it comes first; what other guests may use
    as well comes later: CDs and other images that are only read, a kernel. Firmware is no guest's
    own: -bios, -pflash, if=pflash, and the block nodes that -machine names for it. What is left are
    facts that only programs care for: a pid file, a UUID, a MAC address.

Rules of this file:
    Pure. Loaded only where a guest has no name.
"""

from launchers.kvm_options import Line, Section, read_sections, split_parts
from launchers.kvm_source import (
    as_node,
    as_text,
    first,
    name_of_file,
    name_of_node,
    nest,
    stem,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from launchers.kvm_source import Node

DISKS = ("hda", "hdb", "hdc", "hdd", "sd")
CDS = ("cdrom", "fda", "fdb")
ON = ("on", "yes", "true", "y")
FLASH = ("pflash0", "pflash1")
CD_DEVICES = ("ide-cd", "scsi-cd", "floppy")


def derive_name(line: Line) -> "str | None":
    """Make a name of what a guest is started with; None where nothing tells it from others."""
    disks = list(find_disks(line))
    own = (name for name, is_own in disks if is_own)
    shared = (name for name, is_own in disks if not is_own)
    options = line.options
    kernels = map(stem, options.values("kernel"))
    return (
        first(own)
        or first(map(name_of_tree, options.values("virtfs", "fsdev")))
        or first(shared)
        or first(kernels)
        or first(section.values.get("process", "") for section in groups(line, "name"))
        or first(map(stem, options.values("pidfile")))
        or first(map(name_of_identity, (*options.values("uuid"), *find_identities(line))))
        or None
    )


def find_disks(line: Line) -> "Iterator[tuple[str, bool]]":
    """Yield the name of each disk, and whether the guest may write to it, in order."""
    nodes = [read_node(section) for section in groups(line, "blockdev")]
    firmware = below(nodes, [line.machine.get(key, "") for key in FLASH])
    read = below(nodes, [name_of_cd(section) for section in groups(line, "device")])
    read |= below(nodes, [node_name(node) for node in nodes if is_read_only(node)])
    own = list(read_sections(line.options))
    for section in line.sections[: len(line.sections) - len(own)]:
        yield from name_of_drive(section)
    sections = iter(own)
    for option, value in line.options.given:
        if option in ("drive", "blockdev"):
            section = next(each for each in sections if each.group == option)
            node = read_node(section)
            if option == "drive":
                yield from name_of_drive(section)
            elif node_name(node) not in firmware:
                yield name_of_node(node), node_name(node) not in read and not is_cd(node)
        elif option in DISKS:
            yield name_of_file(value), True
        elif option in CDS:
            yield name_of_file(value), False
    for disk in line.options.disks:
        yield name_of_file(disk), True


def name_of_drive(section: Section) -> "Iterator[tuple[str, bool]]":
    """Name what -drive describes, in options or in a configuration file."""
    values = section.values
    if section.group != "drive" or values.get("if") in ("pflash", "mtd"):
        return
    name = name_of_node(nest(values)) or name_of_file(values.get("file", ""))
    is_cd_drive = values.get("media") == "cdrom" or values.get("if") == "floppy"
    is_read = values.get("readonly") in ON or values.get("read-only") in ON
    yield name, not (is_cd_drive or is_read or is_iso(values.get("file", "")))


def groups(line: Line, group: str) -> "Iterator[Section]":
    """Yield the sections of one group."""
    return (section for section in line.sections if section.group == group)


def read_node(section: Section) -> "Node":
    """Read what -blockdev describes."""
    return nest(section.values)


def node_name(node: "Node") -> str:
    """Return the name by which other nodes and devices refer to a node; "" where it has none."""
    return as_text(node.get("node-name"))


def below(nodes: "list[Node]", names: "list[str]") -> "set[str]":
    """Return the names of these nodes and of all nodes that they are made of."""
    left, found = set(names) - {""}, set[str]()
    while left:
        found |= left
        children = [node.get("file") for node in nodes if node_name(node) in left]
        left = {child for child in children if isinstance(child, str)} - found
    return found


def name_of_cd(section: Section) -> str:
    """Name the block node of a drive that only reads; "" for other devices."""
    said = read_node(section)
    return as_text(said.get("drive")) if said.get("driver") in CD_DEVICES else ""


def is_read_only(node: "Node") -> bool:
    """Tell whether a node says that it is only read."""
    return node.get("read-only") is True or node.get("read-only") in ON


def is_cd(node: "Node") -> bool:
    """Tell whether a node, or what is right below, is an image of a CD by its name."""
    return any(is_iso(each.get("filename")) for each in (node, as_node(node.get("file"))))


def is_iso(file: object) -> bool:
    """Tell whether a file is a CD or an image of one, by its name."""
    if not isinstance(file, str):
        return False
    return file.lower().endswith(".iso") or file.startswith(("/dev/sr", "/dev/cdrom"))


def name_of_tree(value: str) -> str:
    """Name a directory that is shared with the guest."""
    return stem(dict(split_parts(value, "fsdriver")).get("path", ""))


def find_identities(line: Line) -> "Iterator[str]":
    """Yield what firmware or a network would know the guest by."""
    for value in line.options.values("smbios"):
        said = dict(split_parts(value, ""))
        if said.get("type") == "1":
            yield said.get("uuid", "") or said.get("serial", "")
    for section in groups(line, "device"):
        yield as_text(read_node(section).get("mac"))
    for value in line.options.values("nic", "net"):
        network = dict(split_parts(value, "type"))
        yield network.get("macaddr", "") or network.get("mac", "")


def name_of_identity(value: str) -> str:
    """Make a name of a UUID, a serial number or a MAC address."""
    word = value.replace(":", "")
    return f"guest-{word}" if word else ""
