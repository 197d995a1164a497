"""Debian's ksmtuned, fetched and run as it is, without being installed.

Theory of operation:
    Its unit requires ksm.service, so `ksmctl start` runs first and switches KSM on; a minute later
    the script looks for the first time. It leaves a loop in the background and ends; the loop and
    its sleep are a session of their own here, and end with it. /etc/ksmtuned.conf as shipped holds
    comments alone, so the script's own values are the shipped configuration.
"""

import os
import signal
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.rig.patience import patient
from tests.rig.qemu import short_directory, until

STORE: Final = Path(__file__).resolve().parents[2] / "build" / "ksmtuned"
SCRIPT: Final = "usr/sbin/ksmtuned"
CONTROL: Final = "usr/sbin/ksmctl"


def fetch(store: Path = STORE) -> Path:
    """Have the package unpacked, fetched by apt where it is not; returns the tree.

    Raises:
        CalledProcessError: apt does not know it or cannot fetch it.
    """
    tree = store / "tree"
    if not (tree / SCRIPT).is_file():
        store.mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "download", "-qq", "ksmtuned"], store)
        package = max(store.glob("ksmtuned_*.deb"))
        _run(["dpkg-deb", "-x", str(package), "tree"], store)
    return tree


@contextmanager
def running(tree: Path, environ: Mapping[str, str] | None = None) -> Generator[None]:
    """Start it as its units do; it is gone at the end, what it wrote to KSM stays.

    Args:
        tree: from `fetch`.
        environ: settings, by the names in its configuration file.

    Raises:
        CalledProcessError: it does not start.
    """
    _run([str(tree / CONTROL), "start"], tree)
    with short_directory() as directory:
        said = {"PIDFILE": str(directory / "pid"), **(environ or {})}
        script = subprocess.Popen(
            [tree / SCRIPT],
            env=os.environ | said,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            assert script.wait(timeout=patient(10)) == 0, "ksmtuned does not start"
            yield
        finally:
            _end_session(script.pid)


def _end_session(leader: int) -> None:
    """End all that has this process group; the leader itself may long be gone."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
    until(lambda: not _is_group(leader), seconds=5, what="ksmtuned is gone")


def _is_group(leader: int) -> bool:
    """Whether a process of the group lives; a zombie is dead."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            return True
    return False


def _run(words: list[str], directory: Path) -> None:
    subprocess.run(
        words, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
