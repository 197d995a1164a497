"""The manual names all that the records have: settings, commands, exit codes, words of the agent.

Tables that are made of records, of metrics and of rights are compared elsewhere: each names its
chapter (`tests.rig.readme.chapter`).
"""

import inspect
import re
from itertools import chain
from typing import get_args

import pytest

from qmpmem import Agent
from qmpmem.actions import Bound, HostState, Kind, Verdict
from qmpmem.cli import app
from qmpmem.doctor import settings
from qmpmem.wire.managers import MANAGERS, Manager
from tests.rig import readme

MANUAL = "\n".join(path.read_text() for path in readme.CHAPTERS)
"""All chapters."""
CODE = re.findall(r"`([^`\n]+)`", MANUAL)


@pytest.mark.parametrize("name", sorted(settings._SETTINGS))
def test_every_setting_is_explained(name: str) -> None:
    assert any(re.search(rf"\b{name}\b", code) for code in CODE)


@pytest.mark.parametrize("name", sorted(app.MODULES))
def test_every_command_is_explained(name: str) -> None:
    assert any(re.match(rf"(qmpmem )?{name}\b", code) for code in CODE)


@pytest.mark.parametrize("manager", MANAGERS, ids=lambda manager: manager.name)
def test_every_manager_that_is_recognised_is_named(manager: Manager) -> None:
    assert manager.name in " ".join(readme.chapter("install").split())


def test_the_table_of_exit_codes_has_all_of_them() -> None:
    table = readme.chapter("json").partition("| code | meaning |")[2].partition("\n\n")[0]
    told = {int(code): meaning for code, meaning in re.findall(r"(?m)^\| (\d+) \| (.*) \|$", table)}
    for code, meaning in app.CODES:
        assert told[code].startswith(meaning)
    assert f"| {app.INTERNAL}, {app.NOT_WRITTEN} |" in table
    assert app.INTERRUPTED in told


WORDS = sorted({*map(str, chain.from_iterable(map(get_args, (Verdict, HostState, Bound, Kind))))})


@pytest.mark.parametrize("word", WORDS)
def test_the_words_of_the_agent_are_explained(word: str) -> None:
    rows = re.findall(r"(?m)^\| ([^|]+) \|", readme.chapter("policy"))
    named = {each.strip("* ") for row in rows for each in row.split(",")}
    assert word in named


def test_every_method_of_the_library_is_explained() -> None:
    methods = {name for name, _ in inspect.getmembers(Agent, callable) if not name.startswith("_")}
    table = readme.chapter("api").partition("| `Agent` |")[2]
    assert methods == set(re.findall(r"`(\w+)\(", table.partition("\n\n")[0]))
