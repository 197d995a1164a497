"""A socket of one's own, at which any number of clients share a guest's session.

Rules of this file:
    The socket's mode is 0600 from the moment it exists: the kernel turns other users away. Where no
    place was chosen it stands in a new directory of mode 0700. Nothing is removed but a socket of
    this user that no process listens at.
"""

import asyncio
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from qmpmem.errors import ConfigError, KernelError
from qmpmem.files import sockets

NAME: Final = "proxy.sock"
LONGEST: Final = 107
"""Bytes that a socket's path may have (unix(7): sun_path, less the NUL)."""
BACKLOG: Final = 128


@asynccontextmanager
async def serving(
    listener: socket.socket, make: Callable[[], asyncio.BaseProtocol]
) -> AsyncGenerator[None]:
    """Serve clients until the context is left.

    Args:
        listener: a bound socket, which stays the caller's to close.
        make: makes the protocol of one more client.
    """
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(make, sock=listener.dup(), backlog=BACKLOG)
    try:
        yield
    finally:
        server.close()


@contextmanager
def listening(path: Path | None, environ: Mapping[str, str]) -> Generator[socket.socket]:
    """Make the socket; it is removed at the end.

    Args:
        path: where; None: in a directory of its own.
        environ: names the user's directory for such things (XDG_RUNTIME_DIR).

    Raises:
        ConfigError: a path that is too long, or taken.
        KernelError: the socket cannot be made there.
    """
    if path is not None:
        with _bound(path) as listener:
            yield listener
        return
    own = Path(environ.get("XDG_RUNTIME_DIR", ""))
    base = own if own.is_absolute() and own.is_dir() else Path(tempfile.gettempdir())
    try:
        directory = Path(tempfile.mkdtemp(prefix="qmpmem-", dir=base))
    except OSError as error:
        raise KernelError(
            f"{base}: {error.strerror}", hint="name a place: --listen PATH"
        ) from error
    try:
        with _bound(directory / NAME) as listener:
            yield listener
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _bound(path: Path) -> Generator[socket.socket]:
    length = len(os.fsencode(path))
    if length > LONGEST:
        raise ConfigError(f"{path}: {length} bytes, expected {LONGEST} at most for a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        try:
            _bind(listener, path)
            mine = path.lstat()
        except OSError as error:
            raise KernelError(f"{path}: {error.strerror}") from error
        try:
            yield listener
        finally:
            with suppress(OSError):
                if os.path.samestat(path.lstat(), mine):
                    path.unlink()


def _bind(listener: socket.socket, path: Path) -> None:
    try:
        sockets.bind(listener, str(path))
    except OSError:
        if not os.path.lexists(path):
            raise
        _expect_left_over(path)
        path.unlink()
        sockets.bind(listener, str(path))


def _expect_left_over(path: Path) -> None:
    """Refuse to take the place of anything but a socket of this user that has no listener."""
    found = path.lstat()
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigError(f"{path}: exists, and is not a socket of this user")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        try:
            connection.connect(str(path))
        except ConnectionRefusedError:
            return
        except OSError:
            pass
    raise ConfigError(f"{path}: a process listens there")
