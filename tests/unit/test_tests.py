"""The tests themselves: the map of the rig is whole, and no path is one that others may make.

And none waits by a clock that a busy machine is slower than.
"""

import ast
import re
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from tests.rig import chance

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


REAL: Final = ("system", "host", "soak", "rig")
"""Folders whose tests run in real time."""
WAITS: Final = frozenset({"settimeout", "wait", "join", "timeout"})
"""What is called with seconds as its only argument."""
PATIENT: Final = frozenset({"check", "execute", "LeaseRequest"})
"""What multiplies by itself, and a request for room, whose time is what is tested."""


def bare_deadlines(source: str) -> list[int]:
    """Return the lines where something is waited for, a second or longer, and not by `patient`."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        for name in [getattr(node.func, "attr", getattr(node.func, "id", ""))]
        if name not in PATIENT
        for value in [
            *(each.value for each in node.keywords if each.arg == "timeout"),
            *(node.args if name in WAITS and len(node.args) == 1 else ()),
        ]
        if isinstance(value, ast.Constant)
        and isinstance(value.value, int | float)
        and value.value >= 1
        and "mark.timeout" not in ast.unparse(node.func)  # conftest makes it patient
    ]


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("a.settimeout(10)", [1]),
        ("child.wait(timeout=20)", [1]),
        ("x\nasync def f():\n    async with asyncio.timeout(5): ...", [3]),
        ("child.wait(timeout=patient(20)); a.settimeout(0); begun.wait(0.5)", []),
        ("pytest.mark.timeout(60); guest.check('true', timeout=60)", []),
    ],
)
def test_a_bare_deadline_is_found(source: str, lines: list[int]) -> None:
    assert bare_deadlines(source) == lines


FOR_LOAD: Final = {
    r"<=? patient\(": "take `within` of the rig: a wall clock also measures other programs",
    r"/proc/\{[^}]+\}/stat\b": "take `kernel.process`: a process may end while it is read",
}


@pytest.mark.parametrize("folder", REAL)
def test_no_test_fails_on_a_busy_machine_by_its_own_words(folder: str) -> None:
    found = {}
    for path in (RIG.parent / folder).glob("*.py"):
        source = path.read_text()
        if lines := bare_deadlines(source):
            found[path.name] = f"lines {lines}: a deadline is `patient(seconds)`"
        for pattern, instead in FOR_LOAD.items():
            if path.name != "patience.py" and re.search(pattern, source):
                found[path.name] = instead
    assert found == {}


def test_what_is_drawn_is_another_choice_with_another_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(seed: int, name: str) -> list[int]:
        monkeypatch.setenv(chance.VARIABLE, str(seed))
        return chance.drawn(10, range(1000), name)

    monkeypatch.delenv(chance.ALL, raising=False)
    assert drawn(1, "a") == drawn(1, "a") == sorted(set(drawn(1, "a")))
    assert len({tuple(drawn(*each)) for each in ((1, "a"), (2, "a"), (1, "b"))}) == 3
    assert chance.drawn(10, range(10), "a") == list(range(10))


def test_each_worker_of_a_run_chooses_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(chance.ALL, raising=False)
    named = [[f"<function f{number} at 0x{at}{number}>" for number in range(50)] for at in (7, 8)]

    def chosen(words: list[str]) -> list[int]:
        cases = chance.some([Named(word) for word in words], 5)
        return [number for number, case in enumerate(cases) if not case.marks]

    assert chosen(named[0]) == chosen(named[1])
    assert len(chosen(named[0])) == 5


class Named:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def test_soak_tries_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(chance.ALL, "1")
    before = settings.get_current_profile_name()
    try:
        chance.load_profile(in_ci=True)
        assert settings().max_examples == chance.SOAK_EXAMPLES
    finally:
        settings.load_profile(before)
    assert chance.drawn(10, range(1000), "a") == list(range(1000))
