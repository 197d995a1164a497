"""Which user's guests a user sees, and which users may change them.

Rules of this file:
    Root and the owner of a guest may do all, with and without an agent. Members of `WRITERS` may
    look and change, members of `READERS` may look, both by way of root's agent alone.

    A process that may connect to a QMP socket may do all that QMP can do, so the kernel keeps all
    but root and the owner away from it, and from the run directory that it is in. Nothing is
    refused here: the agent refuses what a group may not do, the kernel all else.
"""

import grp
import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from qmpmem.errors import ConfigError, KernelError
from qmpmem.guests import inventory, rundir
from qmpmem.records import Record

READERS: Final = rundir.GROUP
WRITERS: Final = "qmpmem-admin"
AGENT: Final = "qmpmem-agent"
"""The user, and its group, of root's agent where that does not run as root."""

START_AGENT: Final = "`qmpmem agent service install`, then `systemctl enable --now qmpmem-agent`"
SOCKET: Final = "agent.sock"
ADMIN_SOCKET: Final = "agent-admin.sock"
"""The names of the agent's sockets: for users who may look, and for users who may change."""

NO_CHANGE: Final = f"only root and the group {WRITERS} may change something"
NO_QMP: Final = (
    "only root, and the agent's user, may have all of QMP: it can do what QEMU's user can"
)
NO_LOOK: Final = f"only root, and the groups {READERS} and {WRITERS}, may ask"


class View(Record, frozen=True):
    """The run directories with which a command works."""

    run: Path
    """The run directory."""
    roots: Path | None = None
    """Root's run directory, where this user may see that as well."""


def view(environ: Mapping[str, str], uid: int, roots: Path = rundir.ROOTS) -> View:
    """Find the run directory whose guests a user sees.

    That is the one that QMPMEM_RUN_DIR names; else the user's own, where it has a guest; else
    root's, where the user may see that.

    Raises:
        ConfigError: QMPMEM_RUN_DIR is not an absolute path.
    """
    own = rundir.run_directory(environ, uid)
    if uid == 0 or rundir.chosen_directory(environ) is not None or not may_see(roots):
        return View(run=own)
    return View(run=own, roots=roots) if _has_guests(own) else View(run=roots)


def directory(environ: Mapping[str, str], uid: int) -> Path:
    """Return the run directory whose guests a user sees; as `view`."""
    return view(environ, uid).run


def may_see(roots: Path) -> bool:
    """Tell whether this process may list root's guests, itself or by way of root's agent."""
    if os.access(roots, os.R_OK | os.X_OK):
        return True
    # Either socket will do: each has a group of its own, and the kernel knows its members.
    place = agent_socket(roots)
    return any(os.access(each, os.W_OK) for each in (place, place.with_name(ADMIN_SOCKET)))


def agent_socket(run: Path) -> Path:
    """Return the path of the agent's socket to look, for the agent of a run directory.

    It is in a directory of its own, which only root and the agent's user can write.
    """
    directory = run.with_name("agent") if run == rundir.ROOTS else run / ".agent"
    return directory / SOCKET


def unseen_roots(uid: int, roots: Path = rundir.ROOTS) -> str | None:
    """Return why a user who may ask root's agent sees none of root's guests; None: it sees them."""
    if uid == 0 or may_see(roots) or not _groups() & {group_id(READERS), group_id(WRITERS)}:
        return None
    if not os.path.lexists(roots):
        return None
    return "root's guests are asked of root's agent, and none runs: as root, " + START_AGENT


def hidden_roots(uid: int, roots: Path = rundir.ROOTS) -> str | None:
    """Return why a guest of root's is not found by any user but root, and what to do about it.

    Args:
        uid: the user.
        roots: root's run directory.

    Returns:
        None where this user sees root's guests, or there are none.
    """
    if uid == 0 or may_see(roots) or not os.path.lexists(roots):
        return None
    return unseen_roots(uid, roots) or (
        f"this user sees its own guests; to see root's, {joining(READERS, group_id(READERS))}"
    )


def joining(name: str, number: int | None) -> str:
    """Return the command by which a user joins a group.

    Args:
        name: the group's name.
        number: its id; None: this host has no such group.
    """
    first = f"groupadd --system {name} && " if number is None else ""
    return f"as root: `{first}usermod -aG {name} USER`, then log in again"


def group_id(name: str) -> int | None:
    """Find a group by its name."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def user_id(name: str) -> int | None:
    """Find a user by its name."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def is_in(group: int | None) -> bool:
    """Tell whether this process is in a group."""
    return group in _groups()


def _groups() -> set[int | None]:
    return {os.getegid(), *os.getgroups()}


def _has_guests(run: Path) -> bool:
    try:
        found = inventory.take(run)
    except (ConfigError, KernelError):  # the command itself tells what is wrong with it
        return True
    return bool(found.guests or found.unreadable)
