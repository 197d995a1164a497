"""What to add to a QEMU command line: the whole decision, as one function.

Theory of operation:
    `decide` looks at the arguments, the settings and what this QEMU can do, and says what to add.
    It adds less in three steps. To a line that starts no guest of ours (help, a probe, libvirt's),
    or that we don't understand, nothing. To any other a monitor. A balloon only where it changes
    nothing else about the guest and gives memory back.

    The balloon is written as JSON, because QEMU creates such devices after all others: without, the
    PCI slots of other devices would move (QEMU: softmmu/vl.c, qemu_create_cli_devices). The monitor
    comes from a file for -readconfig, because -qmp and -mon take the default monitor away.

Rules of this file:
    Pure. In doubt no balloon, and one line that says so; none where nobody expects one.
"""

from launchers.kvm_options import asks_for_help, merge, read_config, read_options, read_sections

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from launchers.kvm_options import Options, Section
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
NOT_PCI = ("usb-", "scsi-", "ide-", "isa-", "hda-", "virtserialport", "virtconsole", "pc-dimm")

OLD_STYLE_SLOT = "1e"
"""Where the balloon goes if this QEMU knows no JSON: high, so that no other device moves."""

HELPFUL = """
    M accel audio audiodev blockdev chardev cpu d device display drive machine net netdev nic object
    soundhw tpmdev trace usbdevice vga watchdog
    """.split()  # noqa: SIM905 - a table
"""Options that take `help`."""
STARTS_NO_GUEST = ("h", "help", "version", "audio-help", "dump-vmstate")
NOT_OURS = ("qtest", "qtest-log", "xen-attach", "xen-domid")
LIBVIRT_MONITOR = "charmonitor"
"""Its monitor's name since libvirt 0.8; libvirt places devices itself, and counts them."""
DISKS = ("hda", "hdb", "hdc", "hdd", "sd")
SUFFIXES = (".qcow2", ".qcow", ".img", ".raw", ".iso", ".vmdk", ".vdi", ".vhdx", ".bin")

IDS = tuple(f"qmpmem{number}" for number in range(10))


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


class Line:
    """A command line, with what its configuration files say."""

    __slots__ = ("configured", "machine", "options", "sections", "texts", "unread")

    def __init__(self, words: "Sequence[str]", configs: "Sequence[str | None]" = ()) -> None:
        self.options: Options = read_options(words)
        known = [text for text in configs if text is not None]
        self.sections: list[Section] = [
            *(section for text in known for section in read_config(text)),
            *read_sections(self.options),
        ]
        self.texts = (*words, *known)
        self.unread = len(configs) - len(known)
        """How many configuration files could not be read."""
        self.configured = bool(known)
        self.machine = merge(self.sections, "machine")

    def machine_types(self) -> "set[str]":
        """The machines that are named anywhere."""
        machines = [section for section in self.sections if section.group == "machine"]
        return {section.values["type"] for section in machines if "type" in section.values}

    def drivers(self) -> "list[str]":
        """What -device asks for; for JSON the text as it is."""
        return [
            section.text or section.values.get("driver", "")
            for section in self.sections
            if section.group == "device"
        ]


class Plan:
    """What to add, and what is then true of the guest."""

    __slots__ = ("arguments", "balloon", "daemonize", "ksm", "monitor", "name", "remarks", "static")

    def __init__(self) -> None:
        self.arguments: list[str] = []
        """Words to append, but for the monitor's."""
        self.monitor: str | None = None
        """The monitor's id; None: no monitor."""
        self.balloon: str | None = None
        """The balloon's id; None: no balloon of ours."""
        self.name: str | None = None
        """None: the guest has none, and nothing to derive one from."""
        self.static = False
        self.ksm: bool | None = None
        self.daemonize = False
        self.remarks: list[str] = []

    def words(self, config: "str | None") -> "list[str]":
        """Write all that is added, given the path of the monitor's configuration file."""
        return [*(["-readconfig", config] if config else []), *self.arguments]


