"""What is typed: rewritten where the parser would not know it, and mistakes in one voice."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from qmpmem.cli import app as program
from qmpmem.cli import arguments
from tests.rig.command import Ran, called, called_each


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("help", "help"),
        ("help set", "help set"),
        ("help --no-pager set", "help --no-pager set"),
        ("help ksm on", "ksm on --help"),
        ("ksm help on", "ksm on --help"),
        ("ksm help", "ksm --help"),
        ("agent policy help show", "agent policy show --help"),
        ("version", "--version"),
        ("info help", "info help"),
        ("info version", "info version"),
        ("-- help", "-- help"),
        ("run -- help", "run -- help"),
        ("list --watch", "list --watch=1s"),
        ("list --watch --json", "list --watch=1s --json"),
        ("stats --watch web1", "stats --watch=1s web1"),
        ("stats web1 --watch 5", "stats web1 --watch 5"),
        ("stats web1 --watch 1h30m", "stats web1 --watch 1h30m"),
        ("stats web1 --watch .5", "stats web1 --watch .5"),
        ("stats web1 --watch -1", "stats web1 --watch -1"),
        ("stats web1 --watch nan", "stats web1 --watch nan"),
        ("stats web1 --watch=2", "stats web1 --watch=2"),
        ("agent status --watch", "agent status --watch=0s"),
        ("run -- --watch", "run -- --watch"),
    ],
)
def test_words_are_rewritten(given: str, meant: str) -> None:
    assert arguments.prepare(given.split()) == meant.split()


@given(st.lists(st.sampled_from(["set", "help", "version", "--watch", "5", "x", "--"])))
def test_nothing_after_the_end_of_options_is_rewritten(given: list[str]) -> None:
    assert arguments.prepare(["set", "--", *given])[-len(given) - 1 :] == ["--", *given]


MISTAKES: Final = (
    ("--verison", "no such option: --verison. Did you mean --version?; `qmpmem --help`"),
    ("lst", "no such command: lst. Did you mean list?; `qmpmem --help`"),
    ("dominfo", "no such command: dominfo. Did you mean info?; `qmpmem --help`"),
    ("xyzzy", "no such command: xyzzy; `qmpmem --help`"),
    ("set web1 256M --wat", "no such option: --wat. Did you mean --wait?; `qmpmem set --help`"),
    ("set web1 256M --quickly", "no such option: --quickly; `qmpmem set --help`"),
    ("set web1 256M now", "too many arguments: now; `qmpmem set --help`"),
    ("set web1 -- 256M --wait", "too many arguments: --wait; `qmpmem set --help`"),
    ("set web1", "missing argument: SIZE; `qmpmem set --help`"),
    ("stats", "missing argument: NAME; `qmpmem stats --help`"),
    ("stats web1 --wtch", "no such option: --wtch. Did you mean --watch?; `qmpmem stats --h"),
    ("set web1 9M --timeout", "option '--timeout' requires an argument; `qmpmem set --help`"),
    ("agent stauts", "no such command: stauts. Did you mean status?; `qmpmem agent --help`"),
    ("agent policy shwo", "no such command: shwo. Did you mean show?; `qmpmem agent policy -"),
    ("ksm on --presett x", "no such option: --presett. Did you mean --preset?; `qmpmem ksm on"),
    ("ksm preset eagre", "'eagre' is not one of 'quiet', 'balanced', 'eager'. Did you mean ea"),
    ("simulate x --policy our", "Did you mean ours?; `qmpmem simulate --help`"),
    ("agent reserve -5M", "no such option: -5; sizes and times have no sign here; `qmpmem age"),
    ("agent pin web1", "missing argument: SIZE; `qmpmem agent pin --help`"),
    ("run -m 256M", "QEMU's own arguments come after --, as in `qmpmem run -- -m 2G`; `qmpmem"),
    ("help nosuch", "no such topic: nosuch; `qmpmem help` lists them"),
    ("help agnet", "no such topic: agnet. Did you mean agent?; `qmpmem help` lists them"),
    ("help sett", "no such topic: sett. Did you mean set?; `qmpmem help` lists them"),
)
ENDED: Final = (
    *("set web1 -- -128M", "set -- web1 -128M", "set --no-wait -- web1 256M"),
    *("set -- web1 256M", "info -- web1", "stats -- web1", "forget -- web1", "unpin -- web1"),
)
"""Calls with an end of options."""
USAGES: Final = ("set", "ksm tune", "agent pin", "script", "adopt")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """What each call of this file ends with."""
    calls = [*(call for call, _ in MISTAKES), *ENDED, *(f"{call} --help" for call in USAGES)]
    calls += ["help set", "help ksm on", "ksm on --help", "version", "--version"]
    ended = called_each([call.split() for call in calls], run=tmp_path_factory.mktemp("run"))
    return dict(zip(calls, ended, strict=True))


@pytest.mark.parametrize(("call", "said"), MISTAKES)
def test_a_mistake_is_named_and_the_right_help(ran: dict[str, Ran], call: str, said: str) -> None:
    code, out, err = ran[call]
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("call", ENDED)
def test_an_end_of_options_is_one_everywhere(ran: dict[str, Ran], call: str) -> None:
    err = ran[call].err
    assert ("no such option" not in err, "too many" not in err) == (True, True)
    assert "web1" in err or "no agent runs" in err


def test_a_script_may_come_after_the_end_of_options(tmp_path: Path) -> None:
    (tmp_path / "-script").write_text("sleep 0s\n")
    ran = called("script", "--", "-script", run=tmp_path, directory=tmp_path)
    assert (ran.code, ran.err) == (0, "")


def test_help_and_version_are_commands_as_well(ran: dict[str, Ran]) -> None:
    assert ran["help set"] == ran["set --help"]
    assert ran["help ksm on"] == ran["ksm on --help"]
    assert ran["version"] == ran["--version"]


def every_command(
    command: Any,  # noqa: ANN401 - typer has no public name for its commands
    path: tuple[str, ...] = (),
) -> list[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", {})
    return [(path, command)] + [
        found for name, each in inner.items() for found in every_command(each, (*path, name))
    ]


def examples(epilog: str) -> list[str]:
    lines = epilog.partition("Examples:\n")[2].partition("\n\n")[0].splitlines()
    return [line.strip() for line in lines]


def test_every_help_has_examples_that_can_be_called_and_the_exit_codes() -> None:
    program.load([])
    root: Any = get_command(program.app)
    for path, command in every_command(root):
        epilog = command.epilog or ""
        assert program.EXIT_CODES in epilog, path
        shown = examples(epilog)
        assert shown, path
        for example in shown:
            call = re.split(r"[)|>]", example[example.rindex("qmpmem ") :])[0]
            assert call.startswith(("qmpmem " + " ".join(path)).strip())
            with suppress(typer.Exit):  # one that asks for help
                parse(root, call.split()[1:])


def parse(root: Any, call: list[str]) -> None:  # noqa: ANN401 - as above
    """Parse a call as it would be, and do nothing."""
    rest, command, context = arguments.prepare(call), root, None
    while True:
        context = command.make_context("qmpmem", rest, parent=context, resilient_parsing=False)
        if not getattr(command, "commands", None) or not context._protected_args:
            return
        name, command, rest = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert name


@pytest.mark.parametrize("call", USAGES)
def test_no_usage_shows_braces(ran: dict[str, Ran], call: str) -> None:
    first, *_ = ran[f"{call} --help"].out.splitlines()
    assert "{" not in first
    assert first.startswith(f"Usage: qmpmem {call} ")
