"""Pressure stall information, and triggers on it (kernel: accounting/psi).

Theory of operation:
    A trigger is an open pressure file to which a threshold was written. poll() then reports POLLPRI
    when tasks were stalled for longer than that within the window, at most once a window. Without
    CAP_SYS_RESOURCE the kernel grants only windows of whole multiples of 2 s (Linux 6.6; none
    before). Where it grants none, the total is read again and again instead.
"""

import os
import re
import select
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from qmpmem.model.host import Pressure, PressureLine
from qmpmem.wire.kernel.files import read
from qmpmem.wire.kernel.host import ROOT

MEMORY: Final = "proc/pressure/memory"
IO: Final = "proc/pressure/io"

_LINE: Final = re.compile(
    r"(?P<kind>some|full) avg10=(?P<avg10>\d{1,3}\.\d\d) avg60=(?P<avg60>\d{1,3}\.\d\d) "
    r"avg300=(?P<avg300>\d{1,3}\.\d\d) total=(?P<total>\d{1,20})",
    re.ASCII,
)

WINDOW: Final = 2_000_000
"""Microseconds of the shortest window that an unprivileged process gets (PSI_FREQ)."""


def parse_pressure(content: str) -> Pressure | None:
    """Read ``some avg10=0.00 avg60=0.00 avg300=0.00 total=0`` and the like line of ``full``."""
    lines = dict(_parse_lines(content))
    some = lines.get("some")
    return None if some is None else Pressure(some=some, full=lines.get("full"))


def pressure(file: str = MEMORY, root: Path = ROOT) -> Pressure | None:
    """Read one pressure file; None where this kernel has none, or was booted with psi=0."""
    content = read(root / file)
    return None if content is None else parse_pressure(content)


@contextmanager
def trigger(
    stall: int, file: str = MEMORY, root: Path = ROOT, *, window: int = WINDOW
) -> Generator[int | None]:
    """Have the kernel report when some task was stalled for `stall` of `window` microseconds.

    Yields:
        A descriptor on which poll() reports POLLPRI (POLLERR: the file is gone, as with a cgroup
        that was removed); None where the kernel does not grant it.
    """
    try:
        descriptor = os.open(root / file, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        armed = _can_wait(descriptor) and _arm(descriptor, f"some {stall} {window}")
        yield descriptor if armed else None
    finally:
        os.close(descriptor)


def wait(descriptor: int, timeout: float) -> bool | None:
    """Wait for a trigger.

    Returns:
        Whether it fired within `timeout` seconds; None: the trigger is gone.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLPRI)
    for _, event in poll.poll(timeout * 1000):
        return None if event & select.POLLERR else bool(event & select.POLLPRI)
    return False


def _can_wait(descriptor: int) -> bool:
    """Tell whether a descriptor can be waited for: a recorded file would only be written to."""
    try:
        with select.epoll() as waiting:
            waiting.register(descriptor, select.EPOLLPRI)
    except OSError:
        return False
    return True


def _arm(descriptor: int, threshold: str) -> bool:
    try:
        os.write(descriptor, threshold.encode() + b"\0")
    except OSError:  # EINVAL: no right to this window; EPERM: no right to any
        return False
    return True


def _parse_lines(content: str) -> Iterator[tuple[str, PressureLine]]:
    for line in content.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        kind, total = match["kind"], int(match["total"])
        first, second, third = (float(match[name]) for name in ("avg10", "avg60", "avg300"))
        if max(first, second, third) <= 100:  # noqa: PLR2004 - percent
            yield kind, PressureLine(avg10=first, avg60=second, avg300=third, total=total)