def hands_off(line: Line) -> "str | None":
    """Say why to add nothing at all to a line; "" for reasons that go without saying."""
    options = line.options
    if options.unknown is not None:
        return f"{options.unknown[:40]!r} is not an option that qmpmem knows"
    asked = options.has(*STARTS_NO_GUEST) or any(map(asks_for_help, options.values(*HELPFUL)))
    libvirts = merge(line.sections, "mon").get("chardev") == LIBVIRT_MONITOR
    none = line.machine.get("type") == "none"
    return "" if asked or libvirts or none or options.has(*NOT_OURS) else None


def decide(line: Line, settings: "Settings", capabilities: "Capabilities | None") -> Plan:
    """Say what to add.

    Args:
        line: the user's words and configuration files.
        settings: what the user and the administrator want.
        capabilities: what this QEMU can do; None where that could not be found out.
    """
    plan = Plan()
    reason = hands_off(line)
    if reason is not None:
        plan.remarks += [f"nothing added: {reason}"] if reason else []
        return plan
    plan.name = guest_name(line)
    plan.daemonize = line.options.has("daemonize")
    plan.static = settings.static
    _decide_memory(plan, line, settings)
    free = [name for name in IDS if not any(name in text for text in line.texts)]
    if not free:
        plan.remarks.append("no monitor, no balloon: all ids are taken")
        return plan
    plan.monitor = free[0]
    reason = why_no_balloon(line, settings, capabilities)
    if reason is None and capabilities is not None:
        plan.balloon = free[0]
        plan.arguments += balloon_words(line, capabilities, free[0])
    elif reason:
        plan.remarks.append(f"no balloon: {reason}")
    return plan


def why_no_balloon(
    line: Line, settings: "Settings", capabilities: "Capabilities | None"
) -> "str | None":
    """Say why a guest gets no balloon; "" where nobody expects one; None: it gets one."""
    if not expects_balloon(line, settings):
        return ""
    if capabilities is None:
        return "this emulator does not say what it can do"
    return (
        why_not_now(line, settings) or why_not_useful(line) or why_not_possible(line, capabilities)
    )


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


def why_not_useful(line: Line) -> "str | None":
    """Whatever the guest gave would not come back to the host."""
    locked = merge(line.sections, "overcommit").get("mem-lock", "off") != "off"
    mlock = merge(line.sections, "realtime").get("mlock", "on") != "off"
    if locked or (mlock and line.options.has("realtime")):
        return "the guest's memory is locked"
    if {"memory-encryption", "confidential-guest-support"} & line.machine.keys():
        return "the guest's memory is encrypted"
    passed = [*line.drivers(), *line.options.values("netdev")]
    if any("vfio" in text or "vhost-vdpa" in text for text in passed):
        return "a device of the host has all of the guest's memory pinned"
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


def guest_name(line: Line) -> "str | None":
    """Find the guest's name: -name as it is, else what its disk or kernel is called."""
    given = merge(line.sections, "name").get("guest")
    if given:
        return given
    options = line.options
    drives = [section.values for section in line.sections if section.group == "drive"]
    files = [
        *(drive.get("file", "") for drive in drives if drive.get("if") != "pflash"),
        *options.values(*DISKS),
        *options.disks,
        *options.values("cdrom", "kernel"),
    ]
    stems = [_stem(file) for file in files]
    return next((stem for stem in stems if stem), None)


def _decide_memory(plan: Plan, line: Line, settings: "Settings") -> None:
    given = line.machine.get("mem-merge")
    wanted = False if settings.static else settings.ksm
    plan.ksm = wanted if given is None else given == "on"
    if settings.static and not line.options.has("mem-prealloc"):
        plan.arguments.append("-mem-prealloc")
    if given is None and wanted is not None:
        # Merges with the user's own -machine, and leaves the type as it is (QEMU: keyval_merge).
        plan.arguments += ["-machine", f"mem-merge={'on' if wanted else 'off'}"]


def _stem(file: str) -> str:
    """Make a name of a file's; "" where that would be no readable one."""
    stem = file.rpartition("/")[2]
    for suffix in SUFFIXES:
        stem = stem.removesuffix(suffix)
    plain = stem.replace(".", "").replace("_", "").replace("-", "")
    return stem if plain.isalnum() and stem.isascii() and stem[0].isalnum() else ""
