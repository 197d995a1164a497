"""The systemd units that run the agent: as root, as a user of its own, or as one user.

As a user of its own the agent has no rights, and a second unit runs the broker as root.
"""

import os
import pwd
import re
from pathlib import Path
from typing import Final

from qmpmem import systemd
from qmpmem.errors import ConfigError, LaunchError
from qmpmem.files import defaults, directories, state_files
from qmpmem.guests import access, rundir
from qmpmem.ksm import rules
from qmpmem.records import replace
from qmpmem.systemd import Unit

UNIT: Final = Unit(
    name="qmpmem-agent.service",
    first_line="# Runs the agent, which moves memory",
    values=(("RUN", str(rundir.ROOTS.parent)),),
)
"""The unit for root's guests, as root, which owns the guests' monitors, their cgroups, and KSM."""

SEPARATE: Final = replace(
    UNIT,
    source="qmpmem-agent-separate.service",
    values=(("KSM", " ".join((rules.RUN, *rules.KNOBS))),),
)
"""The unit for root's guests, as the user `access.AGENT`; it needs `BROKER`."""

BROKER: Final = Unit(
    name="qmpmem-broker.service",
    first_line="# Holds the monitors of root's guests",
)

OF_USER: Final = "qmpmem-agent-user.service"
"""The text of the unit for one user's guests."""
LARGEST: Final = 1 << 20
"""Most bytes that are read of an image's list of users."""

ROOT: Final = "root"
DIGITS: Final = 10
NO_USER: Final = (1 << 32) - 1
NO_USER_ONCE: Final = (1 << 16) - 1
"""The number that meant no user to the kernel when numbers had 16 bits."""

