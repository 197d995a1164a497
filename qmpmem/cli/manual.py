"""`qmpmem manual`: the manual page, made of what `--help` says."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from qmpmem.cli.app import CODES, app, load, put, usage
from qmpmem.view.man_page import Help, manual_page

EXAMPLES = "\b\nExamples:\n"
"""The text with which `usage` begins."""


@app.command(
    epilog=usage("qmpmem manual >/usr/local/share/man/man1/qmpmem.1", "qmpmem manual | man -l -")
)
def manual() -> None:
    """Write the manual page of all commands, for man."""
    from typer.main import get_command

    load([])
    program, *commands = _helps(get_command(app), str(app.info.name))
    commands.sort(key=lambda each: each.path.endswith(" manual"))  # it was loaded first
    codes = [(str(code), meaning) for code, meaning in CODES]
    for line in manual_page(program, commands, codes, version("qmpmem")):
        put(line)


def _helps(command: Any, path: str) -> Iterator[Help]:  # noqa: ANN401 - typer exports no such type
    """Describe a command, then the commands in it."""
    context = command.context_class(command, info_name=path, resilient_parsing=True)
    records = (each.get_help_record(context) for each in command.get_params(context))
    examples = (command.epilog or "").partition(EXAMPLES)[2].partition("\n\n")[0]
    yield Help(
        path=path,
        synopsis=" ".join(command.collect_usage_pieces(context)),
        text=command.help or "",
        parameters=tuple(each for each in records if each is not None and "--help" not in each[0]),
        examples=tuple(line.strip() for line in examples.splitlines()),
    )
    for name, each in getattr(command, "commands", {}).items():
        yield from _helps(each, f"{path} {name}")
