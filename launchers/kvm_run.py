"""The run directory, which holds each guest's own: where it is, and whether it is safe.

Theory of operation:
    A guest's monitor may do all that its QEMU may do (QEMU: `migrate` with exec:), so what leads to
    it belongs to one user: the run directory, and all in it. It is opened once, and everything in
    it is then reached from that descriptor, whatever becomes of the path.

Rules of this file:
    A mode is changed only where the directory has none but entries of ours, and others cannot lead
    this process to it: it may be one that other programs need as it is.
"""

import errno
import os
import stat

from launchers.kvm_path import LedError, follow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_RUN = "/run/qmpmem/guests"
PARENT_MODE = 0o755
"""Others pass through it to the agent's socket."""
RUN_MODE = 0o700
GROUP = "qmpmem"
SHARED_MODE = 0o2770
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
HIDDEN = (".lock", ".python", ".emulator-", ".agent")
"""How the names of what is in a run directory begin, besides guests' own directories."""
SOCKET = "qmp.sock"
RECORD = "record.json"
CONFIG = "monitor.conf"
FILES = (SOCKET, f"{CONFIG}.new", CONFIG, f"{RECORD}.new", RECORD)
"""All that a launcher puts into a guest's; the record goes last, so what half went is stale."""


class ClaimError(Exception):
    """The run directory cannot be used: why, in one line."""


def run_directory(chosen: "str | None", environment: "Mapping[str, str]") -> str:
    """Return the run directory, as `qmpmem.guests.rundir.run_directory` does."""
    if chosen:
        return chosen.rstrip("/") or "/"
    if os.getuid() == 0:
        return SYSTEM_RUN
    return (environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}") + "/qmpmem"


class Run:
    """The run directory: its path, and a descriptor of it."""

    __slots__ = ("descriptor", "kept", "path")

    def __init__(self, path: str, descriptor: int, *, kept: bool) -> None:
        self.path = path
        self.descriptor = descriptor
        self.kept = kept
        """Whether only root and this user can exchange any directory on the way to it."""


def open_run(path: str, chosen: "str | None" = None) -> Run:
    """Open the run directory, which is made where it is missing, and see that it is safe to use.

    Args:
        path: its path.
        chosen: what the setting QMPMEM_RUN_DIR says, if anything.

    Raises:
        ClaimError: it cannot be made, or others could put something in our way there.
    """
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ClaimError(f"{path!r}: not UTF-8") from error
    try:
        run = find_or_make(path)
    except LedError as error:
        raise ClaimError(f"{error.filename}: {error.strerror}") from error
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise ClaimError(f"{path}: not a directory") from error
        raise ClaimError(f"{path}: {error.strerror} ({advise(path, chosen)})") from error
    try:
        expect_private(run)
    except BaseException:
        os.close(run.descriptor)
        raise
    return run


def find_or_make(path: str) -> Run:
    """Open the run directory, or make it.

    Raises:
        LedError: another user's link is on the way.
        OSError: neither can be done.
    """
    try:
        place = follow(path, behind=False)
    except FileNotFoundError:
        if path != SYSTEM_RUN:
            raise
        make_parent(os.path.dirname(path))
        place = follow(path, behind=False)
    try:
        try:
            descriptor = os.open(place.name, DIRECTORY, dir_fd=place.directory)
        except FileNotFoundError:
            descriptor = make_directory(place.name, place.directory, again=True)
    finally:
        os.close(place.directory)
    return Run(path, descriptor, kept=place.doubt is None)


def make_directory(name: str, within: int, *, again: bool = False) -> int:
    """Make a directory for this user alone, whatever the umask, and open it.

    Args:
        name: its name.
        within: the descriptor of the directory that it is in.
        again: open one that another process has made meanwhile.

    Raises:
        OSError: it cannot be made; FileExistsError: there is something.
    """
    try:
        os.mkdir(name, RUN_MODE, dir_fd=within)
    except FileExistsError:
        if not again:
            raise
    else:
        give_back(name, RUN_MODE, within)
    return os.open(name, DIRECTORY, dir_fd=within)


def give_back(name: str, mode: int, within: "int | None" = None) -> None:
    """Restore this user's rights to a new file of its own that the umask has taken away.

    The umask itself is never changed: it is one for all threads of a process (umask(2)).

    Args:
        name: the file, or directory.
        mode: what it was made with, less the umask.
        within: the descriptor of the directory that the name is in.

    Raises:
        OSError: it is gone, or a link.
    """
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        seen = os.fstat(descriptor)
        # Anything else is not what was just made, and gets no other mode.
        is_ours = seen.st_uid == os.geteuid() and not seen.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        if is_ours and seen.st_mode & mode != mode:
            os.chmod(f"/proc/self/fd/{descriptor}", mode)
    finally:
        os.close(descriptor)


def expect_private(run: Run) -> None:
    """Refuse a run directory in which others can write; one of ours is made private.

    Raises:
        ClaimError: it is another user's, or others can write there.
    """
    seen, path = os.fstat(run.descriptor), run.path
    if seen.st_uid != os.geteuid():
        raise ClaimError(f"{path}: belongs to user {seen.st_uid}")
    if seen.st_mode & stat.S_IWOTH:
        raise ClaimError(f"{path}: any user can write there")
    if path == SYSTEM_RUN and seen.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        os.fchmod(run.descriptor, RUN_MODE)
    elif seen.st_mode & stat.S_IWGRP:
        if not (run.kept and (was_shared(seen) or holds_guests_only(run.descriptor))):
            raise ClaimError(
                f"{path}: its group can write there; make it private: chmod 700 {path}"
            )
        os.fchmod(run.descriptor, RUN_MODE)


def was_shared(seen: os.stat_result) -> bool:
    """Tell whether a run directory is open to a group, as versions before 0.2.0 made root's."""
    import grp

    try:
        group = grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return False
    return (stat.S_IMODE(seen.st_mode), seen.st_gid) == (SHARED_MODE, group)


def holds_guests_only(run: int) -> bool:
    """Tell whether a directory is empty but for what launchers and agents put there."""
    for name in os.listdir(run):
        if name.startswith(HIDDEN):
            continue
        try:
            guest = os.open(name, DIRECTORY, dir_fd=run)
        except OSError:
            return False
        try:
            if not set(os.listdir(guest)) <= set(FILES):
                return False
        finally:
            os.close(guest)
    return True


def advise(run: str, chosen: "str | None") -> str:
    """Return what to do where the run directory cannot be made.

    A user without a login session has no /run/user/UID (systemd: pam_systemd(8)), as under cron,
    or as the account of a service. loginctl(1) takes numbers for users.
    """
    if chosen is None and os.getuid() != 0:
        return (
            f"without a login session, `loginctl enable-linger {os.getuid()}` as root makes "
            f"{os.path.dirname(run)}; or set QMPMEM_RUN_DIR to a directory of this user"
        )
    setting = "QMPMEM_RUN_DIR: " if chosen else ""
    return f"{setting}{os.path.dirname(run)} must be there, and this user's to write"


def make_parent(parent: str) -> None:
    """Make the directory above, which others pass through."""
    try:
        os.mkdir(parent)
    except FileExistsError:
        return
    descriptor = os.open(parent, DIRECTORY)
    try:
        os.fchmod(descriptor, PARENT_MODE)  # whatever the umask
    finally:
        os.close(descriptor)
