"""What all commands that put a systemd unit in place have in common."""

import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from qmpmem import systemd
from qmpmem.cli.app import put, put_json, say
from qmpmem.errors import LaunchError
from qmpmem.records import replace
from qmpmem.systemd import Unit, UnitStatus

_BOOTED = Path("/run/systemd/system")
"""The directory that is there where systemd runs this host: sd_booted(3)."""
_BROKER = "broker"
_PATIENCE = 5.0
"""Seconds that systemctl has to answer."""
_PASSING = ("/tmp", "/var/tmp")  # noqa: S108 - nothing is made there
_RUNNING = 30.0
"""Seconds after which a program that is tried counts as one that runs."""


def expect_runnable(user: str, root: Path) -> None:
    """Expect that a user whom systemd is to run this program as can run it.

    A virtual environment in root's home, say, is closed to all other users.

    Args:
        user: its name. One that is yet to be made has the rights of every user.
        root: where the unit is to be; in an image nothing is tried.

    Raises:
        LaunchError: it cannot, or it is in /tmp.
    """
    _expect_lasting(root)
    if root != Path("/") or os.geteuid() != 0:
        return
    program = _program()
    try:
        known = pwd.getpwnam(user)
    except KeyError:
        known = pwd.getpwnam("nobody")
    why = _try_as(known, [program, "--version"])
    if why is not None:
        raise LaunchError(
            f"{program}: the user {user} cannot run it: {why}",
            hint="install qmpmem where every user can, as in /opt",
        )


def _expect_lasting(root: Path) -> None:
    """Expect that this program is there after a boot, and where services have a /tmp of their own.

    Raises:
        LaunchError: it is not.
    """
    program = Path(_program())
    if root == Path("/") and any(program.is_relative_to(each) for each in _PASSING):
        raise LaunchError(
            f"{program}: a service does not see it there, and a boot may remove it",
            hint="install qmpmem elsewhere, as in /opt",
        )


def _try_as(user: pwd.struct_passwd, words: Sequence[str]) -> str | None:
    """Run a program as a user; returns why it cannot, if it cannot."""
    try:
        ran = subprocess.run(
            words,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=os.getgrouplist(user.pw_name, user.pw_gid),
            cwd="/",
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_RUNNING,
            check=False,
        )
    except OSError as error:
        return error.strerror or str(error)
    except subprocess.TimeoutExpired:  # it runs
        return None
    said = ran.stderr.decode(errors="backslashreplace").split("\n")
    return None if ran.returncode == 0 else next((each for each in said[::-1] if each), "it failed")


def install_unit(
    unit: Unit,
    root: Path,
    *,
    json: bool,
    needs: Sequence[Unit] = (),
    after: Callable[[Path], list[str]] | None = None,
) -> None:
    """Put a unit in place; say what was done, and what comes next.

    Args:
        unit: the unit.
        root: where.
        json: say it as JSON.
        needs: units that are put in place first.
        after: what is done when it is in place; returns what was done, a line each.
    """
    _expect_lasting(root)
    lines = systemd.install(unit, root, _program(), needs)
    lines += [] if after is None else after(root)
    _tell(lines, json=json)
    if not lines:
        return
    if root != Path("/"):
        say("next: start that system; systemd starts it then")
    elif _BOOTED.is_dir():
        say(f"next: `systemctl daemon-reload && systemctl restart {Path(unit.name).stem}`")
    else:
        say("next: start this host with systemd, which does not run it now")


def uninstall_unit(unit: Unit, root: Path, *, json: bool, done: Sequence[str] = ()) -> None:
    """Take a unit out again; as `install_unit`."""
    lines = [*done, *systemd.uninstall(unit, root)]
    _tell(lines, json=json)
    if lines and root == Path("/") and _BOOTED.is_dir():
        stem = Path(unit.name).stem
        say(f"next: `systemctl stop {stem}; systemctl daemon-reload`, where it still runs")


def show_unit(unit: Unit, root: Path, *, json: bool, needs: Sequence[Unit] = ()) -> None:
    """Show whether a unit, and each unit that it needs, is in place, and whether it runs."""
    from qmpmem.cli.show_guests import show_pairs

    seen = replace(_look(unit, root), needs=tuple(_look(each, root) for each in needs))
    if json:
        put_json(seen)
        return
    for each in (seen, *seen.needs):
        show_pairs(_shown(each))


def _look(unit: Unit, root: Path) -> UnitStatus:
    seen = systemd.status(unit, root, _program())
    is_here = root == Path("/") and _BOOTED.is_dir()
    return replace(seen, active=_ask_systemd(unit)) if is_here else seen


def _shown(seen: UnitStatus) -> list[tuple[str, str]]:
    command = seen.name.removeprefix("qmpmem-").removesuffix(".service")
    words = f"{command} service install"
    if seen.needs or command == _BROKER:
        words = "agent service install --separate"
    todo = {
        "absent": f"`qmpmem {words}`",
        "outdated": f"`qmpmem {words}`",
        "foreign": f"not written by qmpmem; move {seen.path} out of the way",
    }
    return [
        ("state", seen.state),
        ("unit", seen.path),
        ("starts with the host", "yes" if seen.enabled else "no"),
        ("runs", "not known: systemd does not run here" if seen.active is None else seen.active),
        *([("to do", todo[seen.state])] if seen.state in todo else []),
    ]


def _tell(lines: list[str], *, json: bool) -> None:
    if json:
        put_json({"changed": bool(lines), "done": lines})
        return
    for line in lines or ["nothing to change"]:
        put(line)


def _ask_systemd(unit: Unit) -> str | None:
    """Ask whether a unit runs: active, inactive, failed and so on (systemctl(1), is-active)."""
    words = ["systemctl", "is-active", unit.name]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _program() -> str:
    return os.path.abspath(sys.argv[0])  # noqa: PTH100 - a link to it stays one
