"""The rig's hold on KSM, against the model of the kernel."""

from pathlib import Path

import pytest

from qmpmem.wire.kernel import ksm as wire
from tests.rig import ksm
from tests.rig.ksmmodel import Kernel


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Return a kernel that merges two pages before each write, as long as run is 1."""
    (tmp_path / "dev/shm").mkdir(parents=True)
    kernel = Kernel(tmp_path)

    def merge(_number: int, _name: str, _value: str) -> None:
        if kernel.values["run"] == ksm.MERGE:
            kernel.put({"pages_shared": "2", "pages_sharing": "2"})

    kernel.trip = merge
    monkeypatch.setattr(wire, "write", lambda name, value, _root: kernel.write(name, value))
    return kernel


def test_what_ksmd_merges_at_the_last_moment_is_unmerged(kernel: Kernel, tmp_path: Path) -> None:
    before = dict(kernel.values)
    with ksm.held(root=tmp_path) as machine:
        machine.write({"run": 1})
        assert kernel.values["pages_shared"] == "0"
    assert kernel.values == before


def test_what_ksmd_merges_after_a_kill_is_unmerged(kernel: Kernel, tmp_path: Path) -> None:
    before = dict(kernel.values)
    with ksm.held(root=tmp_path) as machine:
        machine.write({"run": 1})
        left = (tmp_path / ksm.BEFORE).read_text()
    kernel.put({"run": "1"})
    (tmp_path / ksm.BEFORE).write_text(left)
    with ksm.held(root=tmp_path):
        pass
    assert kernel.values == before
