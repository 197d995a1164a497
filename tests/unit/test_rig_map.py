"""The map of the rig names each of its modules, and no other."""

import re
from pathlib import Path
from typing import Final

RIG: Final = Path(__file__).resolve().parents[1] / "rig"


def test_the_map_of_the_rig_is_whole() -> None:
    text = (RIG / "README.md").read_text().replace("conftest.py", "")
    assert set(re.findall(r"\w+\.py\b", text)) == {path.name for path in RIG.glob("*.py")}
