"""What a QEMU command line says: the grammar of its options, and nothing about their meaning.

Theory of operation:
    QEMU takes -x and --x for the same, wants names in full, and knows no --x=value. An option that
    has an argument takes the next word, whatever that is (QEMU: softmmu/vl.c, lookup_opt). So
    `-append "-M none"` can only be read by a program that knows which options have an argument. The
    lists hold the options of QEMU 4.2 to 11.0 (qemu-options.hx). A line with any other option is
    not understood, and `Options.unknown` names that option.

Rules of this file:
    Pure. Text in, values out; any text at all.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

ALONE = frozenset(
    """
    S alt-grab async-teardown audio-help ctrl-grab curses daemonize enable-fips enable-hax
    enable-kvm enable-sync-profile full-screen h help jitdump localtime mem-prealloc no-acpi
    no-fd-bootchk no-frame no-hpet no-kvm no-kvm-irqchip no-kvm-pit no-kvm-pit-reinjection no-quit
    no-reboot no-shutdown no-user-config nodefaults nodefconfig nographic old-param
    one-insn-per-tick only-migratable perfmap portrait preconfig rtc-td-hack s sdl semihosting
    show-cursor singlestep snapshot usb version virtfs_synth win2k-hack xen-attach
    xen-domid-restrict
    """.split()  # noqa: SIM905 - a table
)

WITH_ARGUMENT = frozenset(
    """
    D L M accel acpitable action add-fd append audio audiodev balloon bios blockdev boot bt cdrom
    chardev chroot clock compat cpu d debugcon device dfilter display drive dtb dump-vmstate echr
    fda fdb fsdev fw_cfg g gdb global hda hdb hdc hdd icount incoming initrd iscsi k
    kernel loadvm m machine mem-path mon monitor msg mtdblock name net netdev nic numa object
    option-rom overcommit parallel pflash pidfile plugin prom-env qmp qmp-pretty qtest qtest-log
    readconfig realtime rotate rtc run-with runas sandbox sd seed semihosting-config serial set shim
    smbios smp soundhw spice startdate tb-size tpmdev trace usbdevice uuid vga virtfs virtioconsole
    vnc watchdog watchdog-action writeconfig xen-domid
    """.split()  # noqa: SIM905 - a table
)

GROUPS = {
    # option: its group in a configuration file, and what a first value without a key means
    "machine": ("machine", "type"),
    "M": ("machine", "type"),
    "device": ("device", "driver"),
    "drive": ("drive", ""),
    "blockdev": ("blockdev", "driver"),
    "name": ("name", "guest"),
    "overcommit": ("overcommit", ""),
    "realtime": ("realtime", ""),
    "m": ("memory", "size"),
    "icount": ("icount", "shift"),
    "object": ("object", "qom-type"),
    "mon": ("mon", "chardev"),
    "global": ("global", ""),
}

NO_JSON = ("name", "drive", "memory")
"""Those that are never JSON, and may begin with a brace all the same."""

LONGEST = 64 * 1024
"""Characters of JSON that are read."""


class Reading:
    """How JSON is read (CPython: json.decoder.JSONDecoder), without the 10 ms of its module."""

    strict = False
    object_hook = object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float

    def __init__(self) -> None:
        self.memo: dict[str, str] = {}


HELP = ("help", "?", "model=help", "model=?")
"""`model` is of -nic and -net nic (QEMU: net/net.c, qemu_find_nic_model)."""


class Options:
    """A command line, split into options and disk images."""

    __slots__ = ("disks", "given", "unknown")

    def __init__(
        self, given: "Sequence[tuple[str, str]]", disks: "Sequence[str]", unknown: "str | None"
    ) -> None:
        self.given = tuple(given)
        """Each option's name without dashes, and its argument; "" where it has none."""
        self.disks = tuple(disks)
        self.unknown = unknown
        """The first option that we don't know, or that lacks its argument. None: all is known."""

    def has(self, *names: str) -> bool:
        """Tell whether one of these options is given."""
        return any(name in names for name, _ in self.given)

    def values(self, *names: str) -> "list[str]":
        """Return the arguments of these options, in order."""
        return [value for name, value in self.given if name in names]


class Section:
    """What an option with parts says, or a section of a configuration file."""

    __slots__ = ("group", "text", "values")

    def __init__(self, group: str, values: "dict[str, str]", text: str = "") -> None:
        self.group = group
        self.values = values
        self.text = text
        """The argument itself where it is JSON that cannot be read."""


class Line:
    """A command line, with what its configuration files say."""

    __slots__ = ("configured", "machine", "options", "sections", "texts", "unread")

    def __init__(self, words: "Sequence[str]", configs: "Sequence[str | None]" = ()) -> None:
        self.options = read_options(words)
        known = [text for text in configs if text is not None]
        self.sections = [
            *(section for text in known for section in read_config(text)),
            *read_sections(self.options),
        ]
        self.set_values()
        self.texts = (*words, *known)
        self.unread = len(configs) - len(known)
        """How many configuration files could not be read."""
        self.configured = bool(known)
        self.machine = merge(self.sections, "machine")

    def machine_types(self) -> "set[str]":
        """Return the machines that are named anywhere."""
        machines = [section for section in self.sections if section.group == "machine"]
        return {section.values["type"] for section in machines if "type" in section.values}

    def set_values(self) -> None:
        """Obey -set GROUP.ID.KEY=VALUE (QEMU: softmmu/vl.c, qemu_set_option)."""
        for text in self.options.values("set"):
            path, _, value = text.partition("=")
            group, _, rest = path.partition(".")
            name, _, key = rest.partition(".")
            for section in self.sections:
                if section.group == group and section.values.get("id") == name:
                    section.values[key] = value

    def of_group(self, *groups: str) -> "list[dict[str, str]]":
        """Return the keys and values of the sections of these groups."""
        return [section.values for section in self.sections if section.group in groups]

    def drivers(self) -> "list[str]":
        """Return what each -device asks for; for JSON that cannot be read the text as it is."""
        return [
            section.text or section.values.get("driver", "")
            for section in self.sections
            if section.group == "device"
        ]


