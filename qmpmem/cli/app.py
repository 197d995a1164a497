"""The program: its commands, its exit codes, and the one place where an error becomes a line.

Rules of this package:
    stdout is data, stderr is talk. A command loads, calls the library once, and shows.
    Whatever is heavy to import is imported inside the command that needs it.
"""

import importlib
import os
import re
import sys
from collections.abc import Coroutine, Sequence
from typing import Annotated, Any, Final, TypeVar

import typer
from typer.core import TyperCommand

from qmpmem.cli import arguments, output
from qmpmem.errors import ConfigError, QmpmemError

T = TypeVar("T")

CODES: Final = (
    (0, "done"),
    (1, "not reached in time"),
    (2, "usage or configuration"),
    (3, "launch"),
    (4, "kernel"),
    (5, "guest unreachable"),
    (6, "guest refused"),
)
"""What the program exits with; the errors of `qmpmem.errors` have theirs."""
EXIT_CODES: Final = f"Exit codes: {', '.join(f'{code} {meaning}' for code, meaning in CODES)}."


def usage(*examples: str) -> str:
    """Write the end of a command's help: how it is called, and what it exits with."""
    shown = "".join(f"\n  {each}" for each in examples)
    return f"\b\nExamples:{shown}\n\n{EXIT_CODES}"  # \b is click's mark for "do not rewrap"


INTERRUPTED: Final = 130
"""The exit code after a signal: 128 + SIGINT, as shells have it. It stands for SIGTERM as well,
where what was begun goes on by itself."""
NOT_WRITTEN: Final = 74
"""The exit code where stdout cannot be written, as on a full disk: EX_IOERR of sysexits.h."""
INTERNAL: Final = 70
"""The exit code of a mistake of ours: EX_SOFTWARE of sysexits.h."""

INFO: Final = 20
WARNING: Final = 30
ERROR: Final = 40
"""As `logging` has them, which takes 10 ms to import."""

LONGEST: Final = 12 * 86400
"""Seconds that an option may ask a command to wait. A command that waits longer than some days was
started by mistake."""

_UsageError: type[Exception] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)
"""Typer exports no common class of its usage errors, and where they live changes."""

_LIKE_A_NUMBER: Final = re.compile(r"^no such option: -[0-9]")

MODULES: Final = {
    "list": "show_guests",
    "info": "show_guests",
    "stats": "show_guests",
    "top": "top",
    "events": "events",
    "qmp": "qmp",
    "set": "set",
    "unpin": "set",
    "script": "set",
    "run": "launch",
    "env": "launch",
    "launcher": "launch",
    "adopt": "discover",
    "forget": "discover",
    "discover": "discover",
    "doctor": "discover",
    "ksm": "ksm",
    "config": "config",
    "agent": "agent",
    "serve": "serve",
    "simulate": "simulate",
    "history": "journal",
    "why": "journal",
    "replay": "journal",
    "plot": "plot",
    "help": "help_topics",
    "manual": "manual",
}
"""Which module of this package holds a command: only that one is loaded when it is called."""

