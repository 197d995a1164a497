"""Watch for what a test of the unit lane does not do: start a process, sleep, use the network.

Rules of this file:
    The interpreter itself tells of each such call (Python's audit events, "Audit events table"), so
    it does not matter through which module it is made; but of time.sleep it tells from Python 3.13
    on, and of the processes that multiprocessing spawns not at all, so both calls are replaced. The
    call fails, and the test too, also where the program under test catches the failure. Unix
    sockets and TCP on the loopback address are allowed: both ends are in the test.
"""

import _posixsubprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, NoReturn

import pytest

PROCESSES: Final = frozenset(
    {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.exec"}
    | {"os.system", "pty.spawn"}
)
CONNECTIONS: Final = frozenset({"socket.connect", "socket.sendto", "socket.getaddrinfo"})
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class ImpureError(AssertionError):
    """A test of the unit lane did what none of them may do."""


class _Watch:
    def __init__(self) -> None:
        self.seen: list[str] | None = None
        self.is_installed = False

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.seen is not None and (said := _objection(event, arguments)):
            self.object(said)

    def sleep(self, seconds: float) -> None:
        if seconds:
            self.object(f"a thread sleeps for {seconds} s")

    def spawn(self, *arguments: object) -> int:
        self.object(f"a process is started: _posixsubprocess.fork_exec{arguments[:1]}")

    def object(self, said: str) -> NoReturn:
        if self.seen is not None:
            self.seen.append(said)
        raise ImpureError(said)


_WATCH: Final = _Watch()


@contextmanager
def watched() -> Generator[None]:
    """Fail where a process is started, the thread sleeps or the network is used meanwhile."""
    if not _WATCH.is_installed:  # an audit hook stays for good
        sys.addaudithook(_WATCH.hear)
        _WATCH.is_installed = True
    seen: list[str] = []
    _WATCH.seen = seen
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "sleep", _WATCH.sleep)
            patch.setattr(_posixsubprocess, "fork_exec", _WATCH.spawn)
            yield
    finally:
        _WATCH.seen = None
    if seen:
        raise ImpureError(f"{'; '.join(seen)}: this test belongs to tests/system")


def _objection(event: str, arguments: tuple[object, ...]) -> str:
    if event in PROCESSES:
        return f"a process is started: {event}{arguments[:2]}"
    if event in CONNECTIONS and not _is_local(event, arguments):
        return f"the network is used: {event}{arguments[1:]}"
    return ""


def _is_local(event: str, arguments: tuple[object, ...]) -> bool:
    if event == "socket.getaddrinfo":
        return arguments[0] in LOOPBACK
    address = arguments[1]
    return not isinstance(address, tuple) or address[0] in LOOPBACK  # else a unix socket's path
