"""Why there is no usable QMP session: the words that `GuestUnreachable.reason` can be.

`GuestView.state` has fewer words for it, which are no run states of QEMU's (`wire.replies`).

Rules of this file:
    A word is stable: programs branch on it. The sentence beside it is for people and may change.
"""

from typing import Final, Literal, get_args

from qmpmem.errors import GuestError, GuestUnreachable
from qmpmem.model.escapes import shortened

Reason = Literal[
    "gone",  # there is no such socket, or no process listens on it: the guest has ended
    "lost",  # the socket's file was removed while the guest runs
    "taken",  # another client holds the monitor, which serves one client at a time
    "permission",  # this user may not connect
    "not-a-socket",  # the path is a symlink, a file, a FIFO, or a socket of another kind
    "wrong-peer",  # another process than the guest listens there
    "handshake-timeout",  # connected, but no whole greeting and negotiation in time
    "protocol",  # what came is not QMP as QEMU speaks it, or breaks a limit
    "flood",  # more unasked lines than any QEMU sends
    "closed",  # the session ended: the guest ended, or closed the connection
    "timeout",  # QEMU answers neither a command nor a probe: it is stopped or hung
    "busy",  # QEMU answers only a probe, by the monitor's own thread: its main loop is at work
]

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

_HINTS: Final[dict[Reason, str]] = {
    "lost": "start it again when that suits: its balloon stays as it is until then",
    "permission": "join the group that owns the socket, or run as root",
    "taken": "end the other client, or give QEMU one more monitor: -qmp unix:PATH,server,wait=off",
    "busy": "QEMU works on something long; try again later",
}

SENT: Final = "QEMU works on something long; the command that was sent may still be carried out"
"""The hint where a busy QEMU has a command of ours."""

_STATES: Final[dict[str, str]] = {"gone": "gone", "taken": "in-use", "busy": "busy"}
_UNREACHABLE: Final = "unreachable"

WITHOUT_SESSION: Final = frozenset({_UNREACHABLE, *_STATES.values()})
"""The states of a guest with which there is no session."""

NO_STATISTICS: Final = "human monitor: no statistics"
"""What is missing of a guest that has only a human monitor."""

_SHOWN: Final = 200
"""Most characters of foreign text that a message repeats: enough for every error of QEMU 7.2."""


def unreachable(
    guest: str, reason: Reason, text: str, *, hint: str | None = None
) -> GuestUnreachable:
    """Return the error that there is no usable session; a reason may have a hint of its own."""
    hint = hint or _HINTS.get(reason)
    return GuestUnreachable(f"guest {guest}: {text}", reason=reason, hint=hint)


def state(reason: str) -> str:
    """Return the state of a guest with which there is no session."""
    return _STATES.get(reason, _UNREACHABLE)


def problem(error: GuestError) -> str:
    """Return in one line why a guest cannot be read, and what to do where its socket is lost."""
    is_lost = isinstance(error, GuestUnreachable) and error.reason == "lost"
    return f"{error.message}; {error.hint}" if is_lost and error.hint else error.message


def one_line(text: str) -> str:
    """Return foreign text that is safe to show: without control characters, and not too long."""
    return shortened(text, _SHOWN)
