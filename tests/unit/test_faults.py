"""FAULTS.md names each fault that a test names, with the files of its tests, and no other."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).resolve().parents[1]
ROW: Final = re.compile(r"^\| (F1?\d\d) \| .+ \| .+ \| (.+) \|$", re.MULTILINE)
NAMED: Final = re.compile(r"\bF(1?\d\d)\b|(?<=_)f(1?\d\d)(?=_)")


def listed() -> dict[str, set[str]]:
    rows = ROW.findall((TESTS / "FAULTS.md").read_text())
    assert len(rows) == len({fault for fault, _ in rows})
    return {fault: set(files.split(", ")) for fault, files in rows}


def named() -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for path in TESTS.rglob("test_*.py"):
        for one, other in NAMED.findall(path.read_text()):
            found[f"F{one or other}"].add(f"{path.relative_to(TESTS)}")
    return found


def test_the_list_of_faults_and_the_tests_agree() -> None:
    assert listed() == named()
