"""Guests by the names that people gave them: two of Windows, two of one name, an umlaut."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.rig.agent import running
from tests.rig.command import Ran, called, on_terminal
from tests.rig.launcher import SHIM
from tests.rig.qemu import EMULATOR, listens, short_directory, until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]

PAUSED: Final = ("-S", "-nodefaults", "-vga", "none", "-display", "none", "-m", "256")
NAMES: Final = {
    "Windows-10": "Windows 10",
    "Windows-11": "Windows 11",
    "Buero": "Büro",
    "twin": "twin",
    "twin-2": "twin",
    "a-b": "a b",
    "a-b-2": "a b",
    "web01": None,
}
"""What each guest is given for a name, in order, by the id that it gets. None: it has a disk."""


@pytest.fixture(scope="module")
def run() -> Iterator[Path]:
    with short_directory() as directory, ExitStack() as stack:
        disk = directory / "web01.img"
        disk.write_bytes(b"\0" * 4096)
        guests = directory / "guests"
        for guest, name in NAMES.items():
            words = ["-drive", f"file={disk},format=raw"] if name is None else ["-name", name]
            child = subprocess.Popen(
                [SHIM, *PAUSED, "-accel", "tcg,tb-size=32", *words],
                env={**os.environ, "QMPMEM_RUN_DIR": str(guests), "QMPMEM_REAL": EMULATOR},
                stdin=subprocess.DEVNULL,
            )
            stack.callback(child.wait)
            stack.callback(child.kill)
            path = guests / guest / "qmp.sock"
            until(lambda path=path: listens(path), what=f"{guest} listens")  # type: ignore[misc]
        yield guests


@pytest.fixture(params=[False, True], ids=["alone", "agent"])
def asked(request: pytest.FixtureRequest, run: Path) -> Iterator[Path]:
    """Have an agent, or none: both ways the same words mean the same guests."""
    if not request.param:
        yield run
        return
    with running(run):
        until(lambda: "Büro" in called("agent", "status", run=run).out, what="all are seen")
        yield run


def one_line(ran: Ran) -> str:
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    return ran.err


def test_names_are_listed(asked: Path) -> None:
    shown = called("list", run=asked).out
    header, *lines = shown.splitlines()
    assert header.split()[0] == "ID"
    assert "NAME" in header
    for guest, name in NAMES.items():
        [line] = [line for line in lines if line.split()[0] == guest]
        assert name is None or name == guest or name in line
    guests = json.loads(called("list", "--json", run=asked).out)
    assert {each["id"]: each["name"] for each in guests} == NAMES | {"web01": "web01"}


def test_an_id_is_never_cut(run: Path) -> None:
    shown = on_terminal("list", run=run, columns=40).out
    for guest in NAMES:
        assert guest in shown


@pytest.mark.parametrize("word", ["Windows 10", "Windows-10"])
def test_a_guest_is_meant_by_its_name_and_by_its_id(asked: Path, word: str) -> None:
    assert json.loads(called("info", word, "--json", run=asked).out)["id"] == "Windows-10"
    assert called("stats", word, run=asked).code == 0
    ran = called("set", word, "200M", "--dry-run", run=asked)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Windows 10: would go from")


@pytest.mark.parametrize(
    "words", [["info"], ["stats"], ["set", "200M"], ["events"], ["forget"]], ids=lambda it: it[0]
)
def test_a_name_of_two_guests_is_one_line_with_their_ids(asked: Path, words: list[str]) -> None:
    command, *rest = words
    said = one_line(called(command, "a b", *rest, run=asked))
    assert "a b: the name of several guests; say which: a-b, a-b-2" in said


def test_an_id_counts_before_a_name(asked: Path) -> None:
    assert json.loads(called("info", "twin", "--json", run=asked).out)["id"] == "twin"
    assert json.loads(called("info", "twin-2", "--json", run=asked).out)["name"] == "twin"


def test_scripts_take_names(asked: Path) -> None:
    lines = "get \"Windows 1?\"\nget Büro  # the office\nget 'Windows-10'\nget twin\n"
    ran = called("script", "-", run=asked, text=lines)
    assert (ran.code, ran.err) == (0, "")
    results = [json.loads(line) for line in ran.out.splitlines()]
    assert [(each["line"], each["id"], each["name"]) for each in results] == [
        (1, "Windows-10", "Windows 10"),
        (1, "Windows-11", "Windows 11"),
        (2, "Buero", "Büro"),
        (3, "Windows-10", "Windows 10"),
        (4, "twin", "twin"),
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('get "a b"', "line 1: guest a b: the name of several guests; say which: a-b, a-b-2"),
        ("get 'a b", 'line 1: "get \'a b": a quote that is not closed'),
        ("get Windows 10", "line 1: expected `get PATTERN`"),
    ],
)
def test_mistakes_in_scripts_are_one_line(run: Path, line: str, why: str) -> None:
    assert why in one_line(called("script", "-", run=run, text=line))


@pytest.mark.parametrize(
    ("shell", "typed", "offered"),
    [
        ("bash", "Win", ["Windows-10", r"Windows\ 10", "Windows-11", r"Windows\ 11"]),
        ("bash", "B", ["Buero", "Büro"]),
        ("bash", "tw", ["twin", "twin-2"]),
    ],
)
def test_the_shell_completes_names(run: Path, shell: str, typed: str, offered: list[str]) -> None:
    asked = {
        "_QMPMEM_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": f"qmpmem info {typed}",
        "COMP_CWORD": "2",
    }
    assert called(run=run, environ=asked).out.splitlines() == offered


def test_the_agent_and_its_journal_know_names(run: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f'[journal]\npath = "{tmp_path}/journal.db"\n'
        '[[guest]]\nmatch = "Windows 10"\nminimum = "222M"\n'
    )
    with running(run, "--config", str(config)):
        until(lambda: "Büro" in called("agent", "status", run=run).out, what="all are seen")
        status = json.loads(called("agent", "status", "--json", run=run).out)
        known = {each["guest"]: each["name"] for each in status["guests"]}
        assert known == NAMES | {"web01": "web01"}
        why = json.loads(called("agent", "why", "Windows 10", "--json", run=run).out)
        assert (why["guest"], why["reading"]["name"]) == ("Windows-10", "Windows 10")
        assert why["limits"]["minimum"] == 222 << 20
        told = called("agent", "pin", "Windows 11", "240M", run=run)
        assert told.out.startswith("Windows 11: pinned to 240 MiB")
        assert "pin Windows 11" in called("agent", "status", run=run).out
        assert called("unpin", "Windows-11", run=run).out == "Windows 11: unpinned\n"
        assert "say which: a-b, a-b-2" in one_line(called("agent", "why", "a b", run=run))
    past = ("--journal", str(tmp_path / "journal.db"))
    shown = called("history", "Windows 10", *past, run=run)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("guest Windows 10\n")
    [episode, *_] = called("history", "Windows-10", "--json", *past, run=run).out.splitlines()
    assert json.loads(episode)["name"] == "Windows 10"
    assert called("why", "Büro", "--at", "1s", *past, run=run).code == 0
    drawn = called("plot", "Windows 10", "--since", "2m", *past, run=run)
    assert (drawn.code, drawn.err) == (0, "")
    assert drawn.out.startswith("Memory of guest Windows 10 ")
    assert "several guests" in one_line(called("plot", "a b", *past, run=run))
    assert "Windows 11" in one_line(called("history", "none", *past, run=run))
    assert "several guests" in one_line(called("history", "a b", *past, run=run))


def test_ksm_status_shows_names(run: Path) -> None:
    assert "Windows 10" in called("ksm", "status", run=run).out
