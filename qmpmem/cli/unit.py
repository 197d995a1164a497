"""What all commands that put a systemd unit in place have in common."""

import os
import sys
from pathlib import Path

from qmpmem import service
from qmpmem.cli.app import put, say
from qmpmem.service import Unit

_BOOTED = Path("/run/systemd/system")
"""There where systemd runs this host: sd_booted(3)."""


def install_unit(unit: Unit, root: Path) -> None:
    """Put a unit in place, and say what was done."""
    program = os.path.abspath(sys.argv[0])  # noqa: PTH100 - a link to it stays one
    _say_done(service.install(unit, root, program), root)


def uninstall_unit(unit: Unit, root: Path) -> None:
    """Take a unit out again, and say what was done."""
    _say_done(service.uninstall(unit, root), root)


def _say_done(lines: list[str], root: Path) -> None:
    for line in lines or ["nothing to change"]:
        put(line)
    if lines and root == Path("/") and _BOOTED.is_dir():
        say("`systemctl daemon-reload` makes systemd see it now")
