"""What to add to a QEMU command line: the whole decision, as one function.

Theory of operation:
    `decide` looks at the arguments, the settings and what this QEMU can do, and says what to add.
    It adds less in three steps. To a line that starts no guest of ours (help, a probe, libvirt's),
    or that we don't understand, nothing. To any other a monitor. A balloon only where it changes
    nothing else about the guest and gives memory back (kvm_balloon.py).

    The monitor comes from a file for -readconfig, because -qmp and -mon take the default monitor
    away, and with it the keys of -nographic.

Rules of this file:
    Pure, but for what kvm_memory.py looks up about a path. In doubt no balloon, and one line that
    says so; none where a balloon is not expected.
"""

from launchers.kvm_balloon import balloon_words, brings_balloon, why_no_balloon
from launchers.kvm_memory import NO_DEFLATE, lacks_deflate, look, why_not_preallocated
from launchers.kvm_options import WITH_ARGUMENT, Line, asks_for_help, merge, read_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launchers.kvm_balloon import Capabilities
    from launchers.kvm_memory import Memory
    from launchers.kvm_settings import Settings

HELPFUL = """
    L M accel audio audiodev blockdev chardev cpu d device display drive machine net netdev nic
    object soundhw tpmdev trace usbdevice vga watchdog
    """.split()  # noqa: SIM905 - a table
"""Options that take `help`."""
STARTS_NO_GUEST = ("h", "help", "version", "audio-help", "dump-vmstate")
NOT_OURS = ("qtest", "qtest-log", "xen-attach", "xen-domid")
LIBVIRT_MONITOR = "charmonitor"
"""Its monitor's name since libvirt 0.8; libvirt places devices itself, and counts them."""

IDS = tuple(f"qmpmem{number}" for number in range(10))
OTHER_IDS = tuple(f"qmpmem-{number}" for number in range(10))
"""Where a configuration file cannot be read, which may name one of the usual ones."""


class Plan:
    """What to add, and what is then true of the guest."""

    __slots__ = (
        "arguments",
        "arriving",
        "balloon",
        "current",
        "daemonize",
        "ksm",
        "monitor",
        "name",
        "no_balloon",
        "note",
        "remarks",
        "starts_small",
        "static",
        "unmovable",
    )

    def __init__(self) -> None:
        self.arguments: list[str] = []
        """Words to append, but for the monitor's."""
        self.monitor: str | None = None
        """The monitor's id; None: no monitor."""
        self.balloon: str | None = None
        """The balloon's id; None: no balloon of ours."""
        self.no_balloon: str | None = None
        """Why there is none of ours, where one could be expected."""
        self.unmovable: str | None = None
        """Why any balloon frees nothing of this guest's memory; None: it does."""
        self.note: str | None = None
        """What the user should know of this guest's balloon."""
        self.name: str | None = None
        """None: the guest has none, and nothing to derive one from."""
        self.static = False
        self.ksm: bool | None = None
        self.daemonize = False
        self.current: int | None = None
        """The size in bytes that the guest is to start with; None: nothing is said of it."""
        self.starts_small = False
        """Whether QEMU is to be told so, since it is less than all of the guest's memory."""
        self.arriving = False
        """Whether the guest's state is loaded or comes from another host."""
        self.remarks: list[str] = []

    def words(self, config: "str | None") -> "list[str]":
        """Write all that is added, given the path of the monitor's configuration file."""
        return [*(["-readconfig", config] if config else []), *self.arguments]


def why_unchanged(line: Line) -> "str | None":
    """Return why to add nothing at all to a line; "" for reasons that go without saying."""
    options = line.options
    if options.unknown is not None:
        lacks = options.unknown.replace("-", "", 1).removeprefix("-") in WITH_ARGUMENT
        why = "lacks its value" if lacks else "is not an option that qmpmem knows"
        return f"{options.unknown[:40]!r} {why}"
    asked = options.has(*STARTS_NO_GUEST) or any(map(asks_for_help, options.values(*HELPFUL)))
    libvirts = LIBVIRT_MONITOR in [section.values.get("chardev") for section in line.sections]
    none = line.machine.get("type") == "none"
    return "" if asked or libvirts or none or options.has(*NOT_OURS) else None


def decide(
    line: Line,
    settings: "Settings",
    capabilities: "Capabilities | None",
    memory: "Memory | None" = None,
) -> Plan:
    """Return what to add.

    Args:
        line: the user's words and configuration files.
        settings: what the user and the administrator want.
        capabilities: what this QEMU can do; None where that could not be found out.
        memory: what is known of the guest's memory; None: it is looked at here.
    """
    plan = Plan()
    reason = why_unchanged(line)
    if reason is not None:
        plan.remarks += [f"nothing added: {reason}"] if reason else []
        return plan
    plan.name = guest_name(line)
    plan.daemonize = line.options.has("daemonize")
    plan.static = settings.static
    plan.arriving = line.options.has("incoming", "loadvm")
    _decide_memory(plan, line, settings)
    free = free_ids(line)
    if not free:
        plan.remarks.append("no monitor, no balloon: all ids are taken")
        return plan
    plan.monitor = free[0]
    memory = memory or look(line)
    plan.unmovable = memory.unmovable
    reason = why_no_balloon(line, settings, capabilities, plan.unmovable)
    if reason is None and capabilities is not None:
        plan.balloon = free[0]
        plan.arguments += balloon_words(line, capabilities, free[0])
        plan.note = memory.note
    _explain_balloon(plan, line, settings, reason)
    if settings.current is not None:
        from launchers.kvm_current import decide_current

        decide_current(plan, line, settings.current)
    return plan


def free_ids(line: Line) -> "list[str]":
    """List the ids that nothing in the arguments has, be it escaped in JSON."""
    escaped = [text for text in line.texts if text.startswith("{") and "\\" in text]
    values = [value for text in escaped for value in (read_object(text) or {}).values()]
    ids = OTHER_IDS if line.unread else IDS
    return [name for name in ids if not any(name in text for text in (*line.texts, *values))]


def _explain_balloon(plan: Plan, line: Line, settings: "Settings", reason: "str | None") -> None:
    """Keep and print why there is no balloon, or why there is little in having one."""
    if reason:
        plan.no_balloon = reason
        plan.remarks.append(f"no balloon: {reason}")
    elif not settings.balloon and not settings.static:
        plan.no_balloon = "QMPMEM_BALLOON=off was set"
    elif plan.unmovable and brings_balloon(line):
        plan.remarks.append(f"its balloon frees nothing: {plan.unmovable}")
    if plan.note:
        plan.remarks.append(plan.note)
    elif lacks_deflate(line):
        plan.note = NO_DEFLATE


def guest_name(line: Line) -> "str | None":
    """Find the guest's name: -name as it is, else one that is derived, the same at each start."""
    given = merge(line.sections, "name").get("guest")
    if given:
        return given
    from launchers.kvm_name import derive_name

    return derive_name(line)


def _decide_memory(plan: Plan, line: Line, settings: "Settings") -> None:
    given = line.machine.get("mem-merge")
    wanted = False if settings.static else settings.ksm
    plan.ksm = wanted if given is None else given == "on"
    if settings.static and not line.options.has("mem-prealloc"):
        reason = why_not_preallocated(line)
        plan.arguments += [] if reason else ["-mem-prealloc"]
        plan.remarks += [f"memory is not allocated up front: {reason}"] if reason else []
    if given is None and wanted is not None:
        # Merges with the user's own -machine, and leaves the type as it is (QEMU: keyval_merge).
        plan.arguments += ["-machine", f"mem-merge={'on' if wanted else 'off'}"]