app = typer.Typer(
    name="qmpmem",
    epilog=usage("qmpmem list", "qmpmem set web1 256M", "qmpmem help"),
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
        output.prepare_streams()
        call = arguments.prepare(sys.argv[1:]) or ["--help"]
        load(call)
        code = app(call, standalone_mode=False)
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
        words = f"internal error: {type(error).__name__}: {error}; QMPMEM_DEBUG=1 shows where"
        say(words, level=ERROR)
        sys.exit(INTERNAL)


def discard_stdout() -> None:
    """Keep Python from complaining when it flushes at exit what cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def load(call: Sequence[str]) -> None:
    """Register the command that is called; all of them where none is, as for --help."""
    called = MODULES.get(call[0]) if call else None
    for module in [called] if called else sorted(set(MODULES.values())):
        importlib.import_module(f"qmpmem.cli.{module}")
    _shape(app)


def _shape(group: typer.Typer) -> None:
    for command in group.registered_commands:
        command.cls = _Command
    for each in group.registered_groups:
        if each.typer_instance is not None:
            _shape(each.typer_instance)


class _Command(TyperCommand):
    """A command whose usage shows NAME SIZE; typer's {NAME} {SIZE} looks like choices."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401 - see _UsageError
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


def seconds(text: str | float) -> float:
    """Read a time that an option takes, in seconds: ``90``, ``90s``, ``1h30m``."""
    from qmpmem.units import format_duration, parse_duration

    if not isinstance(text, str):  # an option's default
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
    path, command = _called(sys.argv[1:])
    message = _mistake(error, command)
    hint = f"`{path} --help` shows how"
    if path == f"{app.info.name} run":
        hint = f"QEMU's own arguments come after --, as in `{path} -- -m 2G`; {hint}"
    elif _LIKE_A_NUMBER.search(message):
        hint = f"sizes and times have no sign here; {hint}"
    return ConfigError(message, hint=hint)


def _mistake(error: Any, command: Any) -> str:  # noqa: ANN401 - see _UsageError
    """Return what is wrong with a call, in the wording of this program."""
    message = str(error.format_message()).removesuffix(".")
    match message.split(" ")[:3]:
        case ["Got", "unexpected", "extra"]:
            # A command that takes -128M takes all words that look like options for arguments.
            unknown = arguments.unknown_option(sys.argv[1:], command.params)
            message = unknown or f"too many arguments: {message.partition('(s) (')[2][:-1]}"
        case ["No", "such", "option:"]:
            known = (each for known in command.params for each in known.opts + known.secondary_opts)
            message = arguments.no_such("option", error.option_name, known)
        case ["No", "such", "command"]:
            given = error.message.split("'")[1]
            message = arguments.no_such("command", given, command.commands)
        case ["Missing", "argument", name]:
            message = f"missing argument: {name.strip(chr(39))}"
        case _:
            message += arguments.nearest(message)
    return message[:1].lower() + message[1:]


def _called(call: Sequence[str]) -> tuple[str, Any]:
    """Find the command that was called, by the words before its own.

    Returns:
        How it is called, as in ``qmpmem ksm on``, and the command.
    """
    from typer.main import get_command

    command: Any = get_command(app)
    path = [str(app.info.name)]
    for word in arguments.split(call)[0]:
        found = getattr(command, "commands", {}).get(word)
        if found is not None:
            command = found
            path.append(word)
    return " ".join(path), command


def leave(error: QmpmemError) -> None:
    """Write what went wrong to stderr in one line, and exit with its code."""
    put_failure(error)
    say(error.message if error.hint is None else f"{error.message}; {error.hint}", level=ERROR)
    sys.exit(error.exit_code)


def put_failure(error: QmpmemError) -> None:
    """Write a failure as data, where JSON was asked for and none was written yet."""
    if arguments.wants_json(sys.argv[1:]) and not _Written.anything:
        put_json({"error": describe(error)})


def describe(error: QmpmemError) -> dict[str, str | int | None]:
    """Describe a failure for --json."""
    return {
        "kind": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "reason": getattr(error, "reason", None) or getattr(error, "error_class", None),
        "exit_code": error.exit_code,
    }


def say(text: str, *, level: int = INFO) -> None:
    """Write one line for the user, to stderr; in systemd's journal it has this level."""
    is_journal = output.is_journal(sys.stderr, os.environ)
    prefix = output.journal_prefix(level) if is_journal else ""
    line = " ".join(text.splitlines())
    print(f"{prefix}qmpmem: {shown(line)}", file=sys.stderr)


def warn(text: str) -> None:
    """Write one warning for the user, to stderr."""
    say(f"warning: {text}", level=WARNING)


def shown(text: str) -> str:
    """Escape what a terminal might obey: an agent of another user than root's chose the words."""
    if text.isprintable():
        return text
    from qmpmem.model.escapes import printable

    return printable(text)


class _Written:
    """Whether there is data on stdout: the description of a failure would make two of it."""

    anything = False


def put(text: str, *, end: str = "\n") -> None:
    """Write one line of data; end here, with success, where its reader has closed the pipe."""
    _Written.anything = True
    try:
        print(text, end=end, flush=not end)
    except BrokenPipeError:  # typer would make a failure of it
        discard_stdout()
        sys.exit(0)


def put_plain(text: str) -> None:
    """Write one line of data that is text; what a terminal might obey is escaped."""
    put(shown(text))


def put_json(value: object) -> None:
    """Write one value as a line of JSON."""
    put(output.as_json(value, sys.stdout.encoding))


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    import asyncio

    return asyncio.run(work)


def on_terminal() -> bool:
    """Tell whether colour and bars are wanted: a terminal, and NO_COLOR not set (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
