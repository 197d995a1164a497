"""The tests themselves: the map of the rig is whole, and no path is one that others may make."""

import re
from pathlib import Path
from typing import Final

RIG: Final = Path(__file__).resolve().parents[1] / "rig"


def test_the_map_of_the_rig_is_whole() -> None:
    text = (RIG / "README.md").read_text().replace("conftest.py", "")
    assert set(re.findall(r"\w+\.py\b", text)) == {path.name for path in RIG.glob("*.py")}


def test_no_test_names_a_path_that_another_program_may_make() -> None:
    """What shall not exist is below /proc, where no program makes anything, or in tmp_path."""
    free = re.compile(r"""["'!= ]/(nonexistent|none|no/such)\b""")
    tests = RIG.parent.rglob("*.py")
    assert [
        path for path in tests if free.search(path.read_text()) and path != Path(__file__)
    ] == []
