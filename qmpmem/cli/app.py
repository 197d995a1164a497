"""The program: its commands, its exit codes, and the one place where an error becomes a line.

Rules of this package:
    stdout is data, stderr is talk. A command loads, calls the library once, and shows.
    Whatever is heavy to import is imported inside the command that needs it.
"""

import importlib
import io
import os
import re
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from qmpmem.errors import ConfigError, QmpmemError

T = TypeVar("T")

EXIT_CODES: Final = (
    "Exit codes: 0 done, 1 not reached in time, 2 usage or configuration, 3 launch, 4 kernel, "
    "5 guest unreachable, 6 guest refused."
)

INTERRUPTED: Final = 130
"""128 + SIGINT, as shells say it."""
NOT_WRITTEN: Final = 74
"""EX_IOERR of sysexits.h: a full disk under stdout."""
INTERNAL: Final = 70
"""EX_SOFTWARE of sysexits.h: a mistake of ours."""

LONGEST: Final = 12 * 86400
"""Seconds. A command that waits longer than some days was started by mistake."""

_UsageError: type[Exception] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)
"""Typer exports no common class of its usage errors, and where they live changes."""

_LIKE_A_NUMBER: Final = re.compile(r"^No such option: -[0-9]")

MODULES: Final = {
    "list": "look",
    "info": "look",
    "stats": "look",
    "events": "look",
    "set": "change",
    "unpin": "change",
    "script": "change",
    "run": "launch",
    "env": "launch",
    "launcher": "launch",
    "adopt": "host",
    "forget": "host",
    "discover": "host",
    "doctor": "host",
    "ksm": "ksm",
    "config": "config",
    "agent": "agent",
    "simulate": "simulate",
    "history": "journal",
    "why": "journal",
    "replay": "journal",
}
"""Which module of this package holds a command: only that one is loaded when it is called."""

app = typer.Typer(
    name="qmpmem",
    epilog=EXIT_CODES,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(asked: bool) -> None:  # noqa: FBT001 - typer's shape of a callback
    """Print the version and leave, where that is all that was asked."""
    if asked:
        from importlib.metadata import version

        put(f"qmpmem {version('qmpmem')}")
        raise typer.Exit


@app.callback()
def program(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Memory overcommit for bare QEMU/KVM hosts: see and set the memory of running guests."""


def main() -> None:
    """Run the program: parse, do, and leave with an exit code, whatever happens."""
    try:
        prepare_stdout()
        words = sys.argv[1:] or ["--help"]
        load(words)
        code = app(words, standalone_mode=False)
        sys.stdout.flush()  # here, where a reader that has gone is no surprise
        sys.exit(code)
    except _UsageError as error:
        leave(usage_error(error))
    except QmpmemError as error:
        leave(error)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        discard_stdout()  # the reader has seen enough: `qmpmem list | head -1`
        sys.exit(0)
    except OSError as error:
        say(f"output: {error.strerror or error}")
        discard_stdout()
        sys.exit(NOT_WRITTEN)
    except Exception as error:  # the last boundary: never a traceback for a user
        if os.environ.get("QMPMEM_DEBUG"):
            raise
        say(f"internal error: {type(error).__name__}: {error}; QMPMEM_DEBUG=1 shows where")
        sys.exit(INTERNAL)


def prepare_stdout() -> None:
    """Have each line leave when it is written: whoever reads a stream of them waits for it."""
    out: object = sys.stdout
    if out is None:  # closed by whoever started us
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - until the end
    elif isinstance(out, io.TextIOWrapper):
        out.reconfigure(line_buffering=True)


def discard_stdout() -> None:
    """Keep Python from complaining when it flushes at exit what cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def load(words: Sequence[str]) -> None:
    """Register the command that is called; all of them where none is, as for --help."""
    called = MODULES.get(words[0]) if words else None
    for module in [called] if called else sorted(set(MODULES.values())):
        importlib.import_module(f"qmpmem.cli.{module}")


def seconds(text: str | float) -> float:
    """Read a time that an option takes, in seconds: ``90``, ``90s``, ``1h30m``."""
    from qmpmem.units import format_duration, parse_duration

    if isinstance(text, float):  # an option's default
        return text
    try:
        value = parse_duration(text, bare=True)
    except ConfigError as error:
        raise typer.BadParameter(error.message) from error
    if value > LONGEST:
        raise typer.BadParameter(f"time {text!r}: expected at most {format_duration(LONGEST)}")
    return value


def usage_error(error: Any) -> ConfigError:  # noqa: ANN401 - see _UsageError
    """Put typer's four lines about a wrong call into one."""
    # The context knows which command's help would answer.
    command = getattr(error.ctx, "command_path", "qmpmem")
    message = str(error.format_message()).removesuffix(".")
    if message.startswith("Got unexpected extra"):
        message = _misspelt(error.ctx.command, sys.argv[1:]) or message
    hint = f"`{command} --help` shows how"
    if command == f"{app.info.name} run":
        hint = f"QEMU's own arguments come after --, as in `{command} -- -m 2G`; {hint}"
    elif _LIKE_A_NUMBER.search(message):
        hint = f"sizes and times have no sign here; {hint}"
    return ConfigError(message[:1].lower() + message[1:], hint=hint)


def _misspelt(command: Any, words: Sequence[str]) -> str | None:  # noqa: ANN401 - see _UsageError
    """Name the option that was not known, where a command takes such words as its arguments.

    `set` does, for `set web1 -128M`.
    """
    import difflib

    known = {"--help"}.union(*((*each.opts, *each.secondary_opts) for each in command.params))
    given = (word.partition("=")[0] for word in words if word.startswith("--"))
    unknown = next((word for word in given if word not in known), None)
    if unknown is None:
        return None
    near = difflib.get_close_matches(unknown, known)
    return f"no such option: {unknown}" + (f". Did you mean {near[0]}?" if near else "")


def leave(error: QmpmemError) -> None:
    """Say what went wrong in one line, and exit with its code."""
    say(error.message if error.hint is None else f"{error.message}; {error.hint}")
    sys.exit(error.exit_code)


def say(text: str) -> None:
    """Talk to the user, on stderr, in one line."""
    line = " ".join(text.splitlines())
    print(f"qmpmem: {line}", file=sys.stderr)


def put(text: str) -> None:
    """Write one line of data; end here, with success, where nobody reads any more."""
    try:
        print(text)
    except BrokenPipeError:  # typer would make a failure of it
        discard_stdout()
        sys.exit(0)


def put_json(value: object) -> None:
    """Write one value as a line of JSON."""
    import msgspec

    put(msgspec.json.encode(value).decode())


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    import asyncio

    return asyncio.run(work)


def on_terminal() -> bool:
    """Whether colour and bars are wanted: a terminal, and NO_COLOR not set (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
