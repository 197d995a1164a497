"""`qmpmem help`: the chapters of the manual, which come with the package."""

from pathlib import Path
from typing import Annotated, Final

import typer

from qmpmem.cli import arguments
from qmpmem.cli.app import MODULES, app, load, on_terminal, usage
from qmpmem.errors import ConfigError, LaunchError

CHAPTERS: Final = Path(__file__).parents[1] / "manual"
"""The directory with one file for each topic, of the topic's name."""


def topics() -> list[str]:
    """Return the names of the chapters.

    Raises:
        LaunchError: this copy of qmpmem came without them.
    """
    names = sorted(path.stem for path in CHAPTERS.glob("*.md"))
    if not names:
        raise LaunchError(f"{CHAPTERS}: the manual is missing", hint="install qmpmem again")
    return names


def complete(incomplete: str) -> list[str]:
    """Return the topics and commands that begin so, for the shell."""
    return sorted(name for name in {*topics(), *MODULES} if name.startswith(incomplete))


@app.command(name="help", epilog=usage("qmpmem help", "qmpmem help agent", "qmpmem help set"))
def show_help(
    topic: Annotated[
        str | None,
        typer.Argument(help="A chapter of the manual, or a command.", autocompletion=complete),
    ] = None,
    *,
    no_pager: Annotated[
        bool, typer.Option("--no-pager", help="Write to the terminal, not through a pager.")
    ] = False,
) -> None:
    """Show a chapter of the manual, or the help of a command. Without a topic, list them all."""
    if topic in MODULES and topic not in topics():
        load([topic])
        app([topic, "--help"], standalone_mode=False)
        return
    from qmpmem.cli.pager import show

    show(_listed() if topic is None else _chapter(topic), uses_pager=not no_pager)


def _listed() -> str:
    from qmpmem.view.manual_chapters import summary

    names = topics()
    wide = max(map(len, names))
    about = {name: summary((CHAPTERS / f"{name}.md").read_text("utf-8")) for name in names}
    lines = (f"  {name:{wide}}  {about[name]}" for name in names)
    return "\n".join(
        (
            "Chapters of the manual; `qmpmem help TOPIC` shows one:",
            "",
            *lines,
            "",
            "`qmpmem --help` lists the commands, `qmpmem COMMAND --help` explains one.\n",
        )
    )


def _chapter(topic: str) -> str:
    """Read a chapter, as wide as the terminal is.

    Raises:
        ConfigError: there is none of that name.
    """
    import shutil

    from qmpmem.view.manual_chapters import WIDTH, as_text

    if topic not in topics():
        said = arguments.no_such("topic", topic, {*topics(), *MODULES})
        raise ConfigError(said, hint="`qmpmem help` lists them")
    source = (CHAPTERS / f"{topic}.md").read_text("utf-8")
    columns = min(WIDTH, shutil.get_terminal_size().columns)
    return as_text(source, width=columns, bold=on_terminal())
