"""The command line: where it begins and ends.

Theory of operation:
    A command lives for a tenth of a second, and a third of that is Python tidying up: it collects
    garbage while modules load, and takes every module apart when it ends. What ends with the
    process needs neither (measured with `import asyncio, qemu.qmp, typer`: 104 ms, 85 ms without
    the first, 70 ms without both; mypy does the same, mypy/util.py: hard_exit).
"""

import gc
import os
from contextlib import suppress
from typing import Final

COLLECT_AFTER: Final = 50_000
"""Objects after which Python collects garbage, instead of 700: more than a short command makes, and
few enough for a command that watches."""


def main() -> None:
    """Run the program, and leave with its exit code."""
    gc.set_threshold(COLLECT_AFTER)
    from qmpmem.cli import app

    try:
        app.main()
    except SystemExit as left:
        with suppress(OSError):  # what was printed cannot be written: Python's own end says so
            print(end="", flush=True)
            if left.code is None or isinstance(left.code, int):
                os._exit(left.code or 0)
        raise
