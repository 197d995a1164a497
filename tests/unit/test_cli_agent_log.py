"""What the agent says: written beside its rounds, and dropped where its reader takes nothing."""

import os
import re
import sys

import pytest

from qmpmem.cli.agent_log import LINES, AgentLog


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


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("two\nlines", "two lines"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\u202eb\u2028c", "a\\u202eb c"),
        ("\udcff", "\\udcff"),
        ("back\\slash Büro", "back\\slash Büro"),
    ],
)
def test_what_is_said_is_one_line_that_no_terminal_obeys(
    text: str, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    agent_log = AgentLog()
    agent_log.say(text)
    agent_log.close()
    assert capfd.readouterr().err == f"qmpmem: {line}\n"
