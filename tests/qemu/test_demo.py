"""`make demo`: the main job, and that nothing is left of it, also when it is cut off."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qmpmem.wire import kernel
from tests.rig.qemu import until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]

DEMO = Path(__file__).resolve().parents[1] / "demo.py"


def started_by(pid: int) -> list[int]:
    """QEMU processes with this demo's directory on their command line."""
    mark = f"/tmp/qmpmem-demo-{pid}-"
    return [
        other
        for other in kernel.pids()
        if any(mark in word for word in kernel.command_line(other) or ())
    ]


def stages_of(pid: int) -> list[Path]:
    return list(Path("/tmp").glob(f"qmpmem-demo-{pid}-*"))


def test_the_demo_gives_the_host_its_memory_back() -> None:
    with subprocess.Popen(
        [sys.executable, DEMO], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as demo:
        assert demo.stdout is not None
        shown = demo.stdout.read()
        assert demo.wait() == 0, shown
    row = re.compile(r"^web1 +running +512 MiB +(\d+) MiB +\S+ M?i?B +([\d.]+) MiB", re.MULTILINE)
    lines = row.findall(shown)
    (first, rss_before), (second, rss_after) = lines
    assert (first, second) == ("512", "256")
    # It held 300 MiB once; what it got beyond 256 MiB must be the host's again.
    assert float(rss_before) > 400
    assert float(rss_after) < float(rss_before) - 150
    assert "web1: 256 MiB" in shown
    assert "web1: 512 MiB" in shown
    assert started_by(demo.pid) == []
    assert stages_of(demo.pid) == []


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_cut_off_leaves_no_guest(end: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, DEMO], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as demo:
        until(lambda: len(started_by(demo.pid)) >= 2, seconds=30, what="guests started")
        demo.send_signal(end)
        demo.wait(timeout=30)
    until(lambda: not started_by(demo.pid), seconds=10, what="guests gone")
    if end == signal.SIGKILL:
        subprocess.run([sys.executable, "-c", _CLEAN, DEMO.parent], check=True)
    assert stages_of(demo.pid) == []


_CLEAN = "import sys; sys.path.insert(0, sys.argv[1]); import demo; demo.remove_old_stages()"
