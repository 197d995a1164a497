"""The shell shim in front: which emulator, which Python, and what if there is none that works."""

import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from launchers import kvm_emulator
from tests.rig import chance, mounts
from tests.rig.command import PROGRAM, Ran
from tests.rig.launcher import (
    LAUNCHERS,
    PLAYED,
    SHIM,
    Emulator,
    copy_launchers,
    draw_words,
    opened,
)
from tests.rig.patience import patient
from tests.rig.qemu import short_directory, until
from tests.rig.users import AS_ORDINARY, NOBODY, ORDINARY, give_to_another_user, needs_root

BALLOON: Final = (
    b'{"driver":"virtio-balloon-pci","id":"qmpmem0","bus":"pci.0","deflate-on-oom":true,'
    b'"free-page-reporting":true}'
)
CONFIG: Final = b"/proc/self/fd/501"
"""The second of the descriptors that the launcher hands on."""
GUEST: Final = ("-m", "256", "-name", "it")
SHELLS: Final = [
    [path, "sh"] if path.endswith("busybox") else [path]
    for path in map(shutil.which, ("dash", "bash", "busybox"))
    if path
]
each_shell = pytest.mark.parametrize("shell", SHELLS, ids=lambda words: Path(words[0]).name)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with short_directory() as directory:
        yield Emulator(directory)


def added(emulator: Emulator, words: Sequence[str | bytes]) -> list[bytes]:
    """What the emulator got beyond the user's words, which must come first and unchanged."""
    got = emulator.words()
    given = [os.fsencode(word) for word in words]
    assert got[: len(given)] == given
    return got[len(given) :]


def suffix(emulator: Emulator, guest: str = "it") -> list[bytes]:
    assert (emulator.run / guest / "record.json").is_file()
    return [b"-readconfig", CONFIG, b"-device", BALLOON]


