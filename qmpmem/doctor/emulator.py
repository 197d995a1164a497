"""The emulator, and what stands in the place of the kvm command."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qmpmem import launcher_install
from qmpmem.doctor.finding import Finding, Host, failed, ok, warning
from qmpmem.errors import LaunchError
from qmpmem.launcher_install import SETTINGS, LauncherStatus
from qmpmem.launcher_install.layout import KVM

PATIENCE: Final = 10.0
"""Seconds that an emulator has to answer `-version`, which takes 24 ms."""

_VERSION: Final = "QEMU emulator version "
_OLD_NAMES: Final = ("/usr/bin/kvm.real", "/usr/bin/kvm.distrib")
"""The old recipe's name for the emulator, and dpkg-divert's own."""
_START: Final = "`qmpmem launcher install`, or start guests with `qmpmem run`"


def check_emulator(host: Host) -> Iterator[Finding]:
    """Tell whether there is a QEMU, where, and which."""
    found = _find_emulator(host)
    if found is None:
        said = f"none: looked for {', '.join(_names(host))} on PATH"
        yield failed(
            "emulator",
            said,
            "install QEMU (Debian: `apt install qemu-system-x86`), or set QMPMEM_REAL",
        )
        return
    path = str(found) if found.resolve() == found else f"{found} -> {found.resolve()}"
    version = _version(found)
    if version is None:
        yield failed("emulator", f"{path}: `-version` does not answer as QEMU does", "install QEMU")
    else:
        yield ok("emulator", f"{path}, QEMU {version}")


def check_launcher(host: Host) -> Iterator[Finding]:
    """Tell whether kvm is our launcher."""
    status = _launcher(host)
    match status.state:
        case "installed":
            if status.emulator is None:  # there is no kvm command here
                yield ok("launcher", ", ".join(filter(None, (*status.also, status.scripts))))
            else:
                yield ok("launcher", f"{status.kvm}, which starts {status.emulator}")
        case "absent":
            said = f"not installed: what {status.kvm} starts has no balloon of ours"
            yield warning("launcher", said, _START)
        case "outdated":
            said = f"{status.kvm}: of another version"
            yield warning("launcher", said, "`qmpmem launcher install`")
        case "partial":
            said = f"{status.kvm}: an install or uninstall was cut off"
            yield warning("launcher", said, "`qmpmem launcher install`, or uninstall")
        case "blocked":
            yield failed("launcher", status.problem or "cannot be installed", status.hint)
    # `qmpmem.doctor.settings` tells more of the settings.
    for note in (each for each in status.notes if each.about != SETTINGS):
        yield warning(note.about, note.problem, note.hint)


def check_old_recipe(host: Host) -> Iterator[Finding]:
    """Tell whether the emulator is left under a name with which QEMU turns KVM off.

    QEMU prefers KVM only if its own name ends in kvm (QEMU: softmmu/vl.c, configure_accelerators).
    """
    found = [name for name in _OLD_NAMES if os.path.lexists(host.path(name))]
    for name in found:
        said = f"{name}: a QEMU started by this name runs emulated, without a word"
        if host.path(KVM).is_symlink():  # what packages bring is back in its place
            yield warning("old recipe", said, f"remove it: rm {name}")
        else:
            yield failed("old recipe", said, f"move it back: mv {name} {KVM}")
    if not found:
        yield ok("old recipe", "no emulator with a name that turns KVM off")


def _launcher(host: Host) -> LauncherStatus:
    return launcher_install.status(launcher_install.site(host.root, host.launchers))


def _find_emulator(host: Host) -> Path | None:
    chosen = host.environ.get("QMPMEM_REAL")
    if chosen and chosen.startswith("/") and _is_program(host.path(chosen)):
        return host.path(chosen)
    try:
        behind = _launcher(host).emulator
    except LaunchError:
        behind = None
    if behind is not None and _is_program(Path(behind)):
        return Path(behind)
    directories = [entry for entry in host.environ.get("PATH", "").split(":") if entry]
    paths = (host.path(entry) / name for name in _names(host) for entry in directories)
    return next(filter(_is_program, paths), None)


def _names(host: Host) -> tuple[str, ...]:
    return "kvm", f"qemu-system-{host.machine}", "qemu-kvm"


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _version(program: Path) -> str | None:
    try:
        done = subprocess.run(
            [program, "-version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.decode(errors="replace").splitlines()
    if not lines or not lines[0].startswith(_VERSION):
        return None
    return lines[0].removeprefix(_VERSION)
