"""Where each machine takes a balloon, and whether there is a place left for one more device.

Theory of operation:
    The root bus is named, because QEMU's own choice may be a PCI expander, which takes bridges only
    (QEMU: softmmu/qdev-monitor.c, qbus_find_recursive).

    QEMU gives a PCI device without an address the lowest slot whose function 0 is free (QEMU:
    hw/pci/pci.c, do_pci_register_device), and creates our balloon after all others. So there is a
    place for it unless the slots that are named and the devices that take what is free fill the
    root bus. What sits behind a port or a bridge takes nothing there, nor does what is no PCI
    device.

Rules of this file:
    Pure. What is uncertain counts: with no slot left QEMU refuses to start.
"""

from launchers.kvm_options import split_parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from launchers.kvm_options import Line

PCI, CCW, MMIO = "virtio-balloon-pci", "virtio-balloon-ccw", "virtio-balloon-device"
DRIVERS = (PCI, CCW, MMIO)

SLOTS = 32
TRANSPORTS, FEW_TRANSPORTS = 24, 8
"""Of a microvm, with and without a second IOAPIC (QEMU: hw/i386/microvm.c)."""


class Place:
    """Where a machine takes a balloon, and what it has there by itself."""

    __slots__ = ("bus", "disks", "driver", "taken", "usb")

    def __init__(
        self,
        driver: str,
        bus: str = "",
        taken: "tuple[int, ...]" = (),
        *,
        usb: int = 0,
        disks: str = "ide",
    ) -> None:
        self.driver = driver
        self.bus = bus
        """The root bus; "" where QEMU's choice is the only one."""
        self.taken = taken
        """Slots of the machine's own."""
        self.usb = usb
        """The slot of the controllers that -usb brings."""
        self.disks = disks
        """The interface of a disk that names none."""


PC = Place(PCI, "pci.0", (0, 1), usb=1)
Q35 = Place(PCI, "pcie.0", (0, 31), usb=0x1D)
VIRT = Place(PCI, "pcie.0", (0,), disks="virtio")
PSERIES = Place(PCI, "pci.0", usb=1)
MICROVM = Place(MMIO)
S390 = Place(CCW)

MACHINES = {"pc": PC, "q35": Q35, "ubuntu": PC, "virt": VIRT, "microvm": MICROVM}
"""By full name; `ubuntu` and `ubuntu-q35` are Ubuntu's aliases."""
MACHINE_PREFIXES = (
    ("pc-q35-", Q35),
    ("pc-", PC),
    ("ubuntu-q35", Q35),
    ("ubuntu-", PC),
    ("virt-", VIRT),
    ("pseries", PSERIES),
    ("s390-ccw-virtio", S390),
)

NOT_PCI_PREFIXES = (
    *("usb-", "scsi-", "ide-", "isa-", "hda-", "virtserialport", "virtconsole", "ccid-card-"),
    *("pc-dimm", "nvdimm", "nvme-ns", "nvme-subsys", "ipmi-bmc-", "tpm-", "u2f-", "spapr-", "hv-"),
    *("sclp", "vfio-ap", "vfio-ccw", "sd-card", "uefi-vars-"),
)
NOT_PCI_SUFFIXES = ("-cpu", "-cpu-core", "-device", "-ccw")
NOT_PCI = frozenset(
    """
    adb-keyboard adb-mouse adlib amd-iommu at24c-eeprom cs4231a diag288 ds1338 floppy guest-loader
    gus hyperv-testdev i2c-ddc i2c-echo i8042 ib700 intel-iommu ipoctal232 loader m41t80
    mc146818rtc ne2k_isa pc-testdev pvpanic ramfb sb16 sga smbus-ipmi ufs-lu vhost-scsi
    vhost-user-blk vhost-user-gpu vhost-user-input vhost-user-rng vhost-user-scsi vhost-user-snd
    virtio-mem virtio-pmem vmbus-bridge vmclock vmcoreinfo vmgenid vmmouse x-terminal3270
    xen-backend xen-cdrom xen-console xen-disk zpci
    """.split()  # noqa: SIM905 - a table
)
PCI_ALL_THE_SAME = ("usb-ehci",)

GRAPHICS = frozenset(
    """
    VGA ati-vga cirrus-vga isa-cirrus-vga isa-vga qxl-vga vhost-user-vga virtio-vga virtio-vga-gl
    vmware-svga
    """.split()  # noqa: SIM905 - a table
)
"""With one of these a machine brings no graphics itself (QEMU: softmmu/vl.c, default_list)."""
DISKS = ("hda", "hdb", "hdc", "hdd", "cdrom")


