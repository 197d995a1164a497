"""The error tree, sorted by who must act, and the exit code of each branch.

    QmpmemError
    ├── NotReached          1   the guest did not get there in time: wait, or ask less
    ├── ConfigError         2   the user: an argument, a setting, a file
    ├── LaunchError         3   the user: a guest or the launcher could not be set up
    ├── KernelError         4   the administrator: /proc, /sys, permissions
    ├── AgentUnreachable    5   there is no agent, or it does not answer: start it, or look at it
    └── GuestError              one guest; all others go on
        ├── GuestUnreachable 5  no usable QMP session: gone, hung, busy, taken
        └── GuestRefused     6  QEMU answered, and the answer is no

Rules of this file:
    A message names what, where and what was expected, in one line, without a full stop.
    The hint tells the user what to do about it, where the user can do something.
"""

from typing import ClassVar


class QmpmemError(Exception):
    """Any failure that this package raises on purpose.

    Attributes:
        message: one line: what, where, expected.
        hint: what to do, or None where nothing can be done.
        exit_code: what the command line exits with.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotReached(QmpmemError):  # noqa: N818 - reads as the state it reports
    """A target was set, but the guest did not get there in time."""

    exit_code = 1


class ConfigError(QmpmemError):
    """What the user wrote makes no sense: usage, a setting, a file."""

    exit_code = 2


class LaunchError(QmpmemError):
    """A guest could not be started, or the launcher not installed or removed."""

    exit_code = 3


class KernelError(QmpmemError):
    """/proc or /sys is missing, unreadable, not writable, or holds something unexpected."""

    exit_code = 4


class AgentUnreachable(QmpmemError):  # noqa: N818 - reads as the state it reports
    """There is no agent to talk to.

    Attributes:
        reason: ``none``: there is no agent; ``timeout``: it does not answer; ``protocol``: what
            answers is no agent, or another version of one.
    """

    exit_code = 5

    def __init__(self, message: str, *, reason: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class GuestError(QmpmemError):
    """One guest cannot be worked with; the others are not affected."""

    exit_code = 5


class GuestUnreachable(GuestError):  # noqa: N818 - reads as the state it reports
    """There is no usable QMP session with this guest.

    Attributes:
        reason: a stable word for programs; see the constants of `qmpmem.wire.qmp`.
    """

    exit_code = 5

    def __init__(self, message: str, *, reason: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class GuestRefused(GuestError):  # noqa: N818 - reads as the state it reports
    """QEMU answered a command with an error.

    Attributes:
        error_class: QMP's error class, such as ``DeviceNotActive`` (QEMU: qapi/error.json).
    """

    exit_code = 6

    def __init__(self, message: str, *, error_class: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.error_class = error_class
