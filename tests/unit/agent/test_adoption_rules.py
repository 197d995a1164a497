"""Rules that adopt: as they are read, and what a socket's guest is called."""

import pytest

from qmpmem.agent.adopter import name_of
from qmpmem.configuration import Source, judge
from qmpmem.configuration.as_toml import lines
from qmpmem.model.config import Adoption


def read(text: str) -> tuple[tuple[Adoption, ...], list[str]]:
    judged = judge([Source(file="a.toml", text=text)])
    found = () if judged.config is None else judged.config.adoptions
    return found, [f"{each.place}: {each.key}: {each.problem}" for each in judged.mistakes]


def test_rules_are_read_and_written_as_the_same_again() -> None:
    text = '[[adopt]]\nsocket = "/run/a.qmp"\nname = "db1"\n[[adopt]]\nsocket = "/run/vms/*.qmp"\n'
    wanted = (Adoption(socket="/run/a.qmp", name="db1"), Adoption(socket="/run/vms/*.qmp"))
    assert read(text) == (wanted, [])
    judged = judge([Source(file="a.toml", text=text)])
    assert judged.config is not None
    assert read("\n".join(lines(judged, judged.config))) == (wanted, [])


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[[adopt]]\n", "adopt.socket: missing"),
        ('[[adopt]]\nsocket = "a.qmp"', "adopt.socket: expected the absolute path"),
        ('[[adopt]]\nsocket = "/run/"', "(a directory)"),
        ('[[adopt]]\nsocket = "/run/../a"', "(no ..)"),
        ("[[adopt]]\nsocket = 7", "adopt.socket: expected the absolute path"),
        ('[[adopt]]\nsocket = "/a"\nname = "a b"', "adopt.name: expected 1 to 48"),
        ('[[adopt]]\nsocket = "/a"\nname = "-a"', "adopt.name: expected 1 to 48"),
        ('[[adopt]]\nsocket = "/*"\nname = "a"', "adopt.name: expected none"),
        ('[[adopt]]\nsocket = "/a"\n[[adopt]]\nsocket = "/a"', "given at a.toml:2 already"),
        ('[[adopt]]\nsocket = "/a"\nsize = 1', "adopt.size: unknown key"),
        ('[adopt]\nsocket = "/a"', "expected tables [[adopt]]"),
        ("adopt = 1", "expected tables [[adopt]]"),
    ],
)
def test_mistakes_are_named(text: str, mistake: str) -> None:
    found, mistakes = read(text)
    assert found == ()
    assert [each for each in mistakes if mistake in each], mistakes


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/run/vms/db1.qmp", "db1"),
        ("/run/vms/db1.qmp.sock", "db1"),
        ("/run/vms/db1-monitor.socket", "db1"),
        ("/run/vms/db1/qmp.sock", "db1"),
        ("/run/vms/db1/qmp", "db1"),
        ("/run/vms/db1", "db1"),
        ("/qmp.sock", "guest"),
    ],
)
def test_names(path: str, name: str) -> None:
    assert name_of(path) == name
