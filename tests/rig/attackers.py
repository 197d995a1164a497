"""Processes of another user that try to get into root's run directory, again and again.

Theory of operation:
    Each is a program that runs until it is ended, as a member of the group qmpmem, in the mounts of
    a `Namespace`. It ignores every refusal, so it loses only where the kernel refuses for good.
"""

import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final

from tests.rig.namespace import Namespace

PYTHON: Final = "/usr/bin/python3"
"""One that any user may run."""

_FRAME: Final = """
import fcntl, json, os, socket, sys
run, target, *more = sys.argv[1:]
def attempt(step, *words, **options):
    try:
        return step(*words, **options)
    except OSError:
        return None
print("begun", flush=True)
"""

EXCHANGE_GUEST: Final = """
number = 0
while True:
    number += 1
    attempt(os.rename, f"{run}/it", f"{run}/.x{number}")
    attempt(os.symlink, target, f"{run}/it")
    attempt(os.unlink, f"{run}/it")
"""
"""Puts a link in the place of the guest's directory."""

EXCHANGE_RUN: Final = """
number = 0
while True:
    number += 1
    attempt(os.rename, run, f"{run}.{number}")
    attempt(os.symlink, target, run)
    attempt(os.unlink, run)
    attempt(os.rename, f"{run}.{number}", run)
"""
"""Puts a link in the place of the run directory, in a directory of the group's."""

EXCHANGE_CONFIG: Final = """
text = '[chardev "evil"]\\n  backend = "null"\\n'
while True:
    for name in attempt(os.listdir, run) or ():
        path = f"{run}/{name}/monitor.conf"
        if os.path.exists(path):
            attempt(os.unlink, path)
            descriptor = attempt(os.open, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            if descriptor is not None:
                os.write(descriptor, text.encode())
                os.close(descriptor)
"""
"""Puts another text in the place of what tells QEMU of its monitor."""

HOLD_LOCK: Final = """
held = os.open(f"{run}/.lock", os.O_RDWR | os.O_CREAT, 0o660)
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
"""Holds the lock, and never lets go."""

LISTEN: Final = """
server = socket.socket(socket.AF_UNIX)
server.bind(target)
server.listen()
print("held", flush=True)
sys.stdin.read()
"""
"""Listens at a path."""

PLANT: Final = """
pid, started, path, group = int(more[0]), int(more[1]), more[2], int(more[3])
for name in ("evil", "evil2"):
    attempt(os.mkdir, f"{run}/{name}")
    record = dict(version=1, id=name, name=name, pid=pid, start_time=started, uid=0, created=0.0)
    record |= {"socket": path, "origin": "adopted" if name == "evil" else "launcher"}
    with open(f"{run}/{name}/record.json", "w") as file:
        json.dump(record, file)
    os.chmod(f"{run}/{name}", 0o700 | 0o070 * group)
print("held", flush=True)
sys.stdin.read()
"""
"""Writes records that name a process of root's, and its monitor."""


@contextmanager
def attacking(
    inside: Namespace,
    program: str,
    run: str,
    target: str = "",
    *more: str,
    groups: Sequence[str] = ("qmpmem",),
) -> Generator[None]:
    """Have a program at work.

    Args:
        inside: where.
        program: one of this file.
        run: the run directory.
        target: what it aims at.
        more: what it is told besides.
        groups: of its user.
    """
    words = inside.words(PYTHON, "-ISc", _FRAME + program, run, target, *more, groups=groups)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "begun\n"
            if '"held"' in program:
                assert child.stdout.readline() == "held\n"
            yield
        finally:
            child.kill()
