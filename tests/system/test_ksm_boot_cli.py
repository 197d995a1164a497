"""KSM at boot, as the systemd unit runs it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from qmpmem import service
from qmpmem.ksm.service import UNIT
from tests.rig.command import PROGRAM, qmpmem

PLACE = f"{service.DIRECTORY}/{UNIT.name}"


def test_a_mistake_leaves_ksm_as_it_is(tmp_path: Path) -> None:
    tree = tmp_path / "sys/kernel/mm/ksm"
    tree.mkdir(parents=True)
    (tree / "run").write_text("0\n")
    (tmp_path / "etc/default").mkdir(parents=True)
    (tmp_path / "etc/default/qmpmem").write_text("KSM_ENABLED=1\nKSM_PRESET=fast\n")
    ran = qmpmem("ksm", "boot", "--root", str(tmp_path), run=tmp_path / "run")
    assert ran.code == 2
    assert "KSM_PRESET='fast'" in ran.err
    assert (tree / "run").read_text() == "0\n"


@pytest.mark.parametrize(("enabled", "then"), [("1", "1"), ("0", "0"), ("", "2")])
def test_what_is_said_is_done(tmp_path: Path, enabled: str, then: str) -> None:
    tree = tmp_path / "sys/kernel/mm/ksm"
    tree.mkdir(parents=True)
    (tree / "run").write_text("2")
    (tmp_path / "etc/default").mkdir(parents=True)
    (tmp_path / "etc/default/qmpmem").write_text(f"KSM_ENABLED={enabled}\n")
    own = {"QMPMEM_KSM_DIR": str(tmp_path / "ledger")}
    ran = qmpmem("ksm", "boot", "--root", str(tmp_path), run=tmp_path / "run", environ=own)
    assert ran.code == 0, ran.err
    assert (tree / "run").read_text() == then


def test_the_command_names_itself(tmp_path: Path) -> None:
    ran = qmpmem("ksm", "service", "install", "--root", str(tmp_path), run=tmp_path / "run")
    assert ran.code == 0, ran.err
    assert f"ExecStart={PROGRAM} ksm boot" in (tmp_path / PLACE).read_text()
    again = qmpmem("ksm", "service", "install", "--root", str(tmp_path), run=tmp_path / "run")
    assert again.out == "nothing to change\n"


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    checker = shutil.which("systemd-analyze")
    if checker is None:
        pytest.skip(
            "no systemd on this host: it is not needed elsewhere, and not installed for this"
        )
    (tmp_path / UNIT.name).write_text(service.text_of(UNIT, "/bin/true"))
    done = subprocess.run(
        [checker, "verify", "--man=no", tmp_path / UNIT.name],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, said) == (0, [])
