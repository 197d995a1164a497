"""The script that boots a Debian: what it does before there is a machine."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests/boot.sh"
PARTS = ROOT / "tests/boot"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "name a release"),
        (["-x"], 2, "tests/boot.sh [-d DIR]"),
        (["-h"], 0, "tests/boot.sh [-d DIR]"),
    ],
)
def test_use_is_told(words: list[str], code: int, said: str) -> None:
    ran = subprocess.run([SCRIPT, *words], capture_output=True, text=True, check=False)
    assert ran.returncode == code
    assert said in ran.stdout + ran.stderr


def test_there_are_tests_for_each_boot() -> None:
    boots = re.search(r'(?m)^BOOTS="(.*)"$', SCRIPT.read_text())
    assert boots is not None
    files = dict(re.findall(r'(?m)^(\w+)\) files="(.*)" ;;$', (PARTS / "run").read_text()))
    assert list(files) == boots[1].split()
    run = {name for line in files.values() for name in line.split()}
    assert run == {path.stem for path in PARTS.glob("*.py")} - {"machine", "conftest"}


def test_what_readme_says_of_installing_is_what_is_done() -> None:
    """Run the part of the script that reads README.md, by itself."""
    text = (PARTS / "program").read_text()
    match = re.search(r"(?ms)^readme\(\) \{.*?^\}$", text)
    assert match is not None
    said = subprocess.run(
        ["sh", "-euc", f"{match[0]}\nreadme"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert said.splitlines() == [
        "apt-get install -qq -y --no-install-recommends qemu-system-x86 python3-venv",
        "python3 -m venv /opt/qmpmem",
        "/opt/qmpmem/bin/pip install .",
        "ln -s /opt/qmpmem/bin/qmpmem /usr/local/bin/",
        "qmpmem launcher install",
        "qmpmem doctor",
    ]
