"""What the agent says: written beside its rounds, and dropped where its reader takes nothing."""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from qmpmem.api.mistakes import report
from qmpmem.cli import app
from qmpmem.cli.agent_log import LINES, AgentLog
from qmpmem.errors import ConfigError


def test_f60_lines_that_a_reader_does_not_take_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row F60: no call waits, and each line is either written or counted."""
    offered = 3 * LINES
    reading, writing = os.pipe()
    with open(reading) as reader, open(writing, "w") as stream:  # noqa: PTH123 - descriptors
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        agent_log = AgentLog()
        for _ in range(offered):
            agent_log.put("x" * 1024)  # the pipe holds 64 of them (pipe(7))
        taken = [reader.readline() for _ in range(LINES)]
        agent_log.put("last")
        taken += iter(reader.readline, "last\n")
        agent_log.close()
    counted = [line for line in taken if not line.startswith("x")]
    dropped = [re.fullmatch(r"qmpmem: (\d+) lines were dropped: .+\n", line) for line in counted]
    assert dropped
    assert sum(int(found[1]) for found in dropped if found) + len(taken) == offered + len(counted)


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_f60_a_line_of_each_level_is_dropped_and_none_waits(
    monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    reading, writing = os.pipe()
    with open(reading) as reader, open(writing, "w") as stream:  # noqa: PTH123 - descriptors
        monkeypatch.setattr(sys, "stderr", stream)
        agent_log = AgentLog({"QMPMEM_DEBUG": "1"})
        for _ in range(2 * LINES):
            getattr(agent_log.log, level)("x" * 1024)
        assert agent_log._entrance._dropped
        reader.close()  # so that the thread ends before its descriptor is another file's
        agent_log._entrance._lines.join()
        agent_log.close()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("two\nlines", "two lines"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\u202eb\u2028c", "a\\u202eb c"),
        ("\udcff", "\\udcff"),
        ("back\\slash Büro", "back\\slash Büro"),
        ("100 % of %s", "100 % of %s"),
        ("<3>no level", "<3>no level"),
    ],
)
def test_what_is_said_is_one_line_that_no_terminal_obeys(
    text: str, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    agent_log = AgentLog()
    agent_log.say(text)
    agent_log.close()
    assert capfd.readouterr().err == f"qmpmem: {line}\n"


@contextmanager
def streams(path: Path) -> Iterator[None]:
    """Have stdout and stderr both end in a file."""
    with path.open("w") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", file)
        patch.setattr(sys, "stderr", file)
        yield


def journal(path: Path) -> dict[str, str]:
    """Give the environment in which a file is systemd's journal."""
    path.touch()
    seen = path.stat()
    return {"JOURNAL_STREAM": f"{seen.st_dev}:{seen.st_ino}"}


def said(path: Path, environ: Mapping[str, str]) -> list[str]:
    """Log a line of each level and one of data, and return what was written."""
    with streams(path):
        agent_log = AgentLog(environ)
        agent_log.log.debug("seen")
        agent_log.say("at work")
        agent_log.warn("look out")
        agent_log.log.error("no %s", "way")
        agent_log.put("<data>")
        agent_log.log.critical("over")
        agent_log.close()
    return path.read_text().splitlines()


def test_in_the_journal_each_line_has_its_level(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    assert said(path, journal(path)) == [
        "<6>qmpmem: at work",
        "<4>qmpmem: warning: look out",
        "<3>qmpmem: no way",
        "<data>",
        "<2>qmpmem: over",
    ]


@pytest.mark.parametrize("value", [None, "", "1:2", "x", "8:1:2"])
def test_elsewhere_no_line_has_a_level(tmp_path: Path, value: str | None) -> None:
    """JOURNAL_STREAM is inherited by programs whose stderr is another file."""
    environ = {} if value is None else {"JOURNAL_STREAM": value}
    assert said(tmp_path / "lines", environ) == [
        "qmpmem: at work",
        "qmpmem: warning: look out",
        "qmpmem: no way",
        "<data>",
        "qmpmem: over",
    ]


def test_what_helps_to_find_a_mistake_is_shown_where_that_is_asked_for(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lines"
    assert said(path, journal(path) | {"QMPMEM_DEBUG": "1"})[0] == "<7>qmpmem: seen"


def test_an_error_that_ends_a_program_is_one_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines"
    monkeypatch.setenv("JOURNAL_STREAM", journal(path)["JOURNAL_STREAM"])
    with streams(path):
        app.say("hello")
        app.warn("not so bad")
        with pytest.raises(SystemExit):
            app.leave(ConfigError("an agent runs already", hint="stop it"))
    assert path.read_text().splitlines() == [
        "<6>qmpmem: hello",
        "<4>qmpmem: warning: not so bad",
        "<3>qmpmem: an agent runs already; stop it",
    ]


def test_a_mistake_of_ours_is_one_line_which_shows_where_that_is_asked_for(
    tmp_path: Path,
) -> None:
    with pytest.raises(ZeroDivisionError) as met:
        int(1 / 0)
    lines: list[str] = []
    for number, environ in enumerate(({}, {"QMPMEM_DEBUG": "1"})):
        path = tmp_path / f"{number}"
        with streams(path):
            agent_log = AgentLog(environ)
            words = report(agent_log.log, "GET guests", met.value)
            agent_log.close()
        lines += path.read_text().splitlines()
    plain, whole = lines
    assert words == "ZeroDivisionError: division by zero"
    assert plain == f"qmpmem: GET guests: {words}"
    assert whole.startswith(f"{plain} Traceback ")
    assert Path(__file__).name in whole
