"""README, CONTRIBUTING and the manual: complete, readable at 80 columns, in plain English."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.cli import help_topics
from qmpmem.errors import LaunchError
from qmpmem.view.manual_chapters import Code, Heading, Paragraph, as_page, as_text, parse, summary
from tests.rig import readme

documents = pytest.mark.parametrize("path", readme.DOCUMENTS, ids=lambda path: path.stem)
each_chapter = pytest.mark.parametrize("path", readme.CHAPTERS, ids=lambda path: path.stem)

LISTED = 80 - 2 - max(len(path.stem) for path in readme.CHAPTERS) - 2
"""Columns that a summary has beside its topic in `qmpmem help`."""


@each_chapter
def test_a_chapter_begins_with_a_title_and_what_it_is_about(path: Path) -> None:
    title, about, *rest = parse(path.read_text())
    assert isinstance(title, Heading)
    assert title.level == 1
    assert isinstance(about, Paragraph)
    assert len(about.text) <= LISTED
    assert about.text.endswith(".")
    assert rest


@each_chapter
@pytest.mark.parametrize("width", [80, 50])
def test_a_chapter_fits_the_terminal(path: Path, width: int) -> None:
    source = path.read_text()
    code = {line for block in parse(source) if isinstance(block, Code) for line in block.lines}
    for line in as_text(source, width=width).splitlines():
        # A word that is wider than the terminal, such as a path, is not broken.
        long_word = max((len(word) for word in line.split()), default=0) > width - 8
        assert len(line) <= width or long_word or line.strip() in {each.strip() for each in code}


@each_chapter
def test_no_markup_is_left_in_the_text(path: Path) -> None:
    text = as_text(path.read_text())
    for mark in (r"\|---", r"\]\(\S+\.md\)", r"<!--", r"(?m)^```", r"(?m)^#+ [A-Z]"):
        assert not re.search(mark, text), mark


@documents
def test_links_lead_to_files_and_headings_that_there_are(path: Path) -> None:
    text = path.read_text()
    headings = {
        "#" + re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"(?m)^#+ (.*)$", text)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"(?ms)^```.*?^```$", "", text)):
        if target.startswith("#"):
            assert target in headings
        elif "://" not in target:
            assert (path.parent / target).exists(), target


def test_readme_lists_every_chapter_with_its_summary() -> None:
    listed = re.findall(r"(?m)^\* \[(\w+)\]\((\S+)\): (.*)$", readme.README.read_text())
    assert {name: (target, about) for name, target, about in listed} == {
        path.stem: (str(path.relative_to(readme.ROOT)), summary(path.read_text()))
        for path in readme.CHAPTERS
    }


def test_help_knows_every_chapter() -> None:
    assert help_topics.topics() == [path.stem for path in readme.CHAPTERS]


def test_a_copy_without_its_manual_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(help_topics, "CHAPTERS", tmp_path)
    with pytest.raises(LaunchError, match="the manual is missing"):
        help_topics.topics()


def test_readme_is_short() -> None:
    assert len(readme.README.read_text().splitlines()) <= 250


FORBIDDEN = re.compile(
    r"\b(?:nobody|somebody|whoever|whomever|everybody|anybody|he|him|his)\b"
    r"|(?:^|(?<=[.:!?] )|(?<=\| )|(?<=^\* ))(?:Say |Who |Whose |Likewise|Of the )",
    re.IGNORECASE | re.MULTILINE,
)
"""Words for a process or a user that name none, and openings without an actor."""


@documents
def test_english_is_plain(path: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```$", "", path.read_text())
    found = FORBIDDEN.findall(" ".join(text.split("\n")).replace("  ", " "))
    assert found == []


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [
        ("Say what it is.", True),
        ("It runs. Who asks is told.", True),
        ("| a | Of the guests, two |", True),
        ("what nobody needs", True),
        ("Whoever reads it", True),
        ("before he is read", True),
        ("It does. Likewise for two.", True),
        ("the agent says who asked", False),
        ("a part of the guests", False),
        ("They say so.", False),
    ],
)
def test_what_is_refused(text: str, *, is_refused: bool) -> None:
    assert bool(FORBIDDEN.search(text)) == is_refused


TABLE = "| key | what | takes |\n|---|---|---|\n| `a\\|b` | {} | a size |\n| `c` |  | one |\n"


def test_a_table_that_fits_stays_one() -> None:
    assert as_text(TABLE.format("short")) == (
        "key    what   takes\n-----  -----  ------\n`a|b`  short  a size\n`c`           one\n"
    )


def test_a_table_that_is_too_wide_becomes_a_list() -> None:
    assert as_text(TABLE.format("a long text"), width=22) == (
        "`a|b`\n    what: a long text\n    takes: a size\n\n`c`\n    takes: one\n"
    )


def test_links_say_where_they_lead() -> None:
    source = "See [the agent](agent.md), [it](#here) and [that](https://example.org/).\n"
    assert as_text(source) == (
        "See the agent (qmpmem help agent), it and that (https://example.org/).\n"
    )


def test_a_link_in_parentheses_is_no_parenthesis_in_one() -> None:
    source = "It asks ([the agent](agent.md)).\n"
    assert as_text(source) == "It asks (qmpmem help agent).\n"
    page = as_page(f"# T\n\nAbout.\n\n{source}", "a", 7, [("agent", "qmpmem-agent(1)")])
    assert "It asks (see qmpmem-agent(1))." in page


def test_headings_are_bold_on_a_terminal_alone() -> None:
    assert as_text("# A title\n\n## More\n", bold=True) == (
        "\x1b[1mA TITLE\x1b[0m\n\n\x1b[1mMore\x1b[0m\n"
    )
    assert as_text("# A title\n\n## More\n") == "A TITLE\n=======\n\nMore\n----\n"


@given(words=st.lists(st.text("ab `*", min_size=1, max_size=9), max_size=30), width=st.just(40))
def test_wrapping_loses_no_word(words: list[str], width: int) -> None:
    source = "x " + " ".join(words) + "\n"
    shown = as_text(source, width=width)
    assert shown.split() == source.split()
    assert all(len(line) <= width for line in shown.splitlines())


def test_a_page_names_the_pages_of_other_chapters() -> None:
    source = "# T\n\nAbout [it](b.md).\n\nSee [b](b.md).\n\n" + TABLE.format("x" * 80)
    page = as_page(source, "qmpmem-a", 7, [("b", "qmpmem-b(7)")])
    assert page.startswith("% qmpmem-a 7\n\n# NAME\n\nqmpmem-a - About it (see qmpmem-b(7))\n")
    assert "See b (see qmpmem-b(7))." in page
    assert "`a|b`\n: what: xxx" in page
    assert page.endswith("# SEE ALSO\n\n**qmpmem-b(7)**\n")
