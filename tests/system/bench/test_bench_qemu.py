"""The bench runs, prints its table, and leaves nothing behind."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from qmpmem.wire import kernel
from tests.rig.patience import patient
from tests.rig.qemu import listens, until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

ROOT: Final = Path(__file__).resolve().parents[3]
BENCH: Final = [sys.executable, "tests/bench", "--quick", "--only", "commands"]
FIGURES: Final = (
    "launcher, to exec",
    "qmpmem set",
    "qmpmem list",
    "script, changes of 10 guests",
    "script, beside virsh setmem",
    "set --wait, after the guest got there",
)


@pytest.fixture(autouse=True)
def hyperfine() -> None:
    if shutil.which("hyperfine") is None:
        pytest.skip("missing: hyperfine")


def stages(bench: int) -> set[Path]:
    """The run directory of a bench, by its pid, when the last of its guests listens."""
    suffix = "/vm10/qmp.sock"
    children = Path(f"/proc/{bench}/task/{bench}/children").read_text().split()
    words = (word for child in children for word in kernel.command_line(int(child)) or ())
    sockets = {Path(word[len("unix:") :].partition(",")[0]) for word in words if suffix in word}
    return {path.parents[1] for path in sockets if listens(path)}


def test_it_prints_every_figure() -> None:
    done = subprocess.run(
        BENCH, cwd=ROOT, capture_output=True, text=True, timeout=patient(170), check=False
    )
    assert done.returncode == 0, done.stderr
    title, python, cores, _, header, *rest = done.stdout.splitlines()
    assert title.startswith("QEMU emulator version")
    assert python.startswith("Python 3.")
    assert "cores, load average" in cores
    assert header.split() == ["WHAT", "OURS", "REFERENCE", "RATIO", "GOAL", "MET"]
    assert len(rest) > len(FIGURES)
    for line, figure in zip(rest, FIGURES, strict=False):
        assert line.startswith(figure)
        assert line.split()[-1] in ("yes", "no", "-")


def test_it_leaves_nothing_behind_on_ctrl_c() -> None:
    with subprocess.Popen(BENCH, cwd=ROOT, stdout=-3, stderr=-3) as bench:
        try:
            until(lambda: stages(bench.pid), seconds=60, what="the guests listen")
            mine = stages(bench.pid)
            bench.send_signal(signal.SIGINT)
            assert bench.wait(timeout=patient(20)) == 130
        finally:
            bench.kill()
    assert not [directory for directory in mine if directory.exists()]
