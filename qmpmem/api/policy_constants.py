"""The numbers that the policy rests on, with what its source says about each.

Theory of operation:
    A constant stands in one place, with its meaning in the words below it, so those are what is
    shown: they cannot be out of date. They are read once in a process.
"""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from itertools import zip_longest
from types import ModuleType
from typing import cast

from msgspec.structs import asdict

from qmpmem import policy
from qmpmem.api.records import Constant
from qmpmem.model import config
from qmpmem.records import Record
from qmpmem.units import Bytes, format_size


@cache
def constants() -> tuple[Constant, ...]:
    """Read the source of the policy, and of the configuration's defaults, once. Blocks."""
    modules = [config]
    modules += [
        importlib.import_module(f"{policy.__name__}.{found.name}")
        for found in pkgutil.iter_modules(policy.__path__)
    ]
    return tuple(constant for module in modules for constant in _of(module))


def _of(module: ModuleType) -> Iterator[Constant]:
    """Return the constants of a module, each with the text that stands right below it."""
    tree = ast.parse(inspect.getsource(module))
    for statement, below in zip_longest(tree.body, tree.body[1:]):
        name = _name(statement) if isinstance(statement, ast.AnnAssign) else None
        if name is not None:
            yield Constant(
                name=f"{module.__name__.rpartition('.')[2]}.{name}",
                value=_shown(getattr(module, name), is_size=_is_size(statement)),
                meaning=None if below is None else _text(below),
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


def _text(statement: ast.stmt) -> str | None:
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return None
    value = statement.value.value
    return " ".join(value.split()) if isinstance(value, str) else None


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
