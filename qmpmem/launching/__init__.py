"""Putting the launcher in the place of /usr/bin/kvm, and taking it out again.

Each function takes a root, so that an image can be prepared and a test needs no host. An install
that was cut off is finished by `install` and taken back by `uninstall`; `plan` says why.
"""

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

from qmpmem import defaults, places
from qmpmem.errors import LaunchError
from qmpmem.launching.host import Site, alone
from qmpmem.launching.layout import (
    ASIDE,
    BIN,
    KVM,
    LIBRARY,
    NAMES,
    LauncherStatus,
    Layout,
    Note,
    Step,
)
from qmpmem.launching.observe import observe
from qmpmem.launching.plan import (
    judge,
    object_to_install,
    object_to_uninstall,
    plan_install,
    plan_uninstall,
)
from qmpmem.launching.scripts import for_path
from qmpmem.launching.steps import carry_out

__all__ = [
    "LauncherStatus",
    "Note",
    "Site",
    "Step",
    "for_path",
    "install",
    "installing",
    "site",
    "status",
    "uninstall",
    "uninstalling",
]


PYTHON: Final = Path("/usr/bin/python3")
"""What launchers/kvm tries first. An image's own may be another version; it compiles for itself."""


def site(root: Path = Path("/"), launchers: Path | None = None) -> Site:
    """Say where to install: by default on this host, the launchers that came with this package.

    Raises:
        LaunchError: the root is no directory, or the launchers are missing.
    """
    if not (root.is_absolute() and root.is_dir()):
        raise LaunchError(f"{root}: expected the absolute path of a directory")
    return Site(
        root=root,
        launchers=launchers or places.launchers_directory(),
        python=PYTHON if PYTHON.is_file() else None,
    )


def status(where: Site) -> LauncherStatus:
    """Say whether kvm is our launcher.

    Raises:
        LaunchError: it cannot be seen.
    """
    layout = observe(where)
    objection = object_to_install(layout) or object_to_uninstall(layout)
    return LauncherStatus(
        state=judge(layout),
        root=str(where.root),
        kvm=layout.root + KVM,
        emulator=_emulator(layout),
        launchers=None if layout.library == "missing" else layout.root + LIBRARY,
        scripts=None if layout.scripts == "missing" else layout.root + BIN,
        method="dpkg-divert" if layout.dpkg else "rename",
        problem=objection.message if objection else None,
        hint=objection.hint if objection else None,
        notes=tuple(_notes(where, layout)),
    )


def install(where: Site, *, dry_run: bool = False) -> list[Step]:
    """Put the launcher in the place of kvm, or bring it up to date.

    Returns:
        The steps that were done, or with dry_run would be; none if all is in place.

    Raises:
        LaunchError: something would be lost, there is no emulator, or a step failed. Whatever was
            done by then, kvm works.
    """
    return plan_install(observe(where)) if dry_run else list(installing(where))


def uninstall(where: Site, *, dry_run: bool = False) -> list[Step]:
    """Put kvm back as it was before install, to the byte.

    Returns:
        The steps that were done, or with dry_run would be; none if nothing of ours is there.

    Raises:
        LaunchError: something would be lost, or a step failed. Whatever was done by then, kvm
            works.
    """
    return plan_uninstall(observe(where)) if dry_run else list(uninstalling(where))


def installing(where: Site) -> Generator[Step]:
    """Do the steps of `install` one by one; yield each when it is done."""
    with alone(where):
        for step in plan_install(observe(where)):
            carry_out(where, step)
            yield step


def uninstalling(where: Site) -> Generator[Step]:
    """Do the steps of `uninstall` one by one; yield each when it is done."""
    with alone(where):
        for step in plan_uninstall(observe(where)):
            carry_out(where, step)
            yield step


def _notes(where: Site, layout: Layout) -> Iterator[Note]:
    emulator = _emulator(layout)
    set_up = defaults.load(os.environ, where.root).values
    is_settled = set_up.get("QMPMEM_ASK_SCRIPT") == "on" or bool(set_up.get("QMPMEM_REAL"))
    if layout.script == "opaque" and emulator is not None and not is_settled:
        yield Note(
            about="balloon",
            problem=f"{emulator}: a script that does more than start an emulator; guests get no "
            "balloon, because to ask it what it can do would run it twice",
            hint=f"if it may be, QMPMEM_ASK_SCRIPT=on in {defaults.path(os.environ)}; else start "
            "guests by the emulator that it starts: QMPMEM_REAL=/usr/bin/qemu-system-x86_64",
        )
    if layout.kvm == "wrapper" and layout.aside and not layout.named:
        yield Note(
            about="process name",
            problem=f"{layout.root}{NAMES}: the link is missing, so guests' processes are called "
            f"{Path(ASIDE).name}, and `killall kvm` does not find them",
            hint="`qmpmem launcher install` makes it again",
        )


def _emulator(layout: Layout) -> str | None:
    if layout.kvm in ("wrapper", "changed") or layout.orphaned:
        return layout.root + ASIDE if layout.aside else None
    return layout.root + KVM if layout.kvm == "real" else None
