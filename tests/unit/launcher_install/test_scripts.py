"""The directory for PATH with the launcher by the name of each emulator."""

import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from qmpmem.errors import LaunchError
from qmpmem.launcher_install import Site, for_path
from qmpmem.launcher_install.scripts import compare, find_emulators, place
from qmpmem.launcher_install.wrapper import recognise
from tests.rig.install_roots import make_launchers
from tests.rig.users import NOBODY, needs_root

REAL = b"\x7fELF, an emulator\n"
SCRIPT = b"#!/bin/sh\n# a script\n"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    return Site(root=root, launchers=make_launchers(tmp_path / "launch ers"), python=None)


def program(path: Path, content: bytes = REAL, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_emulators_are_known_by_name(site: Site) -> None:
    emulators = {"kvm", "qemu-kvm", "qemu-system-x86_64", "qemu-system-x86_64-microvm"}
    others = {"distrib-kvm", "qemu-img", "qemu-x86_64", "qemu-system-", "kvm-ok", "my-kvm"}
    for name in emulators | others:
        program(site.path(f"/usr/bin/{name}"))
    assert find_emulators(site) == emulators


def test_what_cannot_run_and_what_is_a_launcher_already_gets_no_script(site: Site) -> None:
    launcher = (site.launchers / "kvm").read_bytes().replace(b"launchers=", b"launchers=/x")
    program(site.path("/usr/bin/kvm"), launcher)
    program(site.path("/usr/bin/qemu-system-arm"), mode=0o644)
    site.path("/usr/bin/qemu-system-mips").symlink_to("gone")
    site.path("/usr/bin/qemu-system-ppc").mkdir()
    program(site.path("/opt/q"))
    site.path("/usr/bin/qemu-system-avr").symlink_to("/opt/q")  # below the root, as chroot sees it
    assert find_emulators(site) == {"qemu-system-avr"}


def test_a_directory_is_brought_to_what_it_should_hold(tmp_path: Path) -> None:
    directory, wanted = tmp_path / "bin", frozenset(("a", "b"))
    assert compare(directory, SCRIPT, wanted) == "missing"
    place(directory, SCRIPT, wanted)
    assert compare(directory, SCRIPT, wanted) == "latest"
    (directory / "a").chmod(0o644)
    assert compare(directory, SCRIPT, wanted) == "outdated"
    (directory / "b").unlink()
    (directory / "b").symlink_to("/usr/bin/true")
    program(directory / "gone", SCRIPT)
    place(directory, SCRIPT, wanted)
    assert compare(directory, SCRIPT, wanted) == "latest"
    assert Path("/usr/bin/true").exists(), "a link is replaced, and not what it leads to"


def env(tmp_path: Path, **more: str) -> Mapping[str, str]:
    return {"PATH": "/opt/mine:relative::/usr/bin", "HOME": str(tmp_path / "home")} | more


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_user_gets_scripts_for_the_emulators_on_path(site: Site, tmp_path: Path) -> None:
    program(site.path("/usr/bin/qemu-system-x86_64"))
    program(site.path("/opt/mine/qemu-system-arm"))
    directory = for_path(site, env(tmp_path))
    assert directory == tmp_path / "home/.cache/qmpmem/bin"
    assert names(directory) == ["qemu-system-arm", "qemu-system-x86_64"]
    script = directory / "qemu-system-arm"
    assert recognise(script.read_bytes()) == "wrapper"
    assert f"\nlaunchers='{site.launchers}'\n" in script.read_text(), "quoted: there is a space"
    before = script.stat().st_mtime_ns
    assert for_path(site, env(tmp_path)) == directory
    assert script.stat().st_mtime_ns == before, "nothing is written twice"
    site.path("/opt/mine/qemu-system-arm").unlink()
    for_path(site, env(tmp_path))
    assert names(directory) == ["qemu-system-x86_64"]


def test_the_hosts_directory_is_used_where_it_covers_all(site: Site, tmp_path: Path) -> None:
    program(site.path("/usr/bin/qemu-system-x86_64"))
    site.bin.parent.mkdir(parents=True)
    place(site.bin, SCRIPT, frozenset(("qemu-system-x86_64",)))
    assert for_path(site, env(tmp_path)) == site.bin
    program(site.path("/opt/mine/qemu-system-arm"))
    assert for_path(site, env(tmp_path)) != site.bin


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"PATH": "/nothing"}, "PATH has no emulator .* apt install qemu-system-x86"),
        ({"HOME": ""}, "no place for scripts; set HOME"),
        ({"HOME": "", "XDG_CACHE_HOME": "here"}, "no place for scripts; set HOME"),
    ],
)
def test_what_is_missing_is_named(
    site: Site, tmp_path: Path, more: dict[str, str], said: str
) -> None:
    program(site.path("/usr/bin/qemu-system-x86_64"))
    with pytest.raises(LaunchError) as raised:
        for_path(site, env(tmp_path, **more))
    error = raised.value
    assert re.search(said, f"{error.message}; {error.hint}")


@pytest.mark.parametrize("below", ["qmpmem", "qmpmem/bin"])
def test_a_directory_in_which_others_may_write_is_refused(
    site: Site, tmp_path: Path, below: str
) -> None:
    program(site.path("/usr/bin/qemu-system-x86_64"))
    cache = tmp_path / "cache"
    (cache / "qmpmem/bin").mkdir(parents=True)
    (cache / below).chmod(0o777)
    with pytest.raises(LaunchError, match="every user may write it"):
        for_path(site, env(tmp_path, XDG_CACHE_HOME=str(cache)))
    assert names(cache / "qmpmem/bin") == []


@needs_root("it is another user's home")
def test_root_with_the_home_of_another_user_keeps_its_scripts_in_its_own(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(site.path("/usr/bin/qemu-system-x86_64"))
    home, own = tmp_path / "home", tmp_path / "own"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    roots = pwd.struct_passwd(("root", "x", 0, 0, "", str(own), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: roots)
    assert for_path(site, env(tmp_path)) == own / ".cache/qmpmem/bin"
    assert list(home.iterdir()) == []
