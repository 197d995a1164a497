"""The launcher in the place of kvm: installed, taken out, cut off, refused."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path

import pytest

from qmpmem.cli.agent_run import outdated_launcher
from qmpmem.errors import LaunchError
from qmpmem.files import launcher_paths
from qmpmem.launcher_install import (
    Site,
    Step,
    install,
    installing,
    site,
    status,
    uninstall,
    uninstalling,
)
from qmpmem.launcher_install.layout import NAMES
from qmpmem.launcher_install.root import find_sets
from qmpmem.launcher_install.wrapper import make_wrapper, recognise
from qmpmem.records import replace
from tests.rig import odd
from tests.rig.install_roots import (
    LAUNCHER,
    install_package,
    make_emulator,
    make_launchers,
    make_package,
    make_root,
    photograph,
    remove_package,
    run,
    run_kvm,
)
from tests.rig.patience import patient

REAL = "emulator 1 called kvm"
LAUNCHED = "emulator 1 called distrib-kvm"
NEWER = LAUNCHER.replace("launched", "newly launched")


def make_site(directory: Path, *, dpkg: bool) -> Site:
    root = make_root(directory / "root", dpkg=dpkg)
    launchers = make_launchers(directory / "launchers")
    return Site(root=root, launchers=launchers, python=None, patience=0)


@pytest.fixture(params=[True, False], ids=["dpkg", "rename"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return make_site(tmp_path, dpkg=request.param)


@pytest.fixture
def debian(tmp_path: Path) -> Site:
    return make_site(tmp_path, dpkg=True)


# There and back


def test_install_puts_the_launcher_before_the_emulator(place: Site) -> None:
    assert status(place).state == "absent"
    install(place)
    launched_from = f"launched from /{place.library.relative_to(place.root)}"
    assert run(str(place.kvm)).splitlines() == [launched_from, LAUNCHED]
    assert status(place).state == "installed"
    assert status(place).emulator == str(place.aside)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("make", [odd.fifo, odd.sparse, odd.directory, odd.link])
@pytest.mark.parametrize("where", ["library", "aside"])
def test_what_stands_in_place_of_a_file_is_not_read(
    place: Site, where: str, make: odd.Make
) -> None:
    """A host's files may be anything, and so may those of an image."""
    install(place)
    for path in [place.library / "kvm.py"] if where == "library" else [place.kvm, place.aside]:
        path.unlink()
        make(path)
        if not path.is_symlink():
            path.chmod(0o755)
    with suppress(LaunchError):
        assert status(place).state != "installed"
    with suppress(LaunchError):
        install(place)
    if make is odd.link and where == "library":
        assert odd.victim(place.library / "kvm.py").read_bytes() == odd.WORDS


def test_only_launchers_are_copied(place: Site) -> None:
    for stray in ("kvm.orig", "kvm.py~", "kvm_plan.pyc", ".kvm.py.swp", "notes", "unit.service"):
        (place.launchers / stray).write_text("not for hosts\n")
    (place.launchers / "kvm_plan.py").touch()
    (place.launchers / "guest").mkdir()
    install(place)
    assert sorted(path.name for path in place.library.iterdir()) == [
        "kvm",
        "kvm.py",
        "kvm_plan.py",
    ]


def test_both_are_idempotent(place: Site) -> None:
    before = photograph(place.root)
    assert uninstall(place) == []
    assert photograph(place.root) == before
    assert install(place)
    installed = photograph(place.root)
    assert install(place) == []
    assert photograph(place.root) == installed
    assert uninstall(place)
    assert uninstall(place) == []


@pytest.mark.parametrize("kind", ["link", "absolute link", "program"])
def test_uninstall_restores_to_the_byte(place: Site, kind: str) -> None:
    if kind == "absolute link":
        place.kvm.unlink()
        place.kvm.symlink_to("/usr/bin/emulator-of-this-root")
        place.path("/usr/bin/emulator-of-this-root").hardlink_to(
            place.path("/usr/bin/qemu-system-x86_64")
        )
    elif kind == "program":
        place.kvm.unlink()
        place.kvm.write_bytes(b"#!/bin/sh\necho hand-made\n")
        place.kvm.chmod(0o751)
    os.utime(place.kvm, ns=(1, 1_000_000_001), follow_symlinks=False)
    before = photograph(place.root)
    install(place)
    assert place.kvm.is_file()
    assert not place.kvm.is_symlink()
    uninstall(place)
    assert photograph(place.root).pop("var/lib/dpkg/diversions", None) in (None, _EMPTY)
    assert _without_diversions(place) == before


_EMPTY = (0o100644, os.geteuid(), os.getegid(), b"")


