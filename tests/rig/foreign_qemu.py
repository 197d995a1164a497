"""QEMUs that another program started, each in its own way, and clients that hold a monitor."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.rig.patience import patient
from tests.rig.qemu import EMULATOR, SMALL, listens, until

PAUSED = ("-S", *SMALL, "-m", "64")


@contextmanager
def started(  # noqa: PLR0913 - what Popen takes
    *words: str,
    cwd: Path | None = None,
    wait_for: Path | None = None,
    pass_fds: tuple[int, ...] = (),
    env: Mapping[str, str] | None = None,
    program: str = EMULATOR,
    executable: str | Path = EMULATOR,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a paused QEMU with these arguments; it is listening when this yields."""
    with subprocess.Popen(
        [program, *PAUSED, *words],
        executable=executable,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=pass_fds,
        env=env,
    ) as child:
        try:
            if wait_for is not None:
                until(lambda: listens(wait_for) or child.poll() is not None, seconds=30)
            assert child.poll() is None, child.stderr and child.stderr.read()
            yield child
        finally:
            child.kill()


@contextmanager
def handed(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a paused QEMU whose QMP socket was made by us, and is its own from then on."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        number = listener.fileno()
        chardev = f"socket,id=m,fd={number},server=on,wait=off"
        words = ("-chardev", chardev, "-mon", "chardev=m,mode=control")
        with started(*words, pass_fds=(number,)) as child:
            listener.close()  # now only QEMU has it open
            yield child


@contextmanager
def daemon(here: Path, *words: str, pass_fds: tuple[int, ...] = ()) -> Iterator[int]:
    """Start a paused QEMU that leaves its parent, from a shell in `here`; yields its pid."""
    pidfile = here / "pid"
    command = [EMULATOR, *PAUSED, "-daemonize", "-pidfile", str(pidfile), *words]
    shell = {**os.environ, "PWD": str(here)}  # as a shell says where one is
    subprocess.run(
        command, cwd=here, env=shell, check=True, stdin=subprocess.DEVNULL, pass_fds=pass_fds
    )
    pid = int(pidfile.read_text())
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)


def qmp(path: str | Path) -> tuple[str, str]:
    """Write the option that makes a QMP socket, as people do."""
    return "-qmp", f"unix:{path},server=on,wait=off"


@contextmanager
def client(path: Path | str) -> Iterator[socket.socket]:
    """Attach to a monitor as any other program would, and hold it."""
    address = str(path)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(patient(10))
        connection.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        assert "QMP" in json.loads(connection.makefile("rb").readline())
        yield connection
