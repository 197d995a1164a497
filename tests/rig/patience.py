"""How much longer than on an idle machine a test waits before it calls something broken.

Every deadline of the tests is written as for an idle machine, and multiplied by this one factor:
other programs, and a second run of the suite, only make the tests slower. On a clock that jumps
nothing makes anything slower, and deadlines stay as they are written.
"""

import asyncio
import os
from typing import Final

from tests.rig.clock import VirtualLoop

FACTOR: Final = float(os.environ.get("QMPMEM_TEST_PATIENCE", "5"))


def patient(seconds: float) -> float:
    """Give a deadline for a machine that is not idle, in seconds."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    return seconds if isinstance(loop, VirtualLoop) else seconds * FACTOR
