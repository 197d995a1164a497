"""Launchers that claim the same name at the same moment, each of which waits for the lock."""

import threading

from launchers.kvm_claim import claim
from tests.rig.launcher import leave
from tests.rig.qemu import short_directory


def test_many_at_once_each_get_their_own() -> None:
    with short_directory() as run:
        leave(run, pid=2**22, started=1)
        claimed: list[str] = []
        barrier = threading.Barrier(8)

        def start() -> None:
            barrier.wait()
            claimed.append(claim(str(run), "a")[0])

        threads = [threading.Thread(target=start) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(claimed)) == 8
        assert all(not list((run / guest).iterdir()) for guest in claimed)
