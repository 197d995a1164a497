"""What the launcher adds to the start of a guest.

Theory of operation:
    QEMU itself takes tens of milliseconds to start, which would drown what is measured. In its
    place stands a copy of true(1) under a name that ends in kvm: exec of it takes 1 ms. The
    launcher knows of it what the real QEMU said of itself, as it would from the second start on,
    and does all of its work: a balloon, a bound socket, a record.
"""

import shutil
from pathlib import Path
from typing import Final

from launchers import kvm_emulator
from qmpmem.guests import rundir
from qmpmem.guests.rundir import GuestRecord
from tests.bench.table import AtMostMore, Figure
from tests.bench.timing import Effort, environment, medians
from tests.rig.launcher import SHIM, remember
from tests.rig.qemu import EMULATOR, short_directory

ADDED: Final = 20.0
"""Milliseconds: what a start of Python alone takes, with a little to spare."""
WORDS: Final = ("-name", "bench", "-m", "256", "-display", "none")


def measure(effort: Effort) -> Figure:
    """Time the launcher beside plain exec.

    Raises:
        AssertionError: the launcher did not do its work.
        CalledProcessError: it failed.
    """
    with short_directory() as directory:
        run = directory / "run"
        run.mkdir(mode=0o700)
        stand_in = directory / "stand-in-kvm"
        shutil.copy(_found("true"), stand_in)
        said = kvm_emulator.ask(_found(EMULATOR), environment(None))
        assert said is not None, "QEMU does not say what it can do"
        remember(run, stand_in, said)
        settings = {
            "QMPMEM_REAL": str(stand_in),
            "QMPMEM_RUN_DIR": str(run),
            "QMPMEM_DEFAULTS": "/proc/nonexistent",
        }
        # The launcher last: what it did at its last run is looked at below.
        commands = [[str(stand_in), *WORDS], [str(SHIM), *WORDS]]
        reference, ours = medians(
            commands, effort, environ=settings, prepare=["rm", "-rf", str(run / "bench")]
        )
        _expect_work(run)
    return Figure(
        what="launcher, to exec",
        unit="ms",
        ours=ours,
        reference=reference,
        goal=AtMostMore(amount=ADDED),
        commands=[
            f"hyperfine -N 'STAND-IN-kvm {' '.join(WORDS)}' 'launchers/kvm {' '.join(WORDS)}'",
            "STAND-IN-kvm: a copy of true(1), named by QMPMEM_REAL, known as the real QEMU",
        ],
    )


def _expect_work(run: Path) -> None:
    record = rundir.read_record(run / "bench")
    assert isinstance(record, GuestRecord), record
    assert record.balloon is not None, "the launcher added no balloon"


def _found(command: str) -> str:
    path = shutil.which(command)
    assert path is not None, f"missing: {command}"
    return path
