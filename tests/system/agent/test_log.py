"""What real programs say, to systemd's journal and elsewhere."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from qmpmem.api import addresses
from qmpmem.guests import access
from tests.rig.agent import has_begun, running, said, stop
from tests.rig.command import PROGRAM, plain_environment
from tests.rig.patience import patient
from tests.rig.qemu import short_directory, until


@pytest.fixture
def run() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


def journal(path: Path) -> dict[str, str]:
    """Have a file count as the journal."""
    path.touch()
    seen = path.stat()
    return {"JOURNAL_STREAM": f"{seen.st_dev}:{seen.st_ino}"}


def lines_of_an_agent(run: Path, environ: dict[str, str]) -> list[str]:
    """Run an agent that has something of each level to say; give its lines."""
    config = run / ".toml"
    config.write_text("")
    kept = addresses.orders_path(access.agent_socket(run))
    kept.parent.mkdir(mode=0o755, exist_ok=True)
    kept.write_text("nothing that was kept")
    with running(run, environ=environ | {"QMPMEM_CONFIG": str(config)}) as agent:
        config.write_text('period = "never"')
        agent.send_signal(signal.SIGHUP)
        until(lambda: "stays as it was" in said(run), seconds=20, what="it has read that again")
        stop(agent)
    return said(run).splitlines()


def level_of(lines: list[str], words: str) -> str:
    """Give what stands before the line that has these words."""
    [line] = [each for each in lines if words in each]
    return line.partition("qmpmem: ")[0]


def test_an_agent_tells_the_journal_the_level_of_each_line(run: Path) -> None:
    lines = lines_of_an_agent(run, journal(run / ".err"))
    assert level_of(lines, "at work on guests") == "<6>"
    assert level_of(lines, "what was pinned or held before is not known") == "<4>"
    assert level_of(lines, "period") == "<3>"
    assert level_of(lines, "stopped") == "<6>"


@pytest.mark.parametrize("environ", [{}, {"JOURNAL_STREAM": "1:2"}])
def test_elsewhere_an_agent_writes_lines_without_a_level(
    run: Path, environ: dict[str, str]
) -> None:
    lines = lines_of_an_agent(run, environ)
    assert {each.partition("qmpmem: ")[0] for each in lines} == {""}
    assert level_of(lines, "warning: ") == ""


def test_an_agent_shows_its_rounds_where_mistakes_are_looked_for(run: Path) -> None:
    lines = lines_of_an_agent(run, journal(run / ".err") | {"QMPMEM_DEBUG": "1"})
    assert {each[:3] for each in lines if "qmpmem: round " in each} == {"<7>"}


def test_an_agent_that_cannot_start_says_so_as_an_error(run: Path) -> None:
    with running(run), (run / ".second").open("w") as err:
        second = subprocess.run(
            [PROGRAM, "agent"],
            env=plain_environment() | {"QMPMEM_RUN_DIR": str(run)} | journal(run / ".second"),
            stderr=err,
            timeout=patient(30),
            check=False,
        )
    assert second.returncode == 2
    assert (run / ".second").read_text().startswith("<3>qmpmem: ")


PROGRAMS = [
    ("agent",),
    ("serve", "--unix", "page.sock"),
    ("agent", "broker", "--dir", "shown", "--group", f"{os.getgid()}"),
]
"""What runs until it is told to stop."""
TOLD_TO_STOP_AT_ONCE = """
import logging, os, signal, sys
from qmpmem.cli import main

said = logging.Logger.info
def info(self, *words, **more):
    said(self, *words, **more)
    os.kill(os.getpid(), signal.SIGTERM)
logging.Logger.info = info
sys.exit(main())
"""


@pytest.mark.parametrize("words", PROGRAMS)
def test_a_program_that_says_that_it_is_ready_can_be_told_to_stop(
    run: Path, words: tuple[str, ...]
) -> None:
    path = run / ".err"
    with path.open("w") as err:
        program = subprocess.run(
            [sys.executable, "-c", TOLD_TO_STOP_AT_ONCE, *words],
            env=plain_environment() | {"QMPMEM_RUN_DIR": str(run)} | journal(path),
            cwd=run,
            stderr=err,
            timeout=patient(30),
            check=False,
        )
    assert program.returncode == 0
    assert path.read_text().startswith("<6>qmpmem: ")


def test_f60_an_agent_whose_lines_no_process_reads_ends_when_it_is_told_to(run: Path) -> None:
    """Row F60: its stderr is a pipe that is full."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while os.write(writing, b"x" * 4096):
            pass
    os.set_blocking(writing, True)
    agent = subprocess.Popen(
        [PROGRAM, "agent"],
        env=plain_environment() | {"QMPMEM_RUN_DIR": str(run), "QMPMEM_DEBUG": "1"},
        stderr=writing,
    )
    try:
        until(lambda: has_begun(run), seconds=20, what="it is at work")
    finally:
        agent.terminate()
        assert agent.wait(timeout=patient(10)) == 0
        os.close(writing)
        os.close(reading)
