"""The command lines of tests/data/command_lines.txt, and the files that they name."""

import shlex
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

from tests.rig.qemu import make_qcow2

LINES: Final = Path(__file__).parents[1] / "data" / "command_lines.txt"
BARE: Final = " (no balloon)"
MIB: Final = 1 << 20
SIZES: Final = {
    "data.raw": 8 * MIB,
    "ram.img": 64 * MIB,
    "cd.iso": MIB,
    "seed.iso": MIB,
    "OVMF_CODE.fd": MIB,
    "OVMF_VARS.fd": 128 << 10,
    "floppy.img": 1440 << 10,
    "floppy2.img": 1440 << 10,
    "initrd.img": 4096,
}
TEXTS: Final = {
    "config.ign": "{}\n",
    "nothing.conf": "# nothing\n",
    "broken.conf": "[device\n",
    "machine.conf": '[machine]\n  type = "pc"\n',
    "balloon.conf": '[device "mine"]\n  driver = "virtio-balloon-pci"\n',
    "q35.conf": (
        '[machine]\n  type = "q35"\n\n[device "port"]\n  driver = "pcie-root-port"\n'
        '  bus = "pcie.0"\n  addr = "1c.0"\n\n[device "card"]\n  driver = "virtio-net-pci"\n'
        '  bus = "port"\n'
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A command line."""

    name: str
    text: str
    bare: bool
    """Whether it gets no balloon of ours."""

    def words(self) -> list[str]:
        """Split it as a shell does, and have it paused, unseen and emulated."""
        ports = {f"PORT{number}": str(free_port()) for number in range(1, 5)}
        given = shlex.split(Template(self.text).safe_substitute(ports))
        return ["-S", "-display", "none", *emulate(given)]


def read() -> list[Example]:
    """Read all of them, in order."""
    entries = LINES.read_text().split("\n== ")[1:]
    found: list[Example] = []
    for entry in entries:
        title, _, body = entry.partition("\n")
        kept = [line for line in body.splitlines() if not line.startswith("# ")]
        name, bare, _ = title.partition(BARE)
        found.append(Example(name=name, text=" ".join(kept), bare=bool(bare)))
    return found


def emulate(words: list[str]) -> list[str]:
    """Have a guest emulated that asks for KVM, or for nothing."""
    emulated: list[str] = []
    before = ""
    for word in words:
        if word == "-enable-kvm":
            emulated += ["-machine", "accel=tcg"]
        elif before == "-cpu":
            emulated.append("max".join(word.split("host", 1)))
        elif before in ("-machine", "-M", "-accel"):
            emulated.append(word.replace("kvm", "tcg"))
        else:
            emulated.append(word)
        before = word
    chosen = any(word == "-accel" or "accel=" in word for word in emulated)
    return emulated if chosen else ["-accel", "tcg,tb-size=32", *emulated]


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def furnish(directory: Path) -> None:
    """Make the files that command lines name."""
    directory.mkdir()
    (directory / "shared").mkdir()
    make_qcow2(directory / "disk.qcow2")
    (directory / "vmlinuz").write_bytes(kernel())
    for name, size in SIZES.items():
        with (directory / name).open("wb") as file:
            file.truncate(size)
    for name, text in TEXTS.items():
        (directory / name).write_text(text)


def kernel() -> bytes:
    """Make what QEMU takes for a Linux kernel (Linux: Documentation/arch/x86/boot.rst)."""
    image = bytearray(16 << 10)
    image[0x1F1] = 1  # sectors of the set-up code
    struct.pack_into("<H", image, 0x1FE, 0xAA55)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x020C)
    image[0x211] = 1  # loaded high
    return bytes(image)
