"""The files that stand for KSM's in tests: they take a value whole or not at all, as sysfs does."""

from pathlib import Path
from typing import Final

import pytest

from qmpmem.errors import KernelError
from qmpmem.wire.kernel import ksm
from tests.rig.ksmmodel import OLD, Kernel, store

FILES: Final = Path(ksm.DIRECTORY)


class Gone(BaseException):
    """The process is no more."""


@pytest.mark.parametrize("step", ["write_text", "replace"])
def test_a_process_that_dies_leaves_a_value_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def die(*_: object) -> None:
        raise Gone

    Kernel(tmp_path, kind=OLD)
    monkeypatch.setattr(Path, step, die)
    with pytest.raises(Gone):
        store("pages_to_scan", "1356", tmp_path)
    assert (tmp_path / FILES / "pages_to_scan").read_text().strip() == "100"


def test_a_value_is_taken_and_no_file_is_made(tmp_path: Path) -> None:
    Kernel(tmp_path, kind=OLD)
    store("run", "1", tmp_path)
    assert (tmp_path / FILES / "run").read_text() == "1"
    with pytest.raises(KernelError, match="advisor_mode"):
        store("advisor_mode", "none", tmp_path)
    assert not (tmp_path / FILES / "advisor_mode").exists()
