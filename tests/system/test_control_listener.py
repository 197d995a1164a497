"""The agent's socket: one agent, a safe place, nothing of somebody else's touched."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qmpmem import rundir
from qmpmem.control import address
from qmpmem.control.listener import listening
from qmpmem.errors import ConfigError, KernelError
from tests.rig.command import plain_environment
from tests.rig.patience import patient, within
from tests.rig.qemu import short_directory, until
from tests.rig.users import AS_ORDINARY

RUN = Path("/home/u/run")
JOIN = "as root: `usermod -aG qmpmem USER`, then log in again; or set QMPMEM_RUN_DIR"
LONGEST = "/" + "x" * 106


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as made:
        yield made


@pytest.mark.parametrize(
    ("named", "run", "expected"),
    [
        pytest.param(None, rundir.ROOTS, "/run/qmpmem/agent.sock", id="root: for both groups"),
        pytest.param(None, RUN, f"{RUN}/.agent.sock", id="any other: in its run directory"),
        pytest.param("/x/y", RUN, "/x/y", id="named"),
        pytest.param(LONGEST, RUN, LONGEST, id="as long as can be"),
    ],
)
def test_where_the_socket_stands(named: str | None, run: Path, expected: str) -> None:
    assert address.socket_path(environ(named), run) == Path(expected)


@pytest.mark.parametrize(
    ("named", "run", "why"),
    [
        pytest.param("x/y", RUN, "absolute", id="relative"),
        pytest.param(f"{LONGEST}x", RUN, "108 bytes, expected 107", id="a byte too long"),
        pytest.param(None, Path("/" + "é" * 60), "133 bytes", id="umlauts count twice"),
    ],
)
def test_a_path_that_no_socket_can_have_is_named(named: str | None, run: Path, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        address.socket_path(environ(named), run)


def test_the_lock_stands_beside_it() -> None:
    assert address.lock_path(RUN / ".agent.sock") == RUN / ".agent.lock"


def environ(named: str | None) -> dict[str, str]:
    return {} if named is None else {"QMPMEM_AGENT_SOCKET": named}


def test_it_is_there_while_the_agent_is_and_gone_after(directory: Path) -> None:
    path = directory / "a.sock"
    with listening(path) as listener:
        assert stat.S_ISSOCK(path.stat().st_mode)
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o666 if os.geteuid() == 0 else 0o600)
        assert listener.getsockname() == str(path)
        assert not os.get_inheritable(listener.fileno())
        assert (directory / "a.lock").read_text() == f"{os.getpid()}\n"
        assert stat.S_IMODE((directory / "a.lock").stat().st_mode) == 0o600
    assert not path.exists()


def test_a_second_agent_refuses_at_once_and_names_the_first(directory: Path) -> None:
    """Row F58."""
    path = directory / "a.sock"
    with listening(path):
        with within(1), pytest.raises(ConfigError, match=f"pid {os.getpid()} holds .*a.lock"):
            listening(path).__enter__()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))  # the first one's socket is as it was


def test_what_a_killed_agent_left_is_replaced(directory: Path) -> None:
    path = directory / "a.sock"
    program = (
        "import sys, time; from pathlib import Path; "
        "from qmpmem.control.listener import listening\n"
        "with listening(Path(sys.argv[1])): time.sleep(60)"
    )
    agent = subprocess.Popen([sys.executable, "-c", program, path])
    until(path.exists, what="it listens")
    with pytest.raises(ConfigError, match=f"pid {agent.pid}"):
        listening(path).__enter__()
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    assert path.exists()
    with listening(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_link_is_not_followed(directory: Path) -> None:
    """Row F74."""
    path, target = directory / "a.sock", directory / "target"
    path.symlink_to(target)
    with pytest.raises(KernelError, match="not a socket"):
        listening(path).__enter__()
    assert path.is_symlink()
    assert not target.exists()


def test_a_link_in_the_place_of_the_lock_is_not_followed(directory: Path) -> None:
    target = directory / "target"
    target.write_text("mine")
    (directory / "a.lock").symlink_to(target)
    with pytest.raises(KernelError, match=r"a\.lock"):
        listening(directory / "a.sock").__enter__()
    assert target.read_text() == "mine"


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo], ids=["file", "dir", "fifo"])
def test_what_is_no_socket_is_not_removed(directory: Path, make: Callable[[Path], None]) -> None:
    path = directory / "a.sock"
    make(path)
    before = path.stat().st_ino
    with pytest.raises(KernelError, match="not a socket"):
        listening(path).__enter__()
    assert path.stat().st_ino == before


def test_a_fifo_in_the_place_of_the_lock_hangs_nobody(directory: Path) -> None:
    os.mkfifo(directory / "a.lock")
    with pytest.raises(KernelError):
        listening(directory / "a.sock").__enter__()


def test_a_directory_where_others_may_put_files_is_refused(directory: Path) -> None:
    """Row F74."""
    directory.chmod(0o777)
    with pytest.raises(KernelError, match="others may put files there"):
        listening(directory / "a.sock").__enter__()
    directory.chmod(0o1777)
    with listening(directory / "a.sock"):
        pass


def test_a_missing_directory_is_one_line(directory: Path) -> None:
    with pytest.raises(KernelError, match="No such file"):
        listening(directory / "none" / "a.sock").__enter__()


def test_a_socket_that_another_agent_put_there_meanwhile_stays(directory: Path) -> None:
    path = directory / "a.sock"
    with listening(path):
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
        (0, ["list"], JOIN),
        (0, ["events"], JOIN),
    ],
)
def test_who_may_not_is_told_what_would_help(
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
