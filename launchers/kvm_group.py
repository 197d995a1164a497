"""A cgroup of its own for a guest: what it costs, and how long it waits for memory, is then seen.

Theory of operation:
    The launcher makes qmpmem/ID in the hierarchy of version 1 that counts memory and in that of
    version 2, where it may, and moves itself there before it becomes the emulator, so that all
    of the guest's memory is counted there (kernel: admin-guide/cgroup-v2, "Memory Ownership").
    That is below the group that the launcher is in, so that all limits from there up go on to hold,
    or below one that the setting names.

    systemd follows its units' processes by their groups. A unit's group is left, or divided, only
    where systemd has delegated it (systemd.resource-control(5): Delegate=).

    An empty group is removed by the next launch below the same parent, and by whatever removes the
    guest's directory. Another launcher may have made it a moment ago: it makes it once more.

Rules of this file:
    Nothing here keeps a guest from starting: what fails is told in a line, if at all.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OURS = "qmpmem"
"""The group that all of ours are in."""
UNITS = (".service", ".scope", ".socket", ".mount", ".swap")
"""How systemd calls the groups of its units; slices are none, as nothing runs in them."""
PROCESSES = "cgroup.procs"
CONTROLLERS = "cgroup.subtree_control"
SWEEP = 64
"""Groups beside a new one that may be removed: one that is in use refuses that within 10 us."""
TRIES = 3
LIMIT = 1 << 20


class Place:
    """Where a group goes in one hierarchy."""

    __slots__ = ("base", "own", "parent", "version")

    def __init__(self, version: int, own: str, base: str) -> None:
        self.version = version
        self.own = own
        """The directory of the group that the launcher is in."""
        self.base = base
        """The directory of the group that ours go below."""
        self.parent = f"{base}/{OURS}"
        """The directory that the guest's group is made in."""


def find_places(chosen: str, root: str = "") -> "tuple[list[Place], str]":
    """Find where the guest's group may go.

    Args:
        chosen: ``on``, or the path of a group in each hierarchy, to go below that.
        root: what stands before /proc and /sys.

    Returns:
        The places, and why there is none in one of the hierarchies, or "".
    """
    names = dict(read_names(_read(f"{root}/proc/self/cgroup")))
    found: list[Place] = []
    why = "no cgroup that counts memory, or of version 2, is mounted"
    for version, top, point in read_mounts(_read(f"{root}/proc/self/mountinfo")):
        inside = below(names.pop(version, None), top)
        if inside is None:
            continue
        unit = unit_of(inside)
        if unit and not is_delegated(f"{root}{point}/{unit}"):
            why = f"{os.path.basename(unit)} is not delegated (systemd-run --scope -p Delegate=yes)"
            continue
        own = f"{root}{point}/{inside}".rstrip("/")
        found.append(Place(version, own, own if chosen == "on" else f"{root}{point}{chosen}"))
    return found, "" if found else why


def enter(places: "list[Place]", guest: str, undo: "list[Callable[[], None]]") -> str:
    """Make the guest's group in each hierarchy, and move this process there.

    Args:
        places: where.
        guest: its id.
        undo: gets what takes each step back.

    Returns:
        What went wrong, where it worked in none of them; else "".
    """
    entered, why = 0, ""
    for place in places:
        group = f"{place.parent}/{guest}"
        try:
            move_into(place, group)
        except OSError as error:
            why = f"{group}: {error.strerror}"
            remove(group)
            continue
        entered += 1
        undo.append(lambda place=place, group=group: leave(place, group))  # type: ignore[misc]
        sweep(place.parent)
    return "" if entered else why


def move_into(place: Place, group: str) -> None:
    """Make a group and move this process there.

    Raises:
        OSError: not permitted, or something else is in that group.
    """
    for left in range(TRIES, 0, -1):
        try:
            os.makedirs(group, 0o755, exist_ok=True)
            if _read(f"{group}/{PROCESSES}").strip():
                raise FileExistsError(None, "a process is in it", group)
            if place.version != 1:
                count_memory(place)
            _write(f"{group}/{PROCESSES}", "0")
        except (FileNotFoundError, ProcessLookupError):  # another launcher swept it away
            if left == 1:
                raise
        else:
            break
    if place.version != 1 and not os.path.exists(f"{group}/memory.current"):
        count_memory(place)  # a group whose last process has left may divide its memory


def count_memory(place: Place) -> None:
    """Have groups below a parent of version 2 count memory, where that is permitted.

    Not where processes are in the group above ("No Internal Process Constraint"); how long a group
    waits for memory is counted in any case.
    """
    try:
        for group in (place.base, place.parent):
            _write(f"{group}/{CONTROLLERS}", "+memory")
    except OSError:
        pass


def leave(place: Place, group: str) -> None:
    """Move this process back, and remove the group that was made."""
    try:
        _write(f"{place.own}/{PROCESSES}", "0")
    except OSError:
        return
    remove(group)


def remove(group: str) -> None:
    """Remove a group and then the parent, where they are empty."""
    try:
        os.rmdir(group)
        os.rmdir(os.path.dirname(group))
    except OSError:
        pass


def sweep(parent: str) -> None:
    """Remove groups of guests that are gone: some of many, and others the next time."""
    try:
        names = next(os.walk(parent))[1]
    except StopIteration:
        return
    start = os.getpid() % (len(names) or 1)
    for name in (names[start:] + names[:start])[:SWEEP]:
        try:
            os.rmdir(f"{parent}/{name}")
        except OSError:
            pass


def is_delegated(group: str) -> bool:
    """Tell whether systemd leaves a unit's group to the unit, or this user owns it."""
    try:
        seen = os.stat(group)
    except OSError:
        return False
    if os.geteuid() != 0:
        return seen.st_uid == os.geteuid()
    for name in ("user.delegate", "trusted.delegate"):
        try:
            return os.getxattr(group, name) == b"1"
        except OSError:
            pass
    return False


def unit_of(inside: str) -> str:
    """Name the innermost unit's group on the way to a group, below the mount; "": it is in none."""
    parts = inside.split("/")
    ends = [number for number, part in enumerate(parts, 1) if part.endswith(UNITS)]
    return "/".join(parts[: ends[-1]]) if ends else ""


def read_names(content: str) -> "Iterator[tuple[int, str]]":
    """Read /proc/self/cgroup: ``4:memory:/a`` of version 1, ``0::/a`` of version 2 (cgroups(7))."""
    for line in content.splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers == "":
            yield 2, path
        elif "memory" in controllers.split(","):
            yield 1, path


def read_mounts(content: str) -> "Iterator[tuple[int, str, str]]":
    """Read /proc/self/mountinfo: version, the group that is mounted, and where (proc(5))."""
    for line in content.splitlines():
        head, _, tail = line.partition(" - ")
        fields, kind = head.split(" "), tail.split(" ")
        if len(fields) < 5 or len(kind) < 3:  # noqa: PLR2004 - proc(5)
            continue
        if kind[0] == "cgroup2":
            yield 2, fields[3], fields[4]
        elif kind[0] == "cgroup" and "memory" in kind[2].split(","):
            yield 1, fields[3], fields[4]


def below(name: "str | None", top: str) -> "str | None":
    """Name a group as seen from the one that is mounted; None: it is not below that."""
    if name is None or "/.." in name:
        return None
    if top == "/":
        return name.strip("/")
    if name == top or name.startswith(f"{top}/"):
        return name[len(top) :].strip("/")
    return None


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(LIMIT).decode(errors="surrogateescape")
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
