"""The systemd unit that runs the agent: root's, or one user's."""

import pwd
import re
from pathlib import Path
from typing import Final

from qmpmem import directories, service, statefile
from qmpmem.errors import ConfigError, LaunchError
from qmpmem.records import replace
from qmpmem.service import Unit

UNIT: Final = Unit(
    name="qmpmem-agent.service",
    first_line="# Runs the agent, which moves memory",
)
"""For root's guests: as root, whose the guests' monitors, cgroups and KSM are."""

OF_USER: Final = "qmpmem-agent-user.service"
"""The text of the unit for one user's guests."""
LARGEST: Final = 1 << 20
"""Bytes of an image's list of users that are looked at."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
"""What systemd takes as User= (systemd: valid_user_group_name)."""
_USER: Final = re.compile(r"(?m)^User=(\S+)$")


def unit_of(user: str | None, root: Path = Path("/")) -> Unit:
    """Return the unit for the guests of a user; None: of root.

    Args:
        user: the user's name.
        root: where the unit is to be, and the user is known.

    Raises:
        ConfigError: there is no such user, or it is root.
    """
    if user is None:
        return UNIT
    uid = _uid(user, root) if _NAME.fullmatch(user) else None
    if uid is None:
        raise ConfigError(f"--user {user}: no such user")
    if uid == 0:
        raise ConfigError(f"--user {user}: that is root", hint="leave --user out")
    return replace(UNIT, source=OF_USER, values=(("USER", user), ("UID", str(uid))))


def installed(root: Path) -> Unit:
    """Return the unit that is in place below a root, whose ever it is; else root's."""
    try:
        text = service.find(UNIT, root) or ""
    except (OSError, LaunchError):
        return UNIT
    match = _USER.search(text)
    try:
        return unit_of(match[1] if match else None, root)
    except ConfigError:  # a user that was removed since
        return UNIT


def _uid(user: str, root: Path) -> int | None:
    """Find a user's number, on this host or in the list of an image."""
    if root == Path("/"):
        try:
            return pwd.getpwnam(user).pw_uid
        except KeyError:
            return None
    try:
        with directories.opened_beneath(root, "etc") as directory:
            content = statefile.read_below(directory, "passwd", LARGEST).decode(errors="replace")
    except OSError:
        return None
    entries = (line.split(":") for line in content.splitlines())
    found = [each[2] for each in entries if each[0] == user and len(each) > 2]  # noqa: PLR2004 - passwd(5)
    return int(found[0]) if found and found[0].isdigit() else None
