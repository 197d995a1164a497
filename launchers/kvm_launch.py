"""From the shim's request to the words that are added: everything but the last step, exec.

Rules of this file:
    What cannot be done is raised: kvm.py then starts the guest unchanged.
"""

import os
import stat
import time

from launchers.kvm_balloon import expects_balloon
from launchers.kvm_claim import register
from launchers.kvm_emulator import find_capabilities, is_script
from launchers.kvm_options import Line
from launchers.kvm_path import LedError, follow, is_ours
from launchers.kvm_plan import decide, why_unchanged
from launchers.kvm_records import VERSION, readable, start_time
from launchers.kvm_run import open_run, run_directory
from launchers.kvm_settings import SettingError, read_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from launchers.kvm_plan import Plan
    from launchers.kvm_run import Run
    from launchers.kvm_settings import Settings

DEFAULTS = "/etc/default/qmpmem"
USER_CONFIG = "/etc/qemu/qemu.conf"
"""What QEMU reads unless told not to (QEMU: softmmu/vl.c, qemu_read_default_config_file)."""
KVM_MODULES = ("/sys/module/kvm_intel", "/sys/module/kvm_amd")
"""Loaded only where the processor has what KVM needs, and looked at first: reading /proc/cpuinfo
can take long (Linux: arch/x86/kernel/cpu/aperfmperf.c)."""
TEXT_LIMIT = 64 * 1024
FILES_LIMIT = 16
STARTED = time.time() - 1.0
"""Before anything was read that a launch stands on: Python itself starts in 0.01 s."""
NESTED = "QMPMEM_LAUNCHING"
READY = "ready"
"""What a trial says if everything that a launch needs could be loaded."""


def environment_for(real: str) -> "dict[str, str]":
    """Return the environment that this process was started with, for the emulator to get the same.

    Python sets LC_CTYPE where the locale is C (PEP 538), and the shim a mark that is of use only to
    a script, which might call kvm again.

    Raises:
        OSError: /proc is not there, or neither is the emulator.
    """
    with open("/proc/self/environ", "rb") as file:
        given = [os.fsdecode(entry).partition("=") for entry in file.read().split(b"\0")]
    environment = {key: value for key, equals, value in given if equals and key}
    if not is_script(real):
        environment.pop(NESTED, None)
    return environment


def prepare(
    request: "Sequence[str]",
    environment: "Mapping[str, str]",
    undo: "list[Callable[[], None]]",
    say: "Callable[[str], None]",
) -> "list[str]":
    """Find out what to add to a guest's arguments, and make ready what that needs.

    Args:
        request: state, Python, emulator, argv[0], and the user's words.
        environment: where settings are, and what the emulator gets.
        undo: gets a function for each thing to take back if the guest cannot start like this.
        say: takes a line for the user.

    Raises:
        SettingError: a setting makes no sense.
        ClaimError: the run directory cannot be used, is not safe, or too long a path.
        OSError: a file cannot be written or read.
    """
    state, python, real, name, *words = request
    line = Line(words)
    if why_unchanged(line) == "":
        return []
    file = environment.get("QMPMEM_DEFAULTS") or DEFAULTS
    settings = read_settings(environment, read_host_defaults(file), file)
    run = open_run(run_directory(settings.run, environment), settings.run)
    undo.append(lambda: os.close(run.descriptor))
    if state == "tried":
        prove(run.descriptor, python)
    options, asked = look_into(real, environment, ask_script=settings.ask_script)
    words = [*options, *words]
    line = Line(words, list(read_configs(Line(words))))
    can = None
    if asked is not None and expects_balloon(line, settings):
        can = find_capabilities(asked, environment, run.descriptor)
    plan = decide(line, settings, can)
    config, lacks = None, ""
    if plan.monitor is not None:
        config, lacks = take_in(run, plan, settings, dict(facts(plan, settings, real)), undo)
    remarks = [*plan.remarks, *doubts(line, real, name)]
    if lacks and environment.get(
        "QMPMEM_CGROUP"
    ):  # not where all guests of the host shall have one
        remarks.append(f"no cgroup of its own: {lacks}")
    if remarks:
        say("; ".join(remarks))
    return plan.words(config)