def script(path: Path, text: str) -> None:
    """Write a shell script that may be run."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def forget(emulator: Emulator) -> None:
    shutil.rmtree(emulator.run, ignore_errors=True)


def test_a_guest_gets_a_monitor_and_a_balloon(emulator: Emulator) -> None:
    ran = emulator.launch(*GUEST)
    assert (ran.code, ran.out, ran.err) == (PLAYED, "", "")
    assert added(emulator, GUEST) == suffix(emulator)


@pytest.mark.parametrize("words", [["-h"], ["-version"], ["-M", "none"], ["-device", "help"]])
def test_nothing_is_touched_where_nothing_is_added(emulator: Emulator, words: list[str]) -> None:
    ran = emulator.launch(*words)
    assert (ran.code, ran.err) == (PLAYED, "")
    assert added(emulator, words) == []
    assert not emulator.run.exists()


class TestFindingTheEmulator:
    """distrib-kvm beside the shim, QMPMEM_REAL, or PATH, but never ourselves."""

    NO_REAL: Final = {"QMPMEM_REAL": ""}

    @staticmethod
    def install(directory: Path, name: str = "kvm") -> Path:
        """Put a launcher in place, as `qmpmem launcher install` does."""
        directory.mkdir(exist_ok=True)
        text = SHIM.read_text()
        assert text.count("\nlaunchers=") == 1
        lines = text.splitlines()
        place = next(number for number, line in enumerate(lines) if line.startswith("launchers="))
        lines[place] = f"launchers={LAUNCHERS}"
        (directory / name).write_text("\n".join([*lines, "# sealed", ""]))
        (directory / name).chmod(0o755)
        return directory / name

    def test_beside_the_launcher(self, emulator: Emulator) -> None:
        shim = self.install(emulator.path.parent / "bin")
        beside = Emulator(shim.parent, "distrib-kvm")
        beside.run = emulator.run
        assert beside.launch(*GUEST, environ=self.NO_REAL, shim=shim).code == PLAYED
        assert added(beside, GUEST) == suffix(emulator)

    @pytest.mark.parametrize("link", ["soft", "hard", "copy"])
    def test_past_ourselves_on_path(self, emulator: Emulator, link: str) -> None:
        here = emulator.path.parent
        shim = self.install(here / "a")
        (here / "b").mkdir()
        if link == "soft":
            (here / "b/kvm").symlink_to(shim)
        elif link == "hard":
            (here / "b/kvm").hardlink_to(shim)
        else:
            shutil.copy(shim, here / "b/kvm")
        (here / "c").mkdir()
        found = Emulator(here / "c", "kvm")
        path = f"{here}/a:{here}/b::{here}/c:{emulator.tools}"
        ran = found.launch(*GUEST, environ=self.NO_REAL | {"PATH": path}, shim=shim)
        assert (ran.code, ran.err) == (PLAYED, "")
        assert added(found, GUEST) == suffix(found)

    def test_through_a_link_to_the_launcher(self, emulator: Emulator) -> None:
        link = emulator.path.parent / "kvm"
        link.symlink_to(SHIM)
        assert emulator.launch(*GUEST, shim=link).err == ""
        assert added(emulator, GUEST) == suffix(emulator)

    @pytest.mark.parametrize("worked", [False, True])
    def test_through_a_link_without_readlink(self, emulator: Emulator, *, worked: bool) -> None:
        """What is behind the link cannot be found out; a proof of other launchers is none."""
        if worked:
            emulator.launch(*GUEST)
            added(emulator, GUEST)
            shutil.rmtree(emulator.run / "it")
        link = emulator.path.parent / "kvm"
        link.symlink_to(SHIM)
        (emulator.tools / "readlink").unlink()
        ran = emulator.launch(*GUEST, shim=link)
        assert (ran.code, ran.err.count("\n")) == (PLAYED, 1)
        assert "does not work" in ran.err
        assert added(emulator, GUEST) == []

    def test_beside_what_a_link_leads_to(self, emulator: Emulator) -> None:
        here = emulator.path.parent
        shim = self.install(here / "bin")
        beside = Emulator(shim.parent, "distrib-kvm")
        text = shim.read_text().replace(f"launchers={LAUNCHERS}", "launchers=/proc/nonexistent")
        shim.write_text(text)
        for file in LAUNCHERS.glob("kvm*.py"):
            shutil.copy(file, shim.parent)
        link = here / "kvm"
        link.symlink_to("bin/kvm")
        beside.run = emulator.run
        assert beside.launch(*GUEST, environ=self.NO_REAL, shim=link).err == ""
        assert added(beside, GUEST) == suffix(emulator)

    def test_another_name_on_path(self, emulator: Emulator) -> None:
        here = emulator.path.parent
        found = Emulator(here, "qemu-system-x86_64")
        ran = found.launch(*GUEST, environ=self.NO_REAL | {"PATH": f"{here}:{here}/tools"})
        assert (ran.code, ran.err) == (PLAYED, "")
        assert added(found, GUEST) == suffix(emulator)

    def test_the_launcher_under_another_emulators_name(self, emulator: Emulator) -> None:
        here = emulator.path.parent
        shim = self.install(here / "a", "qemu-system-aarch64")
        (here / "b").mkdir()
        found = Emulator(here / "b", "qemu-system-aarch64")
        path = f"{here}/a:{here}/b:{emulator.tools}"
        assert found.launch(*GUEST, environ=self.NO_REAL | {"PATH": path}, shim=shim).code == PLAYED
        assert added(found, GUEST)

    def test_none(self, emulator: Emulator) -> None:
        shim = self.install(emulator.path.parent / "a")
        environ = self.NO_REAL | {"PATH": f"{emulator.path.parent}/a"}
        ran = emulator.launch(*GUEST, environ=environ, shim=shim)
        assert ran.code == 127
        assert "no emulator found" in ran.err

    @pytest.mark.parametrize(
        "real", ["/proc/nonexistent", "/", "/etc/passwd", str(SHIM), "nonexistent"]
    )
    def test_a_setting_that_names_none_is_told(self, emulator: Emulator, real: str) -> None:
        here = emulator.path.parent
        found = Emulator(here, "kvm")
        environ = {"QMPMEM_REAL": real, "PATH": f"{here}:{emulator.tools}"}
        ran = found.launch(*GUEST, environ=environ)
        assert ran.code == PLAYED
        assert ran.err.startswith("qmpmem: QMPMEM_REAL does not name an emulator")
        assert added(found, GUEST)

    def test_a_name_in_the_setting_is_looked_for_on_path(self, emulator: Emulator) -> None:
        environ = {"QMPMEM_REAL": "real-kvm", "PATH": f"{emulator.path.parent}:{emulator.tools}"}
        assert emulator.launch(*GUEST, environ=environ).err == ""
        assert added(emulator, GUEST) == suffix(emulator)

    def test_a_script_that_calls_us_back_does_not_go_round_in_circles(
        self, emulator: Emulator
    ) -> None:
        here = emulator.path.parent
        script(here / "kvm", f'exec {SHIM} "$@"')
        found = Emulator(here, "qemu-system-x86_64")
        ran = found.launch(*GUEST, environ=self.NO_REAL | {"PATH": f"{here}:{emulator.tools}"})
        assert ran.code == PLAYED
        got = added(found, GUEST)
        assert got.count(b"-readconfig") == 1

    def test_defaults_of_the_host(self, emulator: Emulator) -> None:
        defaults = emulator.path.with_name("defaults")
        defaults.write_text(
            f'# site\nQMPMEM_REAL="{emulator.path}"\nQMPMEM_KSM=off\nOTHER=$(false)'
        )
        ran = emulator.launch(*GUEST, environ={"QMPMEM_REAL": "", "QMPMEM_DEFAULTS": str(defaults)})
        assert (ran.code, ran.err) == (PLAYED, "")
        assert b"mem-merge=off" in added(emulator, GUEST)

    @needs_root("gives files to a group")
    @pytest.mark.parametrize("named", ["QMPMEM_REAL", "QMPMEM_PYTHON", "QMPMEM_MODE"])
    @pytest.mark.parametrize("unsafe", ["file", "directory", "behind", "list"])
    def test_defaults_that_others_may_write_name_nothing_that_is_run(
        self, emulator: Emulator, named: str, unsafe: str
    ) -> None:
        here = emulator.path.parent / "etc"
        behind = here / "elsewhere" / "defaults"
        behind.parent.mkdir(parents=True)
        trap, ran = here / "trap", here / "ran"
        trap.write_text(f"#!/bin/sh\ntouch {ran}\nexit 1\n")
        trap.chmod(0o755)
        behind.write_text(f"{named}={'static' if named == 'QMPMEM_MODE' else trap}\n")
        (here / "defaults").symlink_to(behind)
        places = {"file": behind, "directory": here, "behind": behind.parent, "list": behind}
        if unsafe == "list":
            give_to_another_user(behind)
        else:
            os.chown(places[unsafe], -1, NOBODY)
        places[unsafe].chmod(0o775 if places[unsafe].is_dir() else 0o664)
        (here / "qemu-system-x86_64").symlink_to(emulator.path)
        environ = {
            "QMPMEM_DEFAULTS": str(here / "defaults"),
            "PATH": f"{here}:{emulator.tools}",
            named: "",
        }
        got = emulator.launch(*GUEST, environ=environ)
        assert got.code == PLAYED
        assert named == "QMPMEM_REAL" or added(emulator, GUEST) == []
        [line] = got.err.splitlines()
        assert "others may write it" in line
        assert not ran.exists()

    def test_defaults_are_never_executed(self, emulator: Emulator) -> None:
        defaults = emulator.path.with_name("defaults")
        trap = emulator.path.with_name("trap")
        defaults.write_text(f"X=$(touch {trap})\nQMPMEM_PYTHON=`touch {trap}`\ntouch {trap}\n")
        emulator.launch(*GUEST, environ={"QMPMEM_DEFAULTS": str(defaults)})
        assert not trap.exists()

    @pytest.mark.parametrize("missing", ["/dev/null", "/proc/nonexistent", "/dev/null/below"])
    def test_defaults_that_are_not_there_say_nothing(
        self, emulator: Emulator, missing: str
    ) -> None:
        assert emulator.launch(*GUEST, environ={"QMPMEM_DEFAULTS": missing}).err == ""
        assert added(emulator, GUEST) == suffix(emulator)


class TestTheHostsOwnDefaults:
    """In a mount namespace of its own, with another /etc/default."""

    SCRIPT: Final = """
