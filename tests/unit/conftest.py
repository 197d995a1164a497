"""What every unit test gets: nothing of ours may block an event loop."""

from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """Fail a test in which code of this package blocks its event loop.

    Opening a path with O_PATH and connecting a non-blocking unix socket are not among the calls
    that are caught, and rightly so: neither waits for anybody.
    """
    with blockbuster_ctx(scanned_modules=["qmpmem"]) as blockbuster:
        # A loop whose clock jumps must not jump past a thread, so it waits for the thread itself.
        for function in blockbuster.functions.values():
            function.can_block_in("tests/rig/clock.py", {"run_in_executor"})
        yield