SYSTEMS: Final = (
    *("/bin", "/boot", "/efi", "/etc", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/proc", "/root/.ssh", "/run/dbus", "/run/systemd", "/sbin", "/sys", "/usr"),
    *("/var/lib/dpkg", "/var/lib/rpm", "/var/lib/systemd", "/var/spool/cron"),
)
"""Directories of the system, with all in them (hier(7)): no run directory is among them."""
SHARED: Final = frozenset(
    (
        *("/", "/dev", "/dev/shm", "/home", "/media", "/mnt", "/opt", "/root", "/srv", "/tmp"),  # noqa: S108
        *("/run", "/run/lock", "/run/user"),
        *("/var", "/var/cache", "/var/lib", "/var/log", "/var/spool", "/var/tmp"),  # noqa: S108
    )
)
"""Directories that hold what is others' (hier(7)): a run directory may be in them, and is none of
them. A directory that holds others' files is none, too. Else a unit's ReadWritePaths= would undo
its ProtectSystem=strict."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
"""The names that systemd takes as User= (systemd: valid_user_group_name)."""
_VAR_RUN: Final = re.compile(r"^/var(?:/run|(?=/lock))(?=/|$)")
_USER: Final = re.compile(r"(?m)^User=(\S+)$")


def unit_of(user: str | None, root: Path = Path("/")) -> Unit:
    """Return the unit for the guests of a user; None: of root.

    Args:
        user: the user's name.
        root: the root of the system where the unit is to be, and the user is known.

    Raises:
        ConfigError: there is no such user, or it is root; or the host's defaults name a run
            directory that cannot stand in a unit, or cannot be believed.
    """
    if user is None:
        return replace(UNIT, values=(("RUN", _run_directory(root) or str(rundir.ROOTS.parent)),))
    uid = uid_of(user, root) if _NAME.fullmatch(user) else None
    if uid is None:
        raise ConfigError(f"--user {user}: no such user")
    if uid == 0:
        raise ConfigError(f"--user {user}: that is root", hint="leave --user out")
    if user == access.AGENT:
        raise ConfigError(f"--user {user}: that one has no guests", hint="take --separate")
    run = _run_directory(root) or f"/run/user/{uid}"
    return replace(UNIT, source=OF_USER, values=(("USER", user), ("UID", str(uid)), ("RUN", run)))


def _run_directory(root: Path) -> str | None:
    """Return the run directory that the host's defaults name, in which the agent has to write.

    Raises:
        ConfigError: an agent must not write there, or the defaults cannot be believed.
    """
    found = defaults.expect_believed(defaults.load({}, root))
    chosen = found.values.get("QMPMEM_RUN_DIR") or None
    if chosen is None:
        return None
    if not systemd.is_plain(chosen):
        raise ConfigError(
            f"{found.path}: QMPMEM_RUN_DIR={chosen!r}: expected {systemd.PLAIN}",
            hint="systemd, which is to run the agent, takes no other",
        )
    plain = f"/{'/'.join(part for part in chosen.split('/') if part not in ('', '.'))}"
    places = (plain, *_behind_links(plain, root))
    if ".." in plain.split("/") or any(map(is_systems, places)) or not _is_free(plain, root):
        raise ConfigError(
            f"{found.path}: QMPMEM_RUN_DIR={chosen}: expected a directory of its own, which holds "
            "guests alone, and nothing of the system",
            hint=f"leave it out, which means {rundir.ROOTS}, or name one such as /srv/guests",
        )
    return plain


def is_systems(path: str) -> bool:
    """Tell whether a directory is the system's own, or holds what is others'. Pure.

    Args:
        path: an absolute path without dots in it.
    """
    return path in SHARED or any(f"{path}/".startswith(f"{each}/") for each in SYSTEMS)


def _behind_links(path: str, root: Path) -> list[str]:
    """Return what a path below a root leads to, as seen inside the root.

    Of a path of which the last parts are missing that is what the others lead to, with those parts.
    ``/var/run`` and ``/var/lock`` are links on a system that runs, and may be missing in an image.
    """
    parts = path.strip("/").split("/")
    for count in range(len(parts), -1, -1):
        found = _seen_inside("/".join(parts[:count]), root)
        if found is not None:
            led = "/" + "/".join((*found.strip("/").split("/"), *parts[count:])).strip("/")
            return [led, _VAR_RUN.sub("/run", led)]
    return []


def _seen_inside(path: str, root: Path) -> str | None:
    """Return where a directory below a root is, as seen inside the root; None: it is missing."""
    try:
        with (
            directories.opened_beneath(root, path) as found,
            directories.opened_beneath(root, "/") as top,
        ):
            here, above = (os.readlink(f"/proc/self/fd/{each}") for each in (found, top))  # noqa: PTH115
    except OSError:
        return None
    return "/" if here == above else f"/{here.removeprefix(above).lstrip('/')}"


def _is_free(path: str, root: Path) -> bool:
    """Tell whether a directory below a root is missing, or holds what launchers put there alone."""
    try:
        with directories.opened_beneath(root, path) as found:
            return rundir.holds_guests_only(found)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def expect_default_directory(root: Path) -> None:
    """Refuse a separate agent where root's guests are not in the default run directory.

    Raises:
        ConfigError: the host's defaults name another run directory, or cannot be believed.
    """
    found = defaults.expect_believed(defaults.load({}, root))
    chosen = found.values.get("QMPMEM_RUN_DIR")
    if chosen and Path(chosen) != rundir.ROOTS:
        raise ConfigError(
            f"{found.path}: QMPMEM_RUN_DIR={chosen}: an agent with a user of its own is for guests "
            f"in {rundir.ROOTS}",
            hint="leave out --separate, or that line",
        )


def remove_broker(root: Path) -> list[str]:
    """Remove the broker's unit, where it is ours.

    Returns:
        What was done, one line each.

    Raises:
        LaunchError: it cannot be removed.
    """
    try:
        systemd.expect_ours(BROKER, root)
    except LaunchError:
        return []
    return systemd.uninstall(BROKER, root)


def installed(root: Path) -> Unit:
    """Return the unit that is installed below a root, for any user; else root's."""
    try:
        text = systemd.find(UNIT, root) or ""
    except (OSError, LaunchError):
        return UNIT
    match = _USER.search(text)
    user = match[1] if match is not None and match[1] != ROOT else None
    if user == access.AGENT:
        return SEPARATE
    try:
        return unit_of(user, root)
    except ConfigError:  # a user that was removed since
        return UNIT


def uid_of(user: str, root: Path) -> int | None:
    """Find a user's number, on this host or in the list of an image; None: there is none."""
    if root == Path("/"):
        try:
            return pwd.getpwnam(user).pw_uid
        except KeyError:
            return None
    try:
        with directories.opened_beneath(root, "etc") as directory:
            content = state_files.read_below(directory, "passwd", LARGEST).decode(errors="replace")
    except OSError:
        return None
    entries = (line.split(":") for line in content.splitlines())
    found = [each[2] for each in entries if each[0] == user and len(each) > 2]  # noqa: PLR2004 - passwd(5)
    return _number(found[0]) if found else None


def _number(field: str) -> int | None:
    """Return a user's number; None: it is none, or one that systemd refuses (uid_is_valid)."""
    if not (field.isascii() and field.isdecimal() and len(field) <= DIGITS):
        return None
    return int(field) if int(field) < NO_USER and int(field) != NO_USER_ONCE else None
