"""Changes per second: `qmpmem script`, a bare client, and virsh in a loop."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.bench import bare
from tests.bench.table import AtLeastTimes, Figure
from tests.bench.timing import Effort, medians
from tests.rig.command import PROGRAM

FACTOR: Final = 0.5
LOOP: Final = 20
"""Changes by virsh, each a process of its own."""


def measure(effort: Effort, run: Path, guests: Sequence[str], changes: int) -> Iterator[Figure]:
    """Change all guests so many times.

    Raises:
        CalledProcessError: a command failed.
    """
    sizes = [f"{size >> 20}M" for size in bare.TARGETS]
    script = run / "script"
    script.write_text("".join(f"set * {sizes[number % 2]}\n" for number in range(changes)))
    sockets = [str(run / guest / "qmp.sock") for guest in guests]
    commands = [
        [str(PROGRAM), "script", str(script)],
        [sys.executable, bare.__file__, str(changes), *sockets],
    ]
    times = medians(commands, effort, environ={"QMPMEM_RUN_DIR": str(run)})
    ours, reference = (len(guests) * changes * 1000 / taken for taken in times)
    lines = f"{changes} lines of `set * SIZE`"
    yield Figure(
        what=f"script, changes of {len(guests)} guests",
        unit="/s",
        ours=ours,
        reference=reference,
        goal=AtLeastTimes(factor=FACTOR),
        commands=[
            f"hyperfine -N 'qmpmem script FILE' 'python tests/bench/bare.py {changes} SOCKET...'",
            f"FILE: {lines}; both from start to end, {len(guests) * changes} changes",
        ],
    )
    yield _beside_virsh(effort, ours)


def _beside_virsh(effort: Effort, ours: float) -> Figure:
    """Set the memory of the test driver's only guest: what virsh itself takes, without a QEMU."""
    loop = (
        f"for i in $(seq {LOOP}); do virsh -q -c test:///default setmem test 262144 || exit; done"
    )
    virsh = None
    if shutil.which("virsh"):
        (taken,) = medians([["sh", "-c", loop]], effort)
        virsh = LOOP * 1000 / taken
    return Figure(
        what="script, beside virsh setmem",
        unit="/s",
        ours=ours,
        reference=virsh,
        note="" if virsh else "not installed",
        commands=[f"sh -c '{loop}'"],
    )