def _without_diversions(place: Site) -> dict[str, tuple[object, ...]]:
    """Leave out the empty list that dpkg-divert makes where there was none."""
    tree = photograph(place.root)
    if tree.get("var/lib/dpkg/diversions") == _EMPTY:
        del tree["var/lib/dpkg/diversions"]
    return tree


def test_other_diversions_are_kept(debian: Site) -> None:
    run("dpkg-divert", "--root", str(debian.root), "--no-rename", "--add", "/usr/bin/other")
    before = photograph(debian.root)
    install(debian)
    uninstall(debian)
    assert photograph(debian.root) == before


def test_a_dry_run_changes_nothing(place: Site) -> None:
    before = photograph(place.root)
    planned = install(place, dry_run=True)
    assert photograph(place.root) == before
    assert install(place) == planned
    installed = photograph(place.root)
    planned = uninstall(place, dry_run=True)
    assert photograph(place.root) == installed
    assert uninstall(place) == planned


def test_files_can_be_read_by_every_user_whatever_the_umask(place: Site) -> None:
    before = os.umask(0o077)
    try:
        install(place)
    finally:
        os.umask(before)
    for path in (place.kvm, place.library, place.sets, place.library / "kvm"):
        assert path.stat().st_mode & 0o777 == 0o755, path
    assert (place.library / "kvm.py").stat().st_mode & 0o777 == 0o644


def test_the_rest_of_the_launcher_is_compiled_for_every_user(place: Site) -> None:
    before = os.umask(0o077)
    try:
        install(replace(place, python=Path(sys.executable)))
    finally:
        os.umask(before)
    (compiled,) = (place.library / "__pycache__").iterdir()
    assert compiled.name == f"kvm.{sys.implementation.cache_tag}.pyc"
    assert compiled.parent.stat().st_mode & 0o777 == 0o755
    assert compiled.stat().st_mode & 0o777 == 0o644
    assert status(place).state == "installed"
    uninstall(place)
    assert not place.sets.exists()


def test_a_new_version_takes_the_place_of_the_old(place: Site, tmp_path: Path) -> None:
    install(place)
    newer = make_launchers(tmp_path / "newer", text=NEWER)
    (newer / "kvm.py").rename(newer / "kvm_more.py")
    update = replace(place, launchers=newer)
    assert status(update).state == "outdated"
    install(update)
    assert "newly launched" in run(str(place.kvm))
    assert status(update).state == "installed"
    assert sorted(path.name for path in update.library.iterdir()) == ["kvm", "kvm_more.py"]
    assert find_sets(place) == [update.library]
    uninstall(update)
    assert run_kvm(place.root) == REAL


def test_an_old_version_is_uninstalled_by_a_new_one(place: Site, tmp_path: Path) -> None:
    before = _without_diversions(place)
    install(place)
    uninstall(replace(place, launchers=make_launchers(tmp_path / "newer", text=NEWER)))
    assert _without_diversions(place) == before


def test_the_agent_names_a_launcher_of_another_version(place: Site) -> None:
    assert outdated_launcher(place.root) is None, "none is installed"
    install(place)
    said = outdated_launcher(place.root)
    assert said == f"{place.kvm}: the launcher is of another version; run `qmpmem launcher install`"
    install(site(place.root))
    assert outdated_launcher(place.root) is None


SLOW = """#!/bin/sh
# A stand-in for the qmpmem launcher that is slow: its files are read with a pause in between.
launchers=
root=${0%/usr/bin/*}
cat "$root$launchers/kvm_one.py"
test -z "$1" || { echo reading; read -r _; }
cat "$root$launchers/kvm_two.py"
"""


def make_slow_launchers(directory: Path, version: str) -> Path:
    make_launchers(directory, text=SLOW)
    for name in ("kvm_one.py", "kvm_two.py"):
        (directory / name).write_text(f"{version}\n")
    return directory


