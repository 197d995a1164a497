"""Sockets that systemd made and passes to the agent (systemd.socket(5), sd_listen_fds(3)).

Rules of this file:
    Only a unix stream socket that listens is taken. It stays systemd's: its mode is as its unit
    says, and it is not removed at the end.
"""

import os
import socket
from collections.abc import MutableMapping
from itertools import chain, repeat
from typing import Final

from qmpmem.api import addresses
from qmpmem.errors import ConfigError
from qmpmem.records import Record

FIRST: Final = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""
LOOK: Final = "agent"
CHANGE: Final = f"agent{addresses.ADMIN}"
"""FileDescriptorName= of the units."""
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class Given(Record, frozen=True):
    """The descriptors that were handed over; None: that one was not."""

    look: int | None = None
    change: int | None = None


def given(environ: MutableMapping[str, str]) -> Given:
    """Take what systemd handed over, and leave nothing of it to programs that this one starts.

    Raises:
        ConfigError: descriptors of other names, or twice the same, or something else than sockets.
    """
    pid, count, names = (environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not count.isdecimal():
        return Given()
    found: dict[str, int] = {}
    numbers = range(FIRST, FIRST + int(count))
    for number, name in zip(numbers, chain(names.split(":"), repeat("")), strict=False):
        key = name.removesuffix(".socket").removeprefix("qmpmem-")
        if key not in (LOOK, CHANGE) or key in found:
            raise ConfigError(
                f"LISTEN_FDNAMES={names!r}: expected {LOOK} and {CHANGE}, each once at most",
                hint="set FileDescriptorName= in the socket's unit",
            )
        _expect_listening(number, name)
        os.set_inheritable(number, False)  # noqa: FBT003 - its only argument
        found[key] = number
    return Given(look=found.get(LOOK), change=found.get(CHANGE))


def _expect_listening(number: int, name: str) -> None:
    try:
        with socket.socket(fileno=os.dup(number)) as connection:
            is_one = (
                connection.family == socket.AF_UNIX
                and connection.type == socket.SOCK_STREAM
                and connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
            )
    except OSError:
        is_one = False
    if not is_one:
        raise ConfigError(f"descriptor {number} ({name}): expected a unix socket that listens")
