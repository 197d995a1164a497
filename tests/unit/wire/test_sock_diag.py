"""Which process is attached to a socket and which listens on it, asked of the live kernel."""

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from qmpmem.wire import kernel, sock_diag
from qmpmem.wire.sock_diag import Holder


def test_the_listener_of_a_file_is_found_by_whatever_name_it_was_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        server.listen()
        inode = sock_diag.listener(str(tmp_path / "s"))
        assert inode == os.fstat(server.fileno()).st_ino
        assert inode in kernel.socket_inodes(os.getpid())
    assert sock_diag.listener(str(tmp_path / "s")) is None


def test_a_socket_whose_file_was_replaced_does_not_listen_there(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        first.bind(str(path))
        first.listen()
        path.unlink()
        second.bind(str(path))
        second.listen()
        assert sock_diag.listener(str(path)) == os.fstat(second.fileno()).st_ino


def test_a_client_holds_what_it_is_attached_to_until_it_leaves(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        assert sock_diag.holder(path) is None
        client.connect(path)
        accepted, _ = server.accept()
        with accepted:
            found = sock_diag.holder(path)
            assert found is not None
            assert (found.pid, found.uid) == (os.getpid(), os.getuid())
            assert sock_diag.holder(path, besides=os.fstat(client.fileno()).st_ino) is None
            client.close()
            assert sock_diag.holder(path) is None


def test_a_client_that_is_served_beside_others_waits_for_none(tmp_path: Path) -> None:
    """Row F101: so it is at a broker, whose QEMU may hang."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, ExitStack() as stack:
        server.bind(path)
        server.listen()
        own, other = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        inode = os.fstat(own.fileno()).st_ino
        other.connect(path)
        stack.enter_context(server.accept()[0])
        own.connect(path)
        assert sock_diag.holder(path, besides=inode) is not None
        stack.enter_context(server.accept()[0])
        assert sock_diag.holder(path, besides=inode) is None


def test_a_file_that_is_gone_is_an_error_and_not_an_absent_holder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sock_diag.holder(str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        sock_diag.listener(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("holder", "named", "hinted"),
    [
        (Holder(pid=7, uid=0, comm="qmpmem", command="qmpmem agent"), "qmpmem agent", "forget"),
        (
            Holder(pid=7, uid=0, comm="qmpmem", command="qmpmem events web1"),
            "qmpmem events web1",
            "that command lets go when it ends",
        ),
        (Holder(pid=7, uid=0, comm="qmpmem"), "qmpmem", "that command lets go"),
        (Holder(pid=7, uid=0, comm="socat", command="socat - x"), "socat - x", "end the other"),
        (Holder(pid=7, uid=0, comm="agent"), "agent", "end the other client"),
        (Holder(pid=7, uid=0), "?", "end the other client"),
        (Holder(), "another process", "end the other client"),
    ],
)
def test_a_monitor_that_is_taken_names_its_holder_and_what_to_do(
    holder: Holder, named: str, hinted: str
) -> None:
    error = sock_diag.taken("/s", "web1", holder)
    assert named in error.message
    assert hinted in str(error.hint)
    assert "most likely" not in str(error.hint)


def test_a_long_command_is_cut_and_an_odd_one_escaped() -> None:
    error = sock_diag.taken("/s", "web1", Holder(pid=7, uid=0, command="a\n" + "b" * 500))
    assert "a\\nbbb" in error.message
    assert len(error.message) < 200


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        (["/opt/q/bin/python3", "/usr/local/bin/qmpmem", "events"], "qmpmem events"),
        (["/usr/bin/python3.13", "-IS", "/x/qmpmem", "agent", "--json"], "qmpmem agent --json"),
        (["python3", "-m", "qmpmem", "script", "-"], "qmpmem script -"),
        (["/usr/bin/socat", "-", "UNIX:/run/x"], "socat - UNIX:/run/x"),
        (["sh", "/root/x.sh"], "x.sh"),
        (["python3", "-IS", "-c", "import os\nos.pause()", "x"], "python3 -c"),
        (["python3"], "python3"),
        ([""], ""),
        ([], ""),
    ],
)
def test_a_command_is_shown_as_it_was_typed(words: list[str], typed: str) -> None:
    assert sock_diag.without_interpreter(words) == typed
