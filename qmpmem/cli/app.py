"""The program: its commands, its exit codes, and the one place where an error becomes a line.

Rules of this package:
    stdout is data, stderr is talk. A command loads, calls the library once, and shows.
    Whatever is heavy to import is imported inside the command that needs it.
"""

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import typer

from qmpmem.errors import QmpmemError

T = TypeVar("T")

EXIT_CODES: Final = (
    "Exit codes: 0 done, 1 not reached in time, 2 usage or configuration, 3 launch, 4 kernel, "
    "5 guest unreachable, 6 guest refused."
)

INTERRUPTED: Final = 130
"""128 + SIGINT, as shells say it."""
INTERNAL: Final = 70
"""EX_SOFTWARE of sysexits.h: a mistake of ours."""

app = typer.Typer(
    name="qmpmem",
    help="Memory overcommit for bare QEMU/KVM hosts: see and set the memory of running guests.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the program: parse, do, and leave with an exit code, whatever happens."""
    from qmpmem.cli import change, host, launch, look  # noqa: F401 - they register commands

    try:
        app()
    except QmpmemError as error:
        leave(error)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader has seen enough (`qmpmem list | head -1`). Keep Python from complaining when
        # it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:  # the last boundary: never a traceback for a user
        if os.environ.get("QMPMEM_DEBUG"):
            raise
        say(f"internal error: {type(error).__name__}: {error}; QMPMEM_DEBUG=1 shows where")
        sys.exit(INTERNAL)


def leave(error: QmpmemError) -> None:
    """Say what went wrong in one line, and exit with its code."""
    say(error.message if error.hint is None else f"{error.message}; {error.hint}")
    sys.exit(error.exit_code)


def say(text: str) -> None:
    """Talk to the user, on stderr, in one line."""
    line = " ".join(text.splitlines())
    print(f"qmpmem: {line}", file=sys.stderr)


def put(text: str) -> None:
    """Write one line of data."""
    print(text)


def put_json(value: object) -> None:
    """Write one value as a line of JSON."""
    import msgspec

    put(msgspec.json.encode(value).decode())


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    return asyncio.run(work)


def on_terminal() -> bool:
    """Whether colour and bars are wanted: a terminal, and NO_COLOR not set (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