mount -t tmpfs -o mode=755 none /etc/default || exit 99
cp -pP "$FILE" /etc/default/qmpmem || exit 99
exec "$@"
"""

    def launched(self, emulator: Emulator, file: Path, **environ: str) -> Ran:
        environ = {"QMPMEM_DEFAULTS": "", "FILE": str(file)} | environ
        environ["PATH"] = f"{emulator.tools}:/usr/bin:/bin"
        before = [*mounts.apart(), "/bin/sh", "-c", self.SCRIPT, "sh"]
        return emulator.launch(*GUEST, environ=environ, before=before)

    @needs_root("cannot mount")
    @pytest.mark.parametrize("named", [True, False])
    def test_name_the_emulator_and_what_it_gets(self, emulator: Emulator, *, named: bool) -> None:
        file = emulator.path.with_name("file")
        real = f"QMPMEM_REAL='{emulator.path}'\n" if named else ""
        file.write_text(f"{real}QMPMEM_KSM=off\n")
        environ = {"QMPMEM_REAL": "" if named else str(emulator.path)}
        ran = self.launched(emulator, file, **environ)
        assert (ran.code, ran.err) == (PLAYED, "")
        assert b"mem-merge=off" in added(emulator, GUEST)

    @needs_root("cannot mount")
    @pytest.mark.parametrize("linked", [True, False])
    def test_name_nothing_where_others_may_write_them(
        self, emulator: Emulator, *, linked: bool
    ) -> None:
        real = emulator.path.with_name("file")
        real.write_text("QMPMEM_REAL=/bin/false\nQMPMEM_PYTHON=/bin/false\n")
        real.chmod(0o666)
        file = emulator.path.with_name("link") if linked else real
        if linked:
            file.symlink_to(real)
        (emulator.path.parent / "later").mkdir()
        played = Emulator(emulator.path.parent / "later", "kvm")
        (emulator.tools / "kvm").symlink_to(played.path)
        (emulator.tools / "kvm.words").symlink_to(f"{played.path}.words")
        ran = self.launched(emulator, file, QMPMEM_REAL="", QMPMEM_PYTHON="")
        assert ran.code == PLAYED
        assert added(played, GUEST) == []
        assert ran.err.count("\n") == 1
        assert "/etc/default/qmpmem: others may write it" in ran.err


class TestFailOpen:
    """Row F78: the guest starts with exactly its own arguments, and one line says why."""

    def check(self, emulator: Emulator, why: str, **environ: str) -> None:
        ran = emulator.launch(*GUEST, environ=environ)
        assert ran.code == PLAYED, ran
        assert added(emulator, GUEST) == []
        assert why in ran.err
        assert ran.err.count("qmpmem: ") == ran.err.count("\n") == 1
        guests = [path for path in emulator.run.glob("[!.]*") if path.is_dir()]
        assert guests == []

    @pytest.mark.parametrize(
        ("setting", "value", "why"),
        [
            *(
                ("PYTHON", python, f"qmpmem: QMPMEM_PYTHON={python} does not work")
                for python in (
                    *("/proc/nonexistent", "/bin/false", "/bin/true", "/etc/passwd", "/"),
                    *("not a name", "/bin/echo"),
                )
            ),
            ("RUN_DIR", "HERE/not/there", "No such file"),
            ("RUN_DIR", "/etc/passwd", "not a directory"),
            ("RUN_DIR", "/proc/none", "/proc/none: No such file"),  # as on a read-only disk
            ("RUN_DIR", "relative", "QMPMEM_RUN_DIR='relative'"),
            ("MODE", "x", "QMPMEM_MODE='x'"),
            ("KSM", "x", "QMPMEM_KSM='x'"),
            ("BALLOON", "x", "QMPMEM_BALLOON='x'"),
            ("DOMAIN", "a b", "QMPMEM_DOMAIN='a b'"),
            ("DEFAULTS", "HERE/nonsense", "HERE/nonsense line 1"),
            ("DEFAULTS", "HERE/pipe", "HERE/pipe: expected a readable file"),  # not waited for
        ],
    )
    def test_a_setting_that_is_of_no_use(
        self, emulator: Emulator, setting: str, value: str, why: str
    ) -> None:
        here = str(emulator.path.parent)
        emulator.path.with_name("nonsense").write_text("QMPMEM_MODE static\n")
        os.mkfifo(emulator.path.with_name("pipe"))
        value, why = value.replace("HERE", here), why.replace("HERE", here)
        self.check(emulator, why, **{f"QMPMEM_{setting}": value})

    def test_a_python_that_cannot_start(self, emulator: Emulator) -> None:
        python = emulator.path.with_name("python3")
        script(python, "echo no shared library >&2\nexit 127")
        self.check(emulator, "does not work", QMPMEM_PYTHON=str(python))

    def test_a_python_without_its_library(self, emulator: Emulator) -> None:
        """A copy far from its standard library, which dies before the first line of a program."""
        python = emulator.path.with_name("python3")
        script(python, 'PYTHONHOME=/proc/nonexistent exec /usr/bin/python3 -S "$5" "$6"')
        self.check(emulator, "does not work", QMPMEM_PYTHON=str(python))

    def test_a_python_that_breaks_after_it_worked(self, emulator: Emulator) -> None:
        """The proof of a Python that worked is worth nothing once that has changed."""
        python = emulator.path.with_name("python3")
        script(python, 'exec /usr/bin/python3 "$@"')
        ran = emulator.launch(*GUEST, environ={"QMPMEM_PYTHON": str(python)})
        assert (ran.code, ran.err) == (PLAYED, "")
        assert added(emulator, GUEST) != []
        assert (emulator.run / ".python/proof").read_text().startswith(f"{python}\n")
        script(python, "exit 1")
        shutil.rmtree(emulator.run / "it")
        self.check(emulator, "does not work", QMPMEM_PYTHON=str(python))

    @pytest.mark.parametrize("damage", ["missing", "empty", "garbage"])
    @pytest.mark.parametrize("file", ["kvm.py", "kvm_launch.py", "kvm_plan.py", "kvm_stamp.py"])
    @pytest.mark.parametrize("worked", [False, True])
    def test_broken_launchers(
        self, emulator: Emulator, file: str, damage: str, *, worked: bool
    ) -> None:
        copy = copy_launchers(emulator.path.parent).parent
        if worked:
            assert emulator.launch(*GUEST, shim=copy / "kvm").err == ""
            assert added(emulator, GUEST) != []
            shutil.rmtree(emulator.run / "it")
        if damage == "missing":
            (copy / file).unlink()
        else:
            (copy / file).write_text("" if damage == "empty" else "\0 nonsense (")
        ran = emulator.launch(*GUEST, shim=copy / "kvm")
        assert ran.code == PLAYED
        assert added(emulator, GUEST) == []
        assert ran.err.count("qmpmem: ") == ran.err.count("\n") == 1

    @pytest.mark.parametrize("damage", ["missing", "garbage"])
    def test_launchers_that_are_broken_where_others_worked(
        self, emulator: Emulator, damage: str
    ) -> None:
        """A proof is one of the launchers that left it: not of those of another version."""
        assert emulator.launch(*GUEST).err == ""
        assert added(emulator, GUEST) != []
        shutil.rmtree(emulator.run / "it")
        copy = copy_launchers(emulator.path.parent).parent
        if damage == "missing":
            (copy / "kvm_launch.py").unlink()
        else:
            (copy / "kvm.py").write_text("nonsense (")
            os.utime(copy / "kvm.py", (0, 0))
        ran = emulator.launch(*GUEST, shim=copy / "kvm")
        assert (ran.code, ran.err.count("\n")) == (PLAYED, 1)
        assert "does not work" in ran.err
        assert added(emulator, GUEST) == []

    @pytest.mark.parametrize("worked", [False, True])
    def test_in_a_directory_that_was_removed(self, emulator: Emulator, *, worked: bool) -> None:
        """The launcher is found from there by a relative path all the same."""
        shim = copy_launchers(emulator.path.parent)
        here = shim.parent.parent / "gone"
        here.mkdir()
        if worked:
            emulator.launch(*GUEST, shim=shim)
            assert added(emulator, GUEST) != []
            for path in (shim.parent, *shim.parent.iterdir()):
                os.utime(path, (0, 0))  # as they are on a host: older than the proof
        words = ["/bin/sh", "-c", '/bin/rmdir "$PWD" && exec ../launchers/kvm "$@"', "sh", *GUEST]
        ran = subprocess.run(
            words, cwd=here, env=emulator.settings({}), capture_output=True, check=False
        )
        assert ran.returncode == PLAYED
        assert b"Traceback" not in ran.stderr
        assert emulator.words()[: len(GUEST)] == [word.encode() for word in GUEST]

    def test_an_overlong_run_directory(self, emulator: Emulator) -> None:
        long = emulator.path.parent / ("d" * 90)
        long.mkdir()
        self.check(emulator, "too long", QMPMEM_RUN_DIR=str(long))
        assert {path.name for path in long.iterdir()} <= {".python"}

    def test_a_run_directory_that_every_user_may_write(self, emulator: Emulator) -> None:
        emulator.run.mkdir()
        emulator.run.chmod(0o777)
        self.check(emulator, "any user can write there")

    def test_defaults_that_may_not_be_read(self, emulator: Emulator) -> None:
        here = emulator.path.parent
        defaults = here / "etc/defaults"
        defaults.parent.mkdir()
        defaults.write_text("QMPMEM_MODE=static\n")
        defaults.chmod(0o000)
        shim = copy_launchers(here)
        here.chmod(0o1777)  # the play emulator writes there
        environ = {"QMPMEM_DEFAULTS": str(defaults)}
        ran = emulator.launch(*GUEST, environ=environ, before=AS_ORDINARY, shim=shim)
        assert added(emulator, GUEST) == []
        assert ran.err.startswith(f"qmpmem: {defaults}: expected a readable file")

    @pytest.mark.parametrize(
        ("words", "why"),
        [
            (["-frobnicate", "yes"], "'-frobnicate' is not an option that qmpmem knows"),
            (["-m"], "'-m' lacks its value"),
            (["--smp"], "'--smp' lacks its value"),
        ],
    )
    def test_words_that_qmpmem_does_not_know(
        self, emulator: Emulator, words: list[str], why: str
    ) -> None:
        ran = emulator.launch(*GUEST, *words)
        assert ran.code == PLAYED
        assert added(emulator, [*GUEST, *words]) == []
        assert ran.err == f"qmpmem: nothing added: {why}\n"

    @needs_root("cannot mount")
    @pytest.mark.parametrize("limit", ["size=4k", "nr_inodes=3"])
    def test_a_full_disk(self, emulator: Emulator, limit: str) -> None:
        emulator.run.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"{limit},mode=700", "none", str(emulator.run)]
        subprocess.run(mount, check=True)
        try:
            if limit == "size=4k":
                (emulator.run / "filler").write_bytes(b"x" * 4096)
            self.check(emulator, f"qmpmem: {emulator.run}: No space left")
        finally:
            subprocess.run(["umount", str(emulator.run)], check=True)

    @pytest.mark.parametrize("limit", [*range(3, 14), 20])
    def test_few_descriptors(self, emulator: Emulator, limit: int) -> None:
        """Where the shell itself can run, so does the guest."""
        before = ["/usr/bin/prlimit", f"--nofile={limit}:{limit}"]
        plain = subprocess.run(
            [*before, emulator.path, *GUEST],
            env=emulator.settings({}),
            capture_output=True,
            check=False,
        )
        ran = emulator.launch(*GUEST, before=before)
        if plain.returncode == PLAYED:
            assert ran.code == PLAYED, ran

    @pytest.mark.parametrize(
        "environ",
        [
            {"PYTHONHOME": "/proc/nonexistent"},
            {"PYTHONPATH": "/proc/nonexistent", "PYTHONSTARTUP": "/proc/nonexistent"},
            {"PYTHONSAFEPATH": "1", "PYTHONINSPECT": "1", "PYTHONVERBOSE": "9"},
            {"PYTHONMALLOC": "nonsense", "PYTHONHASHSEED": "nonsense", "PYTHONUTF8": "9"},
            {"LC_ALL": "nonsense", "LANG": "\udcff"},
            {"LD_LIBRARY_PATH": "/proc/nonexistent"},
            {"PATH": ""},
            {"IFS": "/p", "CDPATH": "/tmp", "ENV": "/proc/nonexistent"},
            {"HOME": "", "TMPDIR": "/proc/nonexistent"},
        ],
    )
    def test_an_odd_environment_changes_nothing(
        self, emulator: Emulator, environ: dict[str, str]
    ) -> None:
        ran = emulator.launch(*GUEST, environ=environ)
        assert (ran.code, ran.err) == (PLAYED, "")
        assert added(emulator, GUEST) == suffix(emulator)

    def test_modules_beside_the_user_are_not_loaded(self, emulator: Emulator) -> None:
        here = emulator.path.parent
        for name in ("os", "errno", "_socket", "launchers", "kvm_launch", "time"):
            (here / f"{name}.py").write_text("raise SystemExit(3)\n")
        done = subprocess.run(
            [SHIM, *GUEST],
            cwd=here,
            env=emulator.settings({"PYTHONPATH": str(here)}),
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (PLAYED, b"")
        assert added(emulator, GUEST) == suffix(emulator)


class TestStamp:
    """Python is tried only as long as it has not worked yet."""

    def tried(self, emulator: Emulator, **environ: str) -> bool:
        """Launch, and say whether Python was tried first."""
        count = emulator.path.with_name("count")
        count.write_text("")
        python = emulator.path.parent / "python" / "python3"
        if not python.exists():
            python.parent.mkdir()
            script(python, f'echo >>{count}\nexec /usr/bin/python3 "$@"')
            for path in (python, python.parent):
                os.utime(path, (0, 0))
        ran = emulator.launch(*GUEST, environ={"QMPMEM_PYTHON": str(python)} | environ)
        assert (ran.code, ran.err) == (PLAYED, "")
        assert added(emulator, GUEST) != []
        return count.read_text().count("\n") == 2

    def test_only_once(self, emulator: Emulator) -> None:
        assert [self.tried(emulator) for _ in range(3)] == [True, False, False]

    @pytest.mark.parametrize("changed", ["python/python3", "python"])
    def test_again_after_a_change(self, emulator: Emulator, changed: str) -> None:
        assert [self.tried(emulator) for _ in range(2)] == [True, False]
        (emulator.path.parent / changed).touch()
        assert self.tried(emulator)

    def test_again_after_something_went(self, emulator: Emulator) -> None:
        assert self.tried(emulator)
        stamp = emulator.run / ".python/proof"
        times = stamp.stat()
        stamp.write_text(stamp.read_text() + "/proc/nonexistent\n")
        os.utime(stamp, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert self.tried(emulator)

    def test_again_where_libraries_are_replaced(self, emulator: Emulator) -> None:
        assert self.tried(emulator)
        assert self.tried(emulator, LD_LIBRARY_PATH="/proc/nonexistent")
        assert not self.tried(emulator)

    @needs_root("cannot give a file away")
    def test_another_users_proof_is_none(self, emulator: Emulator) -> None:
        assert self.tried(emulator)
        os.chown(emulator.run / ".python/proof", NOBODY, NOBODY)
        assert self.tried(emulator)
        assert not self.tried(emulator)

    def test_what_the_proof_stands_on(self, emulator: Emulator) -> None:
        emulator.launch(*GUEST)
        first, *others = (emulator.run / ".python/proof").read_text().splitlines()
        assert first == "/usr/bin/python3"
        modules = {str(LAUNCHERS / f"{name}.py") for name in ("kvm", "kvm_launch", "kvm_slots")}
        assert {"/usr/bin", "/usr/bin/python3", str(LAUNCHERS), *modules} <= {*others}
        maps = Path("/proc/self/maps").read_text().splitlines()
        libc = next(line.split()[-1] for line in maps if "libc.so" in line)
        assert str(Path(libc).parent) in others
        assert any(path.endswith("/encodings") for path in others)


BUSY: Final = """import json, os, sys
may = os.path.join(os.path.dirname(sys.argv[0]), "may")
while not os.path.exists(may):
    pass
