"""The bench's loads on real guests: each of them runs, and nothing of it stays.

What processes it leaves is seen by every test of a real QEMU (conftest.py).
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.bench import limits
from tests.bench.run import LOADS
from tests.rig import chance
from tests.rig.patience import patient
from tests.rig.qemu import until
from tests.rig.users import needs_root

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.host("limits"),
    pytest.mark.timeout(300),
    needs_root("may not limit and swap"),
    pytest.mark.skipif(limits.why_not() is not None, reason=limits.why_not() or ""),
]

ROOT: Final = Path(__file__).resolve().parents[3]
BENCH: Final = [sys.executable, "tests/bench", "--quick", "--json", "--policy", "ours"]
OTHERS: Final = [load.name for load in LOADS if load.name not in ("squeeze", "packing")]
"""Loads that test_squeeze.py does not look at."""
INTERRUPTED: Final = """
import os, signal, subprocess, sys
from tests.bench import run
fork, program = subprocess._fork_exec, sys.argv[1]
def interrupted(words, *rest):
    pid = fork(words, *rest)
    if any(program == os.fsdecode(word) for word in words):
        print(f"interrupted at {program}", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
    return pid
subprocess._fork_exec = interrupted
sys.exit(run.main(sys.argv[2:]))
"""
"""A bench that is told to end at the moment at which it has started a program."""


def left(bench: int) -> list[Path]:
    """Find what a bench has made and not removed."""
    places = (limits.GROUPS, *limits.UNIFIED, Path(tempfile.gettempdir()))
    return [path for place in places for path in place.glob(f"{limits.MARK}{bench}*")]


@pytest.mark.parametrize("name", chance.some(OTHERS, 3))
def test_a_load_says_what_became_of_the_guests(name: str) -> None:
    with subprocess.Popen(
        [*BENCH, "--only", name], cwd=ROOT, stdout=-1, stderr=-1, text=True
    ) as bench:
        out, said = bench.communicate()
    assert bench.returncode == 0, said
    document: dict[str, Any] = json.loads(out)
    [row] = document["loads"][name]
    assert row["policy"] == "ours/launcher"
    of_guests = row.get("base", row)
    assert of_guests["kills"] == of_guests["lost"] == 0
    assert not left(bench.pid)


@pytest.fixture
def bench() -> Iterator[subprocess.Popen[bytes]]:
    """A bench whose guests are there; in a session of its own, as in another terminal."""
    words = [*BENCH, "--only", "database"]
    with subprocess.Popen(words, cwd=ROOT, stdout=-3, stderr=-3, start_new_session=True) as process:
        group = limits.GROUPS / f"{limits.MARK}{process.pid}"
        until(
            lambda: group.exists() and len((group / "cgroup.procs").read_text().split()) > 1,
            seconds=30,
            what="the guests are there",
        )
        yield process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("number", chance.some([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
def test_it_leaves_nothing_when_it_is_ended(
    bench: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    bench.send_signal(number)
    assert bench.wait(timeout=patient(60)) == 130
    assert not left(bench.pid)


@pytest.mark.parametrize("program", ["losetup", "swapon", "database", "g0", "tests.bench.policed"])
def test_it_leaves_nothing_when_it_is_ended_while_it_starts_a_program(
    program: str, tmp_path: Path
) -> None:
    """The worst moment: the program runs, and nothing of the bench has its process id yet."""
    words = ["--quick", "--policy", "ours", "--only", "database"]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, program, *words],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        text=True,
    ) as bench:
        _, said = bench.communicate()
    assert bench.returncode == 130, said
    assert f"interrupted at {program}" in said
    assert not left(bench.pid)
    assert not limits.loops(f"{limits.MARK}{bench.pid}.")
    assert not list(tmp_path.iterdir())


def test_what_it_leaves_when_it_is_killed_the_next_one_removes(
    bench: subprocess.Popen[bytes],
) -> None:
    bench.kill()
    bench.wait()
    assert left(bench.pid)
    group = limits.GROUPS / f"{limits.MARK}{bench.pid}"
    until(lambda: not (group / "cgroup.procs").read_text(), what="the guests ended with it")
    limits.remove_left()
    assert not left(bench.pid)
    assert not limits.loops(f"{limits.MARK}{bench.pid}.")
