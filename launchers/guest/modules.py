"""The kernel modules that go into the guest, taken from an unpacked kernel package.

Theory of operation:
    Which drivers are modules and which are built into the kernel differs between releases, as does
    how a module is compressed; both are read from the package. modules.builtin lists what is built
    in (Linux: Documentation/kbuild/kbuild.rst). A module names what it needs in its section
    .modinfo, without what is built in.
    modprobe in the guest reads a modules.dep and a modules.builtin of only these names.
"""

import gzip
import lzma
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Final

from launchers.guest import cpio
from launchers.guest.errors import BuildError

MODULES: Final = (
    *("virtio_pci", "virtio_mmio", "virtio_balloon", "virtio_mem"),
    *("null_blk", "virtio_blk", "zram"),
)
"""What the guest may load: transports for pc, q35 and microvm, the disk behind `eat cache`, disks
of QEMU's, and compressed swap."""

OPTIONAL: Final = ("lzo_rle",)
"""Inserted where the kernel has them: what zram compresses with before Linux 6.12, by default."""

SIGNATURE: Final = b"~Module signature appended~\n"
SIGNATURE_HEADER: Final = 12
"""Bytes of struct module_signature (Linux: include/linux/module_signature.h)."""


def entries(tree: Path) -> Iterator[cpio.Entry]:
    """List MODULES and what they need as files of the guest.

    Args:
        tree: a kernel's directory, as in /lib/modules.

    Raises:
        BuildError: a module is neither there nor built in, or cannot be unpacked.
    """
    built_in = _built_in(tree)
    files = _files(tree)
    there = [name for name in OPTIONAL if name in files]
    contents = _collect([*MODULES, *there], files, built_in)
    needs = {
        name: [need for need in needed_modules(content) if need in contents]
        for name, content in contents.items()
    }
    into = f"lib/modules/{tree.name}"
    yield cpio.directory(into)
    for name, content in contents.items():
        yield cpio.file(f"{into}/{name}.ko", unsigned(content))
    table = "".join(
        f"{name}.ko:{''.join(f' {need}.ko' for need in closure(name, needs))}\n" for name in needs
    )
    yield cpio.file(f"{into}/modules.dep", table.encode())
    found = "".join(f"kernel/{name}.ko\n" for name in sorted(built_in.intersection(MODULES)))
    yield cpio.file(f"{into}/modules.builtin", found.encode())


def needed_modules(module: bytes) -> list[str]:
    """Read from a kernel module which others it needs (its section .modinfo)."""
    match = re.search(rb"\0depends=([^\0]*)\0", module)
    return [_plain(name) for name in match[1].decode().split(",") if name] if match else []


def unsigned(module: bytes) -> bytes:
    """Cut off a module's signature, which an emulated processor takes long to verify.

    Debian's kernels load a module without one (Linux: kernel/module/signing.c; SIGNATURE stands at
    the end, before it the struct module_signature, whose last 4 bytes are the signature's length).
    """
    if not module.endswith(SIGNATURE):
        return module
    at = len(module) - len(SIGNATURE)
    length = int.from_bytes(module[at - 4 : at], "big")
    return module[: at - SIGNATURE_HEADER - length]


def closure(name: str, needs: Mapping[str, Sequence[str]]) -> list[str]:
    """List all that a module needs, itself left out, each before what it needs itself.

    modprobe loads a line of modules.dep from its end (modules.dep(5)).
    """
    order: list[str] = []
    for need in needs[name]:
        for word in (need, *closure(need, needs)):
            if word in order:
                order.remove(word)
            order.append(word)
    return order


def _built_in(tree: Path) -> frozenset[str]:
    listed = (tree / "modules.builtin").read_text().splitlines()
    return frozenset(_plain(PurePath(line).stem) for line in listed)


def _files(tree: Path) -> dict[str, Path]:
    return {_plain(path.name.partition(".")[0]): path for path in tree.rglob("*.ko*")}


def _collect(
    names: Sequence[str], files: Mapping[str, Path], built_in: frozenset[str]
) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    left = list(reversed(names))
    while left:
        name = left.pop()
        if name in contents or name in built_in:
            continue
        if name not in files:
            raise BuildError(f"the kernel package has no module {name}, and has it not built in")
        contents[name] = _unpacked(files[name])
        left += reversed(needed_modules(contents[name]))
    return contents


def _unpacked(path: Path) -> bytes:
    unpack = UNPACK.get(path.suffix)
    if unpack is None:
        raise BuildError(f"{path.name}: expected a module with one of {', '.join(UNPACK)}")
    try:
        return unpack(path.read_bytes())
    except (lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
        raise BuildError(f"{path.name}: {error}") from error


def _unzstd(content: bytes) -> bytes:
    try:
        done = subprocess.run(["zstd", "-dcq"], input=content, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise BuildError("zstd: not found; this kernel's modules are compressed with it") from error
    if done.returncode:
        raise BuildError(f"zstd failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


UNPACK: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    ".ko": bytes,
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
    ".zst": _unzstd,  # the standard library has it from Python 3.14 on
}
"""How a module is compressed, by the end of its name (Linux: init/Kconfig, MODULE_COMPRESS)."""


def _plain(name: str) -> str:
    return name.replace("-", "_")
