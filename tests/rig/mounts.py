"""A mount namespace for one command, in which a test may mount what the host never sees."""

import subprocess
from functools import cache
from typing import Final

import pytest

UNSHARE: Final = ("/usr/bin/unshare", "--mount")


def apart() -> tuple[str, ...]:
    """Give the words that start a command with mounts of its own.

    Skips the test where that is not possible: for an ordinary user, in most containers, and in a
    chroot whose / is no mount point, so that mounts there cannot be made private
    (mount_namespaces(7)).
    """
    if refusal := _refusal():
        pytest.skip(f"no mounts of its own: {refusal}")
    return UNSHARE


@cache
def _refusal() -> str:
    done = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"
