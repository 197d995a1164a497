"""What a locale cannot write is written another way, in every command, and JSON stays JSON."""

import json
import os
from pathlib import Path

import pytest

from qmpmem.cli import output
from qmpmem.records import Record
from tests.rig.command import qmpmem
from tests.rig.fakeguest import register

NAME = "my guest ü → \U0001f427"

LOCALES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "strict": {"PYTHONIOENCODING": "ascii:strict"},
    "latin": {"PYTHONIOENCODING": "iso-8859-1"},
    "C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "UTF-8": {"PYTHONIOENCODING": "utf-8"},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with a guest whose name no narrow locale can write."""
    (tmp_path / "g").mkdir()
    register(tmp_path, "g", os.getpid(), name=NAME)
    return tmp_path


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize(
    "call",
    [
        *(["list"], ["list", "--json"], ["info", NAME], ["info", NAME, "--json"], ["stats", NAME]),
        *(["set", NAME, "256M"], ["set", NAME, "256M", "--json"], ["info", "ü→"], ["ü→"]),
        *(["set", "--→"], ["script", "ü→"], ["config", "check", "--config", "/ü→"], ["--help"]),
        *(["set", "--help"], ["simulate", "ü→"], ["history", "ü→"], ["discover"], ["doctor"]),
        *(
            ["ksm", "status"],
            ["launcher", "status"],
            ["agent", "policy", "show"],
            ["config", "show"],
        ),
    ],
    ids=" ".join,
)
def test_no_locale_ends_a_command(run: Path, locale: str, call: list[str]) -> None:
    ran = qmpmem(*call, run=run, environ=LOCALES[locale])
    assert "internal error" not in ran.err
    assert ran.code != 70
    if "--json" in call:
        assert json.loads(ran.out)
    if locale != "UTF-8":
        assert "→" not in ran.out + ran.err


def test_json_of_another_locale_says_the_same(run: Path) -> None:
    seen = {
        locale: json.loads(qmpmem("list", "--json", run=run, environ=environ).out)[0]["name"]
        for locale, environ in LOCALES.items()
    }
    assert set(seen.values()) == {NAME}


class Named(Record, frozen=True):
    name: str


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "iso-8859-1"])
@pytest.mark.parametrize("name", ["web1", "ü", "\U0001f427", "bytes \udcff", "\ud83d"])
def test_any_text_becomes_json_that_reads_back(name: str, encoding: str) -> None:
    text = output.as_json(Named(name=name), encoding)
    assert json.loads(text.encode(encoding)) == {"name": name}


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("256 MiB → 1 GiB …", "256 MiB -> 1 GiB ..."),
        ("MiB·s ÷ ü", "MiB.s / \\xfc"),
        ("\U0001f427 \udcff", "\\U0001f427 \\udcff"),
    ],
)
def test_our_own_signs_have_a_plain_form(text: str, written: str) -> None:
    assert text.encode("ascii", output.HANDLER).decode() == written
