"""Which files are read, and how: nothing that could hang, nothing that others may write.

Rules of this file:
    Nothing is raised for a file that cannot be used: it becomes a `Source` with a problem.
    Everything here blocks: call it in a thread where an event loop runs.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from qmpmem.configuration.merge import Source
from qmpmem.files import directories

MAIN: Final = Path("/etc/qmpmem/qmpmem.toml")
DROP_INS: Final = "conf.d"
"""Beside the main file."""

LARGEST: Final = 1 << 20
"""Bytes of a file."""
MOST_FILES: Final = 100


def main_file(given: Path | None, environ: Mapping[str, str], default: Path = MAIN) -> Path:
    """Name the main file: as given, else QMPMEM_CONFIG, else the one in /etc."""
    return given or Path(environ.get("QMPMEM_CONFIG") or default)


def read(
    given: Path | None, environ: Mapping[str, str], default: Path = MAIN
) -> tuple[Source, ...]:
    """Read the main file and those of conf.d, in the order in which they count.

    A main file that nobody named may be missing.
    """
    path = main_file(given, environ, default)
    main = read_file(path)
    found = drop_ins(path.parent / DROP_INS)
    if isinstance(found, Source):
        return (*beginning(main, path, given, environ), found)
    return (*beginning(main, path, given, environ), *map(read_file, found))


def beginning(
    main: Source, path: Path, given: Path | None, environ: Mapping[str, str]
) -> tuple[Source, ...]:
    """Leave out a main file that is missing and was not named."""
    is_missing = main.problem is not None and not os.path.lexists(path)
    is_named = given is not None or bool(environ.get("QMPMEM_CONFIG"))
    return () if is_missing and not is_named else (main,)


def read_file(path: Path) -> Source:
    """Read one file."""
    try:
        with open(path, "rb", opener=open_checked) as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero in it
        return refused(path, error)
    return decode(name_of(path), content)


def refused(path: Path, error: OSError | ValueError) -> Source:
    """Say that a file cannot be used, and why."""
    return Source(file=name_of(path), problem=_reason(error))


def open_checked(path: str, _flags: int = os.O_RDONLY) -> int:
    """Open a file to read it, where it is one that may be believed.

    Raises:
        UntrustedError: it is not: others could have written it, or may change its directory.
        OSError: as open(2).
        ValueError: the path holds a zero.
    """
    return directories.open_behind(Path(path))


def decode(name: str, content: bytes) -> Source:
    """Read bytes as text. Pure."""
    if len(content) > LARGEST:
        return Source(file=name, problem=f"expected at most {LARGEST >> 20} MiB")
    zero = content.find(b"\0")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        at = error.start
    else:
        at = zero
        if zero < 0:
            return Source(file=name, text=text)
    return Source(file=name, problem="expected text in UTF-8", line=content.count(b"\n", 0, at) + 1)


def drop_ins(directory: Path) -> tuple[Path, ...] | Source:
    """List what ends in .toml and is not hidden (as an editor's own files are); or say why not."""
    try:
        found = directories.open_directory(directory, os.O_RDONLY)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        return refused(directory, error)
    try:
        problem = directories.find_problem(os.fstat(found), stat.S_IFDIR)
        # Of what was looked at, not of what took its place since.
        names = [] if problem is not None else os.listdir(found)  # noqa: PTH208 - a descriptor
    finally:
        os.close(found)
    names = sorted(each for each in names if each.endswith(".toml") and not each.startswith("."))
    if len(names) > MOST_FILES:
        problem = f"{len(names)} files, expected at most {MOST_FILES}"
    if problem is not None:
        return Source(file=name_of(directory), problem=problem)
    return tuple(directory / name for name in names)


def name_of(path: Path) -> str:
    """Name a file so that it can be written as JSON: names may be any bytes."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _reason(error: OSError | ValueError) -> str:
    problem = error.strerror if isinstance(error, OSError) else None
    problem = problem or str(error)
    return problem[:1].lower() + problem[1:]
