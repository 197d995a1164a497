"""Change one thing at a time in the policy, and list the changes that no test notices.

    make mutants ARGS="reach goals"

A change that survives is a number or a condition that no test of tests/unit/policy/test_*.py rests
on: a test is missing, or it does not matter. The laws take too long to be asked each time.
"""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
POLICY: Final = Path("qmpmem/policy")
WORKERS: Final = 2
SECONDS: Final = 120
"""After which a change that makes the tests run for ever counts as noticed."""
SLOW: Final = frozenset({"test_laws.py"})

OPPOSITE: Final = {
    ast.Lt: ast.GtE(),
    ast.GtE: ast.Lt(),
    ast.Gt: ast.LtE(),
    ast.LtE: ast.Gt(),
    ast.Eq: ast.NotEq(),
    ast.NotEq: ast.Eq(),
    ast.Is: ast.IsNot(),
    ast.IsNot: ast.Is(),
    ast.In: ast.NotIn(),
    ast.NotIn: ast.In(),
}


class Change(NamedTuple):
    """One change of one module."""

    module: str
    line: int
    before: str
    after: str
    source: str
    """The whole module, changed."""


def changes(module: str) -> Iterator[Change]:
    """Yield each change of a module: numbers doubled and halved, conditions turned round."""
    source = (ROOT / POLICY / f"{module}.py").read_text()
    lines = source.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:number])) for number in range(len(lines))]
    for node in ast.walk(ast.parse(source)):
        for after in turned(node):
            assert isinstance(node, ast.expr)
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            code = source.encode()
            before = code[start:end].decode()
            changed = (code[:start] + f"({after})".encode() + code[end:]).decode()
            yield Change(module, node.lineno, " ".join(before.split()), after, changed)


def turned(node: ast.AST) -> Iterator[str]:
    """Yield what a part of a program may be changed to."""
    match node:
        case ast.Constant(value=bool()):
            return
        case ast.Constant(value=int() | float() as number):
            yield from {"0": ("1",), "1": ("2", "0")}.get(
                f"{number:g}", (f"{number} * 2", f"{number} / 2")
            )
        case ast.Compare(ops=[operator]):
            yield ast.unparse(ast.Compare(node.left, [OPPOSITE[type(operator)]], node.comparators))
        case ast.BoolOp(op=operator, values=values):
            other = ast.Or() if isinstance(operator, ast.And) else ast.And()
            yield ast.unparse(ast.BoolOp(other, values))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield ast.unparse(operand)
        case _:
            return


def is_noticed(change: Change, place: Path) -> bool:
    """Run the tests on a change: first those of its module, then those of the others."""
    target = place / POLICY / f"{change.module}.py"
    whole = target.read_text()
    target.write_text(change.source)
    own = Path(f"tests/unit/policy/test_{change.module}.py")
    rest = sorted(path.relative_to(place) for path in place.glob("tests/unit/policy/test_*.py"))
    rest = [path for path in rest if path.name not in SLOW and path != own]
    try:
        return any(_fails(tests, place) for tests in ([own], rest) if (place / tests[0]).exists())
    finally:
        target.write_text(whole)


def _fails(tests: list[Path], place: Path) -> bool:
    words = [sys.executable, "-m", "pytest", "-qx", "--tb=no", "-p", "no:cacheprovider"]
    environ = os.environ | {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ran = subprocess.run(
            [*words, *tests],
            cwd=place,
            env=environ,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return True
    return ran.returncode != 0


def main(modules: list[str]) -> None:
    """Try every change of some modules of the policy, or of all."""
    names = modules or sorted(path.stem for path in (ROOT / POLICY).glob("[a-z]*.py"))
    with TemporaryDirectory(prefix="mutants-") as name, ThreadPoolExecutor(WORKERS) as pool:
        places: SimpleQueue[Path] = SimpleQueue()
        for number in range(WORKERS):
            place = Path(name) / str(number)
            for part in ("qmpmem", "tests"):
                shutil.copytree(ROOT / part, place / part)
            shutil.copy(ROOT / "pyproject.toml", place)
            places.put(place)

        def survives(change: Change) -> bool:
            place = places.get()
            try:
                return not is_noticed(change, place)
            finally:
                places.put(place)

        tried = [change for module in names for change in changes(module)]
        left = 0
        for change, survived in zip(tried, pool.map(survives, tried), strict=True):
            left += survived
            if survived:
                where = f"{POLICY}/{change.module}.py:{change.line}"
                print(f"{where}: {change.before}  ->  {change.after}", flush=True)
        print(f"{left} of {len(tried)} changes survive")


if __name__ == "__main__":
    main(sys.argv[1:])
