"""Reading /proc: recorded trees, and the live kernel as the oracle."""

import os
import socket
import sys
import tracemalloc
from pathlib import Path

from qmpmem.units import KIB, Bytes
from qmpmem.wire import kernel
from qmpmem.wire.kernel import files


def test_a_comm_may_hold_anything() -> None:
    line = "4711 (a) b ( c\n) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20 21\n"
    assert kernel.parse_stat(line) == kernel.Process(
        pid=4711, comm="a) b ( c\n", state="S", start_time=987654
    )


def test_a_cut_stat_is_no_process() -> None:
    assert kernel.parse_stat("") is None
    assert kernel.parse_stat("4711 (qemu) S 1 2") is None


def test_memory_is_bytes_and_unknown_where_there_is_none() -> None:
    found = kernel.parse_memory("Name:\tqemu\nVmRSS:\t  2048 kB\nVmSwap:\t     0 kB\n")
    assert found == kernel.Memory(rss=Bytes(2048 * KIB), swap=Bytes(0))
    assert kernel.parse_memory("Name:\tkthreadd\n") == kernel.Memory(rss=None, swap=None)


def test_sockets_are_told_apart() -> None:
    text = (
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
        "0000000000000000: 00000002 00000000 00010000 0001 01 100 /run/a b.sock\n"
        "0000000000000000: 00000003 00000000 00000000 0001 03 101 /run/a b.sock\n"
        "0000000000000000: 00000003 00000000 00000000 0001 03 102\n"
        "0000000000000000: 00000002 00000000 00010000 0001 01 103 @abstract\n"
        "0000000000000000: 00000002 00000000 00010000 0001 01 104 q.sock\n"
    )
    assert list(kernel.parse_unix(text)) == [
        kernel.UnixSocket(path="/run/a b.sock", inode=100, listening=True, connected=False),
        kernel.UnixSocket(path="/run/a b.sock", inode=101, listening=False, connected=True),
        kernel.UnixSocket(path="q.sock", inode=104, listening=True, connected=False),
    ]


def test_a_process_that_is_gone_is_unknown(tmp_path: Path) -> None:
    assert kernel.process(1, tmp_path) is None
    assert kernel.memory(1, tmp_path) == kernel.Memory(rss=None, swap=None)
    assert kernel.command_line(1, tmp_path) is None
    assert kernel.executable(1, tmp_path) is None
    assert kernel.open_files(1, tmp_path) is None
    assert kernel.socket_inodes(1, tmp_path) == frozenset()
    assert kernel.unix_sockets(tmp_path) == []


def test_the_live_kernel_says_what_we_know_of_ourselves() -> None:
    me = kernel.process(os.getpid())
    assert me is not None
    assert me.pid == os.getpid()
    assert me.state == "R"
    assert os.getpid() in kernel.pids()
    words = kernel.command_line(os.getpid())
    assert words is not None
    assert "python" in words[0]  # pytest, or a worker of it


def test_the_owner_of_a_listening_socket_is_found(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        [entry] = [entry for entry in kernel.unix_sockets() if entry.path == path]
        assert entry.listening
        assert not entry.connected
        assert kernel.owner_of_socket(entry.inode) == os.getpid()
    assert kernel.owner_of_socket(entry.inode) is None


def test_a_client_shows_on_the_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        client.connect(path)
        held, _ = server.accept()
        with held:
            entries = [entry for entry in kernel.unix_sockets() if entry.path == path]
            assert [entry.connected for entry in entries if not entry.listening] == [True]


def test_a_program_is_known_by_its_file_also_after_an_upgrade(tmp_path: Path) -> None:
    assert kernel.executable(os.getpid()) == os.path.realpath(sys.executable)
    (tmp_path / "7").mkdir()
    (tmp_path / "7/exe").symlink_to("/usr/bin/qemu-system-x86_64 (deleted)")
    assert kernel.executable(7, tmp_path) == "/usr/bin/qemu-system-x86_64"


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "small").write_text("MemTotal: 1 kB\n")
    tracemalloc.start()
    try:
        assert files.read(tmp_path / "small") == "MemTotal: 1 kB\n"
        assert tracemalloc.get_traced_memory()[1] < 64 * KIB
    finally:
        tracemalloc.stop()


def test_a_large_file_is_read_whole_and_one_too_large_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "large").write_text("0123456789" * 10_000)
    (tmp_path / "endless").write_text("0123456789" * (files.LIMIT // 10 + 1))
    assert files.read(tmp_path / "large") == "0123456789" * 10_000
    assert len(files.read(tmp_path / "endless") or "") == files.LIMIT
    assert files.read(tmp_path) is None
