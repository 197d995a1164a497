"""The files that come with the page: style sheet, script, icon, alerts and dashboard."""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Final

from qmpmem.records import Record
from qmpmem.view import svg

MEDIA: Final[Mapping[str, str]] = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "prometheus-rules.yml": "application/yaml",
    "grafana-dashboard.json": "application/json",
}


class File(Record, frozen=True):
    """A file."""

    content: bytes
    media: str


@cache
def files() -> Mapping[str, File]:
    """Read all files, once in a process. Blocks."""
    place = resources.files("qmpmem.serve").joinpath("static")
    found = {
        name: File(content=place.joinpath(name).read_bytes(), media=media)
        for name, media in MEDIA.items()
    }
    return found | {"plot.css": File(content=svg.STYLE.encode(), media="text/css")}


@cache
def mark() -> str:
    """Return a word that is another one when a file is: a browser may keep the old ones."""
    content = b"".join(each.content for each in files().values())
    return hashlib.sha256(content).hexdigest()[:12]
