"""The Makefile: its help tells of every target, and each target can be made."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_help_tells_of_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split()[1] for line in done.stdout.splitlines()} == set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_can_be_made(target: str) -> None:
    subprocess.run(["make", "-n", target], cwd=ROOT, stdout=-1, check=True)


def test_only_soak_runs_what_is_long() -> None:
    said = {
        target: subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for target in ("test", "soak")
    }
    assert "QMPMEM_TEST_ALL=1 .venv/bin/pytest -q -m 'soak or unit'" in said["soak"]
    assert "soak" not in said["test"]
    assert "-m 'not soak'" in (ROOT / "pyproject.toml").read_text()
