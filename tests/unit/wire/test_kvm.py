"""Whether KVM is really usable: a device that opens is not enough."""

from pathlib import Path

import pytest

from qmpmem.wire import kvm


def make_root(root: Path, *, device: bool = True, flags: str | None = "fpu vmx sse") -> Path:
    (root / "dev").mkdir()
    (root / "proc").mkdir()
    if device:
        (root / "dev/kvm").touch()
    if flags is not None:
        (root / "proc/cpuinfo").write_text(
            f"processor\t: 0\nvmx flags\t: vnmi\nflags\t\t: {flags}\nbugs\t\t: svm\n"
        )
    return root


@pytest.mark.parametrize("extension", ["vmx", "svm"])
def test_a_device_and_an_extension_are_enough(tmp_path: Path, extension: str) -> None:
    found = kvm.usable(make_root(tmp_path, flags=f"fpu {extension} sse"), "x86_64")
    assert found.usable
    assert extension in found.reason


@pytest.mark.parametrize("flags", ["fpu sse vmxoff", None])
def test_a_device_without_an_extension_hangs_guests(tmp_path: Path, flags: str | None) -> None:
    found = kvm.usable(make_root(tmp_path, flags=flags), "x86_64")
    assert not found.usable
    assert "neither vmx nor svm" in found.reason
    assert found.hint


def test_other_architectures_have_no_such_flag(tmp_path: Path) -> None:
    assert kvm.usable(make_root(tmp_path, flags=None), "aarch64").usable


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_an_extension_without_a_device_is_not_usable(tmp_path: Path, machine: str) -> None:
    found = kvm.usable(make_root(tmp_path, device=False), machine)
    assert not found.usable
    assert found.reason == f"{tmp_path}/dev/kvm: there is none"
    assert found.hint


def test_a_device_that_does_not_open_is_not_usable(tmp_path: Path) -> None:
    make_root(tmp_path, device=False)
    (tmp_path / "dev/kvm").mkdir()  # stands for any error that has no words of its own
    assert not kvm.usable(tmp_path, "x86_64").usable


def test_the_rule_holds_on_this_host() -> None:
    found = kvm.usable(Path("/"))
    opens = Path("/dev/kvm").exists()
    assert found.usable <= opens
