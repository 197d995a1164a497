"""The command line, run as a user runs it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

PROGRAM: Final = Path(sys.executable).with_name("qmpmem")


class Ran(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def plain_environment() -> dict[str, str]:
    """This environment without what would change how Python writes."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}


def qmpmem(
    *words: str,
    run: Path,
    text: str = "",
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Ran:
    """Run qmpmem with `run` as its run directory; whatever happens, no traceback may show."""
    environment = plain_environment() | {"QMPMEM_RUN_DIR": str(run)} | dict(environ or {})
    done = subprocess.run(
        [PROGRAM, *words],
        input=text,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        cwd=directory,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return Ran(code=done.returncode, out=done.stdout, err=done.stderr)
