"""The table of the policy's numbers: ``.venv/bin/python -m tests.rig.policy_constants`` makes it.

A number stands in one place, with its meaning in the words right below it. The table is made from
both, so that the program reads no source when it runs.
"""

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Collection, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Final, cast

from msgspec.structs import asdict

from qmpmem import policy
from qmpmem.model import config
from qmpmem.policy import constants_table
from qmpmem.records import Record
from qmpmem.units import Bytes, format_size

TABLE: Final = Path(constants_table.__file__)
COMMAND: Final = ".venv/bin/python -m tests.rig.policy_constants"
WHOLE: Final = 89
"""Characters of a text that is a line of the table, with its indent, its quotes and a comma."""
PIECE: Final = 86
"""Characters of a piece of a longer one."""

Row = tuple[str, str, str]


def rows() -> Iterator[Row]:
    """Read the source of the configuration's defaults, and of the policy."""
    modules = [config]
    modules += [
        importlib.import_module(f"{policy.__name__}.{found.name}")
        for found in pkgutil.iter_modules(policy.__path__)
    ]
    for module in modules:
        if module is not constants_table:
            yield from _of(module)


def table(known: Collection[Row]) -> str:
    """Write the module that holds the rows."""
    head = inspect.getsource(constants_table).partition("    (\n")[0]
    tail = inspect.getsource(constants_table).rpartition("\n)\n")[2]
    return head + "".join(map(_written, known)) + ")\n" + tail


def _written(row: Row) -> str:
    fields = "".join(f"        {_literal(field)},\n" for field in row)
    return f"    (\n{fields}    ),\n"


def _literal(text: str) -> str:
    if len(_quoted(text)) <= WHOLE + 2:
        return _quoted(text)
    pieces = textwrap.wrap(text, PIECE, drop_whitespace=False, break_on_hyphens=False)
    lines = "".join(f"            {_quoted(piece)}\n" for piece in pieces)
    return f"(\n{lines}        )"


def _quoted(text: str) -> str:
    """Quote as ruff's formatter does."""
    escaped = text.replace("\\", "\\\\")
    if '"' in text and "'" not in text:
        return f"'{escaped}'"
    return '"' + escaped.replace('"', '\\"') + '"'


def _of(module: ModuleType) -> Iterator[Row]:
    """Return the constants of a module, each with the text that stands right below it."""
    tree = ast.parse(inspect.getsource(module))
    for statement, below in zip_longest(tree.body, tree.body[1:]):
        name = _name(statement) if isinstance(statement, ast.AnnAssign) else None
        if name is not None:
            yield (
                f"{module.__name__.rpartition('.')[2]}.{name}",
                _shown(getattr(module, name), is_size=_is_size(statement)),
                "" if below is None else _text(below),
            )


def _is_size(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.AnnAssign) else None
    is_call = isinstance(value, ast.Call) and isinstance(value.func, ast.Name)
    return is_call and value.func.id == Bytes.__name__  # type: ignore[union-attr]


def _name(statement: ast.AnnAssign) -> str | None:
    target = statement.target
    if isinstance(target, ast.Name) and target.id.isupper() and not target.id.startswith("_"):
        return target.id
    return None


def _text(statement: ast.stmt) -> str:
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return ""
    value = statement.value.value
    return " ".join(value.split()) if isinstance(value, str) else ""


def _shown(value: object, *, is_size: bool = False) -> str:
    if is_size and isinstance(value, int):
        return format_size(Bytes(value))
    if isinstance(value, Record):
        return _shown(asdict(value))
    if isinstance(value, Mapping):
        known = cast("Mapping[object, object]", value).items()
        return ", ".join(f"{key}: {_shown(each)}" for key, each in known)
    if isinstance(value, (frozenset, tuple)):
        several = cast("Collection[object]", value)
        words = [str(each) for each in several]
        return ", ".join(words if isinstance(value, tuple) else sorted(words))
    return str(value)


if __name__ == "__main__":
    TABLE.write_text(table(tuple(rows())))