sys.stdout.write('{"QMP": {}}\\n')
for line in sys.stdin:
    sys.stdout.write(json.dumps({"return": [], "id": json.loads(line).get("id")}) + "\\n")
    sys.stdout.flush()
"""
"""A program that works until there is a file beside it, and answers then."""


class TestSlowEmulator:
    """An emulator that does not say what it can do is not waited for without end."""

    SLOW: Final = """#!/bin/sh
case "$*" in *" stdio -machine none,accel=tcg:kvm")
    echo $$ >"$0.asked"
    sleep 60 ;;
esac
printf '%s\\0' "$@" >"$0.words"
exit 7
"""

    @pytest.fixture
    def slow(self, emulator: Emulator) -> Emulator:
        (emulator.tools / "sleep").symlink_to("/bin/sleep")
        emulator.path.write_text(self.SLOW)
        return emulator

    def test_is_ended_and_not_remembered(
        self, slow: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kvm_emulator, "PATIENCE", 0.5)
        slow.run.mkdir()
        with opened(slow.run) as run:
            found = kvm_emulator.find_capabilities(str(slow.path), slow.settings({}), run)
        assert found is None
        assert list(slow.run.iterdir()) == []
        self.is_gone(slow)

    @pytest.mark.parametrize(("longest", "heard"), [(60.0, True), (0.5, False)])
    def test_one_that_is_still_at_work_is_waited_for_longer(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest: float, *, heard: bool
    ) -> None:
        """A host that is short of processors gives it little time; it answers here at our word."""
        busy, may = tmp_path / "kvm", tmp_path / "may"
        busy.write_text(f"#!{sys.executable}\n{BUSY}")
        busy.chmod(0o755)
        looks = iter(range(1000))

        def is_at_work(pid: int) -> bool:
            if next(looks) == 3:
                may.touch()
            return at_work(pid)

        at_work = kvm_emulator.is_at_work
        monkeypatch.setattr(kvm_emulator, "is_at_work", is_at_work)
        monkeypatch.setattr(kvm_emulator, "AGAIN", 0.25)
        monkeypatch.setattr(kvm_emulator, "PATIENCE", 0.25)
        monkeypatch.setattr(kvm_emulator, "LONGEST", longest)
        found = kvm_emulator.ask(str(busy), dict(os.environ))
        assert (found is not None) is heard

    def test_an_interrupt_meanwhile_ends_the_launch(self, slow: Emulator) -> None:
        child = subprocess.Popen([SHIM, *GUEST], env=slow.settings({}), stderr=subprocess.PIPE)
        asked = Path(f"{slow.path}.asked")
        until(lambda: asked.exists() and asked.read_text())
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=patient(20))
        assert (child.returncode, err) == (-signal.SIGINT, b"")
        assert not Path(f"{slow.path}.words").exists()
        os.killpg(int(asked.read_text()), signal.SIGKILL)

    @staticmethod
    def is_gone(slow: Emulator) -> None:
        """Neither the script nor what it runs is left."""
        group = int(Path(f"{slow.path}.asked").read_text())

        def ended() -> bool:
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return True
            return False

        until(ended)


def test_a_script_is_not_run_to_be_asked(emulator: Emulator) -> None:
    """It might make taps, mounts or logs; a setting says that it does not."""
    count = emulator.path.with_name("count")
    text = emulator.path.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\necho >>{count}\n")
    emulator.path.write_text(text)
    ran = emulator.launch(*GUEST, environ={"QMPMEM_ASK_SCRIPT": ""})
    assert added(emulator, GUEST) == suffix(emulator)[:2]
    assert "no balloon" in ran.err
    assert "QMPMEM_ASK_SCRIPT=on" in ran.err
    assert count.read_text().count("\n") == 1
    forget(emulator)
    assert emulator.launch(*GUEST).err == ""
    assert added(emulator, GUEST) == suffix(emulator)
    assert count.read_text().count("\n") == 3


class TestDefaultRunDirectory:
    """In a mount namespace of its own, where /run is empty and there is a group qmpmem."""

    SCRIPT: Final = """
