"""Where the agent's two sockets are: one to look, one to change something.

Theory of operation:
    An agent looks after one run directory, so its sockets are found from that one's path, and two
    agents for the same guests meet at the same lock. They stand in a directory of their own, with
    the lock and the orders, which only root and the agent's user can write: /run/qmpmem/agent for
    root's guests, `.agent` in any other run directory; no guest has an id that starts with a dot.

    Each socket has a group of its own, so the kernel refuses a process that is in neither group
    before the agent hears of it (unix(7): connecting needs the right to write to the socket).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from qmpmem.errors import ConfigError
from qmpmem.guests import access

LONGEST: Final = 107
"""Bytes of a socket's path (unix(7): sun_path, less the NUL)."""
ADMIN: Final = "-admin"
"""What the name of the socket for changes has more than that of the other."""

_ENDING: Final = ".sock"


def socket_path(environ: Mapping[str, str], run: Path) -> Path:
    """Return the path of the socket to look, of the agent that looks after a run directory.

    Raises:
        ConfigError: QMPMEM_AGENT_SOCKET is not an absolute path, or the path is too long.
    """
    chosen = environ.get("QMPMEM_AGENT_SOCKET")
    if chosen and not chosen.startswith("/"):
        raise ConfigError(f"QMPMEM_AGENT_SOCKET={chosen!r}: expected an absolute path")
    path = Path(chosen) if chosen else access.agent_socket(run)
    longer = admin_path(path)
    length = len(os.fsencode(longer))
    if length > LONGEST:
        raise ConfigError(
            f"{longer}: {length} bytes, expected {LONGEST} at most for a socket",
            hint="set QMPMEM_AGENT_SOCKET to a shorter path",
        )
    return path


def admin_path(path: Path) -> Path:
    """Return the path of the socket for changes, which stands beside the other."""
    return path.with_name(_stem(path) + ADMIN + path.name[len(_stem(path)) :])


def existing_socket(environ: Mapping[str, str], run: Path) -> Path | None:
    """Return the path of an agent's socket to look; None where there is no file of that name.

    Most hosts have no agent, so this is cheap. A socket that this user may not look at does
    not count.

    Raises:
        ConfigError: QMPMEM_AGENT_SOCKET makes no sense.
    """
    try:
        path = socket_path(environ, run)
    except ConfigError:
        if environ.get("QMPMEM_AGENT_SOCKET"):
            raise
        return None  # the path is too long for any socket
    return path if os.path.exists(path) else None  # noqa: PTH110 - also where we may not look


def lock_path(socket: Path) -> Path:
    """Return the path of the lock that the agent behind a socket holds."""
    return socket.with_name(f"{_stem(socket)}.lock")


def orders_path(socket: Path) -> Path:
    """Return the path of the file that keeps what the agent was told to hold and pin."""
    return socket.with_name(f"{_stem(socket)}.orders")


def _stem(path: Path) -> str:
    return path.name.removesuffix(_ENDING)
