"""The screens: tables of any width, and those that follow until Ctrl-C."""

import json
import signal
import subprocess
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.rig.command import PROGRAM, on_terminal, plain_environment
from tests.rig.qemu import paused, short_directory

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]

NAMES = ("web1", "a-guest-with-a-long-name")


@pytest.fixture(scope="module")
def run() -> Iterator[Path]:
    with short_directory() as directory, paused(directory, *NAMES):
        yield directory


def first_lines(run: Path, call: str, count: int) -> list[str]:
    """Begin a command that goes on, take some lines of it, and end it by SIGINT."""
    environment = plain_environment() | {"QMPMEM_RUN_DIR": str(run)}
    with subprocess.Popen(
        [PROGRAM, *call.split()], env=environment, stdout=-1, stderr=-1, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        lines = list(islice(child.stdout, count))
        child.send_signal(signal.SIGINT)
        assert "Traceback" not in child.stderr.read()
        assert child.wait() == 130
    return lines


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
@pytest.mark.parametrize("call", ["list", "info web1", "stats web1", "ksm status"])
def test_ids_are_whole_and_units_stay_at_any_width(run: Path, call: str, columns: int) -> None:
    shown = on_terminal(*call.split(), run=run, columns=columns)
    assert shown.code == 0
    assert "…" not in shown.out
    if call == "list":
        assert all(f"{name}" in shown.out.replace("\x1b[1m", "") for name in NAMES)
        assert max(len(line) for line in shown.out.split("\r\n")) <= columns + len("\x1b[1m\x1b[0m")
    assert "\r\nMiB" not in shown.out


def test_a_list_that_follows_is_drawn_in_place_and_leaves_the_screen_sane(run: Path) -> None:
    shown = on_terminal("list", "--watch", "0.2s", run=run, until="web1")
    assert shown.code == 130
    assert shown.out.startswith("\x1b[H\x1b[J")
    assert "\x1b[?" not in shown.out  # no hidden cursor, no other screen: nothing to put back


def test_a_list_that_follows_is_one_table_after_the_other_in_a_pipe(run: Path) -> None:
    lines = first_lines(run, "list --watch 0.1s", 7)
    assert lines[0] == lines[4]
    assert lines[3] == "\n"
    assert [lines[index].split()[0] for index in (1, 2, 5, 6)] == 2 * sorted(NAMES)


@pytest.mark.parametrize(
    ("call", "key"),
    [
        ("list --watch 0.1 --json", 0),
        ("list --watch --json", 0),
        ("stats web1 --watch --json", "id"),
        ("ksm status --watch --json", "verdict"),
    ],
)
def test_a_screen_that_follows_is_a_document_for_each_line(
    run: Path, call: str, key: int | str
) -> None:
    for line in first_lines(run, call, 2):
        assert json.loads(line)[key] is not ...


@pytest.mark.parametrize("call", ["stats web1 --watch", "stats --watch web1"])
def test_watching_needs_no_interval(run: Path, call: str) -> None:
    header, line = first_lines(run, call, 2)
    assert header.split()[0] == "ACTUAL"
    assert "MiB" in line
