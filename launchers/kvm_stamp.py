"""The proof that Python and the launchers worked: what the shim reads to spare a trial.

    first line      the Python, as the shim calls it
    other lines     what must be there, and not newer than the stamp, for the proof to hold

Rules of this file:
    The stamp is dated to before anything was read, so a change since then shows.
"""

import os
import sys

NAME = ".python"


def leave_stamp(run: int, python: str, started: float) -> None:
    """Leave a stamp behind in the run directory.

    Args:
        run: a descriptor of the run directory.
        python: as the shim calls it.
        started: a moment before this process began, in seconds since 1970.

    Raises:
        OSError: no room, or no right.
    """
    if "\n" in python:
        return
    beside = f"{NAME}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(beside, flags, 0o600, dir_fd=run)
    try:
        os.write(descriptor, os.fsencode("\n".join((python, *foundations(python), ""))))
        os.utime(beside, (started, started), dir_fd=run)
        os.rename(beside, NAME, src_dir_fd=run, dst_dir_fd=run)
    except BaseException:
        os.unlink(beside, dir_fd=run)
        raise
    finally:
        os.close(descriptor)


def foundations(python: str) -> "list[str]":
    """List what this process stands on: few enough for a shell to look at each time.

    A package brings files by renaming them, which the directory shows; our own are also edited.
    """
    ours = os.path.dirname(os.path.abspath(__file__))
    programs = {python, sys.executable, os.path.realpath(sys.executable)}
    loaded = {getattr(module, "__file__", None) or "" for module in sys.modules.values()}
    with open("/proc/self/maps", "rb") as maps:
        mapped = {os.fsdecode(line.split(None, 5)[-1].strip()) for line in maps if b".so" in line}
    modules = {path for path in loaded if os.path.dirname(path) == ours}
    directories = {os.path.dirname(path) for path in (programs | loaded | mapped)}
    found = [*sorted(programs), *sorted(modules), *sorted(directories)]
    return [path for path in found if "\n" not in path and os.path.exists(path)]
