"""`qmpmem simulate`, run as a user runs it."""

import textwrap
from pathlib import Path
from typing import Final

import msgspec
import pytest

from qmpmem.simulate.policy_table import rows
from qmpmem.simulate.results import Results
from tests.rig.command import called

HOST: Final = '[host]\nmemory = "4G"\n'
GUEST: Final = '[[guest]]\nname = "a"\nmemory = "1G"\n'


def test_the_scenario_in_the_help_can_be_played(tmp_path: Path) -> None:
    shown = called("simulate", "--help", run=tmp_path).out
    _, _, rest = shown.partition("Such as:\n")
    example, _, _ = rest.partition("Arguments:\n")
    path = tmp_path / "s.toml"
    path.write_text(textwrap.dedent(example))
    ran = called("simulate", str(path), "--json", run=tmp_path)
    (report,) = msgspec.json.decode(ran.out, type=list[Results])
    assert report.seconds == 180


def test_the_command_shows_a_row_for_each_policy(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(f"seconds = 30\n{HOST}{GUEST}")
    picture = tmp_path / "out.svg"
    ran = called("simulate", str(path), "--policy", "all", "--plot", str(picture), run=tmp_path)
    assert ran.code == 0, ran
    found = [tuple(line.split()[:2]) for line in ran.out.splitlines()]
    assert found == [("POLICY", "DEVICES"), *((row.name, row.devices) for row in rows())]
    assert picture.read_text().startswith("<svg")


def test_the_command_tells_json(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(f"seconds = 30\n{HOST}{GUEST}")
    ran = called("simulate", str(path), "--json", run=tmp_path)
    (report,) = msgspec.json.decode(ran.out, type=list[Results])
    assert (report.policy, report.seconds) == ("ours", 30)


def test_the_command_takes_the_agents_configuration(tmp_path: Path) -> None:
    path, config = tmp_path / "s.toml", tmp_path / "c.toml"
    path.write_text(f"seconds = 30\n{HOST}{GUEST}")
    config.write_text("grace = 'never'\n")
    ran = called("simulate", str(path), "--config", str(config), run=tmp_path)
    assert ran.code == 2
    assert "grace" in ran.err


@pytest.mark.parametrize("words", [["/proc/no/such.toml"], ["/dev/null"], ["."]])
def test_the_command_refuses_what_is_no_scenario(words: list[str], tmp_path: Path) -> None:
    ran = called("simulate", *words, run=tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"qmpmem: {words[0]}")


def test_a_picture_that_cannot_be_written_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(f"seconds = 5\n{HOST}{GUEST}")
    ran = called("simulate", str(path), "--plot", "/proc/no/such/dir.svg", run=tmp_path)
    assert ran.code == 2
    assert "/proc/no/such/dir.svg" in ran.err
