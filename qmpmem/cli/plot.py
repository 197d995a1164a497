"""The command that draws the past: `qmpmem plot`. It needs no agent, and disturbs none."""

import errno
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from qmpmem.cli.app import app, on_terminal, put, put_json, say, usage
from qmpmem.cli.journal import Journal, Since, reading, when
from qmpmem.cli.show_guests import Json, complete_guest
from qmpmem.errors import ConfigError
from qmpmem.files import state_files

if TYPE_CHECKING:
    from qmpmem.journal.points import Series
    from qmpmem.journal.reader import Reader

HOST: Final = "host"
"""The word that means the host, and no guest."""
CONVERTER: Final = "rsvg-convert"
PACKAGE: Final = "librsvg2-bin"
"""The Debian package that has the program which makes a PNG of an SVG."""
ZOOM: Final = "2"
"""Pixels of a PNG for each of an SVG, so that letters are sharp."""
NEW: Final = 0o666
"""The mode of a new file, less what the umask takes."""
UMASK: Final = re.compile(r"^Umask:\s*([0-7]+)$", re.MULTILINE)
PATIENCE: Final = 60.0
"""Seconds that a conversion may take."""
COERCED: Final = "C.UTF-8"
WIDTH: Final = 80
"""Columns that a plot has where stdout is no terminal."""


@app.command(
    epilog=usage(
        "qmpmem plot web1", "qmpmem plot web1 --since 1d --out web1.svg", "qmpmem plot host"
    )
)
def plot(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|host",
            help="The guest's id, or its unique name; or host.",
            autocompletion=complete_guest,
        ),
    ],
    *,
    since: Since = "1h",
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Likewise; default: now.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw into x.svg or x.png, not on the terminal."),
    ] = None,
    journal: Journal = None,
    json: Json = False,
) -> None:
    """Draw what the journal has of a guest, or of the host.

    With the state of the host and what the guest was told. Minutes and hours are kept for a month.
    """
    from qmpmem.journal import ranges

    if out is not None:
        expect_picture(out)
    begin, end = when(since), time.time() if until is None else when(until)
    if begin >= end:
        raise ConfigError(
            f"--since {since}: expected a time before --until"
            if until is not None
            else f"--since {since}: expected a time before now"
        )
    with reading(journal) as reader:
        word = None if name == HOST else name
        found = ranges.read(reader, word, begin, end)
        if not found.host:
            raise ConfigError("the journal has nothing of this time", hint=_reach(reader))
    if json:
        put_json(found)
    elif out is None:
        _show(found)
    else:
        from qmpmem.view.plots import plot as drawn

        save(out, drawn(found))


def _reach(reader: "Reader") -> str:
    from qmpmem.journal.ranges import reach
    from qmpmem.view.journal import moment

    found = reach(reader)
    if found is None:
        return "it is empty"
    return f"it reaches from {moment(found[0])} to {moment(found[1])}"


def _show(series: "Series") -> None:
    """Draw on the terminal; 80 columns where there is none."""
    from qmpmem.view import plots, terminal_plot

    size = shutil.get_terminal_size((WIDTH, 24))
    screen = terminal_plot.Screen(
        width=size.columns if sys.stdout.isatty() else WIDTH,
        is_ascii=says_c(os.environ) or not terminal_plot.fits(sys.stdout.encoding),
        is_coloured=on_terminal(),
    )
    for line in terminal_plot.lines(plots.figure(series), screen):
        put(line)


def says_c(environ: Mapping[str, str]) -> bool:
    """Tell whether the user's locale is the one of plain ASCII.

    Python then writes UTF-8 all the same (PEP 540), and may have put a LC_CTYPE of its own into the
    environment (PEP 538).
    """
    chosen = environ.get("LC_ALL") or environ.get("LC_CTYPE")
    if chosen is None or (chosen == COERCED and not environ.get("LC_ALL")):
        chosen = environ.get("LANG")
    return chosen in ("C", "POSIX")


def expect_picture(path: Path) -> None:
    """Check that a picture of this name can be made, before anything is read.

    Raises:
        ConfigError: it is neither SVG nor PNG, or what makes a PNG is not installed.
    """
    if path.suffix.lower() not in ("", ".svg", ".png"):  # /dev/stdout gets SVG
        raise ConfigError(f"{path}: expected a name that ends in .svg or .png")
    if _is_png(path) and shutil.which(CONVERTER) is None:
        raise ConfigError(
            f"{path}: a PNG needs {CONVERTER}, which is not installed",
            hint=f"apt install {PACKAGE}, or name it {path.with_suffix('.svg')}",
        )


def save(path: Path, drawn: str) -> None:
    """Write a picture, as PNG where the name ends so.

    Raises:
        ConfigError: it cannot be written, or not converted.
    """
    content = drawn.encode()
    if _is_png(path):
        content = _converted(path, content)
    try:
        _write(path, content)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    say(f"drew {path}")


def _write(path: Path, content: bytes) -> None:
    """Write a file whole, so that a full disk costs no picture that was there before.

    What is no file of this user's, such as /dev/stdout or a link, is written to, and so is a file
    in a directory in which this user may make none.
    """
    found = path.lstat() if os.path.lexists(path) else None
    if found is not None and stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid()):
        raise PermissionError(errno.EPERM, f"a link of uid {found.st_uid}", str(path))
    if not (_is_own(found) and os.access(path.parent, os.W_OK | os.X_OK)):
        path.write_bytes(content)
        return
    mode = NEW & ~_umask() if found is None else stat.S_IMODE(found.st_mode)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        state_files.write_below(directory, path.name, content, mode)
    finally:
        os.close(directory)


def _is_own(found: os.stat_result | None) -> bool:
    """Tell whether a path has no file, or a file of this user's that has no other name."""
    if found is None:
        return True
    is_file = stat.S_ISREG(found.st_mode)
    return is_file and found.st_uid == os.geteuid() and found.st_nlink == 1


def _umask() -> int:
    """Return the umask, which cannot be asked for without changing it but in proc(5): status."""
    found = UMASK.search(Path("/proc/self/status").read_text())
    return int(found[1], 8) if found else 0o077


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png"


def _converted(path: Path, content: bytes) -> bytes:
    try:
        ran = subprocess.run(
            [CONVERTER, "--zoom", ZOOM],
            input=content,
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
    except FileNotFoundError:
        expect_picture(path)
        raise
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error).encode()
        words = said.decode(errors="replace").strip().splitlines()
        raise ConfigError(f"{path}: {CONVERTER}: {words[-1] if words else error}") from error
    return ran.stdout
