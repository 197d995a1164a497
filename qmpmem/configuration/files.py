"""Which files are read, and how: nothing that could hang, nothing that others may write.

Rules of this file:
    Nothing is raised for a file that cannot be used: it becomes a `Source` with a problem.
    Everything here blocks: call it in a thread where an event loop runs.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from qmpmem.configuration.judge import Source

MAIN: Final = Path("/etc/qmpmem/qmpmem.toml")
DROP_INS: Final = "conf.d"
"""Beside the main file."""

LARGEST: Final = 1 << 20
"""Bytes of a file."""
MOST_FILES: Final = 100

_TYPES: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


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
    is_missing = main.problem is not None and not os.path.lexists(path)
    is_named = given is not None or bool(environ.get("QMPMEM_CONFIG"))
    sources = [] if is_missing and not is_named else [main]
    return (*sources, *_read_directory(path.parent / DROP_INS))


def read_file(path: Path) -> Source:
    """Read one file."""
    name = _name(path)
    try:
        # Opening a FIFO would wait for a writer, and opening a device may do something: look first.
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            problem = _problem(os.fstat(found), stat.S_IFREG, "a file")
            if problem is not None:
                return Source(file=name, problem=problem)
            content = _content(found)
        finally:
            os.close(found)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero in it
        return Source(file=name, problem=_refused(error))
    return decode(name, content)


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


def _read_directory(directory: Path) -> Iterator[Source]:
    """Read what ends in .toml and is not hidden (as an editor's own files are)."""
    try:
        found = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        yield Source(file=_name(directory), problem=_refused(error))
        return
    try:
        problem = _problem(os.fstat(found), stat.S_IFDIR, "a directory")
        # Of what was looked at, not of what took its place since.
        names = [] if problem is not None else os.listdir(found)  # noqa: PTH208 - a descriptor
    finally:
        os.close(found)
    names = sorted(each for each in names if each.endswith(".toml") and not each.startswith("."))
    if len(names) > MOST_FILES:
        problem = f"{len(names)} files, expected at most {MOST_FILES}"
    if problem is not None:
        yield Source(file=_name(directory), problem=problem)
        return
    for name in names:
        yield read_file(directory / name)


def _content(found: int) -> bytes:
    """Open what was looked at, and nothing that took its place since."""
    descriptor = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(LARGEST + 1)


def _problem(status: os.stat_result, kind: int, expected: str) -> str | None:
    """Say why nobody should believe this; sudo judges its own files likewise (sudoers(5))."""
    if stat.S_IFMT(status.st_mode) != kind:
        got = _TYPES.get(stat.S_IFMT(status.st_mode), "a file")
        return f"expected {expected}, got {got}"
    if status.st_uid not in (0, os.geteuid()):
        return f"owned by uid {status.st_uid}, expected root or uid {os.geteuid()} (chown)"
    if status.st_mode & stat.S_IWOTH:
        mode = stat.S_IMODE(status.st_mode)
        return f"anybody may write it (mode {mode:04o}); chmod o-w"
    return None


def _name(path: Path) -> str:
    """Name a file so that it can be written as JSON: names may be any bytes."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _refused(error: OSError | ValueError) -> str:
    problem = error.strerror if isinstance(error, OSError) else None
    problem = problem or str(error)
    return problem[:1].lower() + problem[1:]
