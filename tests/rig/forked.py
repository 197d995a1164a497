"""One Python that has loaded qmpmem, and is forked for each call of it.

Theory of operation:
    To start Python and load the program takes longer than most commands do. `call` hands the words,
    the environment and three open files of a call over to a process that has loaded what commands
    need; its fork does what `qmpmem` does from its first line on. A call takes a quarter of the
    time. Each call has a process of its own in between, which waits for it and tells how it ended.

    What Python reads at its start (PYTHON..., the locale) makes another such process. Each is
    started at the first call, and ends when the process that started it does: the
    end of a pipe tells. It is no child of that process, so that no test takes it for something that
    the test has left running.

Rules of this file:
    How the program starts is not tested by this: `tests.rig.command.qmpmem` starts it.
"""

import os
import pickle
import select
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Final, NoReturn

READY: Final = b"ready"
LONGEST: Final = 1 << 20
"""Bytes of a call's words and environment."""


def call(
    words: Sequence[str],
    environ: Mapping[str, str],
    files: Sequence[int],
    directory: Path | None,
    seconds: float,
) -> int:
    """Make a call, wait for its end, and return its exit code; a signal's number is negative.

    Args:
        words: what follows `qmpmem`.
        environ: its whole environment.
        files: descriptors for its stdin, stdout and stderr.
        directory: the one that it works in; None: this process's.
        seconds: how long it may take.

    Raises:
        TimeoutExpired: it took longer, and was killed.
    """
    asked = pickle.dumps(
        (
            [os.fsencode(word) for word in words],
            {os.fsencode(key): os.fsencode(value) for key, value in environ.items()},
            os.fsencode(directory or Path.cwd()),
        )
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST)
        line.connect(_server(frozenset(each for each in environ.items() if _matters(each[0]))))
        socket.send_fds(line, [asked], files)
        pid = int(line.recv(32))
        line.settimeout(seconds)
        try:
            return int(line.recv(32))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(words), seconds) from None


def _matters(name: str) -> bool:
    return name.startswith(("PYTHON", "LC_")) or name in ("LANG", "LANGUAGE")


@cache
def _server(settings: frozenset[tuple[str, str]]) -> str:
    """Start a Python with settings from the environment, and return where it listens."""
    path = mkdtemp(prefix="qm-forked-") + "/s"
    ours, _ = os.pipe()  # the other end closes with this process
    code = "from tests.rig import forked; forked.serve()"
    with subprocess.Popen(
        [sys.executable, "-c", code, path, str(ours)],
        cwd=Path(__file__).parents[2],
        pass_fds=(ours,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **dict(settings)},
    ) as starter:
        os.close(ours)
        assert starter.stdout is not None
        assert starter.stdout.read(len(READY)) == READY
    return path


def serve() -> NoReturn:
    """Listen at a path, the first argument, until a pipe, the second, comes to its end.

    The directory of the path goes with it, also where the process that made it was killed.
    """
    import qmpmem.library  # noqa: PLC0415 - the tests' own process need not load all this
    import qmpmem.view.rows  # noqa: F401, PLC0415

    path, alive = sys.argv[1], int(sys.argv[2])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(64)
        os.write(1, READY)
        if os.fork():
            os._exit(0)
        os.setsid()
        _release_output()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _listen(listener, alive)
    shutil.rmtree(Path(path).parent)
    sys.exit()


def _release_output() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for file in (0, 1, 2):
        os.dup2(nothing, file)
    os.close(nothing)


def _listen(listener: socket.socket, alive: int) -> None:
    while alive not in select.select([listener.fileno(), alive], [], [])[0]:
        line = listener.accept()[0]
        if os.fork() == 0:
            os.close(alive)
            listener.close()
            _attend(line)
        line.close()


def _attend(line: socket.socket) -> NoReturn:
    """Make the call that a connection asks for, and tell its pid, then its exit code."""
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    message, files, _, _ = socket.recv_fds(line, LONGEST, 3)
    child = os.fork()
    if child == 0:
        line.close()
        words, environ, directory = pickle.loads(message)  # noqa: S301 - from our own test
        _become(words, environ, directory, files)
    line.send(str(child).encode())
    ended = os.pidfd_open(child)
    if ended not in select.select([ended, line.fileno()], [], [])[0]:
        _kill(child)  # the process that called is gone: nothing of it goes on
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(OSError):
        line.send(str(code).encode())
    os._exit(0)


def _kill(child: int) -> None:
    """Kill a call, and what it has started in its process group."""
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    with suppress(ProcessLookupError):  # where it has no group of its own yet
        os.kill(child, signal.SIGKILL)


def _become(
    words: Sequence[bytes], environ: Mapping[bytes, bytes], directory: bytes, files: Sequence[int]
) -> NoReturn:
    """Do what a process does that was started as `qmpmem`."""
    from qmpmem.cli import main  # noqa: PLC0415
    from tests.rig.command import PROGRAM  # noqa: PLC0415

    os.setpgid(0, 0)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, max(files) + 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environb.clear()
    os.environb.update(environ)
    os.chdir(directory)
    sys.argv = [str(PROGRAM), *map(os.fsdecode, words)]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as Python itself does at its end
        traceback.print_exc()
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(code)
