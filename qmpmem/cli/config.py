"""Commands about the configuration: `qmpmem config ...`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qmpmem.cli.app import app, put, put_failure, put_json, say, usage, warn
from qmpmem.cli.show_guests import Json, put_lines
from qmpmem.errors import ConfigError, KernelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qmpmem.configuration import Judgement
    from qmpmem.configuration.errors import Mistake
    from qmpmem.model.config import Config

WRONG = 2
"""The exit code where a configuration has mistakes, as after any other wrong usage."""

config = typer.Typer(
    help="See what the agent's configuration says, and check it.",
    rich_markup_mode=None,
    epilog=usage("qmpmem config show", "qmpmem config check"),
)
app.add_typer(config, name="config")

Given = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="PATH",
        help="The main file; else QMPMEM_CONFIG, else /etc/qmpmem/qmpmem.toml.",
    ),
]


@config.command(epilog=usage("qmpmem config show", "qmpmem config show --config new.toml"))
def show(*, path: Given = None, json: Json = False) -> None:
    """Show what is in force, and where it is from. A file that would give the same again."""
    from qmpmem.configuration import as_toml

    judgement = judged(path)
    found = accepted(judgement)
    if json:
        put_json(as_toml.listing(judgement, found))
    else:
        put_lines(as_toml.lines(judgement, found))


@config.command(epilog=usage("qmpmem config check --config new.toml"))
def check(*, path: Given = None, json: Json = False) -> None:
    """Show every mistake, with file and line. Exit with 2 where there is one."""
    judgement = judged(path)
    warnings = (*judgement.warnings, *_missing_budget(judgement))
    if json:
        put_json({"files": judgement.files, "mistakes": judgement.mistakes, "warnings": warnings})
    else:
        for mistake in judgement.mistakes:
            put(str(mistake))
        for warning in warnings:
            put(f"{warning.place}: warning: {warning.said}")
        if not judgement.mistakes:
            number = len(judgement.files)
            put(
                f"no mistakes in {number} file{'s' * (number > 1)}"
                if number
                else "no file: all defaults"
            )
    if judgement.mistakes:
        raise typer.Exit(WRONG)


def _missing_budget(judgement: "Judgement") -> "Iterator[Mistake]":
    """Yield that a budget is not there: no mistake, it may be made before the agent starts."""
    from qmpmem.configuration.errors import Mistake
    from qmpmem.wire.kernel import cgroup

    budget = None if judgement.config is None else judgement.config.budget
    if isinstance(budget, str):
        try:
            cgroup.memory(Path(budget))
        except KernelError as error:
            problem = f"{error.message}; as long as that is so, nothing is taken from any guest"
            yield Mistake(place=judgement.origins["budget"], key="budget", problem=problem)


def judged(path: Path | None) -> "Judgement":
    """Read the configuration that is meant."""
    from qmpmem.configuration import load
    from qmpmem.wire.kernel import host

    return load(path, os.environ, host.memory().total)


def accepted(judgement: "Judgement") -> "Config":
    """Take a configuration; say its warnings, or say all its mistakes and leave."""
    from qmpmem.configuration import settled

    for mistake in judgement.mistakes:
        say(str(mistake))
    for warning in judgement.warnings:
        warn(str(warning))
    try:
        return settled(judgement)
    except ConfigError as error:
        put_failure(error)
        raise typer.Exit(WRONG) from None
