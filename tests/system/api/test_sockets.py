"""The agent's socket: one agent, a safe place, nothing of another program touched."""

import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from qmpmem.api import addresses
from qmpmem.api.permissions import Permissions
from qmpmem.api.sockets import Listeners, listening
from qmpmem.errors import ConfigError, KernelError
from qmpmem.guests import rundir
from tests.rig import odd
from tests.rig.command import plain_environment
from tests.rig.patience import patient, within
from tests.rig.qemu import short_directory, until
from tests.rig.users import AS_ORDINARY, NOBODY, ORDINARY, needs_root, python_of

RUN = Path("/home/u/run")
LONGEST = "/" + "x" * 100
"""Longer by six is the socket for changes."""


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as made:
        yield made


@pytest.mark.parametrize(
    ("named", "run", "expected"),
    [
        pytest.param(None, rundir.ROOTS, "/run/qmpmem/agent/agent.sock", id="root"),
        pytest.param(None, RUN, f"{RUN}/.agent/agent.sock", id="any other: in its run directory"),
        pytest.param("/x/y", RUN, "/x/y", id="named"),
        pytest.param(LONGEST, RUN, LONGEST, id="as long as can be"),
    ],
)
def test_where_the_socket_stands(named: str | None, run: Path, expected: str) -> None:
    assert addresses.socket_path(environ(named), run) == Path(expected)


@pytest.mark.parametrize(
    ("named", "run", "why"),
    [
        pytest.param("x/y", RUN, "absolute", id="relative"),
        pytest.param(f"{LONGEST}x", RUN, "-admin: 108 bytes, expected 107", id="a byte too long"),
        pytest.param(None, Path("/" + "é" * 60), "145 bytes", id="umlauts count twice"),
    ],
)
def test_a_path_that_no_socket_can_have_is_named(named: str | None, run: Path, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        addresses.socket_path(environ(named), run)


def test_the_lock_stands_beside_it() -> None:
    socket_path = RUN / ".agent" / "agent.sock"
    assert addresses.admin_path(socket_path) == RUN / ".agent" / "agent-admin.sock"
    assert addresses.lock_path(socket_path) == RUN / ".agent" / "agent.lock"
    assert addresses.orders_path(socket_path) == RUN / ".agent" / "agent.orders"
    assert addresses.admin_path(Path("/x/y")) == Path("/x/y-admin")


def environ(named: str | None) -> dict[str, str]:
    return {} if named is None else {"QMPMEM_AGENT_SOCKET": named}


def opened(path: Path) -> AbstractContextManager[Listeners]:
    """Listen where there are no groups."""
    return listening(path, Permissions(owner=os.geteuid()))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_both_are_there_while_the_agent_is_and_gone_after(directory: Path) -> None:
    path = directory / ".agent" / "agent.sock"
    both = (path, addresses.admin_path(path))
    with opened(path) as listeners:
        for each, listener in zip(both, (listeners.look, listeners.change), strict=True):
            assert stat.S_ISSOCK(each.stat().st_mode)
            assert mode_of(each) == 0o600
            assert not os.get_inheritable(listener.fileno())
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(each))
        assert mode_of(path.parent) == 0o700
        assert addresses.lock_path(path).read_text() == f"{os.getpid()}\n"
        assert mode_of(addresses.lock_path(path)) == 0o600
    assert not any(each.exists() for each in both)


@needs_root("may not give a file to another group")
@pytest.mark.parametrize(
    ("readers", "writers", "modes"),
    [(4711, 4712, (0o660, 0o660)), (4711, None, (0o660, 0o600)), (None, 4712, (0o600, 0o660))],
)
def test_each_socket_is_for_its_group(
    directory: Path, readers: int | None, writers: int | None, modes: tuple[int, int]
) -> None:
    path = directory / ".agent" / "agent.sock"
    with listening(path, Permissions(owner=0, readers=readers, writers=writers)):
        both = [path.stat(), addresses.admin_path(path).stat()]
        assert tuple(stat.S_IMODE(each.st_mode) for each in both) == modes
        assert [each.st_gid for each in both] == [readers or 0, writers or 0]
        assert mode_of(path.parent) == 0o711


