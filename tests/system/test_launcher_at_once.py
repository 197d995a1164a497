"""Launchers that claim the same name at the same moment, each of which waits for the lock."""

import fcntl
import os
import threading
from contextlib import ExitStack

from launchers.kvm_claim import claim
from tests.rig.launcher import leave, opened_run
from tests.rig.qemu import short_directory


def test_many_at_once_each_get_their_own() -> None:
    with short_directory() as run, ExitStack() as stack:
        leave(run, pid=2**22, started=1)
        directory = stack.enter_context(opened_run(run))
        claimed: list[str] = []
        barrier = threading.Barrier(8)

        def start() -> None:
            barrier.wait()
            guest, descriptor = claim(directory, "a")
            os.close(descriptor)
            claimed.append(guest)

        threads = [threading.Thread(target=start) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
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
