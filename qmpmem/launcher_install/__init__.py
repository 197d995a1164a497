"""Putting the launcher in the place of /usr/bin/kvm, and taking it out again.

root     where it is installed: a root, and what stands at which path
observe  a root seen as a layout; changes nothing
layout   what stands where a command is looked for
plan     which steps lead to the launcher in place, and back
apply    carries these steps out
wrapper  the launcher as a file
scripts  a directory with the launcher under the name of each emulator

Each function takes a root, so that an image can be prepared and a test needs no host. An install
that was cut off is finished by `install` and taken back by `uninstall`; `plan` says why.
"""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Final

from qmpmem.errors import LaunchError
from qmpmem.files import defaults, launcher_paths
from qmpmem.launcher_install.apply import carry_out
from qmpmem.launcher_install.layout import (
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
from qmpmem.launcher_install.observe import find_commands, observe
from qmpmem.launcher_install.plan import (
    judge,
    object_to_install,
    object_to_uninstall,
    plan_install,
    plan_uninstall,
)
from qmpmem.launcher_install.root import Site, alone
from qmpmem.launcher_install.scripts import EMULATOR, for_path
from qmpmem.records import replace

__all__ = [
    "BALLOON",
    "SETTINGS",
    "SNAPSHOTS",
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


BALLOON: Final = (
    '{"driver":"virtio-balloon-pci","id":"qmpmem0","bus":"pci.0","deflate-on-oom":true,'
    '"free-page-reporting":true}'
)
"""The balloon that the launcher adds on an ordinary machine, as a value of -device: for a guest
that is started without the launcher."""
SNAPSHOTS: Final = (
    "a snapshot that was taken through the launcher loads only with its balloon; "
    f"put last: -device '{BALLOON}' (on q35: pcie.0)"
)
SETTINGS: Final = "settings"
"""What a note about the host's defaults is about."""
PYTHON: Final = Path("/usr/bin/python3")
"""The Python that launchers/kvm tries first. An image's own Python may be of another version, and
then compiles the launchers for itself."""


def site(root: Path = Path("/"), launchers: Path | None = None) -> Site:
    """Return where to install what: by default the package's own launchers, on this host.

    Raises:
        LaunchError: the root is no directory, or the launchers are missing.
    """
    if not (root.is_absolute() and root.is_dir()):
        raise LaunchError(f"{root}: expected the absolute path of a directory")
    return Site(
        root=root,
        launchers=launchers or launcher_paths.launchers_directory(),
        python=PYTHON if PYTHON.is_file() else None,
    )


def status(where: Site) -> LauncherStatus:
    """Return whether kvm is our launcher.

    Raises:
        LaunchError: it cannot be seen.
    """
    layouts = [observe(site) for site in _sites(where)]
    layout = layouts[-1]
    # What is wrong with another command counts where kvm itself is in order.
    odd = next((each for each in (layout, *layouts) if judge(each) != "installed"), layout)
    objection = object_to_install(odd) or object_to_uninstall(odd)
    return LauncherStatus(
        state=judge(odd),
        root=str(where.root),
        kvm=layout.root + KVM,
        emulator=_emulator(layout),
        launchers=None if layout.library == "missing" else layout.root + LIBRARY,
        scripts=None if layout.scripts == "missing" else layout.root + BIN,
        method="dpkg-divert" if layout.dpkg else "rename",
        problem=objection.message if objection else None,
        hint=objection.hint if objection else None,
        also=tuple(each.root + each.command for each in layouts[:-1] if each.kvm == "wrapper"),
        notes=tuple(_notes(where, layout, is_alone=len(layouts) == 1)),
    )


def install(where: Site, also: Sequence[str] = (), *, dry_run: bool = False) -> list[Step]:
    """Put the launcher in the place of kvm, or bring it up to date.

    Args:
        where: the root.
        also: names of other emulators in whose place the launcher shall stand. Where it stands in
            the place of one already, it stays.
        dry_run: change nothing.

    Returns:
        The steps that were done, or with dry_run would be done; none if all is in place.

    Raises:
        LaunchError: something would be lost, there is no emulator, or a step failed. kvm works,
            however many steps were done by then.
    """
    if not dry_run:
        return list(installing(where, also))
    steps = [step for site in _sites(where, also) for step in plan_install(observe(site))]
    # What commands share is in the plan of each, and done once.
    return list({step.text: step for step in steps}.values())


def uninstall(where: Site, *, dry_run: bool = False) -> list[Step]:
    """Put kvm, and other commands, back as they were before install, to the byte.

    Returns:
        The steps that were done, or with dry_run would be done; none if nothing of ours is there.

    Raises:
        LaunchError: something would be lost, or a step failed. kvm works, however many steps were
            done by then.
    """
    if not dry_run:
        return list(uninstalling(where))
    return [step for site in _sites(where) for step in plan_uninstall(observe(site))]


def installing(where: Site, also: Sequence[str] = ()) -> Generator[Step]:
    """Do the steps of `install` one by one; yield each when it is done."""
    yield from _doing(where, _sites(where, also), plan_install)


def uninstalling(where: Site) -> Generator[Step]:
    """Do the steps of `uninstall` one by one; yield each when it is done."""
    yield from _doing(where, _sites(where), plan_uninstall)


def _doing(
    where: Site, sites: Sequence[Site], plan: Callable[[Layout], list[Step]]
) -> Generator[Step]:
    left = (path for site in sites for path in (site.half_written, site.lock))
    if not any(map(os.path.lexists, left)) and not any(plan(observe(site)) for site in sites):
        return  # which any user may find out, as may one whose disk cannot be written
    with alone(where):
        for site in sites:
            site.half_written.unlink(missing_ok=True)
        for site in sites:
            plan(observe(site))  # an objection to one command comes before the first change
        for site in sites:
            # Another command's steps change what is seen of this one.
            for step in plan(observe(site)):
                carry_out(site, step)
                yield step


def _sites(where: Site, also: Sequence[str] = ()) -> list[Site]:
    """Return a site for each command; the one for kvm is the last.

    Raises:
        LaunchError: a name is not one of an emulator.
    """
    for name in also:
        if name == "kvm" or not EMULATOR.fullmatch(name):
            raise LaunchError(
                f"{name}: expected the name of another emulator, such as qemu-system-x86_64"
            )
    commands = {f"/usr/bin/{name}" for name in also} | set(find_commands(where))
    return [replace(where, command=command) for command in (*sorted(commands), KVM)]


def _notes(where: Site, layout: Layout, *, is_alone: bool) -> Iterator[Note]:
    emulator = _emulator(layout)
    found = defaults.load(os.environ, where.root)
    set_up = found.values
    if found.problem is not None:
        yield Note(
            about=SETTINGS,
            problem=f"{found.path}: {found.problem}; nothing of it counts",
            hint="correct that, or remove the file",
        )
    is_settled = set_up.get("QMPMEM_ASK_SCRIPT") == "on" or bool(set_up.get("QMPMEM_REAL"))
    if layout.script == "opaque" and emulator is not None and not is_settled:
        yield Note(
            about="balloon",
            problem=f"{emulator}: a script that does more than start an emulator; guests get no "
            "balloon, because to ask it what it can do would run it twice",
            hint=f"if it may be, QMPMEM_ASK_SCRIPT=on in {defaults.path(os.environ)}; else start "
            "guests by the emulator that it starts: QMPMEM_REAL=/usr/bin/qemu-system-x86_64",
        )
    if is_alone and not layout.stands and layout.others:
        yield Note(
            about="kvm",
            problem=f"{layout.root}{KVM}: there is no such command; what starts emulators by "
            "their own names has to be told",
            hint=f"put {BIN} first on PATH (`qmpmem env`), or `qmpmem launcher install --also "
            "qemu-system-x86_64`",
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
