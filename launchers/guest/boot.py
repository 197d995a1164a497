"""The QEMU arguments that boot the tiny guest.

Theory of operation:
    Two ISA serial ports: the console and the command channel. Named as devices they work alike on
    pc, q35 and microvm (which has only one port of its own), with and without -nodefaults, and
    need no PCI slot. QEMU drops its default serial port where an isa-serial device is asked for
    (softmmu/vl.c: default_list).
    The kernel's command line comes from a file, so that no argument has a space in it, and a
    shell's $(tinyguest args ...) needs no quotes.
"""

import os
from pathlib import Path
from typing import Final

from launchers.guest.build import Artifacts
from launchers.guest.errors import BuildError

LONGEST_SOCKET: Final = 107
"""sun_path holds 108 bytes with the zero at its end (unix(7))."""


def arguments(artifacts: Artifacts, *, channel: Path, console: Path | None) -> list[str]:
    """Return what to add to a QEMU command line; `channel` becomes a listening unix socket.

    Raises:
        BuildError: the socket's path is too long for any socket.
    """
    if len(os.fsencode(channel)) > LONGEST_SOCKET:
        raise BuildError(f"{channel}: a socket's path has at most {LONGEST_SOCKET} bytes")
    output = f"file,id=tgcon,path={_escaped(console)}" if console else "null,id=tgcon"
    return [
        *("-kernel", str(artifacts.kernel)),
        *("-initrd", str(artifacts.initrd)),
        *("-readconfig", str(artifacts.config)),
        *("-chardev", output),
        *("-chardev", f"socket,id=tgchan,path={_escaped(channel)},server=on,wait=off"),
        *("-device", "isa-serial,chardev=tgcon,index=0"),
        *("-device", "isa-serial,chardev=tgchan,index=1"),
    ]


def _escaped(path: Path) -> str:
    """Double the commas, which end a value in QEMU's option strings."""
    return str(path).replace(",", ",,")
