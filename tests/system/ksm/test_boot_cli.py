"""KSM at boot, as the systemd unit runs it."""

from pathlib import Path

import pytest

from tests.rig.command import Ran, called


def boot(root: Path, defaults: str, run: str) -> tuple[Ran, str]:
    """Set KSM up by defaults where it runs as said; returns how it runs then, too."""
    tree = root / "sys/kernel/mm/ksm"
    tree.mkdir(parents=True)
    (tree / "run").write_text(run)
    (root / "etc/default").mkdir(parents=True)
    (root / "etc/default/qmpmem").write_text(defaults)
    environ = {"QMPMEM_KSM_DIR": str(root / "ledger")}
    ran = called("ksm", "boot", "--root", str(root), run=root / "run", environ=environ)
    return ran, (tree / "run").read_text()


def test_a_mistake_leaves_ksm_as_it_is(tmp_path: Path) -> None:
    ran, then = boot(tmp_path, "KSM_ENABLED=1\nKSM_PRESET=fast\n", "0\n")
    assert ran.code == 2
    assert "KSM_PRESET='fast'" in ran.err
    assert then == "0\n"


@pytest.mark.parametrize(("enabled", "then"), [("1", "1"), ("0", "0"), ("", "2")])
def test_what_is_said_is_done(tmp_path: Path, enabled: str, then: str) -> None:
    ran, found = boot(tmp_path, f"KSM_ENABLED={enabled}\n", "2")
    assert ran.code == 0, ran.err
    assert found == then
