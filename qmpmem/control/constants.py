"""The numbers that the policy rests on, with what its source says about each.

Theory of operation:
    A constant stands in one place, with its meaning in the words below it, so those are what is
    shown: they cannot be out of date. Whoever asks waits for some files to be read.
"""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from qmpmem import config, policy
from qmpmem.control.records import Constant


def constants() -> list[Constant]:
    """Read the source of the policy, and of the configuration's defaults. Blocks."""
    modules = [config]
    modules += [
        importlib.import_module(f"{policy.__name__}.{found.name}")
        for found in pkgutil.iter_modules(policy.__path__)
    ]
    return [constant for module in modules for constant in _of(module)]


def _of(module: ModuleType) -> Iterator[Constant]:
    """Give the constants of a module, each with the text below it.

    One text may stand below several constants without a blank line between them: it tells of all.
    """
    tree = ast.parse(inspect.getsource(module))
    meanings: dict[str, str] = {}
    group: list[ast.AnnAssign] = []
    for statement in tree.body:
        if isinstance(statement, ast.AnnAssign) and _name(statement) is not None:
            if group and statement.lineno > (group[-1].end_lineno or 0) + 1:
                group = []
            group.append(statement)
            continue
        text = _text(statement)
        if text is not None and group:
            meanings |= dict.fromkeys((each for each in map(_name, group) if each), text)
        group = []
    for statement in tree.body:
        name = _name(statement) if isinstance(statement, ast.AnnAssign) else None
        if name is not None:
            yield Constant(
                name=f"{module.__name__.rpartition('.')[2]}.{name}",
                value=_shown(getattr(module, name)),
                meaning=meanings.get(name),
            )


def _name(statement: ast.AnnAssign) -> str | None:
    target = statement.target
    if isinstance(target, ast.Name) and target.id.isupper() and not target.id.startswith("_"):
        return target.id
    return None


def _text(statement: ast.stmt) -> str | None:
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return None
    value = statement.value.value
    return " ".join(value.split()) if isinstance(value, str) else None


def _shown(value: object) -> str:
    if isinstance(value, frozenset):
        return ", ".join(sorted(str(each) for each in value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return str(value)
