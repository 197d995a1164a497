"""`qmpmem top` as a user runs it: on terminals of all kinds, and printed for programs."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from qmpmem.api.permissions import Permissions
from qmpmem.api.sockets import listening
from qmpmem.journal.store import Store
from qmpmem.model.config import Config
from qmpmem.model.round import Tick
from qmpmem.records import replace
from qmpmem.units import MIB, Bytes
from tests.rig.agent import Office, ask
from tests.rig.command import Ran, called, plain_environment
from tests.rig.patience import patient
from tests.rig.qemu import short_directory
from tests.rig.screens import round_at
from tests.rig.terminal import Terminal, on_screen

pytestmark = pytest.mark.timeout(120)

ROUNDS = 200
LATEST = 30.0
"""Seconds ago: when the last round of the journal was."""


@pytest.fixture(scope="module")
def run() -> Iterator[Path]:
    """A run directory without guests, and the journal of an agent that has ended."""
    with short_directory() as directory:
        begin = time.time() - LATEST - ROUNDS
        with closing(Store(directory / "j.db", Bytes(64 * MIB))) as opened:
            for number in range(ROUNDS):
                seen = round_at(number)
                assert seen.plan is not None
                snapshot = replace(seen.snapshot, wall=begin + number)
                opened.add(Tick(number=number, snapshot=snapshot, plan=seen.plan), Config())
        (directory / "c.toml").write_text(f'journal.path = "{directory / "j.db"}"\n')
        (directory / "c.toml").chmod(0o600)
        (directory / "guests").mkdir(mode=0o700)
        yield directory


def environ(run: Path, **more: str) -> dict[str, str]:
    return {"QMPMEM_CONFIG": str(run / "c.toml"), **more}


def printed(run: Path, *words: str, **more: str) -> Ran:
    return called("top", *words, run=run / "guests", environ=environ(run, **more))


def past(run: Path, *words: str, **more: str) -> Ran:
    once = () if {"--csv", "--json"} & {*words} else ("--once",)
    ran = printed(run, "--at", "1min", *once, *words, **more)
    assert ran.code == 0, ran.err
    return ran


def test_a_screen_is_printed(run: Path) -> None:
    lines = past(run, COLUMNS="100").out.splitlines()
    assert lines[0].startswith(" qmpmem top")
    assert "SOFT" in lines[0]
    assert lines[4].split()[:2] == ["ID", "VERDICT▼"]
    assert [line.split()[0] for line in lines[5:]][:3] == ["web1", "ci-2", "stuck"]
    assert len(lines) == 5 + 12
    assert max(len(line) for line in lines) <= 100
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["--filter", "state:distress"], "web1"),
        (["--filter", "db", "--sort", "id"], "db1 db2"),
        (["--filter", "class:database"], ""),
        (["--filter", ">4G"], "db2 db1 gpu0"),
    ],
)
def test_what_is_printed_is_chosen(run: Path, words: list[str], ids: str) -> None:
    lines = past(run, *words, COLUMNS="100").out.splitlines()
    assert [line.split()[0] for line in lines[5:]] == ids.split()


def test_the_class_is_that_of_the_configuration(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    rule = '[[guest]]\nmatch = "db*"\nclass = "database"\n'
    path.write_text(f'journal.path = "{run / "j.db"}"\n{rule}')
    path.chmod(0o600)
    ran = past(run, "--filter", "class:db", "--columns", "class,used", QMPMEM_CONFIG=str(path))
    assert [line.split()[0] for line in ran.out.splitlines()[5:]] == ["db2", "db1"]
    assert "database" in ran.out


def test_csv_and_json_say_the_same(run: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(past(run, "--csv", "-n", "2").out)))
    seen = [json.loads(line) for line in past(run, "--json", "-n", "2").out.splitlines()]
    assert len(seen) == 2
    assert len(rows) == sum(len(each["guests"]) for each in seen)
    guests = [guest for each in seen for guest in each["guests"]]
    assert [row["id"] for row in rows] == [guest["id"] for guest in guests]
    assert [row["used"] for row in rows] == [str(guest["used"] or "") for guest in guests]
    assert seen[1]["time"] - seen[0]["time"] == pytest.approx(1.0)


def test_rounds_are_so_far_apart(run: Path) -> None:
    seen = [
        json.loads(each) for each in past(run, "--json", "-n", "3", "-d", "10").out.splitlines()
    ]
    assert [round(each["time"] - seen[0]["time"]) for each in seen] == [0, 10, 20]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "the screen needs a terminal; `qmpmem top --once` prints it"),
        (["--csv", "--json"], 2, "one of both"),
        (["--once", "--sort", "size"], 2, "--sort size: expected one of suffering"),
        (["--once", "--columns", "max,x"], 2, "--columns x: expected some of max"),
        (["--once", "--filter", "a:b"], 2, "begins with state:"),
        (["--once", "--at", "soon"], 2, "expected 14:03"),
        (["--once", "--at", "1min", "--journal", "/proc/none/j"], 2, "no journal"),
        (["-n", "0"], 2, "0"),
    ],
)
def test_a_mistake_is_one_line(run: Path, words: list[str], code: int, said: str) -> None:
    ran = printed(run, *words)
    assert ran.code == code
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_without_guests_and_without_an_agent_there_is_still_the_host(run: Path) -> None:
    ran = printed(run, "--once")
    assert ran.code == 0, ran.err
    assert "no agent decides" in ran.out
    assert "0 guests" in ran.out


def test_without_textual_one_line_says_what_to_install(run: Path) -> None:
    code = "import sys; sys.modules['textual'] = None; from qmpmem.cli import main; sys.argv = ['qmpmem', 'top']; main()"  # noqa: E501 - one line for python -c
    environment = plain_environment() | environ(run, TERM="xterm", QMPMEM_RUN_DIR=str(run))
    terminal = Terminal([sys.executable, "-c", code], environment, (120, 24))
    try:
        assert terminal.wait() == 2
        terminal.expect("qmpmem: the screen needs textual", "pip install 'qmpmem[top]'")
        assert "Traceback" not in terminal.text()
    finally:
        terminal.close()


def test_what_is_printed_does_not_need_textual(run: Path) -> None:
    code = "import sys; sys.modules['textual'] = None; from qmpmem.cli import main; sys.argv = ['qmpmem', 'top', '--once']; main()"  # noqa: E501 - as above
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=plain_environment() | environ(run, QMPMEM_RUN_DIR=str(run / "guests")),
        capture_output=True,
        text=True,
        timeout=patient(60),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no agent decides" in done.stdout


@asynccontextmanager
async def office(run: Path) -> AsyncIterator[Office]:
    """An agent whose rounds are made up, where the agent of a run directory is looked for."""
    made = Office(run)
    made.add("web1", 512)
    made.add("db1", 768)
    made.round(spare=100)
    owner = Permissions(owner=os.getuid())
    directory = run / ".agent"
    await ask(lambda: directory.mkdir(mode=0o700, exist_ok=True))
    context = listening(directory / "agent.sock", owner)
    listeners = await ask(context.__enter__)
    try:
        async with made.open(listeners):
            yield made
    finally:
        await ask(lambda: context.__exit__(None, None, None))


@pytest.mark.parametrize(
    ("size", "more", "expected"),
    [
        ((80, 24), {}, ["web1", "db1", "SLACK", "█", "░"]),
        ((60, 20), {}, ["web1", "db1", "█"]),
        ((200, 60), {}, ["web1", "db1", "REASON"]),
        ((80, 24), {"LANG": "C"}, ["web1", "#", "-"]),
        ((80, 24), {"TERM": "linux"}, ["web1", "#"]),
        ((80, 24), {"NO_COLOR": "1"}, ["web1", "█"]),
        ((30, 8), {}, ["needs 40x10, has 30x8"]),
    ],
)
async def test_every_terminal_shows_the_guests(
    size: tuple[int, int], more: dict[str, str], expected: list[str]
) -> None:
    with short_directory() as run:
        async with office(run):
            await ask(lambda: shown(run, size, more, expected))


def shown(run: Path, size: tuple[int, int], more: dict[str, str], expected: list[str]) -> None:
    with on_screen("top", run=run, size=size, environ=more) as terminal:
        terminal.expect(*expected, seconds=20)
        text = terminal.text()
        assert "Traceback" not in text
        if more.get("LANG") == "C" or more.get("TERM") == "linux":
            assert text.isascii()
        if "NO_COLOR" in more:
            assert b"\x1b[32m" not in terminal.raw
            assert b";32m" not in terminal.raw
        terminal.press("q")
        assert terminal.wait() == 0
        assert terminal.is_sane()


async def test_keys_on_a_terminal_change_an_agent() -> None:
    with short_directory() as run:
        async with office(run) as made:
            await ask(lambda: pinned(run))
            assert made.agent.requests.in_force.pins == {"web1": 600 * MIB}
            assert made.agent.requests.in_force.hold


def pinned(run: Path) -> None:
    with on_screen("top", run=run) as terminal:
        terminal.expect("web1", "db1", seconds=20)
        terminal.press("<", "<", ">", ">")
        terminal.press("/", "web", "enter")
        terminal.expect("[filter web]")
        terminal.press("down", "s", "600M")
        terminal.expect("the host gives 88M", "the agent would take it")
        terminal.press("enter")
        terminal.expect("web1 is pinned to 600M")
        terminal.press("H")
        terminal.expect("take nothing from any guest")
        terminal.press("enter")
        terminal.expect("nothing is taken from any guest")
        terminal.press("ctrl+c")
        assert terminal.wait() == 0


async def test_an_agent_that_restarts_and_a_guest_that_vanishes_are_said() -> None:
    with short_directory() as run:
        async with office(run) as made:
            screen = on_screen("top", run=run)
            terminal = await ask(screen.__enter__)
            try:
                await ask(lambda: terminal.expect("web1", "db1", seconds=20))
                await ask(lambda: terminal.press("/", "web", "enter", "down", "enter"))
                await ask(lambda: terminal.expect("── web1 ─"))
                made.remove("web1")
                made.round()
                await ask(lambda: terminal.expect("web1 is not here", "none of 1 guests"))
                await ask(lambda: terminal.resize(100, 30))
                await ask(lambda: terminal.expect("web1 is not here", "agent 0"))
            except BaseException:
                await ask(lambda: screen.__exit__(None, None, None))
                raise
        try:
            await ask(lambda: terminal.expect("no round for"))
            await ask(lambda: terminal.resize(30, 8))
            await ask(lambda: terminal.expect("needs 40x10"))
            await ask(lambda: terminal.resize(80, 24))
            async with office(run):
                await ask(lambda: terminal.expect("SLACK", "web1", "2 guests", seconds=20))
                await ask(lambda: terminal.press("q"))
                assert await ask(terminal.wait) == 0
        finally:
            await ask(lambda: screen.__exit__(None, None, None))


def test_a_screen_goes_back_in_time_and_keeps_what_was_chosen(run: Path) -> None:
    guests = run / "guests"
    with on_screen("top", "--at", "1min", run=guests, environ=environ(run)) as terminal:
        terminal.expect("ago)", "web1", "distress", seconds=20)
        before = terminal.line("qmpmem top")
        terminal.press("left", "left")
        terminal.expect("x reserve")
        terminal.press("h")
        terminal.expect("last 10 min")
        terminal.press("s")
        terminal.expect("this is the past")
        terminal.press("t", "150s", "enter")
        terminal.expect("m ago)")
        assert terminal.line("qmpmem top") != before
        terminal.press("c", " ", "enter")
        terminal.expect("kept in")
        terminal.press("end")
        terminal.expect("no agent decides")
        terminal.press("q")
        assert terminal.wait() == 0
    kept = (guests / ".config" / "qmpmem" / "top.toml").read_text()
    assert '"max"' not in kept
    assert 'pane = "plot"' in kept


def test_a_settings_file_with_a_mistake_is_said_and_kept(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "qmpmem" / "top.toml"
    path.parent.mkdir()
    path.write_text("colour = 'red'")
    more = environ(run, XDG_CONFIG_HOME=str(tmp_path))
    with on_screen("top", "--at", "1min", run=run / "guests", environ=more) as terminal:
        terminal.expect("web1", seconds=20)
        terminal.press("q")
        assert terminal.wait() == 0
        assert b"colour" in terminal.raw
    assert path.read_text() == "colour = 'red'"
