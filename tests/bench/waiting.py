"""How long after the guest got there `qmpmem set --wait` returns.

Theory of operation:
    A guest with an operating system is started through the launcher, with a second QMP socket
    (-qmp) of the bench's own. Over that one a thread asks for the size as fast as it is answered,
    and notes when it first was at the target; the other instant is the end of the process.
"""

import statistics
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from qmpmem.model import bounds
from qmpmem.units import MIB, Bytes
from tests.bench.table import AtMost, Figure
from tests.bench.timing import environment
from tests.rig import guests
from tests.rig.command import PROGRAM
from tests.rig.launcher import Monitor, talking
from tests.rig.qemu import short_directory

LATE: Final = 100.0
"""Milliseconds: what a person takes for at once (Nielsen, Usability Engineering, 1993, ch. 5)."""
SIZES: Final = (160, 250)
"""MiB, in turns; the guest has 256."""
PATIENCE: Final = 60.0


class Watch:
    """Notes when a guest is at a target."""

    def __init__(self, monitor: Monitor, target: Bytes) -> None:
        self._monitor = monitor
        self._target = target
        self._over = threading.Event()
        self.arrived: float | None = None
        """By time.monotonic()."""

    def look(self) -> None:
        """Look until the guest is there, or it is over."""
        while not self._over.is_set():
            actual = self._monitor.ask("query-balloon")["actual"]
            if bounds.is_near(actual, self._target):
                self.arrived = time.monotonic()
                return

    @contextmanager
    def looking(self) -> Generator[None]:
        """Look in a thread of its own meanwhile, and for as long as it takes to see it."""
        thread = threading.Thread(target=self.look)
        thread.start()
        try:
            yield
            thread.join(timeout=1)
        finally:
            self._over.set()
            thread.join()


def measure(changes: int) -> Figure:
    """Change a real guest so many times, and see how late each is told.

    Raises:
        AssertionError: the guest does not come up, or a command fails.
    """
    with short_directory() as directory:
        run, socket = directory / "run", directory / "qmp"
        extra = ("-name", "bench", "-qmp", f"unix:{socket},server=on,wait=off")
        environ = {"QMPMEM_RUN_DIR": str(run), "QMPMEM_DEFAULTS": "/proc/nonexistent"}
        with (
            guests.boot(["launchers/kvm"], extra=extra, environ=environ),
            talking(socket) as monitor,
        ):
            late = [
                _lateness(run, monitor, SIZES[number % len(SIZES)]) for number in range(changes)
            ]
    return Figure(
        what="set --wait, after the guest got there",
        unit="ms",
        ours=statistics.median(late),
        goal=AtMost(amount=LATE),
        commands=[
            f"qmpmem set bench {SIZES[0]}M --wait, and {SIZES[1]}M, {changes} times in all",
            "beside it query-balloon over another QMP socket, as often as it is answered",
        ],
    )


def _lateness(run: Path, monitor: Monitor, size: int) -> float:
    """Change the guest, in MiB; say how many milliseconds after it got there that was told."""
    watch = Watch(monitor, Bytes(size * MIB))
    with watch.looking():
        subprocess.run(
            [PROGRAM, "set", "bench", f"{size}M", "--wait"],
            env=environment({"QMPMEM_RUN_DIR": str(run)}),
            stdout=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=True,
        )
        told = time.monotonic()
    assert watch.arrived is not None, "qmpmem says that the guest is there, QEMU does not"
    return (told - watch.arrived) * 1000
