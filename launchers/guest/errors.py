"""What can go wrong with the tiny guest, and the exit code of each."""

from typing import ClassVar, Final

TIMED_OUT: Final = 124
"""As timeout(1) exits."""


class TinyguestError(Exception):
    """Any failure that is told to the user in one line."""

    exit_code: ClassVar[int] = 3


class BuildError(TinyguestError):
    """A package cannot be fetched or unpacked, or the cache cannot be written."""

    exit_code = 3


class ChannelError(TinyguestError):
    """The guest does not answer: it is not there, it ended, or it restarted."""

    exit_code = 125


class ChannelTimeoutError(ChannelError):
    """The guest is there and has not answered in time."""

    exit_code = TIMED_OUT
