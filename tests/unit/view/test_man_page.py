"""The manual page: valid man(7) source, whatever a help says, and all commands in it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from qmpmem.cli import manual
from qmpmem.cli.app import MODULES, app, load
from qmpmem.view.man_page import Help, manual_page

MACROS = {".TH", ".SH", ".SS", ".TP", ".PP", ".BR", ".nf", ".fi"}

texts = st.text(st.sampled_from(".'\\-`a \n"), max_size=12)
helps = st.builds(
    Help,
    path=st.just("qmpmem x"),
    synopsis=texts,
    text=texts,
    parameters=st.lists(st.tuples(texts, texts), max_size=2).map(tuple),
    examples=st.lists(texts, max_size=2).map(tuple),
)


@given(program=helps, command=helps)
def test_no_text_is_taken_for_a_request_or_an_escape(program: Help, command: Help) -> None:
    for line in manual_page(program, [command], [("0", "done")], "1.0"):
        assert "\n" not in line
        if line.startswith((".", "'")):
            assert line.split()[0] in MACROS
        assert re.fullmatch(r"(?:[^\\]|\\(?:e|-|&|\(ga|\(aq|f[BR]))*", line)


@pytest.fixture(scope="module")
def page() -> str:
    load([])
    program, *commands = manual._helps(get_command(app), "qmpmem")
    return "\n".join(manual_page(program, commands, [("0", "done")], "1.0"))


@pytest.mark.parametrize("name", [*MODULES, "ksm service install", "agent policy show"])
def test_every_command_has_a_section(page: str, name: str) -> None:
    assert f"\n.SS qmpmem {name}\n" in page


def test_lines_that_are_to_stay_stay(page: str) -> None:
    section = page.partition("\n.SS qmpmem script\n")[2].partition("\n.SS ")[0]
    assert ".nf\nset web* 256M" in section
    assert "\b" not in page


def test_arguments_options_and_examples_are_in_it(page: str) -> None:
    section = page.partition("\n.SS qmpmem set\n")[2].partition("\n.SS ")[0]
    for expected in ("[OPTIONS] NAME SIZE", "\\-\\-no\\-wait", "qmpmem set web1 256M"):
        assert expected in section
