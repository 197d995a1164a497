"""The bench's rows of KSM: measured on the live kernel, and nothing of it stays.

What processes it leaves is seen by every test of a real QEMU (conftest.py).
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import pytest

from tests.bench import ksm
from tests.rig import chance
from tests.rig import ksm as rig
from tests.rig.patience import patient

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.host,
    pytest.mark.timeout(1200),  # of which nearly all is waiting for others to let KSM go
    pytest.mark.skipif(ksm.why_not() is not None, reason=ksm.why_not() or ""),
]

ROOT: Final = Path(__file__).resolve().parents[3]
ENDING: Final = (signal.SIGINT, signal.SIGTERM)
BENCH: Final = [sys.executable, "tests/bench", "--quick", "--only", "ksm"]


def knobs() -> dict[str, str]:
    with rig.held() as machine:  # so that no other process holds it in between
        return dict(machine.before)


@pytest.fixture
def before() -> dict[str, str]:
    return knobs()


@pytest.fixture
def bench(before: dict[str, str], way: str) -> Iterator[subprocess.Popen[str]]:
    """The bench, started when KSM was seen; in a session of its own, as in another terminal."""
    assert before
    words = [*BENCH, "--way", way]
    with subprocess.Popen(
        words, cwd=ROOT, stdout=-3, stderr=-1, text=True, start_new_session=True
    ) as process:
        yield process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def await_line(stream: IO[str] | None, words: str) -> None:
    assert stream is not None
    seen = []
    for line in stream:
        seen.append(line)
        if words in line:
            return
    raise AssertionError(f"it never said {words!r}: {''.join(seen)}")


def test_it_measures_every_way(before: dict[str, str]) -> None:
    done = subprocess.run(BENCH, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for way in ksm.ways():
        assert f"\n{way.name}  " in done.stdout
    assert "ksm quiet, saved" in done.stdout
    assert knobs() == before


STAGES: Final = [
    ("off", "filled"),  # its guests boot
    ("ksmtuned, THRES_COEF=100", "each: ksmtuned"),  # another program is about to run
    ("preset eager", "each: preset"),
]


@pytest.mark.parametrize(
    ("way", "stage", "number"),
    chance.some([(*stage, number) for stage in STAGES for number in ENDING]),
)
def test_it_leaves_nothing_when_it_is_ended(
    before: dict[str, str], bench: subprocess.Popen[str], stage: str, number: signal.Signals
) -> None:
    await_line(bench.stderr, stage)
    bench.send_signal(number)
    assert bench.wait(timeout=patient(60)) == 130
    assert knobs() == before
