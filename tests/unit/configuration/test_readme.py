"""The chapter on configuration and the records say the same."""

from qmpmem.configuration import Source, judge
from tests.rig import manual, readme


def test_the_tables_are_those_of_the_records() -> None:
    text = readme.chapter("config")
    assert manual.inserted(text) == text, "run .venv/bin/python -m tests.rig.manual"


def test_the_example_is_a_configuration() -> None:
    [example] = readme.blocks("toml")
    judgement = judge([Source(file="config.md", text=example.text)])
    assert judgement.config is not None, [str(each) for each in judgement.mistakes]
    assert len(judgement.config.rules) == 3
    assert not judgement.warnings