def test_a_socket_is_never_open_to_more_than_it_shall_be(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for a moment, whatever the umask: it listens as its owner's alone, and is opened then."""
    seen: list[int] = []
    really = socket.socket.listen

    def listen(self: socket.socket, backlog: int) -> None:
        seen.extend(mode_of(each) for each in directory.glob("*.sock"))
        really(self, backlog)

    monkeypatch.setattr(socket.socket, "listen", listen)
    before = os.umask(0)
    try:
        with listening(directory / "a.sock", Permissions(owner=0, readers=os.getegid())):
            assert os.umask(0) == 0, "the umask is as it was"
    finally:
        os.umask(before)
    assert seen[0] == 0o600
    assert set(seen) <= {0o600, 0o660}


def test_a_group_that_may_not_have_its_socket_is_said(shared_program: Path) -> None:
    """An ordinary user can give no file to a group that it is not in: it stays its own."""
    program = (
        "import sys, os, stat; from pathlib import Path\n"
        "from qmpmem.api.sockets import listening\n"
        "from qmpmem.api.permissions import Permissions\n"
        "with listening(Path(sys.argv[1]), Permissions(owner=1, readers=4711), warn=print):\n"
        "    print(oct(stat.S_IMODE(os.stat(sys.argv[1]).st_mode)))\n"
    )
    with short_directory() as made:
        made.chmod(0o755)
        (made / "own").mkdir()
        if AS_ORDINARY:
            os.chown(made / "own", ORDINARY, ORDINARY)
        done = subprocess.run(
            [*AS_ORDINARY, *python_of(shared_program, program), made / "own" / "a.sock"],
            capture_output=True,
            text=True,
            check=False,
            timeout=patient(20),
        )
    assert done.stdout.splitlines() == [
        f"{made}/own/a.sock: not for the group 4711, in which this user is not",
        "0o600",
    ], done.stderr


def test_an_agent_listens_though_the_disk_is_full(directory: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with opened(directory / "a.sock"), pytest.raises(ConfigError, match="pid unknown holds"):
            opened(directory / "a.sock").__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_second_agent_refuses_at_once_and_names_the_first(directory: Path) -> None:
    """Row F58."""
    path = directory / "a.sock"
    with opened(path):
        with within(1), pytest.raises(ConfigError, match=f"pid {os.getpid()} holds .*a.lock"):
            opened(path).__enter__()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))  # the first one's socket is as it was


def test_what_a_killed_agent_left_is_replaced(directory: Path) -> None:
    path = directory / "a.sock"
    program = (
        "import sys, time; from pathlib import Path; "
        "from qmpmem.api.sockets import listening\n"
        "from qmpmem.api.permissions import Permissions\n"
        "with listening(Path(sys.argv[1]), Permissions(owner=0)): time.sleep(60)"
    )
    agent = subprocess.Popen([sys.executable, "-c", program, path])
    until(path.exists, what="it listens")
    with pytest.raises(ConfigError, match=f"pid {agent.pid}"):
        opened(path).__enter__()
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    assert path.exists()
    with opened(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_link_is_not_followed(directory: Path) -> None:
    """Row F74."""
    path, target = directory / "a.sock", directory / "target"
    path.symlink_to(target)
    with pytest.raises(KernelError, match="not a socket"):
        opened(path).__enter__()
    assert path.is_symlink()
    assert not target.exists()


def test_a_link_in_the_place_of_the_lock_is_not_followed(directory: Path) -> None:
    target = directory / "target"
    target.write_text("mine")
    (directory / "a.lock").symlink_to(target)
    with pytest.raises(KernelError, match=r"a\.lock"):
        opened(directory / "a.sock").__enter__()
    assert target.read_text() == "mine"


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo], ids=["file", "dir", "fifo"])
def test_what_is_no_socket_is_not_removed(directory: Path, make: Callable[[Path], None]) -> None:
    path = directory / "a.sock"
    make(path)
    before = path.stat().st_ino
    with pytest.raises(KernelError, match="not a socket"):
        opened(path).__enter__()
    assert path.stat().st_ino == before