mount -t tmpfs -o mode=755 none /run || exit 99
mount --bind "$GROUPS_FILE" /etc/group || exit 99
"$@"
code=$?
stat -c '%a %U %G %n' /run/qmpmem /run/qmpmem/guests /run/qmpmem/guests/* /run/qmpmem/guests/it/*
exit $code
"""

    @needs_root("cannot mount")
    @pytest.mark.parametrize("group", ["qmpmem", "other"])
    @pytest.mark.parametrize("umask", ["000", "077"])
    def test_as_root(self, emulator: Emulator, group: str, umask: str) -> None:
        groups = emulator.path.with_name("group")
        groups.write_text(f"root:x:0:\n{group}:x:4321:\n")
        shell = ["/bin/bash", "-c", f"umask {umask}; {self.SCRIPT}", "bash"]
        ran = emulator.launch(
            *GUEST,
            environ={"QMPMEM_RUN_DIR": "", "GROUPS_FILE": str(groups), "PATH": "/usr/bin:/bin"},
            before=[*mounts.apart(), *shell],
        )
        assert (ran.code, ran.err) == (PLAYED, "")
        assert added(emulator, GUEST)[1] == CONFIG
        guests = "/run/qmpmem/guests"
        assert ran.out.splitlines() == [
            "755 root root /run/qmpmem",
            f"700 root root {guests}",
            f"700 root root {guests}/it",
            f"600 root root {guests}/it/qmp.sock",
            f"600 root root {guests}/it/record.json",
        ]

    def test_as_a_user(self, emulator: Emulator) -> None:
        here = emulator.path.parent
        shim = copy_launchers(here)
        here.chmod(0o777)  # the play emulator writes there
        (here / "user").mkdir()
        os.chown(here / "user", ORDINARY, -1)
        environ = {"QMPMEM_RUN_DIR": "", "XDG_RUNTIME_DIR": str(here / "user")}
        for _ in range(2):
            ran = emulator.launch(*GUEST, environ=environ, before=AS_ORDINARY, shim=shim)
            assert (ran.code, ran.err) == (PLAYED, "")
            assert added(emulator, GUEST)[0] == b"-readconfig"
        run = here / "user/qmpmem"
        assert stat.S_IMODE(run.stat().st_mode) == 0o700
        assert (run / ".python/proof").exists()
        record = (run / "it/record.json").read_text()
        assert f'"uid":{ORDINARY},' in record

    @needs_root("cannot become a user who has no place")
    def test_a_user_without_a_place(self, emulator: Emulator) -> None:
        shim = copy_launchers(emulator.path.parent)
        emulator.path.parent.chmod(0o777)
        environ = {"QMPMEM_RUN_DIR": ""}
        ran = emulator.launch(*GUEST, environ=environ, before=AS_ORDINARY, shim=shim)
        assert ran.code == PLAYED
        assert added(emulator, GUEST) == []
        assert f"/run/user/{ORDINARY}/qmpmem" in ran.err


OLD_ENCODINGS: Final = {"EUC-JP": "ja_JP", "BIG5-HKSCS": "zh_HK"}
"""In which Python writes other bytes than the C library has read; each with a language.

So it is with GB 18030, which takes half a minute to compile."""


def make_locale(directory: Path, charmap: str) -> dict[str, str]:
    """Compile a locale; returns what has a program use it."""
    if not Path("/usr/share/i18n/charmaps", f"{charmap}.gz").exists():
        pytest.skip("missing: locales to compile, of the Debian package locales")
    name = f"{OLD_ENCODINGS[charmap]}.{charmap}"
    made = ["localedef", "-i", OLD_ENCODINGS[charmap], "-f", charmap, str(directory / name)]
    subprocess.run(made, capture_output=True, check=True)
    return {"LOCPATH": str(directory), "LC_ALL": name}


def odd_words(seed: int) -> list[bytes]:
    """Make arguments of any bytes, every other word of bytes above 127 alone."""
    draw = random.Random(seed)  # noqa: S311 - repeatable on purpose
    lowest = (1, 128) * 5
    odd = (bytes(draw.randrange(low, 256) for _ in range(300)) for low in lowest)
    return [word for each in odd for word in (b"-append", each)]


class TestPassingThrough:
    def test_the_environment(self, emulator: Emulator) -> None:
        """All of it is the same, and the mark for scripts is added, as the emulator is one.

        A shell sets PWD if it is missing, and drops names that no shell variable can have.
        """
        given = {"LANG": "C", "A": "x\ny=z", "EMPTY": "", "RAW": "\udcff", "QMPMEM_KSM": "on"}
        environment = emulator.settings(given) | {"EMPTY": ""}
        subprocess.run([SHIM, *GUEST], env=environment, stderr=subprocess.PIPE, check=False)
        got = emulator.environment()
        for name in (b"_", b"OLDPWD", b"SHLVL", b"QMPMEM_LAUNCHING"):
            got.pop(name, None)
        assert got == {os.fsencode(key): os.fsencode(value) for key, value in environment.items()}

    def test_python_does_not_set_the_locale_for_the_emulator(self, emulator: Emulator) -> None:
        emulator.launch(*GUEST)
        assert b"LC_CTYPE" not in emulator.environment()

    def test_python_reads_words_as_utf_8_in_any_locale(self, emulator: Emulator) -> None:
        """By other encodings, not all words come out as they went in."""
        shim = copy_launchers(emulator.path.parent)
        with (shim.parent / "kvm_launch.py").open("a") as file:
            file.write("\nimport sys\nassert sys.flags.utf8_mode\n")
        ran = emulator.launch(*GUEST, shim=shim, environ={"LC_ALL": "C.UTF-8"})
        assert (ran.code, ran.err) == (PLAYED, "")
        assert added(emulator, GUEST) == suffix(emulator)

    @pytest.mark.parametrize("charmap", OLD_ENCODINGS)
    def test_words_arrive_in_the_locales_of_old_encodings(
        self, emulator: Emulator, charmap: str
    ) -> None:
        environ = make_locale(emulator.path.parent, charmap)
        for seed, name in enumerate((b"it", b"\x8d\x80\xff\x81\x30\x81\x34")):
            words = [b"-name", name, *odd_words(seed)]
            ran = emulator.launch(*words, environ=environ)
            assert (ran.code, ran.err) == (PLAYED, "")
            assert emulator.words()[: len(words)] == words
        # and by way of another process of ours
        words = [b"-name", b"guest=\x8d\x80\xff\x81\x30\x81\x34", *odd_words(2)]
        ran = emulator.launch(
            *(b"run", b"--name", words[1].removeprefix(b"guest="), b"--", *words[2:]),
            environ=environ,
            shim=PROGRAM,
        )
        assert (ran.code, ran.err) == (PLAYED, "")
        assert emulator.words()[: len(words)] == words

    @pytest.mark.parametrize(
        ("setting", "value"),
        [("KSM", "nonsense"), ("PYTHON", "/bin/false"), ("LAUNCHING", "1"), ("DEFAULTS", "HERE")],
    )
    def test_the_mark_is_not_shown_to_a_program(
        self, emulator: Emulator, setting: str, value: str
    ) -> None:
        shutil.copy("/bin/cat", emulator.path)
        here = emulator.path.parent
        (here / "HERE").write_text(f"QMPMEM_REAL={emulator.path}\n")
        (here / "HERE").chmod(0o666)
        value = value.replace("HERE", f"{here}/HERE")
        environ = {f"QMPMEM_{setting}": value, "QMPMEM_RUN_DIR": "nowhere"}
        if setting == "LAUNCHING":
            (emulator.tools / "qemu-system-x86_64").symlink_to(emulator.path)
        ran = emulator.launch("/proc/self/environ", environ=environ)
        assert "QMPMEM_LAUNCHING" not in ran.out
        assert "QMPMEM_RUN_DIR=nowhere" in ran.out

    @pytest.mark.parametrize("python", ["/usr/bin/python3", "/bin/false"])
    @pytest.mark.parametrize("name", ["kvm", "qemu-system-x86_64", "my-kvm"])
    def test_argv0_ends_in_kvm_where_it_was_called_so(
        self, emulator: Emulator, name: str, python: str
    ) -> None:
        """QEMU chooses its accelerator by it. The shell plays the emulator and says its name."""
        here = emulator.path.parent
        (here / "bin").mkdir()
        shutil.copy("/bin/dash", here / "bin/qemu-system-x86_64")
        (here / "bin/kvm").symlink_to("qemu-system-x86_64")
        (here / name).symlink_to(SHIM)
        for real in ("kvm", "qemu-system-x86_64"):
            ran = emulator.launch(
                *("-c", 'echo "$0"'),
                environ={"QMPMEM_REAL": str(here / "bin" / real), "QMPMEM_PYTHON": python},
                shim=here / name,
            )
            assert ran.out.strip().endswith("kvm") == name.endswith("kvm"), (real, ran)

    def test_signals_have_their_default_effect(self, emulator: Emulator) -> None:
        """Python ignores two signals, which exec would hand on (signal(7))."""
        emulator.path.write_text("#!/bin/sh\ncat /proc/self/status\n")
        ran = emulator.launch("-S", environ={"QMPMEM_BALLOON": "off"})
        python = {1 << number - 1 for number in (signal.SIGPIPE, signal.SIGXFSZ)}
        assert ignored(Path("/proc/self/status").read_text()) >= sum(python)
        assert ignored(ran.out) == ignored(Path("/proc/self/status").read_text()) - sum(python)

    def test_the_process_stays_the_same(self, emulator: Emulator) -> None:
        emulator.path.write_text('#!/bin/sh\necho "$$"\ncat\necho error >&2\nexit 3\n')
        child = subprocess.Popen(
            [SHIM, "-version"],
            env=emulator.settings({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = child.communicate(b"through\n", timeout=patient(20))
        assert (child.returncode, err) == (3, b"error\n")
        assert out == f"{child.pid}\nthrough\n".encode()

    @pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
    def test_closed_standard_streams(self, emulator: Emulator, closed: tuple[int, ...]) -> None:
        """The socket must not become the guest's standard output."""
        script = " ".join(f"{number}>&-" for number in closed)
        command = f'exec "$0" "$@" {script}'
        subprocess.run(
            ["/bin/bash", "-c", command, SHIM, *GUEST],
            env=emulator.settings({}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert added(emulator, GUEST)[:1] == [b"-readconfig"]
        text = emulator.config()
        number = int(text.partition('fd = "')[2].partition('"')[0])
        assert number > 2

    def test_nearly_too_many_arguments(self, emulator: Emulator) -> None:
        """What just fits for the emulator does not for Python, which has a few more."""
        room = os.sysconf("SC_ARG_MAX")
        environment = emulator.settings({})
        size = 128 * 1024 - 1
        words = ["-append", "x" * size] * ((room - 8192) // (size + 30))
        for rest in range(size - 1, 0, -16384):
            full = [*words, "-append", "x" * rest]
            if fits(emulator.path, full, environment):
                break
        low, high = rest, rest + 16384
        while high - low > 16:
            middle = (low + high) // 2
            if fits(emulator.path, [*words, "-append", "x" * middle], environment):
                low = middle
            else:
                high = middle
        # The kernel itself counts the launcher's path, twice, where it counted the emulator's.
        low -= 2 * max(0, len(str(SHIM)) - len(str(emulator.path)))
        full = [*words, "-append", "x" * low]
        done = subprocess.run([SHIM, *full], env=environment, capture_output=True, check=False)
        assert done.returncode == PLAYED, done.stderr
        assert emulator.words() == [word.encode() for word in full]


def ignored(status: str) -> int:
    """The signals that a process ignores, a bit each. Some are inherited, such as make's."""
    line = next(line for line in status.splitlines() if line.startswith("SigIgn"))
    return int(line.split()[1], 16)


def fits(program: Path, words: list[str], environment: dict[str, str]) -> bool:
    """Whether a program can be started with these arguments."""
    try:
        done = subprocess.run([program, *words], env=environment, capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == PLAYED


@pytest.mark.parametrize(
    "count", [50, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
)
def test_random_command_lines_arrive_byte_for_byte(emulator: Emulator, count: int) -> None:
    """Row F77."""
    for seed in chance.cases(count, 0, 1):
        draw = random.Random(seed)  # noqa: S311 - repeatable on purpose
        words = draw_words(draw)
        balloon = "on" if seed % 5 == 0 else "off"  # a script is asked what it can do each time
        ran = emulator.launch(*words, environ={"QMPMEM_BALLOON": balloon})
        assert ran.code == PLAYED, (seed, words, ran)
        rest = added(emulator, words)
        assert rest in ([], rest[:2], rest[:4]), seed
        assert not rest or rest[0] == b"-readconfig", seed
        for guest in filter(Path.is_dir, emulator.run.glob("*")):  # the proof of Python stays
            shutil.rmtree(guest)


@each_shell
def test_other_shells(emulator: Emulator, shell: list[str]) -> None:
    for _ in range(2):
        ran = emulator.launch(*GUEST, before=shell)
        assert (ran.code, ran.err) == (PLAYED, "")
        assert added(emulator, GUEST)
    ran = emulator.launch(*GUEST, before=shell, environ={"QMPMEM_PYTHON": "/bin/false"})
    assert (ran.code, added(emulator, GUEST)) == (PLAYED, [])


@each_shell
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_python_is_tried_ends_the_launch(
    emulator: Emulator, shell: list[str], number: signal.Signals
) -> None:
    hanging = emulator.path.with_name("python3")
    started = emulator.path.with_name("started")
    script(hanging, f"echo $$ >{started}\nexec sleep 60")
    (emulator.tools / "sleep").symlink_to("/bin/sleep")
    child = subprocess.Popen(
        [*shell, SHIM, *GUEST],
        env=emulator.settings({"QMPMEM_PYTHON": str(hanging)}),
        stderr=subprocess.DEVNULL,
    )
    until(lambda: started.exists() and started.read_text())
    child.send_signal(number)
    os.kill(int(started.read_text()), signal.SIGKILL)  # else a shell waits 5 s for it
    assert child.wait(timeout=patient(20)) == -number
    assert not Path(f"{emulator.path}.words").exists()


@pytest.mark.parametrize("runtime", ["", "/run/user/here"])
def test_users_without_a_runtime_directory_have_their_stamp_found(runtime: str) -> None:
    """It is looked for where `launchers.kvm_run` leaves it."""
    text = SHIM.read_text()
    uid = text[text.index("find_uid()") : text.index("# Whether only root")]
    functions = uid + text[text.index("find_run()") : text.index("# Whether this Python")]
    environment = {"XDG_RUNTIME_DIR": runtime} if runtime else {}
    for shell in SHELLS:
        done = subprocess.run(
            [*AS_ORDINARY, *shell, "-c", f'run=\n{functions}\nfind_run; echo "$run"'],
            env=environment,
            capture_output=True,
            check=True,
        )
        expected = f"{runtime or f'/run/user/{ORDINARY}'}/qmpmem\n"
        assert (done.stdout.decode(), done.stderr) == (expected, b"")


def test_each_return_says_with_what() -> None:
    """In a trap, bash and POSIX have one that does not give the status of before the trap."""
    assert re.findall(r"\breturn[ \t]*(?:$|[;|&}])", SHIM.read_text(), re.MULTILINE) == []


def test_the_file_can_be_executed() -> None:
    assert stat.S_IMODE(SHIM.stat().st_mode) & 0o111 == 0o111
    assert sys.executable
