"""Docstrings begin with what a function does, in folders where all of them do."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
CLEAN: Final = (
    "launchers",
    "qmpmem/policy",
    "qmpmem/wire",
    "qmpmem/agent/__init__.py",
    "qmpmem/agent/adopter.py",
    "qmpmem/agent/cgroup_usage.py",
    "qmpmem/agent/cgroups.py",
    "qmpmem/agent/descriptor_limit.py",
    "qmpmem/agent/disk_reads.py",
    "qmpmem/agent/epochs.py",
    "qmpmem/agent/finder.py",
    "qmpmem/agent/garbage_collection.py",
    "qmpmem/agent/habits.py",
    "qmpmem/agent/host_reader.py",
    "qmpmem/agent/locked_memory.py",
    "qmpmem/agent/loop.py",
    "qmpmem/agent/process_memory.py",
    "qmpmem/agent/reclaimer.py",
    "qmpmem/agent/report_intervals.py",
    "qmpmem/agent/session_lending.py",
    "qmpmem/agent/starting_size.py",
    "qmpmem/agent/system_user.py",
    "qmpmem/agent/systemd_notify.py",
    "qmpmem/agent/systemd_units.py",
    "qmpmem/agent/threads.py",
    "qmpmem/agent/wakeups.py",
    "qmpmem/guests",
    "qmpmem/journal",
    "qmpmem/ksm",
    "qmpmem/model",
    "qmpmem/errors.py",
    "qmpmem/records.py",
    "qmpmem/units.py",
    "qmpmem/broker",
    "qmpmem/api",
    "qmpmem/files/directories.py",
    "qmpmem/doctor",
    "qmpmem/proxy",
    "qmpmem/files/state_files.py",
    "qmpmem/files/sockets.py",
)
"""Folders and modules without such openings. This list only grows."""
BANNED: Final = (
    "Say ",
    "Give ",
    "Likewise",
    "As above",
    "Who ",
    "Whoever",
    "Of the ",
    "Of its",
)
"""A function returns, finds or yields, and says nothing. A text that begins with another sentence's
end, or with a person, cannot be read alone."""
PERSONS: Final = re.compile(r"\b(nobody|somebody|whoever)\b", re.IGNORECASE)
"""A sentence names its actor: a guest, a process, the administrator."""
QUOTED: Final = re.compile(r"`+[^`]*`+")
"""Values and names of code, which are no words of a sentence."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each text that stands alone: docstrings, and what is written below a constant."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each comment, without its hash."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#! ")


def files(clean: str) -> list[Path]:
    """Return the modules of an entry of CLEAN, of which there is at least one."""
    found = [ROOT / clean] if clean.endswith(".py") else sorted((ROOT / clean).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("clean", CLEAN)
def test_no_text_begins_with_a_banned_word(clean: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in files(clean)
        for line, text in (*texts(path), *comments(path))
        if text.startswith(BANNED)
    ]
    assert found == []


@pytest.mark.parametrize("clean", CLEAN)
def test_no_text_leaves_its_actor_unnamed(clean: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match[0]}"
        for path in files(clean)
        for line, text in (*texts(path), *comments(path))
        if (match := PERSONS.search(QUOTED.sub("", text)))
    ]
    assert found == []
