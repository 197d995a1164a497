"""The command line: where it begins and ends.

Theory of operation:
    A command lives for a tenth of a second, and a third of that went to Python's garbage collector:
    it runs while modules load, and once more over everything when the interpreter ends (measured
    with `import asyncio, qemu.qmp, typer`: 104 ms, 85 ms without the first, 75 ms without both).
    What ends with the process needs no collecting.
"""

import gc
from typing import Final

COLLECT_AFTER: Final = 50_000
"""Objects, instead of 700: more than a short command makes, little enough for one that watches."""


def main() -> None:
    """Run the program, and leave with its exit code."""
    gc.set_threshold(COLLECT_AFTER)
    try:
        from qmpmem.cli import app

        app.main()
    finally:
        gc.freeze()