def test_a_fifo_in_the_place_of_the_lock_does_not_hang_the_agent(directory: Path) -> None:
    os.mkfifo(directory / "a.lock")
    with pytest.raises(KernelError):
        opened(directory / "a.sock").__enter__()


def test_a_directory_where_others_may_put_files_is_refused(directory: Path) -> None:
    """Row F74."""
    for mode in (0o777, 0o770, 0o2770, 0o702):
        directory.chmod(mode)
        with pytest.raises(KernelError, match="others may put files there"):
            opened(directory / "a.sock").__enter__()
    directory.chmod(0o1777)
    with opened(directory / "a.sock"):
        pass


@pytest.mark.parametrize("above", [0o777, 0o775, 0o755])
@needs_root("makes a directory of another user")
def test_no_directory_is_made_where_others_could_exchange_it(directory: Path, above: int) -> None:
    (directory / "run").mkdir()
    (directory / "run").chmod(above)
    os.chown(directory / "run", NOBODY if above == 0o755 else 0, NOBODY)
    with pytest.raises(KernelError, match=f"{directory}/run: "):
        opened(directory / "run/.agent/agent.sock").__enter__()
    assert list((directory / "run").iterdir()) == []


@needs_root("makes a file of another user")
@pytest.mark.parametrize("make", [odd.fifo, odd.directory, odd.device, odd.others, odd.groups])
def test_a_lock_that_others_could_hold_is_refused_and_named(
    directory: Path, make: odd.Make
) -> None:
    directory.chmod(0o1777)
    lock = directory / "a.lock"
    make(lock)
    before = lock.stat()
    with pytest.raises(KernelError, match=f"{lock}: "):
        opened(directory / "a.sock").__enter__()
    assert lock.stat() == before or make is odd.device


def test_a_link_in_the_place_of_the_directory_is_not_followed(directory: Path) -> None:
    (directory / "target").mkdir()
    (directory / ".agent").symlink_to(directory / "target")
    with pytest.raises(KernelError):
        opened(directory / ".agent" / "agent.sock").__enter__()
    assert not list((directory / "target").iterdir())


def test_a_missing_directory_is_one_line(directory: Path) -> None:
    with pytest.raises(KernelError, match="No such file"):
        opened(directory / "none" / "none" / "a.sock").__enter__()


def test_a_socket_that_another_agent_put_there_meanwhile_stays(directory: Path) -> None:
    path = directory / "a.sock"
    with opened(path):
        path.unlink()
        other = socket.socket(socket.AF_UNIX)
        other.bind(str(path))
    assert path.exists()
    other.close()


@pytest.mark.parametrize(
    ("mode", "words", "hint"),
    [
        (0o555, ["agent"], "run it as root, or set QMPMEM_RUN_DIR"),
        (0, ["agent"], "or set QMPMEM_RUN_DIR"),
        (0, ["list"], "run it as the owner of that directory, or as root"),
        (0, ["events"], "run it as the owner of that directory, or as root"),
    ],
)
def test_a_user_that_may_not_is_told_what_would_help(
    directory: Path, shared_program: Path, mode: int, words: list[str], hint: str
) -> None:
    run = directory / "run"
    run.mkdir()
    directory.chmod(0o755)
    run.chmod(mode)
    done = subprocess.run(
        [*AS_ORDINARY, str(shared_program), *words],
        env=plain_environment() | {"QMPMEM_RUN_DIR": str(run)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=patient(60),
        check=False,
    )
    run.chmod(0o755)
    assert (done.returncode, done.stdout) == (4, "")
    assert "Permission denied" in done.stderr
    assert hint in done.stderr
