"""The proof that Python and the launchers worked: what the shim reads to spare a trial.

    first line      the Python, as the shim calls it
    other lines     what must be there, and not newer than the stamp, for the proof to hold

Rules of this file:
    The stamp is dated to before anything was read, so a change since then shows.
    It is in a directory of its own, in which no other user can put anything. A shell can tell so
    much of a directory that it is in, and reads no file that may be a pipe.
"""

import os
import stat
import sys

from launchers.kvm_run import DIRECTORY, RUN_MODE, make_directory

PLACE = ".python"
NAME = "proof"


def leave_stamp(run: int, python: str, started: float) -> None:
    """Leave a stamp behind in the run directory.

    Args:
        run: a descriptor of the run directory.
        python: as the shim calls it.
        started: a moment before this process began, in seconds since 1970.

    Raises:
        OSError: no room, or no right.
    """
    if "\n" in python or not python.startswith("/"):
        return  # what a relative path calls, another directory has as well
    place = open_place(run)
    try:
        write(place, "\n".join((python, *foundations(python), "")), started)
    finally:
        os.close(place)


def open_place(run: int) -> int:
    """Open the directory of the stamp. What an earlier version left in its place is removed.

    Raises:
        OSError: no room, or no right.
    """
    try:
        place = os.open(PLACE, DIRECTORY, dir_fd=run)
    except FileNotFoundError:
        return make_directory(PLACE, run)
    except NotADirectoryError:
        os.unlink(PLACE, dir_fd=run)
        return make_directory(PLACE, run)
    try:
        if stat.S_IMODE(os.fstat(place).st_mode) != RUN_MODE:
            os.fchmod(place, RUN_MODE)
    except BaseException:
        os.close(place)
        raise
    return place


def write(place: int, text: str, moment: float) -> None:
    """Write the stamp, and date it; an older one stays if that fails.

    Raises:
        OSError: no room, or no right.
    """
    beside = f"{NAME}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(beside, flags, 0o600, dir_fd=place)
    try:
        os.write(descriptor, os.fsencode(text))
        os.utime(beside, (moment, moment), dir_fd=place)
        os.rename(beside, NAME, src_dir_fd=place, dst_dir_fd=place)
    except BaseException:
        os.unlink(beside, dir_fd=place)
        raise
    finally:
        os.close(descriptor)


def foundations(python: str) -> "list[str]":
    """List what this process stands on: few enough for a shell to look at each time.

    A package brings files by renaming them, which the directory shows; our own are also edited.
    """
    ours = os.path.dirname(os.path.abspath(__file__))
    programs = {python, sys.executable, os.path.realpath(sys.executable)}
    files = (getattr(module, "__file__", None) for module in sys.modules.values())
    loaded = {os.path.abspath(file) for file in files if file}
    with open("/proc/self/maps", "rb") as maps:
        mapped = {os.fsdecode(line.split(None, 5)[-1].strip()) for line in maps if b".so" in line}
    modules = {path for path in loaded if os.path.dirname(path) == ours}
    directories = {os.path.dirname(path) for path in (programs | loaded | mapped)}
    found = [*sorted(programs), *sorted(modules), *sorted(directories)]
    return [path for path in found if "\n" not in path and os.path.exists(path)]
