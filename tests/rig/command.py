"""The command line, run as a user runs it."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final, NamedTuple

from tests.rig import forked
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


def _environment(run: Path, environ: Mapping[str, str] | None) -> dict[str, str]:
    return plain_environment() | {"QMPMEM_RUN_DIR": str(run)} | dict(environ or {})


def qmpmem(
    *words: str,
    run: Path,
    text: str = "",
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Ran:
    """Run qmpmem with `run` as its run directory; whatever happens, no traceback may show."""
    done = subprocess.run(
        [PROGRAM, *words],
        input=text,
        capture_output=True,
        text=True,
        errors="replace",
        env=_environment(run, environ),
        cwd=directory,
        timeout=patient(60),
        check=False,
    )
    assert "Traceback" not in done.stderr
    return Ran(code=done.returncode, out=done.stdout, err=done.stderr)


def called(
    *words: str,
    run: Path,
    text: str = "",
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Ran:
    """As `qmpmem`, in a fork of a Python that has loaded it, which takes a quarter of the time.

    Take this where the call is tested, and not how the program starts.
    """
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
        given.write(text.encode())
        given.seek(0)
        files = [file.fileno() for file in (given, out, err)]
        code = forked.call(words, _environment(run, environ), files, directory, patient(60))
        said = [_read(file) for file in (out, err)]
    assert "Traceback" not in said[1]
    return Ran(code, *said)


def called_each(
    calls: Iterable[Sequence[str]], *, run: Path, environ: Mapping[str, str] | None = None
) -> list[Ran]:
    """Make many calls, one after the other; as `called`."""
    return [called(*call, run=run, environ=environ) for call in calls]


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def on_terminal(
    *words: str,
    run: Path,
    columns: int = 80,
    until: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Ran:
    """Run qmpmem on a terminal so wide; what it says on stderr is in `out` as well.

    Args:
        words: the call.
        run: its run directory.
        columns: of the terminal.
        until: what has to be shown before Ctrl-C is typed; None: it ends by itself.
        environ: what its environment has besides.
    """
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = plain_environment() | {"QMPMEM_RUN_DIR": str(run), "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    environment.pop("NO_COLOR", None)
    environment |= environ or {}
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
        code = child.wait(timeout=patient(20))
    assert b"Traceback" not in shown
    return Ran(code=code, out=shown.decode(), err="")