def find_place(machine: str) -> "Place | None":
    """Return where a machine takes a balloon; None: it takes none, or we don't know it."""
    if machine in MACHINES:
        return MACHINES[machine]
    found = [place for prefix, place in MACHINE_PREFIXES if machine.startswith(prefix)]
    return found[0] if found else None


def why_no_slot(line: "Line", place: Place) -> "str | None":
    """Return why there may be no slot left on the root bus; None: there is."""
    known, others, free = survey(line, place)
    if others >= len(free):
        return "its devices may leave no PCI slot"
    if any(function and slot in free[: others + 1] for slot, function in known):
        return "a PCI function without its function 0 may be in the way"
    return None


def is_slot_free(line: "Line", place: Place, wanted: int) -> bool:
    """Tell whether nothing is in a slot for sure."""
    known, others, free = survey(line, place)
    return wanted in free[others:] and wanted not in [slot for slot, _ in known]


def survey(line: "Line", place: Place) -> "tuple[list[tuple[int, int]], int, list[int]]":
    """Look at a root bus.

    Returns:
        The slots and functions that are named, the number of other devices, and the slots that
        those and the balloon can take.
    """
    places = [read_address(text) for text in addresses(line, place)]
    known = [found for found in places if found is not None]
    taken = {*place.taken, *(slot for slot, function in known if function == 0)}
    if line.options.has("usb", "usbdevice") or line.machine.get("usb", "off") != "off":
        taken.add(place.usb)
    return known, places.count(None), [slot for slot in range(SLOTS) if slot not in taken]


def why_no_transport(line: "Line") -> "str | None":
    """Return why a microvm may have no virtio-mmio transport left; None: it has."""
    one = line.options.has("no-acpi") or "off" in map(line.machine.get, ("ioapic2", "acpi"))
    drivers = [driver for driver in line.drivers() if driver.startswith(("virtio-", "vhost-"))]
    taken = sum(not is_pci(driver) for driver in drivers)
    room = FEW_TRANSPORTS if one else TRANSPORTS
    return None if taken < room else "its devices leave no virtio-mmio transport"


def addresses(line: "Line", place: Place) -> "Iterator[str]":
    """Yield the address of each device on the root bus; "" for one that takes what is free."""
    for device in line.of_group("device"):
        if is_pci(device.get("driver", "")) and is_root(device.get("bus", ""), place.bus):
            yield device.get("addr", "")
    for drive in line.of_group("drive"):
        if drive.get("if", place.disks) == "virtio":
            yield drive.get("addr", "")
    for card in network_cards(line):
        yield card.get("addr", "")
    for _ in range(count_others(line, place)):
        yield ""


def network_cards(line: "Line") -> "Iterator[Mapping[str, str]]":
    """Yield what -nic and -net bring, also by a configuration file; ISA cards take no slot."""
    for name in ("nic", "net"):
        given = [dict(split_parts(text, "type")) for text in line.options.values(name)]
        for card in (*given, *line.of_group(name)):
            brings = card.get("type") == "nic" if name == "net" else card.get("type") != "none"
            if brings and card.get("model") != "ne2k_isa":
                yield card


def count_others(line: "Line", place: Place) -> int:
    """Count what else takes a free slot, by an option of its own or because nothing was said."""
    options = line.options
    defaults = not options.has("nodefaults")
    network = options.has("net", "nic", "netdev") or line.of_group("net", "nic", "netdev")
    graphics = options.values("vga")[-1:]
    if not graphics and defaults and GRAPHICS.isdisjoint(line.drivers()):
        graphics = ["default"]
    disks = len(options.disks) + len(options.values(*DISKS)) if place.disks == "virtio" else 0
    return (
        (graphics not in ([], ["none"]))
        + (defaults and not network)
        + len(options.values("virtfs", "audio"))
        + sum(1 + value.count(",") + 8 * (value == "all") for value in options.values("soundhw"))
        + sum(value != "ib700" for value in options.values("watchdog"))
        + disks
    )


def is_pci(driver: str) -> bool:
    """Tell whether a driver may be that of a PCI device."""
    return driver in PCI_ALL_THE_SAME or not (
        driver in NOT_PCI
        or driver.startswith(NOT_PCI_PREFIXES)
        or driver.endswith(NOT_PCI_SUFFIXES)
    )


def is_root(bus: str, root: str) -> bool:
    """Tell whether a device may be on the root bus.

    A path may also end in the bridge that has that bus (QEMU: softmmu/qdev-monitor.c, qbus_find).
    """
    return not bus or bus == root or "/" in bus


def read_address(text: str) -> "tuple[int, int] | None":
    """Read a slot and a function, in hexadecimal; None: what is free (QEMU: set_pci_devfn)."""
    slot, _, function = text.partition(".")
    try:
        return int(slot, 16), int(function or "0", 16)
    except ValueError:
        return None
