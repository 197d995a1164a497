"""What a QMP peer may do: how long it may take, how much it may send, and what a line may hold.

Rules of this file:
    Pure: no sockets, no clock of its own. A line is judged whole, before anything is done with it.

Theory of operation:
    QEMU is trusted to run the guest, but the guest may have taken it over: a guest that breaks out
    of its machine owns the other end of this socket. So the limits lie far above what QEMU does and
    far below what hurts. json.loads is not enough: it takes bytes for UTF-16 when they look like
    it, accepts NaN, and recurses until it fails. msgspec decodes UTF-8 only, refuses NaN, Infinity
    and numbers past a double, and checks what a string may hold. Depth and digits are checked here.
"""

import re
from itertools import accumulate
from typing import Final

import msgspec

from qmpmem.records import Record
from qmpmem.wire.errors import Reason

LINE: Final = 256 * 1024
"""Most bytes of a line. The longest answer we ask QEMU 7.2 for, query-chardev of 100, has 8 KiB."""

DEPTH: Final = 32
"""Most levels of nested lists and objects. Answers to our commands have 5, and QEMU itself refuses
more than 1024 (qobject/json-streamer.c: MAX_NESTING)."""

DIGITS: Final = 20
"""Most digits of an integer: 2^64-1, the largest that QEMU prints (%PRIu64), has 20."""

REQUEST: Final = 4096
"""Most bytes of a request of ours. Device paths that QEMU makes up have about 40 characters."""

FLOOD_BURST: Final = 20 << 20
FLOOD_RATE: Final = 2 << 20
"""Most unasked bytes at once, and per second. The events of a guest that reboots all the time, or
of a failing disk, stay under 1 MiB/s; 100,000 events at once have 16 MiB."""

FLOOD_LINE: Final = 64
"""Bytes that a line counts beside its own, for what handling an empty one costs."""

_OBJECT: Final = msgspec.json.Decoder(dict[str, object])
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_HUMAN: Final = re.compile(rb"QEMU \S+ monitor ")
HUMAN: Final = "QEMU's human monitor (-monitor); QMP is needed: -qmp unix:PATH,server=on,wait=off"
_LONG_NUMBER: Final = re.compile(rb"(?<![0-9])[0-9]{%d}" % (DIGITS + 1))
_LONG_INTEGER: Final = re.compile(rb"(?<![0-9.])[0-9]{%d,}(?![0-9.eE])" % (DIGITS + 1))
_STEPS: Final = bytes.maketrans(b"[]{}", b"\x01\xff\x01\xff")
"""Brackets as signed bytes: 1 opens a level, and -1 closes one."""
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


class Deadlines(Record, frozen=True):
    """Seconds that QEMU may take. An idle one answers within 1 ms, and a starved one within 1 s."""

    handshake: float = 5.0
    """Seconds from the connection to the end of the negotiation, without our own search for a
    client that holds the monitor."""
    query: float = 3.0
    change: float = 5.0
    """Seconds for commands that change something: device_add takes long on a loaded host."""
    probe: float = 1.0
    """Seconds for the out-of-band probe, which is sent after `query` or `change` has passed."""


class MalformedError(ValueError):
    """A line that is refused; the text tells why, without quoting the line."""

    reason: Reason = "protocol"


class TurnedAwayError(MalformedError):
    """A broker's refusal instead of a greeting: why there is no session with the guest."""

    def __init__(self, text: str, reason: Reason) -> None:
        super().__init__(text)
        self.reason = reason


class FloodError(MalformedError):
    """A line that is one too many."""

    reason = "flood"


def parse_line(line: bytes) -> dict[str, object]:
    """Read one line as a JSON object.

    Args:
        line: UTF-8, with or without the line end.

    Raises:
        MalformedError: it is not JSON, not an object, or over a limit.
    """
    if len(line) > LINE + 2:  # the line end, which QEMU writes as CR LF
        raise MalformedError(f"a line of over {LINE} bytes")
    try:
        value = _OBJECT.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if _HUMAN.match(line):
            raise MalformedError(HUMAN) from error
        raise MalformedError(f"not a JSON object: {error}") from error
    except RecursionError as error:
        raise MalformedError(f"JSON nested deeper than {DEPTH}") from error
    if line.count(b"[") + line.count(b"{") > DEPTH or _LONG_NUMBER.search(line):
        _check_depth_and_digits(line)
    return value


class TokenBucket:
    """A token bucket: tells when a peer has sent more than its rate and burst allow."""

    def __init__(self, now: float, *, burst: float, rate: float) -> None:
        self._burst = burst
        self._rate = rate
        self._left = burst
        self._then = now

    def take(self, amount: float, now: float) -> bool:
        """Take an amount, and return True; where less is left, take nothing, and return False.

        Args:
            amount: in the unit of burst.
            now: seconds of a monotonic clock.
        """
        self._left = min(self._burst, self._left + (now - self._then) * self._rate)
        self._then = now
        if amount > self._left:
            return False
        self._left -= amount
        return True


def _check_depth_and_digits(line: bytes) -> None:
    """Check a line that is known to be JSON, without a step of Python for each of its values."""
    bare = _STRING.sub(b"", line)
    if _LONG_INTEGER.search(bare):
        raise MalformedError(f"an integer of over {DIGITS} digits")
    steps = memoryview(bare.translate(_STEPS, _NO_BRACKETS)).cast("b")
    if max(accumulate(steps), default=0) > DEPTH:
        raise MalformedError(f"JSON nested deeper than {DEPTH}")
