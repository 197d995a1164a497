"""What a locale cannot write is written another way, in every command, and JSON stays JSON."""

import json
import os

import pytest

from qmpmem.cli import output
from qmpmem.records import Record
from tests.rig.command import Ran, called_each
from tests.rig.fakeguest import register

NAME = "my guest ü → \U0001f427"

LOCALES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "strict": {"PYTHONIOENCODING": "ascii:strict"},
    "latin": {"PYTHONIOENCODING": "iso-8859-1"},
    "C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "UTF-8": {"PYTHONIOENCODING": "utf-8"},
}


CALLS = (
    *(["list"], ["list", "--json"], ["info", NAME], ["info", NAME, "--json"], ["stats", NAME]),
    *(["set", NAME, "256M"], ["set", NAME, "256M", "--json"], ["info", "ü→"], ["ü→"]),
    *(["set", "--→"], ["script", "ü→"], ["config", "check", "--config", "/ü→"], ["--help"]),
    *(["set", "--help"], ["simulate", "ü→"], ["history", "ü→"], ["discover"], ["doctor"]),
    *(["ksm", "status"], ["launcher", "status"], ["agent", "policy", "show"], ["config", "show"]),
)


@pytest.fixture(scope="module", params=LOCALES)
def ran(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Ran]]:
    """A locale, and each call in it, where a guest has a name that no narrow locale can write."""
    run = tmp_path_factory.mktemp("run")
    (run / "g").mkdir()
    register(run, "g", os.getpid(), name=NAME)
    ended = called_each(CALLS, run=run, environ=LOCALES[request.param])
    return request.param, dict(zip(map(" ".join, CALLS), ended, strict=True))


@pytest.mark.parametrize("call", [" ".join(call) for call in CALLS])
def test_no_locale_ends_a_command(ran: tuple[str, dict[str, Ran]], call: str) -> None:
    locale, ended = ran
    code, out, err = ended[call]
    assert "internal error" not in err
    assert code != 70
    if call == "list --json":
        assert json.loads(out)[0]["name"] == NAME
    elif "--json" in call:
        assert json.loads(out)
    if locale != "UTF-8":
        assert "→" not in out + err


class Named(Record, frozen=True):
    name: str


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "iso-8859-1"])
@pytest.mark.parametrize("name", ["web1", "ü", "\U0001f427", "bytes \udcff", "\ud83d"])
def test_any_text_becomes_json_that_reads_back(name: str, encoding: str) -> None:
    text = output.as_json(Named(name=name), encoding)
    assert json.loads(text.encode(encoding)) == {"name": name}


@pytest.mark.parametrize("sign", ["\x9b", "\x85", "\u2028", "\u202e", "\u2066", "\U000e0001"])
def test_json_has_nothing_that_a_terminal_obeys(sign: str) -> None:
    """As a QEMU may have it in an answer, or a guest in its name."""
    value = Named(name=f"ü\U0001f427{sign}31m\n")
    one_line = output.as_json(value)
    lines = output.with_json_escapes(json.dumps({"name": value.name}, indent=2, ensure_ascii=False))
    for text in (one_line, lines):
        assert sign not in text
        assert "ü\U0001f427" in text
        assert json.loads(text) == {"name": value.name}
    assert one_line.isprintable()
    assert len(lines.splitlines()) == len(lines.split("\n")) == 3


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
