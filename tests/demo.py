"""The main job, for real: two guests give memory and get it back, as a user would type it.

Every line after a ``$`` is a command that is run just so by a shell. Guests, sockets and records
live in a directory of the demo's own; it is gone at the end, also after Ctrl-C or a failure. Were
the demo itself killed, the kernel ends its guests (prctl(2): PR_SET_PDEATHSIG), and the next demo
removes what is left of it.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmpmem.wire import kvm  # noqa: E402 - found through the line above

STAGES: Final = "qmpmem-demo-"
"""Directories in /tmp: the path of a socket must be short (unix(7): sun_path, 108 bytes)."""

SHELL: Final = ("setpriv", "--pdeathsig", "SIGTERM", "sh", "-c")
"""Everything that is started ends with the demo, however that ends."""

GUESTS: Final = ("web1", "web2")


class DemoFailedError(Exception):
    """A command of the demo failed; its own words are on the screen."""


class Stage:
    """A shell with the demo's environment, and the guests it started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = os.environ | {
            "QMPMEM_RUN_DIR": str(directory / "guests"),
            "PATH": f"{ROOT / 'launchers'}:{ROOT / '.venv/bin'}:{os.environ['PATH']}",
            "D": str(directory),
        }
        self.guests: list[subprocess.Popen[bytes]] = []

    def run(self, command: str) -> None:
        """Show a command and run it.

        Raises:
            DemoFailedError: it exits with anything but 0.
        """
        print(f"\n$ {command}", flush=True)
        words = [*SHELL, f"exec {command}"]
        if subprocess.run(words, env=self.environment, check=False).returncode:
            raise DemoFailedError(command)

    def start(self, command: str) -> None:
        """Show a command and start it in the background."""
        print(f"\n$ {command} &", flush=True)
        self.guests.append(
            subprocess.Popen(
                [*SHELL, f"exec {command}"], env=self.environment, stdin=subprocess.DEVNULL
            )
        )

    def close(self) -> None:
        """End every guest that is still there, and remove what the demo made."""
        for guest in self.guests:
            guest.terminate()
        for guest in self.guests:
            try:
                guest.wait(timeout=5)
            except subprocess.TimeoutExpired:
                guest.kill()
                guest.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def expect_powered_off(self) -> None:
        """Wait until the guests ended by themselves.

        Raises:
            DemoFailedError: one did not, or left something in the run directory.
        """
        for guest in self.guests:
            if guest.wait(timeout=20):
                raise DemoFailedError(f"a guest exited with {guest.returncode}")
        left = list((self.directory / "guests").glob("*/*.sock"))
        if left:
            raise DemoFailedError(f"left behind: {left}")


def play(stage: Stage, accel: str) -> None:
    """Play every step of the demo.

    Raises:
        DemoFailedError: a step did not do what it should.
    """
    for guest in GUESTS:
        stage.start(
            f"kvm -name {guest} -m 512M -display none{accel} $(tinyguest args --channel $D/{guest})"
        )
    for guest in GUESTS:
        stage.run(f"tinyguest wait $D/{guest}")
    stage.run("tinyguest exec $D/web1 -- eat random 300   # web1 has work to do")
    stage.run("qmpmem list")
    stage.run("tinyguest exec $D/web1 -- 'eat stop; free -m'   # and is done with it")
    stage.run("qmpmem set web1 256M --wait")
    stage.run("qmpmem info web1")
    stage.run("tinyguest exec $D/web1 -- free -m")
    stage.run("qmpmem list")
    stage.run("qmpmem set web1 100% --wait")
    for guest in GUESTS:
        stage.run(f"tinyguest poweroff $D/{guest}")
    stage.expect_powered_off()
    stage.run("qmpmem list")


def remove_old_stages() -> None:
    """Remove the directories of demos that were killed."""
    for directory in Path("/tmp").glob(f"{STAGES}*"):
        pid = directory.name.removeprefix(STAGES).partition("-")[0]
        if directory.is_dir() and not Path("/proc", pid).exists():
            shutil.rmtree(directory, ignore_errors=True)


def main() -> int:
    """Play the demo; 0 where every step did what it should."""
    started = time.monotonic()
    accel = "" if kvm.usable(Path("/")).usable else " -accel tcg,tb-size=32"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    remove_old_stages()
    stage = Stage(Path(tempfile.mkdtemp(prefix=f"{STAGES}{os.getpid()}-", dir="/tmp")))
    try:
        play(stage, accel)
    except (DemoFailedError, subprocess.TimeoutExpired) as error:
        print(f"\ndemo: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        stage.close()
    print(f"\ndemo: done in {time.monotonic() - started:.0f} s; nothing is left behind")
    return 0


if __name__ == "__main__":
    sys.exit(main())
