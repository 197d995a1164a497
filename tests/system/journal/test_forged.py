"""A journal of another user, or a damaged one: a line and an exit code, and never a wait."""

import time
from pathlib import Path

import pytest

from tests.rig import journals
from tests.rig.command import Ran, called

AGO = 600.0
WORDS = {
    "history": ("history", "g0"),
    "why": ("why", "g0", "--at", "590s"),
    "replay": ("replay", "--config", "EMPTY"),
    "plot": ("plot", "g0"),
    "plot-host": ("plot", "host", "--since", "1d"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "j"
    journals.make(path, time.time() - AGO)
    return path.read_bytes()


def ask(path: Path, *words: str) -> Ran:
    empty = path.with_name("empty.toml")
    empty.touch()
    given = (str(empty) if word == "EMPTY" else word for word in words)
    return called(*given, "--journal", str(path), run=path.parent)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
@pytest.mark.parametrize("forge", ["none", *journals.EVERY])
def test_what_no_agent_wrote_gives_a_line_and_an_exit_code(
    tmp_path: Path, sound: bytes, forge: str, words: tuple[str, ...]
) -> None:
    """Rows F83, F111."""
    path = tmp_path / "j"
    path.write_bytes(sound)
    if forge != "none":
        journals.EVERY[forge](path)
    ran = ask(path, *words)
    assert ran.code in ((0,) if forge == "none" else (0, 2, 4)), ran.err
    assert len(ran.err.strip().splitlines()) <= 2
    if forge in journals.SCHEMAS:
        assert (ran.code, "is not ours" in ran.err) == (4, True), ran.err
