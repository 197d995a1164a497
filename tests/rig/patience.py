"""How much longer than on an idle machine a test waits before it calls something broken.

Every deadline of the tests is written as for an idle machine, and multiplied by this one factor:
other programs, and a second run of the suite, only make the tests slower. On a clock that jumps
nothing makes anything slower, and deadlines stay as they are written.

A deadline only ends a wait for what never comes. Where the time itself is tested, take `within`,
which does not count the time in which a program of this host waited for a processor.
"""

import asyncio
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.rig.clock import VirtualLoop

FACTOR: Final = float(os.environ.get("QMPMEM_TEST_PATIENCE", "5"))

CPU_PRESSURE: Final = Path("/proc/pressure/cpu")
ADDED_UP: Final = 2.2
"""Seconds after which the kernel's total includes what was before (Linux: kernel/sched/psi.c,
PSI_FREQ, and some time for its worker)."""


def patient(seconds: float) -> float:
    """Give a deadline for a machine that is not idle, in seconds."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    return seconds if isinstance(loop, VirtualLoop) else seconds * FACTOR


@contextmanager
def within(seconds: float) -> Generator[None]:
    """Fail the test where its body takes more than `patient` seconds of a host that is not busy.

    Time in which a program of this host waited for a processor is no such time. On a host that is
    always busy this fails for nothing, on one that is idle for every delay.

    Args:
        seconds: on an idle machine.
    """
    began, waited = time.monotonic(), _waited_for_cpu()
    yield
    took = time.monotonic() - began
    if took > patient(seconds):
        time.sleep(ADDED_UP)
        took -= _waited_for_cpu() - waited
    assert took <= patient(seconds), f"took {took:.1f} s, expected at most {patient(seconds):g} s"


def _waited_for_cpu() -> float:
    """Return the seconds in which any program of this host waited for a processor, since boot.

    0.0 where the kernel does not count them. Source: Documentation/accounting/psi.rst (some,
    total).
    """
    try:
        some = CPU_PRESSURE.read_text().partition("\n")[0]
    except OSError:
        return 0.0
    return int(some.rpartition("total=")[2]) / 1e6
