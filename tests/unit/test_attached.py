"""Who is attached to a socket and who listens on it, asked of the live kernel."""

import os
import socket
from pathlib import Path

import pytest

from qmpmem.wire import attached, kernel
from qmpmem.wire.attached import Holder


def test_the_listener_of_a_file_is_found_by_whatever_name_it_was_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        server.listen()
        inode = attached.listener(str(tmp_path / "s"))
        assert inode == os.fstat(server.fileno()).st_ino
        assert inode in kernel.socket_inodes(os.getpid())
    assert attached.listener(str(tmp_path / "s")) is None


def test_a_socket_whose_file_was_replaced_does_not_listen_there(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        first.bind(str(path))
        first.listen()
        path.unlink()
        second.bind(str(path))
        second.listen()
        assert attached.listener(str(path)) == os.fstat(second.fileno()).st_ino


def test_a_client_holds_what_it_is_attached_to_until_it_leaves(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        assert attached.holder(path) is None
        client.connect(path)
        accepted, _ = server.accept()
        with accepted:
            found = attached.holder(path)
            assert found is not None
            assert (found.pid, found.uid) == (os.getpid(), os.getuid())
            assert attached.holder(path, besides=os.fstat(client.fileno()).st_ino) is None
            client.close()
            assert attached.holder(path) is None


def test_a_file_that_is_gone_is_an_error_and_not_a_nobody(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        attached.holder(str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        attached.listener(str(tmp_path / "none"))


def test_where_qmpmem_itself_holds_a_monitor_nobody_is_told_to_end_it() -> None:
    ours = attached.taken("/s", "web1", Holder(pid=7, uid=0, comm="qmpmem"))
    assert "qmpmem forget" in str(ours.hint)
    assert "end the other client" not in str(ours.hint)
    other = attached.taken("/s", "web1", Holder(pid=7, uid=0, comm="socat"))
    assert "end the other client" in str(other.hint)
