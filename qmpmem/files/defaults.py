"""The host's defaults: lines of ``KEY=VALUE`` in /etc/default/qmpmem, read and never executed.

Rules of this file:
    The launcher reads the same file without this package (launchers/kvm_settings.py); a test holds
    the two together. It gives up at the first mistake; here every mistake is kept, so that the
    administrator can correct the file in one go.
"""

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from qmpmem.errors import ConfigError
from qmpmem.files import directories
from qmpmem.records import Record

PATH: Final = "/etc/default/qmpmem"
LIMIT: Final = 64 * 1024
"""As the launcher reads."""


class Mistake(Record, frozen=True):
    """A line that is no setting."""

    number: int
    """Counted from 1."""
    line: str


class Defaults(Record, frozen=True):
    """What the file says."""

    path: str
    values: Mapping[str, str] = {}
    mistakes: tuple[Mistake, ...] = ()
    missing: bool = False
    problem: str | None = None
    """Why the file cannot be read."""


def path(environ: Mapping[str, str]) -> str:
    """Name the file."""
    return environ.get("QMPMEM_DEFAULTS") or PATH


def load(environ: Mapping[str, str], root: Path = Path("/")) -> Defaults:
    """Read the file; a missing one says nothing, nor does /dev/null.

    It names programs that root runs, so one that others could have written says nothing either.
    """
    name = path(environ)
    if name == os.devnull:
        return Defaults(path=name)
    try:
        with open(_open(name, root), "rb") as file:
            content = file.read(LIMIT + 1).decode(errors="surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return Defaults(path=name, missing=True)
    except OSError as error:
        return Defaults(path=name, problem=error.strerror or str(error))
    if len(content) > LIMIT:
        return Defaults(path=name, problem=f"larger than {LIMIT} bytes")
    return parse(content, name)


def expect_believed(found: Defaults) -> Defaults:
    """Expect the file to be missing, or to be one that the launcher believes as well.

    For what depends on a setting: without this, a file that is not believed says nothing.

    Raises:
        ConfigError: it cannot be read, or others could have written it.
    """
    if found.problem is not None:
        raise ConfigError(
            f"{found.path}: {found.problem}",
            hint="nothing of it counts; correct that, or remove the file",
        )
    return found


def _open(name: str, root: Path) -> int:
    if root == Path("/"):
        return directories.open_behind(Path(name))
    for _ in range(directories.LINKS + 1):
        above, _, last = name.rpartition("/")
        with directories.opened_beneath(root, above, judged=True) as directory:
            found = os.stat(last, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISLNK(found.st_mode):
                return directories.open_file(directory, last, Path(name))
            # An administrator may have put the file elsewhere, with a link in its place.
            name = os.path.join(above, os.readlink(last, dir_fd=directory))  # noqa: PTH118 - as text
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)


def parse(content: str, name: str = PATH) -> Defaults:
    """Read the settings. Pure. The last of several lines for one key counts."""
    values: dict[str, str] = {}
    mistakes: list[Mistake] = []
    for number, line in enumerate(content.splitlines(), 1):
        key, equals, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals or not key.replace("_", "a").isalnum():
            mistakes.append(Mistake(number=number, line=line))
            continue
        is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        values[key] = value[1:-1] if is_quoted else value
    return Defaults(path=name, values=values, mistakes=tuple(mistakes))
