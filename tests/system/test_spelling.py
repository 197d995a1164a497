"""README, CONTRIBUTING and the manual have no word that is often misspelt in that way."""

import subprocess
import sys
from pathlib import Path

from tests.rig import readme


def misspelt(*paths: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib", *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines()


def test_no_word_is_misspelt() -> None:
    assert misspelt(*readme.DOCUMENTS) == []


def test_a_misspelt_word_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.md"
    path.write_text("The adress of a guest.\n")
    assert misspelt(path) == [f"{path}:1: adress ==> address"]
