"""The run directory, which holds each guest's own: where it is, and whether it is safe."""

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_RUN = "/run/qmpmem/guests"
PARENT_MODE = 0o755
GROUP = "qmpmem"
RUN_MODE = 0o2770
"""What the group may see and remove, and new entries belong to the group, too."""


class ClaimError(Exception):
    """The run directory cannot be used: why, in one line."""


def run_directory(chosen: "str | None", environment: "Mapping[str, str]") -> str:
    """Name the run directory, as `qmpmem.rundir.run_directory` does."""
    if chosen:
        return chosen.rstrip("/") or "/"
    if os.getuid() == 0:
        return SYSTEM_RUN
    return (environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}") + "/qmpmem"


def open_run(run: str, chosen: "str | None" = None) -> None:
    """Make the run directory if it is missing, and see that it is safe to use.

    Args:
        run: its path.
        chosen: what the setting QMPMEM_RUN_DIR says, if anything.

    Raises:
        ClaimError: it cannot be made, or others could put something in our way there.
    """
    try:
        try:
            seen = os.lstat(run)
        except FileNotFoundError:
            make_run(run)
            seen = os.lstat(run)
    except OSError as error:
        raise ClaimError(f"{run}: {error.strerror} ({advise(run, chosen)})") from error
    if not stat.S_ISDIR(seen.st_mode):
        raise ClaimError(f"{run}: not a directory")
    if seen.st_uid not in (0, os.geteuid()):
        raise ClaimError(f"{run}: belongs to user {seen.st_uid}")
    if seen.st_mode & stat.S_IWOTH:
        raise ClaimError(f"{run}: everybody can write there")
    try:
        run.encode()
    except UnicodeEncodeError as error:
        raise ClaimError(f"{run!r}: not UTF-8") from error


def advise(run: str, chosen: "str | None") -> str:
    """Say what to do where the run directory cannot be made.

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
    os.chmod(parent, PARENT_MODE)  # whatever the umask


def make_run(run: str) -> None:
    """Make the run directory: for this user alone, or, as root, for the group qmpmem, too."""
    if run == SYSTEM_RUN:
        make_parent(os.path.dirname(run))
    try:
        os.mkdir(run, 0o700)
    except FileExistsError:
        return  # somebody else was quicker
    if os.geteuid() == 0:
        import grp

        try:
            os.chown(run, 0, grp.getgrnam(GROUP).gr_gid)
        except KeyError:
            return
        os.chmod(run, RUN_MODE)
