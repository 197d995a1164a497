"""A process with much memory that is all the same: merged soon, and unmerged for long."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from tests.rig.qemu import WITH_US

_TEXT: Final = """
import mmap, sys
memory = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
memory.madvise(mmap.MADV_MERGEABLE)
for _ in range(len(memory) // mmap.PAGESIZE):
    memory.write(b"=" * mmap.PAGESIZE)
print("filled", flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(size: int) -> Generator[None]:
    """Have so many bytes of equal memory, offered for merging, until the end."""
    with subprocess.Popen(
        [*WITH_US, sys.executable, "-I", "-S", "-c", _TEXT, str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"filled\n"
            yield
        finally:
            process.kill()
