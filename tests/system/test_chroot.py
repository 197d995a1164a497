"""The script that tries both commands in a bare Debian, with a small system in a Debian's place."""

import os
import re
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from launchers.guest.build import Artifacts
from tests.rig import mounts
from tests.rig.patience import patient
from tests.rig.qemu import short_directory, until
from tests.rig.users import needs_root

ROOT: Final = Path(__file__).resolve().parents[2]
SCRIPT: Final = ROOT / "tests/chroot.sh"
PLACES: Final = (
    "bin",
    "dev",
    "etc/apt/apt.conf.d",
    "etc/apt/sources.list.d",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr/bin",
)
MARK: Final = "PIP_PLACE_OF_THIS_TEST"
"""A variable of a kind that the script hands on."""
TOOLS: Final = ("sh", "cat", "env", "ls", "pwd", "sleep", "touch")

pytestmark = [needs_root("cannot mount and chroot"), pytest.mark.timeout(120)]


@pytest.fixture
def place(artifacts: Artifacts) -> Iterator[Path]:
    """A directory with the kept system `small`: busybox, and nothing of a Debian."""
    mounts.apart()
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no git clone to clone from")
    [package] = artifacts.kernel.parents[1].glob("packages/busybox-static_*.deb")
    with short_directory() as directory:
        tree = directory / "tree"
        for name in PLACES:
            (tree / name).mkdir(parents=True)
        unpacked = directory / "unpacked"
        subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True)
        [busybox] = (path for path in unpacked.rglob("bin/busybox") if path.is_file())
        shutil.copy2(busybox, tree / "bin/busybox")
        for tool in TOOLS:
            (tree / "bin" / tool).symlink_to("busybox")
        with tarfile.open(directory / "small.tar", "w") as tar:
            tar.add(tree, ".")
        shutil.rmtree(tree)
        shutil.rmtree(unpacked)
        yield directory


def command(place: Path, *words: str) -> list[str]:
    return [str(SCRIPT), "-d", str(place), *words]


def run(place: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(place, *words),
        env=os.environ | environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def left(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def is_mounted(place: Path) -> bool:
    return str(place) in Path("/proc/self/mountinfo").read_text()


def is_used(place: Path) -> bool:
    """Whether a process of the chroot lives; `environment` marks them."""
    mark = f"{MARK}={place}".encode()
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and mark in (process / "environ").read_bytes().split(b"\0"):
                return True
    return False


def environment(place: Path) -> dict[str, str]:
    return os.environ | {MARK: str(place)}


def test_every_command_runs_in_a_clone_in_roots_home(place: Path) -> None:
    ran = run(
        place, "small", "--", "pwd; ls -d Makefile /proc/self /sys/kernel /dev/null", "exit 3"
    )
    assert "/root/qmpmem\n/dev/null\n/proc/self\n/sys/kernel\nMakefile\n" in ran.stdout
    assert re.search(r"^chroot: small: exit 3: exit code 3 after \d+ s$", ran.stdout, re.MULTILINE)
    assert ran.returncode == 1
    assert left(place) == ["small.lock", "small.tar"]
    assert not is_mounted(place)


def test_only_settings_of_mirrors_come_along(place: Path) -> None:
    given = {"http_proxy": "http://proxy.invalid:1", "PIP_RETRIES": "7", "SECRET": "x"}
    ran = run(place, "small", "--", "env", **given)
    assert ran.returncode == 0, ran.stderr
    seen = dict(line.split("=", 1) for line in ran.stdout.splitlines() if "=" in line)
    assert seen["http_proxy"] == given["http_proxy"]
    assert seen["PIP_RETRIES"] == "7"
    assert seen["HOME"] == "/root"
    assert "SECRET" not in seen


def test_a_chroot_that_is_kept_starts_afresh_the_next_time(place: Path) -> None:
    assert run(place, "-k", "small", "--", "touch /root/old").returncode == 0
    assert (place / "small/root/old").exists()
    assert list((place / "small/proc").iterdir()) == []
    assert run(place, "small", "--", "ls /root/old").returncode == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_one_that_is_ended_leaves_no_process_and_no_mount(
    place: Path, number: signal.Signals
) -> None:
    begun = place / "small/root/begun"
    words = command(place, "small", "--", "touch /root/begun; sleep 987 & sleep 987")
    with subprocess.Popen(
        words, env=environment(place), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        try:
            until(begun.exists, seconds=60, what="the command runs")
            assert is_used(place)
            assert "another run uses" in run(place, "small", "--", "pwd").stderr
            child.send_signal(number)
            assert child.wait(timeout=patient(30)) == (-number if number == signal.SIGKILL else 130)
        finally:
            child.kill()
    until(lambda: not is_used(place), what="its processes gone")
    assert not is_mounted(place)
    assert run(place, "small", "--", "ls /root/begun").returncode == 1


@pytest.mark.parametrize(
    ("words", "said"), [([], "name a release"), (["-x"], "tests/chroot.sh [-d DIR]")]
)
def test_wrong_use_is_2(words: list[str], said: str) -> None:
    ran = subprocess.run([SCRIPT, *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert said in ran.stderr
