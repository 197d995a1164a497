"""Short commands against 50 guests, beside the time that their imports alone would take."""

import sys
from pathlib import Path
from typing import Final

from tests.bench.table import AtMostTimes, Figure
from tests.bench.timing import Effort, medians
from tests.rig.command import PROGRAM

IMPORTS: Final = "import asyncio, qemu.qmp, typer"
FACTOR: Final = 1.3
"""What a program of these three libraries takes to start, and a third for its work."""


def measure(effort: Effort, run: Path, guest: str) -> list[Figure]:
    """Time `set --no-wait` and `list`.

    Raises:
        CalledProcessError: one of them failed.
    """
    ours = [["set", guest, "200M", "--no-wait"], ["list"]]
    commands = [[sys.executable, "-c", IMPORTS], *([str(PROGRAM), *words] for words in ours)]
    reference, *times = medians(commands, effort, environ={"QMPMEM_RUN_DIR": str(run)})
    return [
        Figure(
            what=f"qmpmem {' '.join(words)}",
            unit="ms",
            ours=taken,
            reference=reference,
            goal=AtMostTimes(factor=FACTOR),
            commands=[f"hyperfine -N 'python -c \"{IMPORTS}\"' 'qmpmem {' '.join(words)}'"],
        )
        for words, taken in zip(ours, times, strict=True)
    ]
