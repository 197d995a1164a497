"""The user and the groups of an agent that is not root, made by systemd (sysusers.d(5)).

Rules of this file:
    A user or group that exists stays as it is, and none is ever removed: files may belong to it.
"""

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

from qmpmem.agent.systemd_units import uid_of
from qmpmem.errors import LaunchError
from qmpmem.files import directories, obstacles, state_files
from qmpmem.guests.access import AGENT, READERS, WRITERS

DIRECTORY: Final = "etc/sysusers.d"
NAME: Final = "qmpmem.conf"
READABLE: Final = 0o644
LARGEST: Final = 1 << 20
PATIENCE: Final = 30.0
"""Most seconds that systemd-sysusers may take."""
PROGRAM: Final = "systemd-sysusers"

TEXT: Final = f"""\
# Written by `qmpmem agent service install --separate`: the user that the agent runs as.
# It is in both groups, so that it may give each the socket that is theirs.
g {READERS} -
g {WRITERS} -
u {AGENT} - "Agent of qmpmem" - -
m {AGENT} {READERS}
m {AGENT} {WRITERS}
"""


def make(root: Path) -> list[str]:
    """Make the user and the groups, where one is missing.

    Returns:
        What was done, one line each; empty where all of it was there.

    Raises:
        LaunchError: it cannot be done.
    """
    place = root / DIRECTORY / NAME
    done: list[str] = []
    try:
        with directories.opened_beneath(root, DIRECTORY, make=True) as directory:
            if _read(directory) != TEXT:
                state_files.write_below(directory, NAME, TEXT.encode(), READABLE)
                done.append(f"wrote {place}")
    except OSError as error:
        raise obstacles.explain(error, place) from error
    if done or uid_of(AGENT, root) is None:
        _run(root)
        done.append(f"made the user {AGENT} and the groups, where they were missing")
    return done


def forget(root: Path) -> list[str]:
    """Remove the file that lists the user and the groups, which stay themselves.

    Raises:
        LaunchError: it cannot be done.
    """
    try:
        with directories.opened_beneath(root, DIRECTORY) as directory:
            if _read(directory) != TEXT:
                return []
            os.unlink(NAME, dir_fd=directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise obstacles.explain(error, root / DIRECTORY / NAME) from error
    return [f"removed {root / DIRECTORY / NAME}; the user {AGENT} and the groups stay"]


def _read(directory: int) -> str | None:
    with suppress(FileNotFoundError):
        return state_files.read_below(directory, NAME, LARGEST).decode(errors="replace")
    return None


def _run(root: Path) -> None:
    """Have systemd make what the file lists, on this host or in an image."""
    where = [] if root == Path("/") else [f"--root={root}"]
    try:
        done = subprocess.run(
            [PROGRAM, *where, NAME],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise LaunchError(f"{PROGRAM}: not found", hint="it comes with systemd") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{PROGRAM}: {error}") from error
    if done.returncode != 0:
        words = " ".join(done.stderr.split())
        raise LaunchError(f"{PROGRAM}: exit code {done.returncode}: {words}", hint="run as root")