def take_in(
    run: "Run",
    plan: "Plan",
    settings: "Settings",
    known: "dict[str, object]",
    undo: "list[Callable[[], None]]",
) -> "tuple[str, str]":
    """Register a guest, and give it a cgroup of its own where that is wanted.

    Returns:
        The path at which QEMU reads of its monitor, and why there is no such group, or "".
    """
    if settings.cgroup is None:
        return register(run, plan, known, undo)[1], ""
    from launchers.kvm_group import enter, find_places

    places, lacks = find_places(settings.cgroup)
    known["cgroup"] = "\n".join(place.parent for place in places) or None
    guest, config = register(run, plan, known, undo)
    return config, lacks or enter(places, guest, undo)


def doubts(line: Line, real: str, name: str) -> "Iterator[str]":
    """Yield what the user should know of the host; `line`, `real` and `name` as requested."""
    if not any(map(os.path.exists, KVM_MODULES)):
        from launchers.kvm_accel import why_doubtful

        # A script chooses itself what it calls the emulator by.
        doubt = why_doubtful(line, "" if is_script(real) else name)
        if doubt:
            yield doubt


def look_into(
    real: str, environment: "Mapping[str, str]", *, ask_script: bool
) -> "tuple[list[str], str | None]":
    """Return what a guest is really started by.

    Returns:
        The options that are given before the user's, and the program that can be asked what it can
        do; None where there is none.

    Raises:
        OSError: the emulator cannot be read.
    """
    if not is_script(real):
        return [], real
    from launchers.kvm_script import find_emulator, read_script

    script = read_script(real)
    if script is None:
        return [], real if ask_script else None
    return script.options, find_emulator(script, environment)


def facts(plan: "Plan", settings: "Settings", real: str) -> "Iterator[tuple[str, object]]":
    """Yield what is true of a guest whatever its id; see `qmpmem.guests.rundir.GuestRecord`."""
    pid = os.getpid()
    yield "version", VERSION
    yield "pid", pid
    yield "start_time", start_time(pid)
    yield "uid", os.getuid()
    yield "created", time.time()
    yield "origin", "launcher"
    yield "mode", "static" if plan.static else "balloon"
    yield "managed", not plan.static
    yield "daemonize", plan.daemonize
    yield "emulator", readable(real)
    yield "balloon", plan.balloon
    yield "no_balloon", plan.no_balloon
    yield "unmovable", plan.unmovable
    yield "note", plan.note
    yield "ksm", plan.ksm
    yield "arriving", plan.arriving
    yield "domain", settings.domain


def read_configs(line: Line) -> "Iterator[str | None]":
    """Read the files that QEMU will read; None for each that cannot be."""
    if not line.options.has("no-user-config") and os.path.exists(USER_CONFIG):
        yield read_text(USER_CONFIG)
    files = line.options.values("readconfig")
    yield from map(read_text, files[:FILES_LIMIT])
    if len(files) > FILES_LIMIT:
        yield None


def read_host_defaults(path: str) -> str:
    """Read the host's defaults; a missing file says nothing, as does /dev/null.

    The shim looks the same way, before it starts a program that the file names.

    Raises:
        SettingError: they may say something that we cannot read, or that others have written.
    """
    if path == os.devnull:
        return ""
    text = unsafe = None
    try:
        place = follow(path, behind=True)
        try:
            seen = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
            here = f"/proc/self/fd/{place.directory}/{place.name}"
            unsafe = place.doubt or (None if is_ours(seen, here) else path)
            if unsafe is None:
                text = read_text(place.name, place.directory)
        finally:
            os.close(place.directory)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except LedError as error:
        unsafe = error.filename
    except (OSError, ValueError):
        pass
    if unsafe is not None:
        raise SettingError(f"{unsafe}: others may write it (chown root, chmod go-w)")
    if text is None:
        raise SettingError(f"{path}: expected a readable file of at most {TEXT_LIMIT} bytes")
    return text


def read_text(path: str, within: "int | None" = None) -> "str | None":
    """Read a small text; None for anything else, which is not even opened: it may be a pipe.

    Args:
        path: the file.
        within: the descriptor of the directory that the path begins in.
    """
    try:
        if not stat.S_ISREG(os.stat(path, dir_fd=within).st_mode):
            return None
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=within)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            content = os.read(descriptor, TEXT_LIMIT + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError):
        return None
    return content.decode(errors="surrogateescape") if len(content) <= TEXT_LIMIT else None


def prove(run: int, python: str) -> None:
    """Leave the proof that the launchers work; without it the next start takes longer."""
    from launchers.kvm_stamp import leave_stamp

    try:
        leave_stamp(run, python, STARTED)
    except OSError:
        pass