def test_a_launch_during_an_update_never_mixes_two_versions(place: Site, tmp_path: Path) -> None:
    old = replace(place, launchers=make_slow_launchers(tmp_path / "old", "old"))
    new = replace(place, launchers=make_slow_launchers(tmp_path / "new", "new"))
    install(old)
    with subprocess.Popen(
        [str(place.kvm), "slowly"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as launch:
        assert launch.stdin is not None
        assert launch.stdout is not None
        assert [launch.stdout.readline() for _ in range(2)] == ["old\n", "reading\n"]
        seen: list[str] = []
        for step in installing(new):
            seen.append(run(str(place.kvm)))
            if step.action == "place-wrapper":  # now the patience begins, after which it goes
                launch.stdin.write("\n")
                launch.stdin.flush()
                assert launch.stdout.read() == "old\n"
    assert seen == ["old\nold\n", *["new\nnew\n"] * 3]
    assert find_sets(place) == [new.library]


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("then", [install, uninstall])
def test_an_update_that_is_cut_off_leaves_one_whole_version(
    place: Site, tmp_path: Path, then: Callable[[Site], list[Step]], after: int
) -> None:
    before = _without_diversions(place)
    install(replace(place, launchers=make_slow_launchers(tmp_path / "old", "old")))
    new = replace(place, launchers=make_slow_launchers(tmp_path / "new", "new"))
    cut_off(installing(new), after)
    assert run(str(place.kvm)) in ("old\nold\n", "new\nnew\n")
    assert status(new).state == [*["outdated"] * 3, "partial", "installed"][after]
    then(new)
    if then is install:
        assert run(str(place.kvm)) == "new\nnew\n"
        assert status(new).state == "installed"
        uninstall(new)
    assert _without_diversions(place) == before


def test_launchers_that_were_copied_in_part_stop_neither_a_start_nor_an_install(
    place: Site, tmp_path: Path
) -> None:
    install(replace(place, launchers=make_slow_launchers(tmp_path / "old", "old")))
    new = replace(place, launchers=make_slow_launchers(tmp_path / "new", "new"))
    new.library.mkdir()
    (new.library / ".kvm.qmpmem-new").write_text("half a laun")
    assert run(str(place.kvm)) == "old\nold\n"
    install(new)
    assert run(str(place.kvm)) == "new\nnew\n"


def test_launchers_of_before_there_were_versions_are_replaced(place: Site) -> None:
    before = _without_diversions(place)
    install(place)
    earlier = place.sets / "launchers"
    place.library.rename(earlier)
    place.kvm.unlink()
    place.kvm.write_bytes(make_wrapper(LAUNCHER.encode(), "/usr/lib/qmpmem/launchers"))
    place.kvm.chmod(0o755)
    assert status(place).state == "outdated"
    install(place)
    assert status(place).state == "installed"
    assert find_sets(place) == [place.library]
    place.library.rename(earlier)
    uninstall(place)
    assert _without_diversions(place) == before


# Cut off


def cut_off(work: Generator[Step], after: int) -> int:
    """Stop after so many steps; returns how many there were."""
    with closing(work):
        return sum(1 for _ in islice(work, after))


@pytest.mark.parametrize("after", [1, 2, 3, 4])
@pytest.mark.parametrize("then", [install, uninstall])
@pytest.mark.parametrize("begin", [installing, uninstalling])
def test_cut_off_after_any_step_kvm_works_and_both_ways_lead_on(
    place: Site,
    begin: Callable[[Site], Generator[Step]],
    then: Callable[[Site], list[Step]],
    after: int,
) -> None:
    before = _without_diversions(place)
    if begin is uninstalling:
        install(place)
    cut_off(begin(place), after)
    assert run_kvm(place.root) in (REAL, LAUNCHED)
    assert status(place).state != "blocked"
    then(place)
    if then is install:
        assert run_kvm(place.root) == LAUNCHED
        assert status(place).state == "installed"
        uninstall(place)
    assert run_kvm(place.root) == REAL
    assert status(place).state == "absent"
    assert _without_diversions(place) == before


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("then", [install, uninstall])
@pytest.mark.parametrize("begin", [installing, uninstalling])
def test_an_upgrade_between_any_two_steps_is_kept(
    debian: Site,
    begin: Callable[[Site], Generator[Step]],
    then: Callable[[Site], list[Step]],
    after: int,
) -> None:
    if begin is uninstalling:
        install(debian)
    cut_off(begin(debian), after)
    install_package(debian.root, make_package("2"))
    assert run_kvm(debian.root).startswith("emulator 2")
    then(debian)
    if then is install:
        assert run_kvm(debian.root) == "emulator 2 called distrib-kvm"
        uninstall(debian)
    assert run_kvm(debian.root) == "emulator 2 called kvm"
    assert not os.path.lexists(debian.aside)
    remove_package(debian.root)  # and with its last file, dpkg removes the directory
    assert not (debian.root / "usr/bin").exists()


KEEP_CALLING = """
while test ! -e "$2"; do "$1" || echo failed; done
"""


def test_at_every_moment_kvm_works(place: Site, tmp_path: Path) -> None:
    place = replace(place, patience=patient(0.1))
    stop, output = tmp_path / "stop", tmp_path / "output"
    with output.open("wb") as file:
        command = ["sh", "-c", KEEP_CALLING, "sh", str(place.kvm), str(stop)]
        with subprocess.Popen(command, stdout=file, stderr=file) as caller:
            for _ in range(8):
                install(place)
                uninstall(place)
            stop.touch()
            caller.wait()
    assert set(output.read_text().splitlines()) == {
        REAL,
        f"launched from /{place.library.relative_to(place.root)}",
        LAUNCHED,
    }


FOR_EVER = """
import sys
import tempfile
from pathlib import Path
from qmpmem.launcher_install import Site, install, uninstall
place = Site(root=Path(sys.argv[1]), launchers=Path(sys.argv[2]), python=None, patience=0)
print("ready", flush=True)
while True:
    install(place)
    uninstall(place)
"""


@pytest.mark.timeout(60)
def test_killed_at_any_moment_kvm_works_and_can_be_restored(place: Site) -> None:
    place = replace(place, patience=0.02)  # for the lock of a dpkg-divert that is just dying
    before = _without_diversions(place)
    for moment in range(10):
        command = [sys.executable, "-c", FOR_EVER, str(place.root), str(place.launchers)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                worker.wait(timeout=moment * 0.0037)
            os.killpg(worker.pid, signal.SIGKILL)  # and a dpkg-divert that it is waiting for
        assert run_kvm(place.root) in (REAL, LAUNCHED)
        uninstall(place)
        assert _without_diversions(place) == before


def test_what_a_killed_write_left_is_removed(place: Site) -> None:
    before = _without_diversions(place)
    (place.root / "usr/bin/.kvm.qmpmem-new").write_text("half a laun")
    uninstall(place)
    assert _without_diversions(place) == before
    (place.root / "usr/bin/.kvm.qmpmem-new").write_text("half a laun")
    install(place)
    (place.library / ".kvm.qmpmem-new").write_text("half a laun")
    (place.library / "kvm").unlink()
    install(place)
    assert sorted(path.name for path in place.library.iterdir()) == ["kvm", "kvm.py"]
    uninstall(place)
    assert _without_diversions(place) == before


def test_what_a_killed_removal_left_is_removed(place: Site) -> None:
    before = _without_diversions(place)
    place.sets.mkdir()
    assert status(place).state == "partial"
    uninstall(place)
    assert _without_diversions(place) == before


def test_what_others_keep_beside_the_launchers_stays(place: Site) -> None:
    place.sets.mkdir()
    (place.sets / "theirs").touch()
    before = _without_diversions(place)
    install(place)
    uninstall(place)
    assert _without_diversions(place) == before


# Refused


def edit(place: Site) -> None:
    install(place)
    with place.kvm.open("a") as file:
        file.write("# my change\n")


def edit_the_middle(place: Site) -> None:
    install(place)
    place.kvm.write_text(place.kvm.read_text().replace('exec "', 'exec nice "'))


def replace_installed(place: Site) -> None:
    install(place)
    place.kvm.unlink()
    place.kvm.write_text("#!/bin/sh\nexec my-own-thing\n")
    place.kvm.chmod(0o755)


def lose_emulator(place: Site) -> None:
    install(place)
    place.aside.unlink()


def occupy(place: Site) -> None:
    place.aside.write_text("something else\n")


def occupy_with_the_same(place: Site) -> None:
    place.aside.symlink_to("qemu-system-x86_64")


def use_old_recipe(place: Site) -> None:
    place.kvm.rename(place.kvm.with_name("kvm.real"))
    place.kvm.write_text('#!/bin/sh\nexec /usr/bin/kvm.real -balloon virtio "$@"\n')
    place.kvm.chmod(0o755)


def link_by_hand(place: Site) -> None:
    place.kvm.unlink()
    ours = place.path("/opt/kvm")
    ours.parent.mkdir(exist_ok=True)
    ours.write_bytes((place.launchers / "kvm").read_bytes())
    ours.chmod(0o755)
    place.kvm.symlink_to(os.path.relpath(ours, place.kvm.parent))


def copy_by_hand(place: Site) -> None:
    place.kvm.unlink()
    place.kvm.write_bytes((place.launchers / "kvm").read_bytes())
    place.kvm.chmod(0o755)


def break_link(place: Site) -> None:
    (place.root / "usr/bin/qemu-system-x86_64").unlink()


def make_unexecutable(place: Site) -> None:
    (place.root / "usr/bin/qemu-system-x86_64").chmod(0o644)


def have_none(place: Site) -> None:
    place.kvm.unlink()
    place.path("/usr/bin/qemu-system-x86_64").unlink()


@pytest.mark.parametrize(
    ("prepare", "problem", "hint"),
    [
        (edit, "changed by hand", "ln -f"),
        (edit_the_middle, "changed by hand", "ln -f"),
        (replace_installed, "replaced", "kvm"),
        (lose_emulator, "no emulator", "install QEMU again"),
        (occupy, "not ours", "move it"),
        (occupy_with_the_same, "not ours", "move it"),
        (use_old_recipe, "turns KVM off", "/usr/bin/kvm.real "),
        (link_by_hand, "made by hand", "ln -sfn qemu-system-x86_64"),
        (copy_by_hand, "changed by hand", "ln -sfn qemu"),
        (break_link, "leads to no program", "install QEMU"),
        (make_unexecutable, "leads to no program", "install QEMU"),
        (have_none, "no such program", "install QEMU"),
    ],
)
def test_install_refuses_and_touches_nothing(
    place: Site, prepare: Callable[[Site], None], problem: str, hint: str
) -> None:
    prepare(place)
    before = photograph(place.root)
    with pytest.raises(LaunchError, match=problem) as refusal:
        install(place)
    assert refusal.value.exit_code == 3
    assert refusal.value.hint is not None
    assert hint in refusal.value.hint
    assert photograph(place.root) == before
    assert status(place).state == "blocked"
    assert status(place).problem == refusal.value.message


@pytest.mark.parametrize(
    ("prepare", "problem"),
    [
        (edit, "changed by hand"),
        (edit_the_middle, "changed by hand"),
        (replace_installed, "replaced by hand|an upgrade replaced"),
    ],
)
def test_uninstall_refuses_to_lose_changes(
    place: Site, prepare: Callable[[Site], None], problem: str
) -> None:
    prepare(place)
    before = photograph(place.root)
    with pytest.raises(LaunchError, match=problem):
        uninstall(place)
    assert photograph(place.root) == before


@pytest.mark.parametrize("prepare", [edit, edit_the_middle])
def test_the_way_back_that_is_hinted_at_works(place: Site, prepare: Callable[[Site], None]) -> None:
    before = _without_diversions(place)
    prepare(place)
    hint = status(place).hint
    assert hint is not None
    run("sh", "-c", hint.partition("then: ")[2])
    assert run_kvm(place.root) == REAL
    uninstall(place)
    assert _without_diversions(place) == before


@pytest.mark.parametrize("prepare", [copy_by_hand, link_by_hand])
def test_the_way_back_from_a_launcher_put_there_by_hand_works(
    place: Site, prepare: Callable[[Site], None]
) -> None:
    prepare(place)
    assert uninstall(place) == []
    hint = status(place).hint
    assert hint is not None
    run("sh", "-c", hint[hint.index("ln ") :])
    assert run_kvm(place.root) == REAL
    assert status(place).state == "absent"


def test_the_undoing_of_the_old_recipe_works(place: Site) -> None:
    before = photograph(place.root)
    use_old_recipe(place)
    hint = status(place).hint
    assert hint is not None
    run("sh", "-c", hint.partition("first: ")[2])
    assert photograph(place.root) == before
    install(place)
    assert run_kvm(place.root) == LAUNCHED


def test_a_leftover_of_the_old_recipe_is_no_obstacle(place: Site) -> None:
    place.kvm.with_name("kvm.real").symlink_to("qemu-system-x86_64")
    install(place)
    assert run_kvm(place.root) == LAUNCHED


@pytest.mark.parametrize("owner", ["--local", "--package=another"])
def test_a_foreign_diversion_is_respected(debian: Site, owner: str) -> None:
    divert = ("dpkg-divert", "--root", str(debian.root), "--no-rename", owner)
    run(*divert, "--divert", "/usr/bin/kvm.theirs", "--add", "/usr/bin/kvm")
    before = photograph(debian.root)
    with pytest.raises(LaunchError, match=r"diverted to /usr/bin/kvm\.theirs by (LOCAL|another)"):
        install(debian)
    assert uninstall(debian) == []
    assert photograph(debian.root) == before


def test_a_launcher_that_the_administrator_diverts_stays(debian: Site) -> None:
    install(debian)
    divert = ("dpkg-divert", "--root", str(debian.root), "--no-rename", "--quiet")
    run(*divert, "--remove", "/usr/bin/kvm")
    run(*divert, "--local", "--divert", "/usr/bin/kvm.theirs", "--add", "/usr/bin/kvm")
    before = photograph(debian.root)
    with pytest.raises(LaunchError, match="diverted to"):
        uninstall(debian)
    assert photograph(debian.root) == before


def test_a_launcher_that_only_its_owner_may_run_is_repaired(place: Site) -> None:
    install(place)
    place.kvm.chmod(0o700)
    assert status(place).state == "outdated"
    install(place)
    assert place.kvm.stat().st_mode & 0o777 == 0o755


def test_a_removed_launcher_is_put_back_or_taken_out(place: Site) -> None:
    before = _without_diversions(place)
    install(place)
    place.kvm.unlink()
    assert [step.action for step in install(place)] == ["place-wrapper"]
    assert run_kvm(place.root) == LAUNCHED
    place.kvm.unlink()
    uninstall(place)
    assert _without_diversions(place) == before


def test_a_lost_diversion_is_made_again(debian: Site) -> None:
    install(debian)
    run("dpkg-divert", "--root", str(debian.root), "--no-rename", "--remove", "/usr/bin/kvm")
    assert status(debian).state == "partial"
    install(debian)
    assert status(debian).state == "installed"


def test_without_dpkg_an_upgrade_that_replaced_the_launcher_is_seen(tmp_path: Path) -> None:
    place = make_site(tmp_path, dpkg=False)
    install(place)
    place.kvm.unlink()
    make_emulator(tmp_path / "two", "2")
    place.kvm.write_bytes((tmp_path / "two/kvm").read_bytes())
    place.kvm.chmod(0o755)
    hint = status(place).hint
    assert hint is not None
    run("sh", "-c", hint.partition("remove it: ")[2])
    install(place)
    assert run_kvm(place.root) == "emulator 2 called distrib-kvm"
    uninstall(place)
    assert run_kvm(place.root) == "emulator 2 called kvm"


def test_a_removed_package_leaves_a_launcher_that_can_be_removed(debian: Site) -> None:
    install(debian)
    remove_package(debian.root)
    with pytest.raises(LaunchError, match="no emulator"):
        install(debian)
    uninstall(debian)
    assert list((debian.root / "usr/bin").iterdir()) == []


def test_only_one_at_a_time(place: Site) -> None:
    first = installing(place)
    next(first)
    with pytest.raises(LaunchError, match="under way"):
        install(place)
    list(first)
    assert status(place).state == "installed"


@pytest.mark.parametrize("mode", [None, 0o600, 0o666])
def test_what_other_users_can_lock_does_not_stop_an_install(place: Site, mode: int | None) -> None:
    """Any user may lock what it can open (flock(2)), such as /usr/bin, or a lock of mode 0666."""
    if mode is not None:
        place.lock.touch()
        place.lock.chmod(mode)
    held = [place.kvm.parent, *([place.lock] if mode == 0o666 else [])]
    descriptors = [os.open(path, os.O_RDONLY) for path in held]
    try:
        for each in descriptors:
            fcntl.flock(each, fcntl.LOCK_EX)
        install(place)
        assert status(place).state == "installed"
        assert not place.lock.exists()
        uninstall(place)
    finally:
        for each in descriptors:
            os.close(each)


@pytest.mark.parametrize("make", [odd.fifo, odd.link])
def test_what_stands_in_place_of_the_lock_is_replaced(place: Site, make: odd.Make) -> None:
    make(place.lock)
    install(place)
    assert status(place).state == "installed"
    assert not os.path.lexists(place.lock)


def test_where_nothing_is_to_be_done_nothing_is_written(place: Site) -> None:
    install(place)
    before = place.kvm.parent.stat().st_mtime_ns
    assert install(place) == []
    assert place.kvm.parent.stat().st_mtime_ns == before


def hint_for_ordinary_user(place: Site) -> str | None:
    """Try to install as a user without rights, in a process of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresuid(65534, 65534, 65534)
            install(place)
        except LaunchError as error:
            os.write(writer, str(error.hint).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as answer:
        return answer.read()


@pytest.mark.parametrize("dpkg", [True, False])
def test_without_rights_the_hint_says_so(*, dpkg: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="qm-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        root = make_root(directory / "root", dpkg=dpkg)
        place = Site(root=root, launchers=make_launchers(directory / "launchers"), python=None)
        before = photograph(root)
        (root / "usr/lib").chmod(0o555)
        assert hint_for_ordinary_user(place) == "run as root"
        (root / "usr/lib").chmod(0o755)
        assert photograph(root) == before


def test_a_root_must_be_a_directory(tmp_path: Path) -> None:
    for root in (tmp_path / "none", Path("relative")):
        with pytest.raises(LaunchError, match="expected the absolute path"):
            site(root, tmp_path)


def test_an_empty_root_has_no_kvm(tmp_path: Path) -> None:
    place = site(tmp_path, make_launchers(tmp_path / "launchers"))
    assert status(place).state == "blocked"
    with pytest.raises(LaunchError):
        install(place)


# What guests lack all the same


def make_script(place: Site, last: str) -> None:
    place.kvm.unlink()
    place.kvm.write_text(f"#! /bin/sh\n{last}\n")
    place.kvm.chmod(0o755)


@pytest.mark.parametrize("installed", [False, True])
@pytest.mark.parametrize(
    ("last", "defaults", "about"),
    [
        ('exec qemu-system-x86_64 -enable-kvm "$@"', "", []),
        ('modprobe tun; exec qemu-system-x86_64 "$@"', "", ["balloon"]),
        ('modprobe tun; exec qemu-system-x86_64 "$@"', "QMPMEM_ASK_SCRIPT=on", []),
        ('modprobe tun; exec qemu-system-x86_64 "$@"', "QMPMEM_REAL=/usr/bin/qemu", []),
    ],
)
def test_a_script_that_is_not_understood_is_told(
    place: Site, last: str, defaults: str, about: list[str], *, installed: bool
) -> None:
    make_script(place, last)
    place.path("/etc/default").mkdir(parents=True)
    place.path("/etc/default/qmpmem").write_text(defaults)
    if installed:
        install(place)
    assert [note.about for note in status(place).notes] == about


def test_settings_that_cannot_be_believed_are_told(place: Site) -> None:
    """Row F86."""
    make_script(place, 'modprobe tun; exec qemu-system-x86_64 "$@"')
    place.path("/etc/default").mkdir(parents=True)
    path = place.path("/etc/default/qmpmem")
    path.write_text("QMPMEM_ASK_SCRIPT=on")
    path.chmod(0o666)
    notes = status(place).notes
    assert [note.about for note in notes] == ["settings", "balloon"]
    assert "every user may write it" in notes[0].problem


@pytest.mark.parametrize("name", ["/usr/bin/kvm", f"{NAMES}/kvm"])
def test_a_directory_in_the_way_is_named(place: Site, name: str) -> None:
    """Row F87: also where the system names two paths."""
    install(place)
    path = place.path(name)
    path.unlink()
    (path / "inside").mkdir(parents=True)
    with pytest.raises(LaunchError) as caught:
        install(place)
    assert caught.value.message.startswith(f"{path}: "), caught.value


def test_a_link_that_is_missing_is_told_and_made_again(place: Site) -> None:
    make_script(place, 'exec qemu-system-x86_64 "$@"')
    install(place)
    link = place.path(f"{NAMES}/kvm")
    assert link.resolve() == place.aside.resolve()
    link.unlink()
    assert status(place).state == "partial"
    assert [note.about for note in status(place).notes] == ["process name"]
    assert [step.action for step in install(place)] == ["keep-name"]
    assert (status(place).state, status(place).notes) == ("installed", ())


# In the place of other emulators, too

ALSO = ("qemu-system-x86_64",)
COMMANDS = ("kvm", "qemu-system-x86_64", "qemu-system-amd64")


@pytest.fixture
def several(place: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A root with an emulator of three names, and the real launcher for it."""
    place.path("/usr/bin/qemu-system-amd64").symlink_to("qemu-system-x86_64")
    monkeypatch.setenv("QMPMEM_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("QMPMEM_DEFAULTS", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    return replace(place, launchers=launcher_paths.launchers_directory())


def answers(where: Site) -> set[str]:
    """Run the emulator by each of its names, which must work; returns its versions."""
    lines = [run(str(where.path(f"/usr/bin/{name}"))) for name in COMMANDS]
    return {line.partition(" called ")[0] for line in lines}


def test_the_launcher_stands_in_the_place_of_each_emulator_that_is_named(several: Site) -> None:
    before = _without_diversions(several)
    install(several, ALSO)
    for name in ("kvm", *ALSO):
        assert recognise(several.path(f"/usr/bin/{name}").read_bytes()) == "wrapper"
    assert answers(several) == {"emulator 1"}
    seen = status(several)
    assert (seen.state, seen.also) == ("installed", (str(several.path("/usr/bin/" + ALSO[0])),))
    assert install(several) == [], "what was named once stays"
    link = several.path("/usr/lib/qmpmem/distrib/kvm")
    assert link.resolve() == several.path("/usr/bin/distrib-qemu-system-x86_64")
    uninstall(several)
    assert _without_diversions(several) == before


def test_another_emulator_can_be_named_later(several: Site) -> None:
    before = _without_diversions(several)
    install(several)
    assert status(several).also == ()
    install(several, ALSO)
    assert answers(several) == {"emulator 1"}
    assert install(several, ALSO) == []
    uninstall(several)
    assert _without_diversions(several) == before


@pytest.mark.parametrize("begin", ["install", "uninstall"])
def test_cut_off_anywhere_each_emulator_works_and_either_command_finishes(
    several: Site, begin: str
) -> None:
    before = _without_diversions(several)
    after = done = 0
    while done == after:
        after += 1
        if begin == "uninstall":
            install(several, ALSO)
        steps = installing(several, ALSO) if begin == "install" else uninstalling(several)
        done = cut_off(steps, after)
        assert answers(several) == {"emulator 1"}, after
        then = (install, uninstall)[after % 2]
        then(several)
        assert answers(several) == {"emulator 1"}, after
        uninstall(several)
        assert _without_diversions(several) == before, after
    assert after > len(ALSO) * 4


def test_an_upgrade_of_the_package_is_launched_too(several: Site) -> None:
    if not status(several).method.startswith("dpkg"):
        pytest.skip("there is no package here")
    install(several, ALSO)
    install_package(several.root, make_package("2"))
    assert answers(several) == {"emulator 2"}
    assert status(several).state == "installed"


@pytest.mark.parametrize("name", ["kvm", "ls", "../kvm", "/usr/bin/qemu-system-x86_64", ""])
def test_only_emulators_can_be_named(several: Site, name: str) -> None:
    before = photograph(several.root)
    with pytest.raises(LaunchError, match="expected the name of another emulator"):
        install(several, (name,))
    assert photograph(several.root) == before


def test_an_emulator_that_is_not_there_is_named(several: Site) -> None:
    before = photograph(several.root)
    with pytest.raises(LaunchError, match="qemu-system-arm: there is no such program"):
        install(several, ("qemu-system-arm",))
    assert photograph(several.root) == before


# No command of the name kvm, as on Arch Linux or Fedora


@pytest.fixture
def without_kvm(several: Site) -> Site:
    several.kvm.unlink()
    return several


def test_without_kvm_the_other_emulators_get_the_launcher(without_kvm: Site) -> None:
    before = _without_diversions(without_kvm)
    assert [note.about for note in status(without_kvm).notes] == ["kvm"]
    install(without_kvm)
    seen = status(without_kvm)
    assert (seen.state, seen.emulator, seen.scripts) == ("installed", None, str(without_kvm.bin))
    assert {path.name for path in without_kvm.bin.iterdir()} == set(COMMANDS) - {"kvm"}
    install(without_kvm, ALSO)
    assert recognise(without_kvm.path(f"/usr/bin/{ALSO[0]}").read_bytes()) == "wrapper"
    assert (status(without_kvm).state, status(without_kvm).notes) == ("installed", ())
    assert install(without_kvm) == []
    assert not os.path.lexists(without_kvm.kvm)
    uninstall(without_kvm)
    assert _without_diversions(without_kvm) == before


def test_a_kvm_that_comes_later_gets_it_at_the_next_install(without_kvm: Site) -> None:
    install(without_kvm)
    without_kvm.kvm.symlink_to("qemu-system-x86_64")
    assert status(without_kvm).state != "installed"
    install(without_kvm)
    assert status(without_kvm).state == "installed"
    assert run(str(without_kvm.kvm)).startswith("emulator 1 called ")


def test_an_objection_to_one_command_leaves_all_as_they_are(several: Site) -> None:
    several.kvm.unlink()
    several.kvm.symlink_to("nothing")
    before = photograph(several.root)
    with pytest.raises(LaunchError, match="leads to no program"):
        install(several, ALSO)
    assert photograph(several.root) == before


ESCAPES = (
    *("usr", "usr/bin", "usr/lib", "usr/lib/qmpmem", "usr/lib/qmpmem/bin"),
    *("usr/lib/qmpmem/distrib", "usr/lib/qmpmem/SET", "usr/bin/kvm", "usr/bin/distrib-kvm"),
    *("usr/bin/.kvm.qmpmem-new", "usr/bin/.lock.qmpmem-new"),
    *("var", "var/lib/dpkg", "var/lib/dpkg/status"),
    *("var/lib/dpkg/diversions", "var/lib/dpkg/diversions-new"),
)


@pytest.mark.parametrize("way", ["absolute", "relative", "inside"])
@pytest.mark.parametrize("escape", ESCAPES)
def test_nothing_outside_an_image_is_changed_by_a_link_in_it(
    place: Site, tmp_path: Path, escape: str, way: str
) -> None:
    """The links lead to a copy of the image itself, so that all is there that could be changed."""
    host = tmp_path / "host"
    shutil.copytree(place.root, host, symlinks=True)
    path = place.root / escape.replace("SET", place.library.name)
    there = host / path.relative_to(place.root)
    for each in (there, path):
        each.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(there):
        if "." in there.name or there.name in ("diversions", "status"):
            there.write_text("")
        else:
            there.mkdir()
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    target = {
        "absolute": there,
        "relative": Path("../" * 20, there.relative_to("/")),
        "inside": Path("/proc/self/root", there.relative_to("/")),
    }[way]
    path.symlink_to(target)
    before = photograph(host)
    with suppress(LaunchError):
        install(place)
    assert photograph(host) == before
    with suppress(LaunchError):
        status(place)
    with suppress(LaunchError):
        uninstall(place)
    assert photograph(host) == before
