"""Whether a guest gets a balloon, and how it is written.

Theory of operation:
    The balloon is written as JSON, because QEMU creates such devices after all others: without, the
    PCI slots of other devices would move (QEMU: softmmu/vl.c, qemu_create_cli_devices).

Rules of this file:
    Pure. A reason against a balloon is one line for the user, or "" where nobody expects one.
"""

from launchers.kvm_options import Line, merge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launchers.kvm_settings import Settings

WANTED_PROPERTIES = ("deflate-on-oom", "free-page-reporting")

PCI, CCW, MMIO = "virtio-balloon-pci", "virtio-balloon-ccw", "virtio-balloon-device"
DRIVERS = (PCI, CCW, MMIO)

MACHINES = {"pc": PCI, "q35": PCI, "ubuntu": PCI, "virt": PCI, "microvm": MMIO}
"""By full name; `ubuntu` and `ubuntu-q35` are Ubuntu's aliases."""
MACHINE_PREFIXES = (
    ("pc-", PCI),
    ("ubuntu-", PCI),
    ("virt-", PCI),
    ("pseries", PCI),
    ("s390-ccw-virtio", CCW),
)

PCI_ROOM = 24
"""Of 32 slots a machine itself takes up to 5 (host bridge, ISA, graphics, network, USB); with none
left QEMU refuses to start."""
MMIO_ROOM = 7
"""A microvm has 24 slots, or only 8 without a second IOAPIC (QEMU: hw/i386/microvm.c)."""
NOT_PCI = ("usb-", "scsi-", "ide-", "isa-", "hda-", "virtserialport", "virtconsole", "pc-dimm")

OLD_STYLE_SLOT = "1e"
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
    """Give the reason why a guest gets no balloon; "" where none is expected; None: it gets one.

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
    """Whether a balloon is wanted, and none is there."""
    return settings.balloon and not settings.static and not brings_balloon(line)


def brings_balloon(line: Line) -> bool:
    """Whether the arguments themselves ask for a balloon, or say something about balloons.

    JSON with an escaped character is not taken apart, and may say it, too.
    """
    drivers = line.drivers()
    if any(text.startswith("{") and "\\u" in text for text in drivers):
        return True
    spoken = [*drivers, *line.options.values("set", "global")]
    return line.options.has("balloon") or any("virtio-balloon" in text for text in spoken)


def why_not_now(line: Line, settings: "Settings") -> "str | None":
    """A balloon must be on both sides of a migration, and in the saved state that is loaded."""
    for name in ("incoming", "loadvm"):
        if line.options.has(name) and not settings.incoming_balloon:
            return f"-{name} (QMPMEM_INCOMING_BALLOON=on says that the guest has one of ours)"
    if "rr" in merge(line.sections, "icount"):
        return "a recorded guest cannot be changed"
    return None


def why_not_possible(line: Line, capabilities: Capabilities) -> "str | None":
    """This machine has no place for a balloon, or we cannot know."""
    if line.unread:
        return "a configuration file cannot be read"
    if line.configured and len(line.machine_types()) > 1:
        return "the machine is named in a configuration file and on the command line"
    machine = line.machine.get("type") or capabilities.machine or ""
    driver = balloon_driver(machine)
    if driver not in capabilities.properties:
        return f"machine {machine[:40]!r} has none"
    if driver == PCI and count_pci(line) >= PCI_ROOM:
        return f"{PCI_ROOM} or more devices may leave no PCI slot"
    if driver == MMIO and count_mmio(line) >= MMIO_ROOM:
        return f"{MMIO_ROOM} or more devices may leave no virtio-mmio slot"
    return None if capabilities.json else why_not_old_style(line, driver)


def why_not_old_style(line: Line, driver: str) -> "str | None":
    """A QEMU that takes no JSON creates our balloon before the user's disks."""
    if driver != PCI:
        return "this emulator cannot add one without moving other devices"
    if any("addr" in text and OLD_STYLE_SLOT in text.lower() for text in line.texts):
        return f"PCI slot 0x{OLD_STYLE_SLOT} may be taken"
    return None


def balloon_driver(machine: str) -> "str | None":
    """Name the balloon device for a machine; None: it can have none, or we don't know it."""
    if machine in MACHINES:
        return MACHINES[machine]
    found = [driver for prefix, driver in MACHINE_PREFIXES if machine.startswith(prefix)]
    return found[0] if found else None


def balloon_words(line: Line, capabilities: Capabilities, name: str) -> "list[str]":
    """Write the balloon's arguments, with just the properties that this QEMU knows."""
    driver = balloon_driver(line.machine.get("type") or capabilities.machine or "") or ""
    wanted = [key for key in WANTED_PROPERTIES if key in capabilities.properties[driver]]
    if capabilities.json:
        properties = "".join(f',"{key}":true' for key in wanted)
        return ["-device", f'{{"driver":"{driver}","id":"{name}"{properties}}}']
    properties = "".join(f",{key}=on" for key in wanted)
    return ["-device", f"{driver},id={name},addr=0x{OLD_STYLE_SLOT}{properties}"]


def count_pci(line: Line) -> int:
    """Count what may take a PCI slot, rather too much than too little."""
    devices = [text for text in line.drivers() if not text.startswith(NOT_PCI)]
    others = line.options.values(
        "net", "nic", "virtfs", "vga", "usb", "soundhw", "audio", "watchdog", "virtioconsole"
    )
    drives = [section for section in line.sections if section.group in ("drive", "net", "nic")]
    return len(devices) + len(others) + len(drives)


def count_mmio(line: Line) -> int:
    """Count what may take a virtio-mmio slot, rather too much than too little."""
    devices = [text for text in line.drivers() if not text.startswith(NOT_PCI)]
    others = line.options.values("net", "nic", "virtfs", "virtioconsole")
    networks = [section for section in line.sections if section.group in ("net", "nic")]
    return len(devices) + len(others) + len(networks)
