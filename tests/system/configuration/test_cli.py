"""`qmpmem config`: what is in force and from where, and what is wrong, as a user runs it."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from qmpmem.configuration import load
from qmpmem.model.config import Config, Rule
from qmpmem.units import GIB, Bytes, Share
from tests.rig.command import Ran, called

GOOD = """\
period = "500ms"
[ksm]
managed = true
[[guest]]
match = "db*"
minimum = "40%"
class = "database"
"""


@pytest.fixture
def main(tmp_path: Path) -> Path:
    (tmp_path / "conf.d").mkdir()
    file = tmp_path / "qmpmem.toml"
    file.write_text(GOOD)
    return file


def config(*words: str, main: Path) -> Ran:
    return called("config", *words, run=main.parent, environ={"QMPMEM_CONFIG": str(main)})


def test_show_says_what_is_in_force_and_where_it_is_from(main: Path) -> None:
    (main.parent / "conf.d" / "9.toml").write_text('reserve = "1G"\n')
    ran = config("show", main=main)
    assert ran.code == 0
    assert ran.err == ""
    lines = [line.split("  # ") for line in ran.out.splitlines()]
    found = {pair[0].strip(): pair[1] for pair in lines if len(pair) == 2}
    assert found['period = "0.5s"'] == f"{main}:1"
    assert found['reserve = "1G"'] == f"{main.parent}/conf.d/9.toml:1"
    assert found['budget = "default"'].startswith("default: the host, or the tightest limit")
    assert found['grace = "1min"'].startswith("default: ballooning at boot panics")
    assert found["managed = true"] == f"{main}:3"
    assert found['class = "database"'] == f"{main}:7"


def test_what_is_shown_gives_the_same_again(main: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.toml"
    again.write_text(config("show", main=main).out)
    assert load(again, {}).config == load(main, {}).config
    assert load(again, {}).config != Config()


def test_show_as_json(main: Path) -> None:
    ran = config("show", "--json", main=main)
    shown = json.loads(ran.out)
    assert shown["files"] == [str(main)]
    settings = {each["key"]: each for each in shown["settings"]}
    assert settings["period"] == {
        "key": "period",
        "value": 0.5,
        "file": str(main),
        "line": 1,
        "meaning": "time between two rounds; a quarter of it while the host is in HARD or CRITICAL",
        "source": None,
    }
    assert settings["idle_tax"]["file"] is None
    assert "IdleTax" in settings["idle_tax"]["source"]
    [guest] = shown["guests"]
    assert (guest["file"], guest["line"]) == (str(main), 4)
    assert {each["key"]: (each["value"], each["line"]) for each in guest["settings"]} == {
        "guest.match": ("db*", 5),
        "guest.minimum": ("40%", 6),
        "guest.class": ("database", 7),
    }


def test_the_option_comes_before_the_environment(main: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("period = 9\n")
    assert 'period = "9s"' in config("show", "--config", str(other), main=main).out


def test_check_says_that_all_is_well(main: Path) -> None:
    ran = config("check", main=main)
    assert (ran.code, ran.out, ran.err) == (0, "no mistakes in 1 file\n", "")


def test_check_shows_every_mistake_and_ends_with_2(main: Path) -> None:
    other = main.parent / "conf.d" / "a.toml"
    other.write_text("x = 1\ngrace = nan\n")
    main.write_text("perod = 1\nperiod = 0")
    ran = config("check", main=main)
    assert ran.code == 2
    assert ran.err == ""
    assert [line.split(" ")[0] for line in ran.out.splitlines()] == [
        f"{main}:1:",
        f"{main}:2:",
        f"{other}:1:",
        f"{other}:2:",
    ]


def test_a_file_that_is_not_toml_is_one_line(main: Path) -> None:
    (main.parent / "conf.d" / "a.toml").write_text("grace = nan\n")
    main.write_text("perod = 1\nperiod = 1s\n[ksm\n")
    ran = config("check", main=main)
    assert ran.code == 2
    [first, second] = ran.out.splitlines()
    assert first.startswith(f"{main}:2: not TOML, none of it is used: ")
    assert second.startswith(f"{main.parent}/conf.d/a.toml:1: grace: ")


def test_check_as_json(main: Path) -> None:
    main.write_text("perod = 1\n")
    ran = config("check", "--json", main=main)
    assert ran.code == 2
    assert json.loads(ran.out) == {
        "files": [str(main)],
        "mistakes": [
            {
                "place": {"file": str(main), "line": 1},
                "key": "perod",
                "problem": "unknown key; did you mean period?",
            }
        ],
        "warnings": [],
    }


def test_check_shows_warnings_and_ends_well(main: Path) -> None:
    main.write_text('reserve = "9999G"\n')
    ran = config("check", main=main)
    assert ran.code == 0
    assert f"{main}:1: warning: reserve: 9.8 TiB is all of the host's memory" in ran.out


def test_show_with_mistakes_shows_them_and_nothing_else(main: Path) -> None:
    main.write_text("perod = 1\ngrace = -1\n")
    ran = config("show", main=main)
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 2
    assert f"qmpmem: {main}:1: perod: unknown key" in ran.err


def test_show_says_warnings_aside(main: Path) -> None:
    (main.parent / "conf.d" / "a.toml").write_text('[[guest]]\nmatch = "*"\nshares = 5\n')
    ran = config("show", main=main)
    assert ran.code == 0
    assert "warning: " in ran.err
    assert '"db*" is never reached' in ran.err
    assert "db*" not in ran.out


def test_without_a_file_that_is_said(tmp_path: Path) -> None:
    judgement = load(None, {}, default=tmp_path / "none.toml")
    assert judgement.files == ()
    assert judgement.config == Config()


def test_file_names_cannot_speak_to_a_terminal(main: Path) -> None:
    odd = main.parent / "conf.d" / "\x1b[31m\n.toml"
    odd.write_text("x = 1\n")
    ran = config("check", main=main)
    assert "\x1b" not in ran.out
    assert len(ran.out.splitlines()) == 1
    odd.write_text("period = 8\n")
    shown = config("show", main=main).out
    assert "\x1b" not in shown


@pytest.mark.parametrize("words", [["show"], ["check"], ["show", "--json"], ["check", "--json"]])
def test_file_names_may_be_any_bytes(main: Path, words: list[str]) -> None:
    (main.parent / "conf.d" / "a\udcff.toml").write_text("grace = 1\n")
    assert config(*words, main=main).code == 0


def test_a_full_configuration_means_what_it_says() -> None:
    found = load(Path(__file__).parents[2] / "data" / "configs" / "full.toml", {}).config
    assert found is not None
    assert (found.reserve, found.budget, found.on_stop) == (2 * GIB, 20 * GIB, "release")
    assert found.rules[0] == Rule(
        match="db*",
        minimum=Share(percent=Decimal(60)),
        maximum=Bytes(16 * GIB),
        current=Share(percent=Decimal(75)),
        shares=4000,
        reclaim=True,
        kind="database",
        domain="a",
    )
    assert [rule.match for rule in found.rules] == ["db*", "build-??", "infra", "*"]
    assert found.ksm.managed
    assert found.journal.hours == 6


def test_a_budget_that_is_not_there_is_a_warning(tmp_path: Path) -> None:
    main = tmp_path / "qmpmem.toml"
    main.write_text(f'budget = "{tmp_path}/none"\n')
    ran = config("check", main=main)
    assert ran.code == 0
    assert (
        f"{main}:1: warning: budget: {tmp_path}/none: not a memory cgroup; as long as that"
        in ran.out
    )
    assert (
        "not a memory cgroup"
        in json.loads(config("check", "--json", main=main).out)["warnings"][0]["problem"]
    )
