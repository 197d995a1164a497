"""What a disk is called: a readable word out of where its content is.

Theory of operation:
    A disk is given as a path, as a URL, as a pseudo-protocol (`rbd:pool/image:conf=…`), or as a
    tree of drivers, in keys with dots (`file.driver=rbd,file.image=web1`) or as JSON (`json:…`,
    -blockdev). Each block driver has its own key for what tells one disk from another (QEMU:
    qapi/block-core.json, BlockdevOptions); its server, pool or credentials do not.

Rules of this file:
    Pure. Any text at all: what is not understood has no name, and nothing is raised.
    No user name or password becomes part of a name.
"""

from launchers.kvm_options import read_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeGuard

    Node = dict[str, Any]

SUFFIXES = tuple(
    """
    .qcow2 .qcow .qed .img .image .raw .iso .vmdk .vdi .vhdx .vhd .bin .luks .dmg .hdd .hds .disk
    .cow .parallels .bochs .cloop .pid .fd .sock
    """.split()  # noqa: SIM905 - a table
)
GENERIC = frozenset(
    """
    active base boot bzimage cloudimg data diff diffdisk disk disks drive hard harddisk hd hda image
    img initrd kernel linux main os overlay qemu root rootfs sda snapshot storage sys system vda vm
    vmlinux vmlinuz volume guest kvm
    """.split()  # noqa: SIM905 - a table
)
"""Names of files that say nothing; where the directory says more, it is put before."""
SHARED = frozenset(
    """
    boot disks home images img isos kvm lib libvirt media mnt pid qemu root run share srv tmp var vm
    vms
    """.split()  # noqa: SIM905 - a table
)
"""Names of directories that say nothing either."""
URLS = ("http", "https", "ftp", "ftps", "tftp", "ssh", "nfs", "gluster")
PLACES = ("filename", "url", "path", "dir", "vdi")
"""Keys that say where the content is, for most drivers."""
NOWHERE = ("/dev/fdset/", "/dev/fd/", "/proc/", "/dev/null", "/dev/zero")
"""Paths that are other files at each start, or none."""
DEEPEST = 16


def name_of_file(text: str) -> str:
    """Name what -drive file= and -hda take: a path, a URL or a pseudo-protocol; "": no name."""
    if text.startswith("json:"):
        return name_of_node(read_json(text[len("json:") :]))
    protocol, colon, rest = text.partition(":")
    # QEMU: block.c, path_has_protocol
    if not colon or "/" in protocol:
        return stem(text)
    return name_of_protocol(protocol.lower().partition("+")[0], rest)


def name_of_protocol(protocol: str, rest: str) -> str:
    """Name what stands behind a protocol."""
    if protocol in URLS:
        return stem(rest.partition("?")[0].removeprefix("//").partition("/")[2])
    named = PROTOCOLS.get(protocol, stem)  # file:, host_device: and the like are paths
    return named(rest)


def name_of_node(value: object, depth: int = 0) -> str:
    """Name a tree of block drivers; "" where nothing in it has a name."""
    node = as_node(value)
    if not node or depth > DEEPEST:
        return ""
    said = {key: as_text(each) for key, each in node.items()}
    driver = said.get("driver")
    if driver == "rbd":
        found = said.get("image", "")
    elif driver == "nbd":
        found = stem(said.get("export", "")) or name_of_server(node)
    elif driver == "iscsi":
        found = name_of_unit(said.get("target", ""), said.get("lun", ""))
    elif driver == "nvme":
        found = name_of_drive(said.get("device", ""), said.get("namespace", ""))
    else:
        found = first(name_of_file(said.get(key, "")) for key in PLACES)
    below = (node.get(key) for key in ("file", "image", "test", "raw", "children"))
    return found or first(
        name_of_node(each, depth + 1) for child in below for each in each_of(child)
    )


def name_of_rbd(text: str) -> str:
    r"""Name the image of POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][:KEY=VALUE...].

    A \ is before a character that is meant literally.
    """
    parts, literal = [""], False
    for character in text:
        if literal or character not in "\\:@/":
            parts[-1] += character
            literal = False
        elif character == "\\":
            literal = True
        elif character == "/":
            parts.append("")
        else:
            break
    return parts[-1]


def name_of_nbd(text: str) -> str:
    """Name the export of a URL, HOST:PORT[:exportname=NAME] or unix:PATH[:exportname=NAME]."""
    if text.startswith("//"):
        place, _, query = text[2:].partition("?")
        host, _, export = place.partition("/")
        path = query.partition("socket=")[2].partition("&")[0]
        return stem(export) or stem(path) or host.rpartition("@")[2].replace(":", "-")
    place, _, export = text.partition(":exportname=")
    return export or (
        stem(place[len("unix:") :]) if place[:5] == "unix:" else place.replace(":", "-")
    )