def read_options(words: "Sequence[str]") -> Options:
    """Split the words after argv[0] as QEMU does."""
    given: list[tuple[str, str]] = []
    disks: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            disks.append(word)
            continue
        name = word[2:] if word.startswith("--") else word[1:]
        value = "" if name in ALONE else next(rest, None)
        if value is None or (name not in ALONE and name not in WITH_ARGUMENT):
            return Options(given, disks, word)
        given.append((name, value))
    return Options(given, disks, None)


def read_sections(options: Options) -> "Iterator[Section]":
    """Take the arguments apart that have parts, in order."""
    for name, value in options.given:
        group, first = GROUPS.get(name, ("", ""))
        if group and group not in NO_JSON and value.startswith("{"):
            found = read_object(value)
            yield Section(group, {}, value) if found is None else Section(group, found)
        elif group:
            yield Section(group, dict(split_parts(value, first)))


def read_object(text: str) -> "dict[str, str] | None":
    """Read a JSON object as an option with parts; None where it is none."""
    # QEMU takes '...' for "...", too (QEMU: qobject/json-lexer.c).
    found: Any = read_json(text if '"' in text else text.replace("'", '"'))
    return dict(flatten(found)) if found.__class__ is dict else None


def read_json(text: str) -> object:
    """Read JSON; None where it is none."""
    if len(text) > LONGEST:
        return None
    reading: Any = Reading()
    bare = text.strip(" \t\n\r")
    try:
        from _json import make_scanner
    except ImportError:
        from json.scanner import make_scanner
    try:
        found, end = make_scanner(reading)(bare, 0)
    except (ValueError, StopIteration, RecursionError, SystemError):
        return None  # SystemError: the error that it means is in json, which is not loaded
    return found if end == len(bare) else None


def flatten(found: "dict[str, Any]") -> "Iterator[tuple[str, str]]":
    """Write what JSON says as an option with parts: `a.b=c,d.0=e` (QEMU: util/keyval.c)."""
    rest: list[tuple[str, Any]] = [*found.items()][::-1]
    while rest:
        key, value = rest.pop()
        if value.__class__ is dict:
            members: Any = value.items()
        elif value.__class__ is list:
            members = enumerate(value)
        else:
            yield key, _plain(key, value)
            continue
        rest += [(f"{key}.{name}", member) for name, member in members][::-1]


def read_config(text: str) -> "list[Section]":
    """Read a file for -readconfig: `[group "id"]` and ` key = "value"`.

    As QEMU does with sscanf(3): any spaces separate, and what follows a closing quote or bracket
    counts for nothing (QEMU: util/qemu-config.c, qemu_config_foreach).
    """
    sections: list[Section] = []
    for line in text.split("\n"):
        bare = line.strip()
        if bare.startswith("["):
            group, name = _read_header(bare[1:])
            sections.append(Section(group, {"id": name} if name else {}))
        elif sections and "=" in bare and not bare.startswith("#"):
            key, _, value = bare.partition("=")
            before, quote, after = value.partition('"')
            sections[-1].values[key.strip()] = after.partition('"')[0] if quote else before.strip()
    return sections


def _read_header(rest: str) -> "tuple[str, str]":
    """Read a section's group and its id, "" where it has none, behind the bracket."""
    words = rest.split(None, 1)
    if len(words) > 1 and words[1].startswith('"'):
        return words[0], words[1][1:].partition('"')[0]
    return rest.partition("]")[0].strip(), ""


def split_parts(text: str, first: str) -> "Iterator[tuple[str, str]]":
    """Split `a=b,c=d,flag,noflag`; a comma in a value is doubled (QEMU: util/qemu-option.c).

    Args:
        text: an option's argument.
        first: the key of a first part without one; "" if that, too, is a flag.
    """
    at = 0
    while at < len(text):
        end = text.find(",", at)
        end = len(text) if end < 0 else end
        equals = text.find("=", at, end)
        if equals >= 0:
            key = text[at:equals]
            value, at = _value(text, equals + 1)
        elif at == 0 and first:
            key = first
            value, at = _value(text, 0)
        else:
            flag = text[at:end]
            key, value = (flag[2:], "off") if flag.startswith("no") else (flag, "on")
            at = end + 1
        yield key, value


def asks_for_help(value: str) -> bool:
    """Tell whether an argument only asks what could be said (QEMU: has_help_option)."""
    return any(part in HELP for part in value.split(","))


def merge(sections: "Iterable[Section]", group: str) -> "dict[str, str]":
    """Put the sections of one group together; what comes later wins."""
    merged: dict[str, str] = {}
    for section in sections:
        if section.group == group:
            merged.update(section.values)
    return merged


def _value(text: str, at: int) -> "tuple[str, int]":
    parts: list[str] = []
    while True:
        comma = text.find(",", at)
        if comma < 0:
            parts.append(text[at:])
            return "".join(parts), len(text)
        if text[comma + 1 : comma + 2] != ",":
            parts.append(text[at:comma])
            return "".join(parts), comma + 1
        parts.append(text[at : comma + 1])
        at = comma + 2


def _plain(key: str, value: object) -> str:
    """Write a value of JSON as in an option with parts."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if key == "addr" and isinstance(value, int):
        return f"{value >> 3:x}.{value & 7}"  # slot and function in one (QEMU: set_pci_devfn)
    return str(value)
