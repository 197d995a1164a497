"""A stranger that writes lines of /proc/net/unix, by sockets whose paths hold a newline.

Theory of operation:
    The kernel prints the path that was given to bind(2) as it is (Linux: net/unix/af_unix.c,
    unix_seq_show). What follows a newline in it reads as a line of its own. The slashes of the
    forged path are directories, which the stranger makes.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.rig.users import AS_ORDINARY

PYTHON: Final = "/usr/bin/python3"
"""One that any user may run."""
PROGRAM: Final = r"""
import os, socket, sys
path, count = sys.argv[1], int(sys.argv[2])
held = [socket.socket(socket.AF_UNIX)]
inode = os.fstat(held[0].fileno()).st_ino
for number in range(count):
    name = f"{number}\n0: 00000002 00000000 00010000 0001 01 {inode} {path}"
    os.makedirs(os.path.dirname(name), exist_ok=True)
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].bind(name)
    held[-1].listen()
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@contextmanager
def forged(here: Path, path: str, count: int = 200) -> Iterator[int]:
    """Have a stranger write lines that say that one of its sockets listens at a path.

    Args:
        here: a directory, in which one of the stranger's is made.
        path: the path.
        count: of lines.

    Yields:
        The stranger's pid.
    """
    own = here / "stranger"
    own.mkdir(mode=0o777)
    own.chmod(0o777)
    with subprocess.Popen(
        [*AS_ORDINARY, PYTHON, "-IS", "-c", PROGRAM, path, str(count)],
        cwd=own,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        try:
            yield int(child.stdout.readline())
        finally:
            child.kill()