def name_of_server(node: "Node") -> str:
    """Name an NBD server by its socket or address, of which `server` is the newer spelling."""
    said = {**node, **as_node(node.get("server"))}
    path, host, port = (as_text(said.get(key)) for key in ("path", "host", "port"))
    return stem(path) or "-".join(filter(None, (host, port)))


def name_of_iscsi(text: str) -> str:
    """Name the unit of //[USER[%PASSWORD]@]HOST[:PORT]/TARGET/LUN."""
    target, _, lun = text.partition("?")[0].rpartition("/")
    return name_of_unit(target, lun)


def name_of_unit(target: str, lun: str) -> str:
    """Name a unit by the end of its target's name (RFC 3720: iqn.YEAR-MONTH.AUTHORITY:NAME)."""
    word = target.rpartition("/")[2].rpartition(":")[2]
    return f"{word}-lun-{lun}" if word and lun not in ("", "0") else word


def name_of_nvme(text: str) -> str:
    """Name the drive of //ADDRESS/NAMESPACE."""
    address, _, namespace = text.strip("/").partition("/")
    return name_of_drive(address, namespace)


def name_of_drive(address: str, namespace: str) -> str:
    """Name a drive by its PCI address."""
    word = address.replace(":", "-")
    return f"nvme-{word}-{namespace}".rstrip("-") if word else ""


def name_of_filtered(text: str) -> str:
    """Name the file of CONFIGURATION:FILE, as blkdebug takes it."""
    return name_of_file(text.partition(":")[2])


def name_of_last(text: str) -> str:
    """Name the image of [OPTION:...]NAME[#SNAPSHOT], as fat and sheepdog take it."""
    return stem(text.rpartition(":")[2].partition("#")[0])


def nameless(_: str) -> str:
    """Return no name: the device keeps nothing."""
    return ""


PROTOCOLS: "dict[str, Callable[[str], str]]" = {
    "rbd": name_of_rbd,
    "nbd": name_of_nbd,
    "iscsi": name_of_iscsi,
    "nvme": name_of_nvme,
    "blkdebug": name_of_filtered,
    "blkverify": name_of_filtered,
    "fat": name_of_last,
    "sheepdog": name_of_last,
    "null-co": nameless,
    "null-aio": nameless,
}


def stem(path: str) -> str:
    """Make a name of a path's: its last part without suffixes; "" where that is no name."""
    if path.startswith(NOWHERE):
        return ""
    directory, _, name = path.rstrip("/").rpartition("/")
    name = bare(name)
    if not any(map(str.isalnum, name)):
        return ""
    parent = directory.rpartition("/")[2]
    if is_in(name, GENERIC) and any(map(str.isalnum, parent)) and not is_in(parent, SHARED):
        return f"{bare(parent)}-{name}"
    return name


def bare(name: str) -> str:
    """Leave out what only says which kind of file it is."""
    while True:
        lower = name.lower()
        found = [suffix for suffix in SUFFIXES if lower.endswith(suffix)]
        if not found or len(found[0]) == len(name):
            return name
        name = name[: -len(found[0])]


def is_in(name: str, words: "frozenset[str]") -> bool:
    """Tell whether a name is one of these, with a number or without."""
    return name.lower().rstrip("0123456789.-_") in words


def first(names: "Iterable[str]") -> str:
    """Return the first name that is not empty; "" where all are."""
    return next(filter(None, names), "")


def each_of(child: object) -> "list[object]":
    """List the nodes below a key: one, or several, also where keys with dots number them."""
    if is_list(child):
        return child
    numbered = as_node(child)
    return list(numbered.values()) if all(map(str.isdecimal, numbered)) else [child]


def as_node(value: object) -> "Node":
    """Return a tree as it is, and an empty one for anything else."""
    return value if is_node(value) else {}


def is_node(value: object) -> "TypeGuard[Node]":
    """Tell whether a value is an object; all objects have texts for keys."""
    return isinstance(value, dict)


def is_list(value: object) -> "TypeGuard[list[object]]":
    """Tell whether a value is an array."""
    return isinstance(value, list)


def as_text(value: object) -> str:
    """Write a value as keys with dots have it; "" for what is no text or number."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number else value if isinstance(value, str) else ""


def nest(values: "dict[str, str]") -> "Node":
    """Make a tree of keys with dots (QEMU: util/keyval.c); where both are there, the tree wins."""
    tree: Node = {}
    for key, value in values.items():
        *path, last = key.split(".")[:DEEPEST]
        node = tree
        for part in path:
            if not as_node(node.get(part)):
                node[part] = {}
            node = node[part]
        if not as_node(node.get(last)):
            node[last] = value
    return tree
