"""The command line, run as a user runs it."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from tests.rig.patience import patient

PROGRAM: Final = Path(sys.executable).with_name("qmpmem")


class Ran(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def plain_environment() -> dict[str, str]:
    """This environment without what would change how Python writes."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}


def qmpmem(
    *words: str,
    run: Path,
    text: str = "",
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Ran:
    """Run qmpmem with `run` as its run directory; whatever happens, no traceback may show."""
    environment = plain_environment() | {"QMPMEM_RUN_DIR": str(run)} | dict(environ or {})
    done = subprocess.run(
        [PROGRAM, *words],
        input=text,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        cwd=directory,
        timeout=patient(60),
        check=False,
    )
    assert "Traceback" not in done.stderr
    return Ran(code=done.returncode, out=done.stdout, err=done.stderr)


_EACH: Final = """
import asyncio, os, sys
import qmpmem.library, qmpmem.view.rows
from qmpmem.cli import app, main

directory, program, *words = sys.argv[1:]
codes = []
while words:
    end = words.index(";;")
    call, words = words[:end], words[end + 1 :]
    child = os.fork()
    if child == 0:
        for number in (1, 2):
            file = os.open(f"{directory}/{len(codes)}.{number}", os.O_WRONLY | os.O_CREAT)
            os.dup2(file, number)
            os.close(file)
        sys.argv = [program, *call]
        main()
        os._exit(0)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(*codes)
"""


def qmpmem_each(
    calls: Sequence[Sequence[str]], *, run: Path, environ: Mapping[str, str] | None = None
) -> list[Ran]:
    """Run many calls of qmpmem one after the other, each in a process of its own.

    Python loads once what most commands need, and is forked for each call, which takes a quarter
    of the time. Take this where the call is tested, and not how the program starts.
    """
    environment = plain_environment() | {"QMPMEM_RUN_DIR": str(run)} | dict(environ or {})
    with TemporaryDirectory() as directory:
        words = chain.from_iterable((*call, ";;") for call in calls)
        done = subprocess.run(
            [sys.executable, "-c", _EACH, directory, PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            timeout=patient(60),
            check=True,
        )
        codes = map(int, done.stdout.split())
        ran = [Ran(code, *_said(directory, number)) for number, code in enumerate(codes)]
    assert not any("Traceback" in each.err for each in ran)
    return ran


def _said(directory: str, number: int) -> list[str]:
    files = (Path(directory, f"{number}.{stream}") for stream in (1, 2))
    return [file.read_text(errors="replace") for file in files]


def on_terminal(*words: str, run: Path, columns: int = 80, until: str | None = None) -> Ran:
    """Run qmpmem on a terminal so wide; what it says on stderr is in `out` as well.

    Args:
        words: the call.
        run: its run directory.
        columns: of the terminal.
        until: what has to be shown before Ctrl-C is typed; None: it ends by itself.
    """
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = plain_environment() | {"QMPMEM_RUN_DIR": str(run), "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    environment.pop("NO_COLOR", None)
    shown = b""
    with subprocess.Popen(
        [PROGRAM, *words],
        env=environment,
        stdin=other,
        stdout=other,
        stderr=other,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads here
    ) as child:
        os.close(other)
        with suppress(OSError):  # EIO: the last one closed its end
            while chunk := os.read(main, 65536):
                shown += chunk
                if until is not None and until.encode() in shown:
                    os.write(main, b"\x03")
                    until = None
        os.close(main)
        code = child.wait(timeout=20)
    assert b"Traceback" not in shown
    return Ran(code=code, out=shown.decode(), err="")
