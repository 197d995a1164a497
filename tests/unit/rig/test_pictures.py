"""README's pictures are there, small, and of today's program."""

import re
import struct
import time
from xml.etree import ElementTree as ET

import pytest

from tests.rig import fleet, pictures
from tests.rig.readme import ROOT

TAGS = re.findall(r"<img [^>]*>", (ROOT / "README.md").read_text())
NAMES = [match[1] for each in TAGS if (match := re.search(r'src="([^"]+)"', each))]


def test_readme_shows_the_page_and_the_screen_at_first() -> None:
    first = (ROOT / "README.md").read_text().partition("\n## ")[0]
    for path in (pictures.PAGE, pictures.TOP):
        assert str(path.relative_to(ROOT)) in first
    assert len(NAMES) == len(TAGS)


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_there_and_small(name: str) -> None:
    content = (ROOT / name).read_bytes()
    assert len(content) < pictures.LARGEST
    if name.endswith(".svg"):
        ET.fromstring(content.decode())  # noqa: S314 - our own
        return
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert (width, height) == (pictures.WIDTH, pictures.HEIGHT)


@pytest.mark.parametrize("tag", TAGS)
def test_a_picture_says_in_words_what_is_on_it(tag: str) -> None:
    words = re.search(r'alt="([^"]+)"', tag)
    assert words is not None
    assert len(words[1]) > 20


def test_the_screen_is_as_the_program_draws_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    try:
        drawn = pictures.top()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert pictures.TOP.read_text() == drawn, "run `make pictures`"
    root = ET.fromstring(drawn)  # noqa: S314 - our own
    shown = "".join(each.text or "" for each in root.iter() if each.tag.endswith("text"))
    for guest in fleet.FLEET:
        assert (guest.name or guest.id).split()[0] in shown
