"""A host in a guest: the tiny guest with this Python and the package in it, as root of its own.

Theory of operation:
    What a host has once (cgroups of version 2 that count memory, swap, a kernel of one's own) is
    there for a test without touching the host that the tests run on. A second archive behind the
    guest's own adds files to its root (Linux: initramfs buffer format: archives may follow one
    another). It has the interpreter, the libraries that it is linked with, and compiled modules:
    those that are loaded once a program of the test has imported what it needs.
"""

import os
import py_compile
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Final

from launchers.guest import cpio
from tests.rig.guests import QEMU, RunningGuest, boot, ensure_built

HOME: Final = "py"
"""Where the interpreter is, below the root."""
SITE: Final = f"{HOME}/site"
STANDARD: Final = f"{HOME}/lib/python{sys.version_info.major}.{sys.version_info.minor}"
START: Final = f"PYTHONHOME=/{HOME} PYTHONPATH=/{SITE} /{HOME}/bin/python3 -sSB"
PROBE: Final = """
import sys, encodings.ascii, encodings.utf_8, encodings.latin_1
for name in sys.argv[1:]:
    __import__(name)
for name, module in sorted(sys.modules.items()):
    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.origin and spec.has_location:
        print(name, int(spec.submodule_search_locations is not None), spec.origin)
"""


@contextmanager
def pocket(modules: Sequence[str], scratch: Path, memory: str = "512M") -> Generator[RunningGuest]:
    """Boot a guest in which this Python can import modules.

    Args:
        modules: their names; what they load themselves is there as well.
        scratch: a directory for the archive.
        memory: for QEMU's -m.
    """
    archive = scratch / "initrd"
    entries = list(_entries(modules, scratch))
    archive.write_bytes(ensure_built().initrd.read_bytes() + cpio.archive(entries))
    # Of two archives the last one counts, and `boot` puts its own behind what it is given.
    emulator = ("sh", "-c", f'exec {" ".join(QEMU)} "$@" -initrd {archive}', "sh")
    with boot(emulator, memory=memory) as guest:
        yield guest


def _entries(modules: Sequence[str], scratch: Path) -> Iterator[cpio.Entry]:
    made: set[str] = {"bin", "lib"}  # the guest's own
    program = Path(sys.executable).resolve()
    files = {f"{HOME}/bin/python3": program.read_bytes()}
    binaries = [program]
    for name, is_package, origin in _loaded(modules):
        path = "/".join([_place(origin), *name.split("."), *(["__init__"] if is_package else [])])
        if origin.suffix == ".py":
            files[f"{path}.pyc"] = _compiled(origin, scratch)
        else:
            files[f"{path}.so"] = origin.read_bytes()
            binaries.append(origin)
    files |= {str(path).lstrip("/"): path.read_bytes() for path in _libraries(binaries)}
    files[f"{STANDARD}/lib-dynload/.keep"] = b""
    for path, content in files.items():
        for above in reversed(PurePath(path).parents[:-1]):
            if str(above) not in made:
                made.add(str(above))
                yield cpio.directory(str(above))
        yield cpio.file(path, content, executable=True)


def _place(origin: Path) -> str:
    """Name the directory that a module goes below."""
    is_standard = origin.is_relative_to(Path(os.__file__).parent)
    is_added = {"site-packages", "dist-packages"} & set(origin.parts)
    return STANDARD if is_standard and not is_added else SITE


def _loaded(modules: Sequence[str]) -> list[tuple[str, bool, Path]]:
    words = [sys.executable, "-B", "-c", PROBE, *modules]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    lines = (line.split(" ", 2) for line in said.splitlines())
    return [
        (name, is_package == "1", Path(origin))
        for name, is_package, origin in lines
        if name != "__main__" and Path(origin).is_file()
    ]


def _compiled(source: Path, scratch: Path) -> bytes:
    target = scratch / "module.pyc"
    py_compile.compile(str(source), cfile=str(target), doraise=True)
    return target.read_bytes()


def _libraries(binaries: Sequence[Path]) -> Iterator[Path]:
    """List what programs are linked with, as their loader looks for it."""
    for binary in binaries:
        said = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)
        yield from (Path(word) for word in said.stdout.split() if word[0] == "/")
