"""The launcher as a file: what is written to /usr/bin/kvm, and how it is known again.

Theory of operation:
    The wrapper is launchers/kvm with its `launchers=` line set to where the rest of it was copied,
    and a last line that seals the bytes above it. So a launcher is known as ours, and as unchanged,
    by itself: any version, and without a record of what was installed.

    The rest of it is a set of files in a directory that is named by what is in them. A new version
    has a new directory, filled before its wrapper is renamed over the old one: a launch has the set
    it began with, whole, to its end.

Rules of this file:
    Pure: bytes in, bytes out.
"""

import hashlib
import re
import shlex
from collections.abc import Mapping
from typing import Final, Literal

from qmpmem.errors import LaunchError

SEAL: Final = b"# Installed by `qmpmem launcher install`; sha256 of the above: "
_SEALED: Final = re.compile(rb"(?s)(.*\n)" + re.escape(SEAL) + rb"([0-9a-f]{64})\n")
SETS: Final = "launchers"
"""What the names of directories with launchers begin with."""
_PLACE: Final = re.compile(rb"(?m)^launchers=.*$")


def make_wrapper(shim: bytes, directory: str) -> bytes:
    """Make the file for /usr/bin/kvm of launchers/kvm, which finds the others in a directory.

    Raises:
        LaunchError: launchers/kvm has no line to say where the launchers are.
    """
    place = b"launchers=" + shlex.quote(directory).encode(errors="surrogateescape")
    script, found = _PLACE.subn(lambda _: place, shim)
    if found != 1:
        raise LaunchError(f"launchers/kvm: {found} lines begin with launchers=, expected 1")
    return script + SEAL + hashlib.sha256(script).hexdigest().encode() + b"\n"


def name_set(files: Mapping[str, bytes]) -> str:
    """Name the directory for a set of launchers, given by name and content."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return f"{SETS}-{digest.hexdigest()[:12]}"


def recognise(content: bytes) -> Literal["real", "wrapper", "changed", "old-recipe"]:
    """Return what kind of kvm begins with these bytes.

    A script that speaks of qmpmem without a good seal is taken for our launcher, edited: to launch
    it from our launcher could go round in circles.
    """
    sealed = _SEALED.fullmatch(content)
    if sealed is not None and hashlib.sha256(sealed[1]).hexdigest().encode() == sealed[2]:
        return "wrapper"
    if not content.startswith(b"#!"):
        return "real"
    if b"qmpmem" in content:
        return "changed"
    return "old-recipe" if b"kvm.real" in content else "real"
