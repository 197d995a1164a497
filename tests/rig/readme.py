"""README.md, CONTRIBUTING.md and the manual, taken apart: their code blocks, and the commands."""

import re
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = ROOT / "README.md"
CONTRIBUTING: Final = ROOT / "CONTRIBUTING.md"
CHAPTERS: Final = tuple(sorted((ROOT / "qmpmem" / "manual").glob("*.md")))
DOCUMENTS: Final = (README, CONTRIBUTING, *CHAPTERS)
_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block."""

    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """What a reader would type: the lines after a ``$``, without it."""
        return [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]


def path_of(topic: str) -> Path:
    """Return the file of a chapter."""
    return ROOT / "qmpmem" / "manual" / f"{topic}.md"


def chapter(topic: str) -> str:
    """Read a chapter of the manual."""
    return path_of(topic).read_text()


def blocks(language: str, *paths: Path) -> list[Block]:
    """Return all blocks of a language, in order, of these documents or of all."""
    return [
        Block(language=found[1], text=found[2])
        for path in paths or DOCUMENTS
        for found in _BLOCK.finditer(path.read_text())
        if found[1] == language
    ]
