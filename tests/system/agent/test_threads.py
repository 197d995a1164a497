"""An agent where few tasks, or none, can be started."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmpmem.agent import threads
from qmpmem.errors import KernelError
from tests.rig.command import plain_environment
from tests.rig.patience import patient
from tests.rig.qemu import short_directory
from tests.rig.users import needs_root

UID = 42_424
"""Of no other process of this host: the limit is one of a user's tasks."""


@pytest.fixture
def run() -> Iterator[Path]:
    with short_directory() as here:
        here.chmod(0o755)
        place = here / "run"
        place.mkdir(mode=0o700)
        os.chown(place, UID, UID)
        yield place


@needs_root("starts a process as another user")
@pytest.mark.timeout(240)
def test_an_agent_that_gets_no_thread_says_so_and_ends(run: Path, shared_program: Path) -> None:
    worked = False
    for most in (1, 2, 3, 5, 9, 14, 40):
        words = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
        words += ["prlimit", f"--nproc={most}", str(shared_program), "agent", "--json"]
        environ = plain_environment() | {"QMPMEM_RUN_DIR": str(run), "HOME": str(run)}
        pipe = subprocess.PIPE
        with subprocess.Popen(words, env=environ, stdout=pipe, stderr=pipe, text=True) as child:
            assert child.stdout is not None
            try:
                child.stdout.readline()
                if not child.stdout.readline():  # it ended before its second round
                    child.wait(patient(30))
                worked = child.poll() is None
                child.send_signal(signal.SIGTERM)
                said = child.communicate(timeout=patient(30))[1]
            finally:
                child.kill()
        if worked:
            assert child.returncode == 0, said
            continue
        [line] = [line for line in said.splitlines() if "journal" not in line]
        assert child.returncode == 4, (most, said)
        assert line.startswith("qmpmem: no thread can be started: a limit on tasks is reached; ")
    assert worked


def test_once_started_rounds_need_no_other_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = threads.start()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pool:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        gate = threading.Barrier(threads.COUNT)
        waiting = [pool.submit(gate.wait, patient(10)) for _ in range(threads.COUNT)]
        assert sorted(each.result() for each in waiting) == list(range(threads.COUNT))
        with pytest.raises(KernelError, match="no thread can be started"):
            threads.start()
