"""Which processes a client believes, and what it takes of systemd."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from qmpmem.api import socket_activation
from qmpmem.api.server_identity import is_trusted
from qmpmem.api.socket_activation import Given
from qmpmem.errors import ConfigError
from tests.rig.patience import patient
from tests.rig.qemu import short_directory
from tests.rig.users import needs_root

OTHER = 4242


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose parents are root's alone: not in /tmp, which is sticky."""
    with TemporaryDirectory(dir="/run", prefix="qmpmem-test-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_root_and_ones_own_user_are_believed_everywhere() -> None:
    path = Path("/tmp/anywhere/agent.sock")
    assert is_trusted(0, path)
    assert is_trusted(os.geteuid(), path)
    assert not is_trusted(OTHER, path)


@needs_root("may not give a directory to another user")
def test_the_user_to_whom_root_gave_the_directory_is_believed(place: Path) -> None:
    directory = place / "agent"
    directory.mkdir(mode=0o711)
    assert not is_trusted(OTHER, directory / "agent.sock"), "it is root's"
    os.chown(directory, OTHER, -1)
    assert is_trusted(OTHER, directory / "agent.sock")
    assert not is_trusted(OTHER + 1, directory / "agent.sock")
    for mode in (0o775, 0o777, 0o1777, 0o2770):
        directory.chmod(mode)
        assert not is_trusted(OTHER, directory / "agent.sock"), oct(mode)
    directory.chmod(0o711)
    for mode in (0o775, 0o1777):
        place.chmod(mode)
        assert not is_trusted(OTHER, directory / "agent.sock"), "others may put it there"
    place.chmod(0o755)
    (place / "link").symlink_to(directory)
    (place / "round").symlink_to(f"../{place.name}/./agent")
    assert is_trusted(OTHER, place / "link" / "agent.sock")
    assert is_trusted(OTHER, place / "round" / "agent.sock")
    (place / "circle").symlink_to("circle")
    assert not is_trusted(OTHER, place / "circle" / "agent.sock")
    os.chown(place / "link", OTHER, OTHER, follow_symlinks=False)
    assert not is_trusted(OTHER, place / "link" / "agent.sock"), "a link of another user"
    with TemporaryDirectory() as sticky:
        (Path(sticky) / "link").symlink_to(directory)
        assert not is_trusted(OTHER, Path(sticky) / "link" / "agent.sock"), "below /tmp"


@needs_root("may not give a file to another user")
def test_the_owner_of_a_socket_in_a_directory_of_roots_is_believed(place: Path) -> None:
    """As systemd makes it, with SocketUser=."""
    path = place / "agent.sock"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    assert not is_trusted(OTHER, path)
    os.chown(path, OTHER, -1)
    assert is_trusted(OTHER, path)
    place.chmod(0o1777)
    assert not is_trusted(OTHER, path)


@needs_root("may not be another user")
def test_a_directory_that_a_user_made_in_tmp_or_at_home_is_not_roots() -> None:
    with short_directory() as home:  # in /tmp, which is sticky
        os.chown(home, OTHER, -1)
        assert not is_trusted(OTHER, home / "agent.sock")
        (home / "run").mkdir()
        os.chown(home / "run", OTHER, -1)
        assert not is_trusted(OTHER, home / "run" / "agent.sock")


HANDED = """
import os, socket, sys
environ = dict(os.environ, LISTEN_PID=str(os.getpid()))
sockets = []
for number, path in enumerate(sys.argv[1].split(), start=3):
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    if "--no-listen" not in sys.argv: s.listen()
    sockets.append(s)
for number, s in enumerate(sockets, start=3):
    os.dup2(s.fileno(), number + 50)
for number, s in enumerate(sockets, start=3):
    os.dup2(number + 50, number, inheritable=True)
environ["LISTEN_FDS"] = str(len(sockets))
environ["LISTEN_FDNAMES"] = sys.argv[2]
os.execve(sys.executable, [sys.executable, "-c", sys.argv[3]], environ)
"""

TAKE = """
import os, socket
from qmpmem.api.socket_activation import given
from qmpmem.errors import ConfigError
try: found = given(os.environ)
except ConfigError as error: print(error.message)
else:
    both = (found.look, found.change)
    names = [None if n is None else socket.socket(fileno=n).getsockname() for n in both]
    print(*names, any(name.startswith("LISTEN") for name in os.environ))
"""


@pytest.mark.parametrize(
    ("sockets", "names", "expected"),
    [
        ("a b", "agent:agent-admin", "a b False"),
        ("a b", "agent-admin:agent", "b a False"),
        ("a b", "qmpmem-agent.socket:qmpmem-agent-admin.socket", "a b False"),
        ("a", "agent", "a None False"),
        ("a", "agent-admin", "None a False"),
        ("a b", "agent:agent", "LISTEN_FDNAMES='agent:agent': expected agent and agent-admin"),
        ("a", "other", "LISTEN_FDNAMES='other': expected agent and agent-admin"),
        ("a", "", "LISTEN_FDNAMES='': expected agent and agent-admin"),
    ],
)
def test_what_systemd_hands_over_is_taken(
    tmp_path: Path, sockets: str, names: str, expected: str
) -> None:
    assert handed(tmp_path, sockets, names).startswith(expected)


def test_a_socket_that_does_not_listen_is_refused(tmp_path: Path) -> None:
    said = handed(tmp_path, "a", "agent", "--no-listen")
    assert said == "descriptor 3 (agent): expected a unix socket that listens"


def handed(directory: Path, *words: str) -> str:
    sockets, names, *options = words
    done = subprocess.run(
        [sys.executable, "-c", HANDED, sockets, names, TAKE, *options],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=patient(20),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_was_meant_for_another_process_is_not_taken() -> None:
    """As of a program that systemd started, and that started this one (sd_listen_fds(3))."""
    environ = {
        "LISTEN_PID": "1",
        "LISTEN_FDS": "2",
        "LISTEN_FDNAMES": "agent:agent-admin",
        "X": "y",
    }
    assert socket_activation.given(environ) == Given()
    assert environ == {"X": "y"}
    assert socket_activation.given({}) == Given()


def test_a_descriptor_that_is_not_open_is_refused() -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1000000", "LISTEN_FDNAMES": "agent"}
    with pytest.raises(ConfigError):
        socket_activation.given(environ)
