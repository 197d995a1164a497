"""Where the agent's socket is.

Theory of operation:
    An agent looks after one run directory, so its socket is found from that one's path, and two
    agents for the same guests meet at the same lock. Root's stands in /run/qmpmem, where members of
    both groups can get to it. Any other stands inside its run directory, which is safe where the
    guests' own sockets are; no guest has an id that starts with a dot.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from qmpmem import rundir
from qmpmem.errors import ConfigError

LONGEST: Final = 107
"""Bytes of a socket's path (unix(7): sun_path, less the NUL)."""


def socket_path(environ: Mapping[str, str], run: Path) -> Path:
    """Name the socket of the agent that looks after a run directory.

    Raises:
        ConfigError: QMPMEM_AGENT_SOCKET is not an absolute path, or the path is too long.
    """
    chosen = environ.get("QMPMEM_AGENT_SOCKET")
    if chosen and not chosen.startswith("/"):
        raise ConfigError(f"QMPMEM_AGENT_SOCKET={chosen!r}: expected an absolute path")
    path = Path(chosen) if chosen else _beside(run)
    length = len(str(path).encode(errors="surrogateescape"))
    if length > LONGEST:
        raise ConfigError(
            f"{path}: {length} bytes, expected {LONGEST} at most for a socket",
            hint="set QMPMEM_AGENT_SOCKET to a shorter path",
        )
    return path


def existing_socket(environ: Mapping[str, str], run: Path) -> Path | None:
    """Return the path of an agent's socket; None where there is no file of that name.

    Most hosts have no agent, so this is cheap. A socket that this user may not look at is none.

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
    """Name the lock that the agent behind a socket holds."""
    return socket.with_name(socket.name.removesuffix(".sock") + ".lock")


def _beside(run: Path) -> Path:
    return run.with_name("agent.sock") if run == rundir.ROOTS else run / ".agent.sock"
