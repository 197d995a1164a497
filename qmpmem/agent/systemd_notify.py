"""What systemd is told: ready, alive, stopping (sd_notify(3))."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

from qmpmem.wire.kernel.files import is_count


class Notifier:
    """Sends to NOTIFY_SOCKET where there is one. Where that fails, only systemd has to act."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")

    def tell(self, state: str) -> None:
        """Send one state, such as ``READY=1``."""
        if self._address[:1] not in ("/", "@"):
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)  # noqa: FBT003 - its name says what it is
            channel.sendto(state.encode(), address)


def watchdog_period(environ: Mapping[str, str]) -> float | None:
    """Return the seconds within which systemd wants to be told anew; None: it does not."""
    word = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", "")
    if not is_count(word) or (meant and meant != str(os.getpid())):
        return None
    return int(word) / 1e6
