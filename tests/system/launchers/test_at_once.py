"""Launchers that claim the same name at the same moment, each of which waits for the lock."""

import fcntl
import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from typing import Final

from launchers.kvm_claim import claim
from tests.rig.guests import ROOT
from tests.rig.launcher import leave, opened_run
from tests.rig.qemu import short_directory

CLAIM: Final = """
import sys
from launchers.kvm_claim import claim
from launchers.kvm_run import open_run
run = open_run(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(claim(run, "a")[0])
"""


def test_many_at_once_each_get_their_own() -> None:
    """Each is a process, as in life: a umask is all threads'."""
    with short_directory() as run, ExitStack() as stack:
        leave(run, pid=2**22, started=1)
        launchers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", CLAIM, run],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    cwd=ROOT,
                    text=True,
                )
            )
            for _ in range(8)
        ]
        for each in launchers:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in launchers:
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
        claimed = [each.communicate()[0].strip() for each in launchers]
        assert len(set(claimed)) == 8
        assert all(not list((run / guest).iterdir()) for guest in claimed)


def test_an_id_waits_for_our_own_lock() -> None:
    """The agent clears away, or another launcher does: that takes a moment."""
    with short_directory() as run, opened_run(run) as opened:
        leave(run, pid=2**22, started=1)
        held = os.open(run / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(held, fcntl.LOCK_EX)
        later = threading.Timer(0.5, os.close, (held,))
        later.start()
        guest, descriptor = claim(opened, "a")
        os.close(descriptor)
        later.join()
        assert guest == "a"
