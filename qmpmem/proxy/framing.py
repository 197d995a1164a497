"""Cut what a client sends into messages, as QEMU's own parser does.

Rules of this file:
    Pure. How the bytes are split over reads changes nothing.

Theory of operation:
    QMP has no frames: QEMU takes a message as complete when its brackets are closed, with or
    without a line end (qobject/json-streamer.c: json_message_process_token). Scripts depend on
    both: several messages in one line, and one over several lines. A text outside of brackets, and
    a string that is not closed where the line ends, are an error up to that line end, so that a
    client that sends garbage is heard again from its next line.
"""

import re
from typing import Final

_OUTSIDE: Final = re.compile(rb'["{}\[\]]')
_INSIDE: Final = re.compile(rb'["\\\n]')
_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_STEPS: Final = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}


class TooLongError(Exception):
    """A message that has more bytes than any may have."""


class Framer:
    """The messages of one client.

    Args:
        longest: bytes of a message.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._buffer = bytearray()
        self._begin_anew()

    def __len__(self) -> int:
        """Count the bytes that were fed and not taken."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take in what was read."""
        self._buffer += data

    def take(self) -> bytes | None:
        """Return the next whole message; None while there is none.

        Raises:
            TooLongError: the next message is too long.
        """
        if self._place == 0 and (space := _SPACE.match(self._buffer)):
            del self._buffer[: space.end()]  # copies nothing: the buffer may hold 100,000 messages
        end = self._find_end()
        if (len(self._buffer) if end is None else end) > self._longest:
            raise TooLongError
        if end is None:
            return None
        message = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._begin_anew()
        return message

    def _begin_anew(self) -> None:
        self._place = 0
        self._depth = 0
        self._is_string = False

    def _find_end(self) -> int | None:
        """Go on from where the last look ended."""
        if not self._buffer:
            return None
        if self._buffer[0] not in b"{[":
            end = self._buffer.find(b"\n", self._place)
            self._place = len(self._buffer)
            return None if end < 0 else end + 1
        while (match := self._next()) is not None:
            sign = match[0]
            if sign == b"\n":
                return match.end()
            if sign == b"\\":
                if match.end() == len(self._buffer):  # what is escaped is not here yet
                    return None
                self._place = match.end() + 1
                continue
            self._place = match.end()
            if sign == b'"':
                self._is_string = not self._is_string
                continue
            self._depth += _STEPS[sign]
            if self._depth == 0:
                return self._place
        return None

    def _next(self) -> "re.Match[bytes] | None":
        pattern = _INSIDE if self._is_string else _OUTSIDE
        match = pattern.search(self._buffer, self._place)
        if match is None:
            self._place = len(self._buffer)
        return match
