"""README.md, taken apart: its code blocks, and the commands in them."""

import re
from pathlib import Path
from typing import Final, NamedTuple

README: Final = Path(__file__).resolve().parents[2] / "README.md"
_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block."""

    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """What a reader would type: the lines after a ``$``, without it."""
        return [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]


def blocks(language: str) -> list[Block]:
    """All blocks of a language, in order."""
    return [
        Block(language=found[1], text=found[2])
        for found in _BLOCK.finditer(README.read_text())
        if found[1] == language
    ]
