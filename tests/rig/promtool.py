"""Prometheus's own tool, which judges metrics, rules and queries."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig.patience import patient


def promtool(*words: str, text: bytes = b"") -> str:
    """Run it; skip the test where it is missing. Returns what it says; it must be content."""
    here = Path(sys.executable).with_name("promtool")  # tests/setup.sh puts it there
    program = str(here) if here.is_file() else shutil.which("promtool")
    if program is None:
        pytest.skip("missing: promtool (Debian: prometheus)")
    done = subprocess.run(
        [program, *words], input=text, capture_output=True, timeout=patient(30), check=False
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said
