"""`qmpmem help`: chapters of the manual as text, and through a pager on a terminal."""

import os
from pathlib import Path

import pytest

from qmpmem.view.manual_chapters import as_text, summary
from tests.rig import readme
from tests.rig.command import called, on_terminal

MARKED = {"PAGER": "sed s/^/paged:/"}


def shown(*words: str, run: Path, environ: dict[str, str], columns: int = 80) -> list[str]:
    ran = on_terminal("help", *words, run=run, environ=environ, columns=columns)
    assert ran.code == 0
    return ran.out.splitlines()


def test_the_list_fits_a_terminal_and_has_every_chapter(tmp_path: Path) -> None:
    ran = called("help", run=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    for path in readme.CHAPTERS:
        about = summary(path.read_text())
        assert any(line.split() == [path.stem, *about.split()] for line in lines), path.stem


@pytest.mark.parametrize("topic", ["agent", "config"])
def test_a_chapter_is_plain_text_where_no_terminal_is(tmp_path: Path, topic: str) -> None:
    ran = called("help", topic, run=tmp_path, environ=MARKED)
    assert (ran.code, ran.out, ran.err) == (0, as_text(readme.chapter(topic)), "")


def test_a_terminal_has_it_through_the_pager_of_the_environment(tmp_path: Path) -> None:
    lines = shown("ksm", run=tmp_path, environ=MARKED)
    assert len(lines) > 50
    assert all(line.startswith("paged:") for line in lines)
    assert lines[0] == "paged:\x1b[1mMERGING EQUAL PAGES\x1b[0m"


def test_the_list_has_the_pager_as_well(tmp_path: Path) -> None:
    assert shown(run=tmp_path, environ=MARKED)[0].startswith("paged:Chapters")


@pytest.mark.parametrize(
    ("words", "environ"),
    [
        (["--no-pager"], {}),
        ([], {"PAGER": ""}),
        ([], {"PAGER": "cat"}),
        ([], {"TERM": "dumb"}),
        ([], {"PAGER": "/proc/none/pager"}),
    ],
    ids=["option", "empty", "cat", "dumb", "missing"],
)
def test_without_a_pager_it_is_written(
    tmp_path: Path, words: list[str], environ: dict[str, str]
) -> None:
    lines = shown("ksm", *words, run=tmp_path, environ=MARKED | {"NO_COLOR": "1"} | environ)
    expected = as_text(readme.chapter("ksm")).splitlines()
    assert lines[-len(expected) :] == expected


def test_less_is_asked_for_what_git_asks_it_for(tmp_path: Path) -> None:
    program = tmp_path / "less"
    program.write_text('#!/bin/sh\nread -r _\necho "less has $LESS and $LV"\n')
    program.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert shown("ksm", run=tmp_path, environ=path) == ["less has FRX and -c"]
    assert shown("ksm", run=tmp_path, environ=path | {"LESS": "S"}) == ["less has S and -c"]


def test_a_pager_that_has_seen_enough_is_no_failure(tmp_path: Path) -> None:
    [line] = shown("benchmarks", run=tmp_path, environ={"PAGER": "head -n 1", "NO_COLOR": "1"})
    assert line == "MEASUREMENTS"


def test_a_narrow_terminal_gets_narrow_text(tmp_path: Path) -> None:
    lines = shown("policy", run=tmp_path, environ={"PAGER": "", "NO_COLOR": "1"}, columns=50)
    assert max(map(len, lines)) <= 50
