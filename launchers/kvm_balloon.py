"""Whether a guest gets a balloon, and how it is written.

Theory of operation:
    The balloon is written as JSON, because QEMU creates such devices after all others: without, the
    PCI slots of other devices would move (QEMU: softmmu/vl.c, qemu_create_cli_devices).

Rules of this file:
    Pure. A reason against a balloon is one line for the user, or "" where the user expects none.
"""

from launchers.kvm_options import Line, merge
from launchers.kvm_slots import (
    MMIO,
    PCI,
    Place,
    find_place,
    is_slot_free,
    why_no_slot,
    why_no_transport,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from launchers.kvm_settings import Settings

WANTED_PROPERTIES = ("deflate-on-oom", "free-page-reporting")

ANCESTORS = ("virtio-pci", "virtio-ccw-device", "virtio-device")
"""The classes of device that every balloon is of."""

OLD_STYLE_SLOT = 0x1E
"""Where the balloon goes if this QEMU knows no JSON: high, so that no other device moves."""


class Capabilities:
    """What this QEMU can do."""

    __slots__ = ("json", "machine", "properties")

    def __init__(
        self, *, json: bool, machine: "str | None", properties: "dict[str, frozenset[str]]"
    ) -> None:
        self.json = json
        """-device takes JSON (QEMU 6.2)."""
        self.machine = machine
        """The machine that is taken if none is named."""
        self.properties = properties
        """Each balloon driver there is, and which WANTED_PROPERTIES it has."""


def why_no_balloon(
    line: Line,
    settings: "Settings",
    capabilities: "Capabilities | None",
    unmovable: "str | None" = None,
) -> "str | None":
    """Return why a guest gets no balloon: "" where none is expected, None where it gets one.

    Args:
        line: the user's words and configuration files.
        settings: what the user and the administrator want.
        capabilities: what this QEMU can do; None where that is not known.
        unmovable: why a balloon would free nothing.
    """
    if not expects_balloon(line, settings):
        return ""
    if capabilities is None:
        return (
            "this emulator does not say what it can do (a script: QMPMEM_ASK_SCRIPT=on asks it, or "
            "QMPMEM_REAL names what it starts)"
        )
    return why_not_now(line, settings) or unmovable or why_not_possible(line, capabilities)


def expects_balloon(line: Line, settings: "Settings") -> bool:
    """Tell whether a balloon is wanted, and none is there."""
    return settings.balloon and not settings.static and not brings_balloon(line)


def brings_balloon(line: Line) -> bool:
    """Tell whether the arguments themselves ask for a balloon, or say something about balloons."""
    spoken = [*line.drivers(), *line.options.values("set", "global")]
    return line.options.has("balloon") or any("virtio-balloon" in text for text in spoken)


def why_not_now(line: Line, settings: "Settings") -> "str | None":
    """Return why the state that is loaded, or the log that is replayed, forbids a balloon.

    Where that is not known, the guest gets one: saved state without a balloon loads into a guest
    with one, and the other way round fails (QEMU: migration/savevm.c).
    """
    arriving = [name for name in ("incoming", "loadvm") if line.options.has(name)]
    if arriving and not settings.incoming_balloon:
        return f"-{arriving[0]}, and QMPMEM_INCOMING_BALLOON=off"
    if "rr" in merge(line.sections, "icount"):
        return "a recorded guest cannot be changed"
    return None


def why_not_possible(line: Line, capabilities: Capabilities) -> "str | None":
    """Return why this machine has no place for a balloon or we cannot know; None: it has one."""
    if line.unread:
        return "a configuration file cannot be read"
    if line.configured and len(line.machine_types()) > 1:
        return "the machine is named in a configuration file and on the command line"
    if any(section.text for section in line.sections if section.group == "device"):
        return "a -device in JSON cannot be read"
    machine = machine_of(line, capabilities)
    place = find_place(machine)
    if place is None or place.driver not in capabilities.properties:
        return f"machine {machine[:40]!r} has none"
    return (
        why_global(line)
        or why_no_place(line, place)
        or (None if capabilities.json else why_not_old_style(line, place))
    )


def why_global(line: Line) -> "str | None":
    """Return which -global may forbid our balloon, or None where none does.

    A -global of the kind of device that a balloon is may do so.

    The arguments start a guest without virtio all the same. Only what is known to do no harm, and
    in use, is let pass.
    """
    asked = [name for name in map(name_global, line.of_group("global")) if name[0] in ANCESTORS]
    harmless = {name for _, name in asked} <= {"disable-legacy"}
    return None if harmless else f"-global {'.'.join(asked[0])} would change it, too"


def name_global(values: "Mapping[str, str]") -> "tuple[str, str]":
    """Name the driver and the property of a -global (QEMU: softmmu/qdev-monitor.c)."""
    driver, _, name = next(iter(values), "").partition(".")
    return values.get("driver", driver), values.get("property", name)


def why_no_place(line: Line, place: Place) -> "str | None":
    """Return why the machine's places for a balloon are taken or not for us; None: one is free."""
    if place.bus and place.bus in [device.get("id") for device in line.of_group("device")]:
        return f"a device is called {place.bus} like the root bus"
    if place.driver == PCI:
        return why_no_slot(line, place)
    return why_no_transport(line) if place.driver == MMIO else None


def why_not_old_style(line: Line, place: Place) -> "str | None":
    """Return why our balloon may not be created before the user's disks; None: it may.

    A QEMU that takes no JSON creates it there.
    """
    if place.driver != PCI:
        return "this emulator cannot add one without moving other devices"
    free = is_slot_free(line, place, OLD_STYLE_SLOT)
    return None if free else f"PCI slot {OLD_STYLE_SLOT:#x} may be taken"


def machine_of(line: Line, capabilities: Capabilities) -> str:
    """Name the machine; "" where none is named and this emulator has no default."""
    return line.machine.get("type") or capabilities.machine or ""


def balloon_words(line: Line, capabilities: Capabilities, name: str) -> "list[str]":
    """Write the balloon's arguments, with just the properties that this QEMU knows."""
    place = find_place(machine_of(line, capabilities))
    if place is None:
        return []  # never so, as why_not_possible asks first
    wanted = [key for key in WANTED_PROPERTIES if key in capabilities.properties[place.driver]]
    if capabilities.json:
        bus = f',"bus":"{place.bus}"' * bool(place.bus)
        properties = "".join(f',"{key}":true' for key in wanted)
        return ["-device", f'{{"driver":"{place.driver}","id":"{name}"{bus}{properties}}}']
    properties = "".join(f",{key}=on" for key in wanted)
    where = f"bus={place.bus},addr={OLD_STYLE_SLOT:#x}"
    return ["-device", f"{place.driver},id={name},{where}{properties}"]
