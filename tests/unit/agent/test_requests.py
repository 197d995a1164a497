"""The file of what operators asked for: damage of any kind stops nothing, and is said."""

from pathlib import Path

import pytest

from qmpmem.agent.requests import RequestStore
from qmpmem.model.observation import OperatorRequests
from qmpmem.units import MIB, Bytes


def loaded(path: Path, content: bytes) -> tuple[OperatorRequests, list[str]]:
    said: list[str] = []
    path.write_bytes(content)
    return RequestStore(path, said.append).in_force, said


def test_pins_are_known_again(tmp_path: Path) -> None:
    found, said = loaded(tmp_path / "orders", b'{"hold": true, "pins": {"web1": 1048576}}')
    assert (found.hold, found.pins, said) == (True, {"web1": Bytes(MIB)}, [])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b'{"pins": []}',
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"pins": {"web1": -5}}',
        b'{"pins": {"web1": 1' + b"0" * 400 + b"}}",
        b'{"pins": {"web1": 1.5}}',
    ],
    ids=["empty", "no text", "no table", "deep", "negative", "400 digits", "a fraction"],
)
def test_what_is_damaged_is_said_and_stops_nothing(tmp_path: Path, content: bytes) -> None:
    found, [line] = loaded(tmp_path / "orders", content)
    assert found == OperatorRequests()
    assert line.startswith(f"{tmp_path}/orders: ")
    assert line.endswith("what was pinned or held before is not known")
