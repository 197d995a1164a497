"""The threads that read for rounds: all of them are started before the first round.

Theory of operation:
    A thread is a task of the kernel, and the number of tasks is limited: for a user (getrlimit(2):
    RLIMIT_NPROC), for a cgroup (pids.max; TasksMax of a unit), and for the host. Python's executor
    starts a thread when it needs it, so a round would wait for a thread that never comes. With all
    of them started, rounds go on also on a host where no task can be started any more.
"""

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from qmpmem.errors import KernelError
from qmpmem.files import asynchronous

COUNT: Final = 8
"""Threads that are started. A round reads in two at a time; the search for guests, readings of
costs that hang, and questions take the others."""
_NONE: Final = "can't start new thread"
"""Python's message where no thread can be started (CPython: Modules/_threadmodule.c)."""


def start(count: int = COUNT) -> ThreadPoolExecutor:
    """Start threads for rounds, and those that read and write single files.

    Raises:
        KernelError: the kernel lets us start no more.
    """
    pool = ThreadPoolExecutor(count, thread_name_prefix="rounds")
    try:
        _fill(pool, count)
        _fill(asynchronous.THREADS, asynchronous.AT_ONCE)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    return pool


def _fill(pool: ThreadPoolExecutor, count: int) -> None:
    gate = threading.Event()
    try:
        with explained():
            for _ in range(count):
                pool.submit(gate.wait)  # none is idle, so each starts one
    finally:
        gate.set()


@contextmanager
def explained() -> Generator[None]:
    """Raise an error that tells why a thread cannot be started, where that happens.

    Raises:
        KernelError: a limit on tasks is reached.
    """
    try:
        yield
    except RuntimeError as error:
        if str(error) != _NONE:
            raise
        raise KernelError(
            "no thread can be started: a limit on tasks is reached",
            hint="raise `ulimit -u` of this user, or pids.max of its cgroup (TasksMax of the unit)",
        ) from error
