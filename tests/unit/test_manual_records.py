"""The manual names all that the records have: settings, commands, exit codes, words of the agent.

Tables that are made of records, of metrics and of rights are compared elsewhere: each names its
chapter (`tests.rig.readme.chapter`).
"""

import inspect
import re
import tomllib
from itertools import chain
from typing import get_args

import pytest

from qmpmem import Agent
from qmpmem.cli import app
from qmpmem.doctor import settings
from qmpmem.guests.managers import MANAGERS, Manager
from qmpmem.model.round import Bound, HostState, Kind, Verdict
from tests.rig import readme

MANUAL = "\n".join(path.read_text() for path in readme.CHAPTERS)
"""All chapters."""
CODE = [*re.findall(r"`([^`\n]+)`", MANUAL), *re.findall(r"^\$ (.+)$", MANUAL, re.MULTILINE)]


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


def test_every_layer_is_in_the_picture_of_the_architecture() -> None:
    tools = tomllib.loads((readme.ROOT / "pyproject.toml").read_text())["tool"]
    [layers] = [each for each in tools["importlinter"]["contracts"] if each["type"] == "layers"]
    parts = {part for layer in layers["layers"] for part in layer.split(" | ")}
    table = readme.chapter("architecture").partition("| part |")[2].partition("\n\n")[0]
    rows = re.findall(r"(?m)^\| (`[^|]+) \|", table)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == parts


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of each row of the tables of a text, without the heads."""
    lines = re.findall(r"(?m)^\|(?!-)(.*)\|$(?!\n\|-)", text)
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def test_the_figures_of_readme_are_those_of_the_manual() -> None:
    figures = readme.README.read_text().partition("\n## Figures\n")[2].partition("\n## ")[0]
    chapter = rows_of(readme.chapter("benchmarks"))
    shown = rows_of(figures)
    assert len(shown) >= 25
    for row in shown:
        assert any(all(cell in "|".join(each) for cell in row[1:]) for each in chapter), row


def test_the_count_of_scenarios_in_which_ours_is_best_is_right() -> None:
    chapter = readme.chapter("benchmarks")
    table = chapter.partition("| scenario | ours |")[2].partition("\n\n")[0]
    rows = rows_of(table)
    best = [row for row in rows if row[1].startswith("**")]
    assert f"Ours is among them in {len(best)} of {len(rows)} scenarios" in " ".join(
        readme.README.read_text().split()
    )
