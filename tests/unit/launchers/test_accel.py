"""What a user hears of a KVM that only seems to work."""

from pathlib import Path

import pytest

from launchers.kvm_accel import EXTENSIONS, WORDS, X86, first_accelerator, why_doubtful
from launchers.kvm_options import Line
from qmpmem.wire import kvm


def make_root(root: Path, *, device: bool = True, flags: str | None = "fpu sse") -> str:
    (root / "dev").mkdir()
    (root / "proc").mkdir()
    if device:
        (root / "dev/kvm").touch()
    if flags is not None:
        text = f"processor\t: 0\nvmx flags\t: vnmi\nflags\t\t: {flags}\nbugs\t\t: svm\n"
        (root / "proc/cpuinfo").write_text(text)
    return str(root)


@pytest.mark.parametrize(
    ("words", "name", "first"),
    [
        ([], "/usr/bin/kvm", "kvm"),
        ([], "distrib-kvm", "kvm"),
        ([], "qemu-system-x86_64", "tcg"),
        (["-enable-kvm"], "qemu-system-x86_64", "kvm"),
        (["-accel", "kvm"], "qemu-system-x86_64", "kvm"),
        (["-accel", "accel=kvm,kernel-irqchip=on"], "qemu-system-x86_64", "kvm"),
        (["-accel", "tcg", "-accel", "kvm"], "kvm", "tcg"),
        (["-accel", "tcg,thread=multi"], "kvm", "tcg"),
        (["-machine", "q35,accel=kvm:tcg"], "qemu-system-x86_64", "kvm"),
        (["-M", "accel=tcg:kvm"], "kvm", "tcg"),
        (["-M", "accel=kvm", "-M", "accel=tcg"], "kvm", "tcg"),
        (["-append", "-enable-kvm"], "qemu-system-x86_64", "tcg"),
    ],
)
def test_the_first_accelerator(words: list[str], name: str, first: str) -> None:
    assert first_accelerator(Line(words), name) == first


def test_a_configuration_file_chooses() -> None:
    assert first_accelerator(Line([], ['[machine]\n accel = "tcg"\n']), "kvm") == "tcg"
    assert first_accelerator(Line([], ['[accel]\n accel = "tcg"\n']), "kvm") == "tcg"


def test_a_device_without_an_extension(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    assert why_doubtful(Line([]), "kvm", root, "x86_64") == WORDS
    assert why_doubtful(Line([]), "qemu-system-x86_64", root, "x86_64") is None
    assert why_doubtful(Line(["-accel", "tcg"]), "kvm", root, "x86_64") is None
    assert why_doubtful(Line([]), "kvm", root, "aarch64") is None


@pytest.mark.parametrize(
    ("device", "flags"), [(True, "fpu vmx"), (True, "svm fpu"), (True, None), (False, "fpu")]
)
def test_nothing_is_said_otherwise(tmp_path: Path, flags: str | None, *, device: bool) -> None:
    root = make_root(tmp_path, device=device, flags=flags)
    assert why_doubtful(Line([]), "kvm", root, "x86_64") is None


def test_the_package_knows_the_same() -> None:
    assert (X86, EXTENSIONS) == (kvm.X86, kvm.EXTENSIONS)


@pytest.mark.parametrize("words", [[], ["-accel", "tcg"]])
def test_the_rule_holds_on_this_host(words: list[str]) -> None:
    found = kvm.usable(Path("/"))
    doubt = why_doubtful(Line(words), "kvm")
    assert (doubt is not None) == (not words and not found.usable and "opens" in found.reason)
