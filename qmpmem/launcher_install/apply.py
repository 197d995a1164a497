"""The steps of a plan, carried out.

Rules of this file:
    A step is one rename, link or unlink of the name that matters. Killed anywhere in between, it
    leaves at most a file that ends in .qmpmem-new, which the next run removes, or a part of the
    launchers that no kvm names, which the next run completes or removes.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Literal, assert_never

from qmpmem.launcher_install import scripts
from qmpmem.launcher_install.layout import NAMES, PACKAGE, Step, TakesBack, aside_of
from qmpmem.launcher_install.root import (
    DATA,
    PROGRAM,
    Site,
    beside,
    dpkg_divert,
    explained,
    find_real,
    find_sets,
    name_link,
    read_launchers,
    read_wrapper,
    run,
    target_of,
    write,
)


def carry_out(site: Site, step: Step) -> None:
    """Do one step.

    Raises:
        LaunchError: it could not be done; kvm works as before.
    """
    with explained(site.root):
        match step.action:
            case "copy-launchers":
                _copy_launchers(site)
            case "divert":
                _divert(site, "--add")
            case "set-aside":
                os.link(site.kvm, site.aside, follow_symlinks=False)
            case "keep-name":
                keep_name(site)
            case "place-wrapper":
                write(site.kvm, read_wrapper(site), PROGRAM)
            case "place-scripts":
                scripts.place(site.bin, read_wrapper(site), scripts.find_emulators(site))
            case _:
                _take_back(site, step.action)


def _take_back(site: Site, action: TakesBack) -> None:
    match action:
        case "put-back":
            os.link(site.aside, site.half_written, follow_symlinks=False)
            site.half_written.replace(site.kvm)
        case "undivert":
            _divert(site, "--remove")
        case "drop-aside" | "drop-older":
            time.sleep(site.patience)
            _drop(site, action)
        case "remove-wrapper" | "remove-scripts" | "remove-launchers":
            _remove(site, action)
        case _:
            assert_never(action)


def keep_name(site: Site) -> None:
    """Have the processes of an emulator that was set aside called as before.

    Raises:
        OSError: the link cannot be made.
    """
    link = name_link(site, site.kvm.name)
    for directory in (site.sets, link.parent):
        directory.mkdir(exist_ok=True)
        directory.chmod(PROGRAM)
    new = beside(link)
    new.unlink(missing_ok=True)
    new.symlink_to(target_of(find_real(site)))
    new.replace(link)


def _divert(site: Site, command: Literal["--add", "--remove"]) -> None:
    names = ("--package", PACKAGE, "--divert", aside_of(site.command))
    dpkg_divert(site.root, "--quiet", *names, "--no-rename", command, site.command)


def _copy_launchers(site: Site) -> None:
    library = site.library
    for directory in (site.sets, library):
        directory.mkdir(exist_ok=True)
        directory.chmod(PROGRAM)  # whatever the umask: every user's kvm reads it
    wanted = read_launchers(site)
    for name, content in wanted.items():
        write(library / name, content, PROGRAM if name == "kvm" else DATA)
    for path in library.iterdir():
        if path.is_file() and path.name not in wanted:
            path.unlink()
    _compile(site, library)


def _compile(site: Site, library: Path) -> None:
    """Compile the launchers once, as only root can keep them compiled.

    Without that, launching takes longer.
    """
    shutil.rmtree(library / "__pycache__", ignore_errors=True)
    sources = [str(path) for path in library.glob("*.py")]
    if site.python is not None and sources:
        run(str(site.python), "-I", "-S", "-m", "py_compile", *sources)


def _drop(site: Site, action: Literal["drop-aside", "drop-older"]) -> None:
    if action == "drop-aside":
        site.aside.unlink()
        return
    for path in find_sets(site):
        if path != site.library:
            shutil.rmtree(path)


def _remove(
    site: Site, action: Literal["remove-wrapper", "remove-scripts", "remove-launchers"]
) -> None:
    if action == "remove-wrapper":
        site.kvm.unlink()
        return
    if action == "remove-launchers":
        shutil.rmtree(site.directory(NAMES), ignore_errors=True)
    for path in find_sets(site) if action == "remove-launchers" else [site.bin]:
        shutil.rmtree(path)
    if not any(site.sets.iterdir()):
        site.sets.rmdir()
