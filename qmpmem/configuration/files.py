"""Which files are read, and how: nothing that could hang, nothing that others may write.

Rules of this file:
    Nothing is raised for a file that cannot be used: it becomes a `Source` with a problem.
    All but `read_again` blocks: call that where an event loop runs.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from qmpmem.configuration.merge import Judgement, Source, judge
from qmpmem.files import directories
from qmpmem.units import Bytes

MAIN: Final = Path("/etc/qmpmem/qmpmem.toml")
DROP_INS: Final = "conf.d"
"""Beside the main file."""

LARGEST: Final = 1 << 20
"""Bytes of a file."""
MOST_FILES: Final = 100


def load(
    given: Path | None,
    environ: Mapping[str, str],
    total: Bytes | None = None,
    *,
    default: Path = MAIN,
) -> Judgement:
    """Read and judge the configuration.

    Args:
        given: the path that --config names.
        environ: the environment, which may name another.
        total: the host's memory; None: it is not known.
        default: where the main file is when neither of them names one.
    """
    return judge(read(given, environ, default), total)


def read(
    given: Path | None, environ: Mapping[str, str], default: Path = MAIN
) -> tuple[Source, ...]:
    """Read the main file and those of conf.d, in the order in which they count.

    The main file may be missing where neither `given` nor the environment names it.
    """
    found = _list(given, environ, default)
    return tuple(each if isinstance(each, Source) else read_file(each) for each in found)


async def read_again(given: Path | None, environ: Mapping[str, str]) -> tuple[Source, ...]:
    """Do as `read`, inside an event loop: what blocks is done in threads."""
    import asyncio  # noqa: PLC0415 - 30 ms, with the next, that the agent alone needs

    from qmpmem.files import asynchronous  # noqa: PLC0415

    async def read_one(found: Path | Source) -> Source:
        if isinstance(found, Source):
            return found
        try:
            content = await asynchronous.read(found, LARGEST + 1, open_checked)
        except (OSError, ValueError) as error:
            return _refused(found, error)
        return decode(_name(found), content)

    found = await asynchronous.call(partial(_list, given, environ, MAIN))
    return tuple(await asyncio.gather(*map(read_one, found)))


def main_file(given: Path | None, environ: Mapping[str, str], default: Path = MAIN) -> Path:
    """Name the main file: as given, else QMPMEM_CONFIG, else the one in /etc."""
    return given or Path(environ.get("QMPMEM_CONFIG") or default)


def read_file(path: Path) -> Source:
    """Read one file."""
    try:
        with open(path, "rb", opener=open_checked) as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero in it
        return _refused(path, error)
    return decode(_name(path), content)


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
    at = content.find(b"\0")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        at = error.start
    else:
        if at < 0:
            return Source(file=name, text=text)
    return Source(file=name, problem="expected text in UTF-8", line=content.count(b"\n", 0, at) + 1)


def _list(
    given: Path | None, environ: Mapping[str, str], default: Path
) -> tuple[Path | Source, ...]:
    """List the files to read, or why they cannot be listed."""
    path = main_file(given, environ, default)
    is_named = given is not None or bool(environ.get("QMPMEM_CONFIG"))
    main = [path] if is_named or os.path.lexists(path) else []
    return (*main, *_drop_ins(path.parent / DROP_INS))


def _drop_ins(directory: Path) -> Iterator[Path | Source]:
    """List what ends in .toml and is not hidden (as an editor's own files are); or say why not."""
    try:
        found = directories.open_directory(directory, os.O_RDONLY)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        yield _refused(directory, error)
        return
    try:
        problem = directories.problem_of(found, stat.S_IFDIR)
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
    yield from (directory / name for name in names)


def _refused(path: Path, error: OSError | ValueError) -> Source:
    """Return the source for a file that cannot be used, with the reason."""
    problem = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return Source(file=_name(path), problem=problem[:1].lower() + problem[1:])


def _name(path: Path) -> str:
    """Name a file so that it can be written as JSON: names may be any bytes."""
    return os.fsencode(path).decode(errors="backslashreplace")
