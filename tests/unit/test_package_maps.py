"""A package whose docstring lists its modules lists all of them, and no other."""

import ast
import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2] / "qmpmem"
ROW: Final = re.compile(r" *([a-z]\w*)  +\S.*")
LEAST: Final = 3
"""Rows of a list."""


def listed(package: Path) -> list[str]:
    """Return the modules that a package's docstring has a row of; none where it has no list."""
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_bytes())) or ""
    rows = [match[1] for line in text.splitlines() if (match := ROW.fullmatch(line))]
    return rows if len(rows) >= LEAST else []


MAPS: Final = {
    str(found.parent.relative_to(ROOT)): names
    for found in sorted(ROOT.rglob("__init__.py"))
    if (names := listed(found.parent))
}


def test_every_package_with_modules_has_such_a_list() -> None:
    packages = [
        str(found.parent.relative_to(ROOT))
        for found in ROOT.rglob("__init__.py")
        if found.parent != ROOT and len(list(found.parent.glob("*.py"))) > LEAST
    ]
    assert sorted(MAPS) == sorted(packages)


@pytest.mark.parametrize("package", MAPS)
def test_a_list_of_modules_is_complete(package: str) -> None:
    modules = [
        found.stem
        for found in (ROOT / package).iterdir()
        if (found.suffix == ".py" and found.stem != "__init__") or (found / "__init__.py").exists()
    ]
    assert sorted(MAPS[package]) == sorted(modules)
