"""Which kernel modules go into the tiny guest: built in or not, and however compressed."""

import gzip
import lzma
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from launchers.guest import modules
from launchers.guest.errors import BuildError

NEEDS = {
    "virtio": "",
    "virtio_ring": "virtio",
    "virtio_pci_modern_dev": "",
    "virtio_pci": "virtio,virtio_ring,virtio-pci-modern-dev",
    "virtio_mmio": "virtio_ring",
    "virtio_balloon": "virtio,virtio_ring",
    "virtio_mem": "virtio,virtio_ring",
    "null_blk": "",
    "virtio_blk": "virtio,virtio_ring",
    "zram": "zsmalloc",
    "zsmalloc": "",
}


def module(name: str, needs: str) -> bytes:
    return f"\x7fELF\0name={name}\0depends={needs}\0retpoline=Y\0".encode()


def kernel(
    tmp_path: Path,
    *,
    built_in: tuple[str, ...] = (),
    end: str = ".ko",
    pack: Callable[[bytes], bytes] = bytes,
) -> Path:
    """Lay out /lib/modules/NAME as a kernel package does."""
    tree = tmp_path / "6.0-cloud-amd64"
    (tree / "kernel/drivers").mkdir(parents=True)
    listed = "".join(f"kernel/drivers/{name.replace('_', '-')}.ko\n" for name in built_in)
    (tree / "modules.builtin").write_text(f"kernel/fs/fuse/virtiofs.ko\n{listed}")
    for name, needs in NEEDS.items():
        if name not in built_in:
            left = ",".join(n for n in needs.split(",") if n.replace("-", "_") not in built_in)
            file = tree / "kernel/drivers" / f"{name.replace('_', '-')}{end}"
            file.write_bytes(pack(module(name, left)))
    return tree


def found(tree: Path) -> dict[str, bytes]:
    return {entry.name.rpartition("/")[2]: entry.content for entry in modules.entries(tree)}


def lines(content: bytes) -> dict[str, set[str]]:
    table = (line.partition(":") for line in content.decode().splitlines())
    return {name: set(needs.split()) for name, _, needs in table}


def test_every_module_comes_with_what_it_needs(tmp_path: Path) -> None:
    files = found(kernel(tmp_path))
    assert {name.removesuffix(".ko") for name in files if name.endswith(".ko")} == set(NEEDS)
    needed = {"virtio.ko", "virtio_ring.ko", "virtio_pci_modern_dev.ko"}
    assert lines(files["modules.dep"])["virtio_pci.ko"] == needed
    assert files["modules.builtin"] == b""


@pytest.mark.parametrize(
    "built_in",
    [
        ("virtio", "virtio_ring", "virtio_pci", "virtio_pci_modern_dev"),
        ("virtio_balloon", "virtio_mmio", "virtio_pci", "null_blk"),
        tuple(NEEDS),
    ],
)
def test_what_the_kernel_has_built_in_is_listed_and_not_looked_for(
    tmp_path: Path, built_in: tuple[str, ...]
) -> None:
    files = found(kernel(tmp_path, built_in=built_in))
    listed = {Path(line).stem for line in files["modules.builtin"].decode().splitlines()}
    packed = {name.removesuffix(".ko") for name in files if name.endswith(".ko")}
    assert not packed & set(built_in)
    assert listed == set(built_in) & set(modules.MODULES)
    assert listed | packed >= set(modules.MODULES)
    named = {need for needs in lines(files["modules.dep"]).values() for need in needs}
    assert named <= files.keys()


def test_a_module_that_is_built_in_and_named_all_the_same_is_no_file(tmp_path: Path) -> None:
    tree = kernel(tmp_path, built_in=("virtio", "virtio_ring"))
    (tree / "kernel/drivers/virtio-mmio.ko").write_bytes(module("virtio_mmio", "virtio_ring"))
    assert lines(found(tree)["modules.dep"])["virtio_mmio.ko"] == set()


@pytest.mark.parametrize(
    ("end", "pack"), [(".ko.gz", gzip.compress), (".ko.xz", lzma.compress)], ids=["gz", "xz"]
)
def test_a_compressed_module_is_unpacked(
    tmp_path: Path, end: str, pack: Callable[[bytes], bytes]
) -> None:
    assert found(kernel(tmp_path, end=end, pack=pack)) == found(kernel(tmp_path / "plain"))


def zstd(content: bytes) -> bytes:
    return subprocess.run(["zstd", "-cq"], input=content, capture_output=True, check=True).stdout


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd here to compress with")
def test_a_module_compressed_with_zstd_is_unpacked(tmp_path: Path) -> None:
    assert found(kernel(tmp_path, end=".ko.zst", pack=zstd)) == found(kernel(tmp_path / "plain"))


@pytest.mark.parametrize(
    ("end", "content", "said"),
    [
        (".ko.xz", b"not xz", "virtio-pci.ko.xz: "),
        (".ko.gz", b"not gzip", "virtio-pci.ko.gz: "),
        (".ko.gz", gzip.compress(b"x" * 99, mtime=0)[:-9], "virtio-pci.ko.gz: "),
        (".ko.br", b"", "expected a module with one of"),
    ],
)
def test_a_module_that_cannot_be_unpacked_is_named(
    tmp_path: Path, end: str, content: bytes, said: str
) -> None:
    with pytest.raises(BuildError, match=said):
        found(kernel(tmp_path, end=end, pack=lambda _: content))


def test_without_zstd_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/proc/nonexistent")
    with pytest.raises(BuildError, match="zstd: not found"):
        found(kernel(tmp_path, end=".ko.zst"))


def test_a_module_that_is_nowhere_is_named(tmp_path: Path) -> None:
    tree = kernel(tmp_path)
    (tree / "kernel/drivers/virtio-balloon.ko").unlink()
    with pytest.raises(BuildError, match="no module virtio_balloon"):
        found(tree)


def test_what_a_module_needs_is_read_from_it() -> None:
    needs = b"\x7fELF\0author=x\0depends=virtio,virtio-ring\0retpoline=Y\0"
    assert modules.needed_modules(needs) == ["virtio", "virtio_ring"]
    assert modules.needed_modules(b"\0depends=\0") == []
    assert modules.needed_modules(b"not a module") == []


def test_a_module_stands_before_those_that_it_needs_as_modprobe_wants_it() -> None:
    needs = {"a": ["b", "c"], "b": ["c"], "c": []}
    assert modules.closure("a", needs) == ["b", "c"]
    assert modules.closure("c", needs) == []
