"""Which processes run a QEMU, by what their program is and not by what it is called.

Rules of this file:
    A process is a QEMU by the file that it runs: the process cannot choose which file the kernel
    shows (proc(5): /proc/PID/exe). The file's owner chooses its name: `.qemu-system-x86_64-wrapped`
    on NixOS, `kvm`, `qemu-kvm`, or any other for a build of one's own. The content decides, and the
    name only where the content cannot be read.
    A file may be on a file system that hangs, and arguments may block: see
    `qemu_processes.each_within`.

Theory of operation:
    Every program that runs machines can print its version, by a text that no other program of QEMU
    has (QEMU: softmmu/vl.c, version). To look for it in one file takes some 10 ms. So only files
    are read whose name, or a process's arguments, make them candidates, and each of them once.
"""

import os
import re
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from qmpmem.wire import kernel

_MARK: Final = b"QEMU emulator version "
_PIECE: Final = 1 << 20
_LARGEST: Final = 128 << 20
"""Most bytes that are read: a stripped QEMU has 20 MiB, and debug information comes after the
texts."""

_USUAL: Final = re.compile(r"qemu-system-.+|qemu-kvm")
_LIKELY: Final = re.compile(r"qemu-system-|qemu-kvm|kvm$", re.IGNORECASE)
"""Names of files that are read, whatever the arguments are."""
_COMM: Final = re.compile(r"\.?qemu-system.*|\.?qemu-kvm.*|(?:distrib-)?kvm")

_OPTIONS: Final = frozenset(
    (
        *("qmp", "qmp-pretty", "monitor", "mon", "chardev", "readconfig", "nodefaults"),
        *("machine", "M", "m", "accel", "enable-kvm", "smp", "cpu", "kernel", "drive", "device"),
        *("hda", "cdrom", "display", "nographic", "daemonize", "incoming"),
    )
)
"""Options by which arguments may be a QEMU's. Any program may have some of them."""


class Programs:
    """Tells QEMUs from other programs, and remembers each file that it looked into."""

    def __init__(self, proc: Path = kernel.PROC) -> None:
        self._proc = proc
        self._known: dict[tuple[int, int], bool] = {}
        self._lock = threading.Lock()

    def is_emulator(self, pid: int) -> bool:
        """Tell whether a process runs a QEMU. May block."""
        program = kernel.executable(pid, self._proc)
        if program is None:
            return False
        is_one = self._has_mark(pid)
        return has_usual_name(program) if is_one is None else is_one

    def is_odd_emulator(self, pid: int) -> bool:
        """Tell whether a process runs a QEMU of any name; its arguments decide if it is read."""
        words = kernel.command_line(pid, self._proc) or ()
        return has_options(words) and self.is_emulator(pid)

    def _has_mark(self, pid: int) -> bool | None:
        """Tell whether a process's file is a QEMU; None where it cannot be read."""
        try:
            # By /proc: the very file that runs, also where it was removed or has no path here.
            file = os.open(self._proc / str(pid) / "exe", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                return None
            identity = (status.st_dev, status.st_ino)
            with self._lock:
                if identity not in self._known:
                    self._known[identity] = _contains(file, _MARK)
                return self._known[identity]
        except OSError:
            return None
        finally:
            os.close(file)


def has_usual_name(program: str) -> bool:
    """Tell whether a file is called as distributions call a QEMU that runs machines."""
    return _USUAL.fullmatch(base_name(program)) is not None


def has_likely_name(program: str) -> bool:
    """Tell whether a file's name makes it worth a look into it."""
    return _LIKELY.search(base_name(program)) is not None


def base_name(program: str) -> str:
    """Return a program's name without its wrapping: ``qemu-kvm`` for ``/x/.qemu-kvm-wrapped``."""
    name = os.path.basename(program)  # noqa: PTH119 - a name, not a file of ours
    return name.removeprefix(".").removesuffix("-wrapped")


def has_options(words: Sequence[str]) -> bool:
    """Tell whether arguments may be a QEMU's."""
    return any(
        word.startswith("-") and word[1:].removeprefix("-") in _OPTIONS for word in words[1:]
    )


def calls_itself_one(comm: str) -> bool:
    """Tell whether a process's name is that of a QEMU, which any process can forge."""
    return _COMM.fullmatch(comm) is not None


def _contains(file: int, mark: bytes) -> bool:
    before, at = b"", 0
    while at < _LARGEST and (piece := os.pread(file, _PIECE, at)):
        if mark in before + piece:
            return True
        before, at = piece[-len(mark) :], at + len(piece)
    return False
