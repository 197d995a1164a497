"""The manual pages: ``.venv/bin/python -m tests.rig.pages DIRECTORY``, which is `make man`.

go-md2man makes them of what `qmpmem.view.manual_chapters.as_page` writes; `qmpmem manual` makes the
one of the commands.
"""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from qmpmem.cli.app import MODULES
from qmpmem.view.manual_chapters import as_page
from tests.rig.command import PROGRAM
from tests.rig.readme import CHAPTERS


def named(topic: str) -> tuple[str, int]:
    """Return how a chapter's page is called, and its section: commands are in 1, files in 5."""
    if topic == "config":
        return "qmpmem.toml", 5
    return f"qmpmem-{topic}", 1 if topic in MODULES else 7


def write(directory: Path) -> list[Path]:
    """Write all pages, as man(1) looks for them below a directory; return their paths."""
    commands = subprocess.run([PROGRAM, "manual"], capture_output=True, check=True).stdout
    return [
        _put(directory, "qmpmem", 1, commands),
        *(_put(directory, *named(path.stem), _made(path)) for path in CHAPTERS),
    ]


def _made(path: Path) -> bytes:
    name, section = named(path.stem)
    others = [(each.stem, "{}({})".format(*named(each.stem))) for each in CHAPTERS if each != path]
    title, rest = as_page(path.read_text(), name, section, others).split("\n", 1)
    source = f"{title} {_day()}\n{rest}"
    page = subprocess.run(["go-md2man"], input=source.encode(), capture_output=True, check=True)
    # It asks for the font C as well, which mandoc does not know, and for paragraphs that begin
    # where a section does, which is one already.
    return re.sub(rb"(?m)^(\.S[HS] .*\n)\.PP\n", rb"\1", page.stdout.replace(rb"\fB\fC", rb"\fB"))


def _day() -> str:
    """Return the day of the page; SOURCE_DATE_EPOCH makes it the same each time."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.now(UTC) if given is None else datetime.fromtimestamp(int(given), UTC)
    return f"{moment:%Y-%m-%d}"


def _put(directory: Path, name: str, section: int, content: bytes) -> Path:
    path = directory / f"man{section}" / f"{name}.{section}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


if __name__ == "__main__":
    write(Path(sys.argv[1]))
