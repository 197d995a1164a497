"""How fast this host's time stamp counter runs, which is also the one that an emulated guest sees.

QEMU without KVM answers a guest's rdtsc with the host's (include/qemu/timer.h: cpu_get_host_ticks).
"""

import ctypes
import mmap
import time
from collections.abc import Callable
from typing import Final

RDTSC: Final = bytes.fromhex("0f31 48c1e220 4809d0 c3")
"""rdtsc; shl $32, %rdx; or %rdx, %rax; ret."""

SECONDS: Final = 0.02
TRIES: Final = 5


def measure() -> int | None:
    """Measure the counter's rate in kHz, to about 0.1 %; None where code may not be made here."""
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:  # a hardened host: no page is both written and run
        return None
    page.write(RDTSC)
    start = ctypes.c_char.from_buffer(page)
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(start))
    first_time, first = _sample(read)
    time.sleep(SECONDS)
    last_time, last = _sample(read)
    return (last - first) * 1_000_000 // (last_time - first_time)


def _sample(read: Callable[[], int]) -> tuple[int, int]:
    """Read clock (ns) and counter together: of several tries the one that took the least time."""
    tries: list[tuple[int, int, int]] = []
    for _ in range(TRIES):
        before = time.monotonic_ns()
        counter = read()
        tries.append((time.monotonic_ns() - before, before, counter))
    _, before, counter = min(tries)
    return before, counter
