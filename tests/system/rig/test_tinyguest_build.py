"""The tiny guest without QEMU: the archive, the arguments, the framing, the cache's mistakes."""

import base64
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers.guest import boot, channel, cpio, tsc
from launchers.guest.build import Artifacts
from launchers.guest.channel import Lines, Transcript
from launchers.guest.errors import BuildError, ChannelError, ChannelTimeoutError
from tests.rig.patience import patient
from tests.rig.qemu import short_directory
from tests.rig.users import IS_ROOT

PROGRAM = Path(__file__).resolve().parents[3] / "launchers/tinyguest"


def members(archive: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Read an archive as the kernel does (init/initramfs.c)."""
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        start = (at + 110 + name_size + 3) & ~3
        if name == b"TRAILER!!!\0":
            assert start == len(archive)
            return
        yield name[:-1].decode(), mode, archive[start : start + size]
        at = (start + size + 3) & ~3


@given(st.lists(st.tuples(st.from_regex(r"[a-z][a-z/ü]{0,9}", fullmatch=True), st.binary())))
def test_an_archive_holds_what_was_put_in(files: list[tuple[str, bytes]]) -> None:
    entries = [cpio.file(name, content) for name, content in files]
    found = [(name, content) for name, _, content in members(cpio.archive(entries))]
    assert found == files


def test_an_archive_tells_files_directories_links_and_devices_apart() -> None:
    entries = [
        cpio.directory("bin"),
        cpio.file("bin/x", b"#!", executable=True),
        cpio.symlink("bin/sh", "x"),
        cpio.character_device("console", 5, 1),
    ]
    archive = cpio.archive(entries)
    modes = {name: mode for name, mode, _ in members(archive)}
    assert modes == {
        "bin": stat.S_IFDIR | 0o755,
        "bin/x": stat.S_IFREG | 0o755,
        "bin/sh": stat.S_IFLNK | 0o777,
        "console": stat.S_IFCHR | 0o600,
    }
    assert archive == cpio.archive(entries)


@pytest.mark.skipif(
    shutil.which("cpio") is None, reason="the tool cpio is not here to compare with"
)
def test_the_cpio_tool_reads_an_archive(tmp_path: Path) -> None:
    entries = [cpio.directory("d"), cpio.file("d/odd", b"abc"), cpio.symlink("l", "d/odd")]
    words = ["cpio", "-i", "--quiet"]
    subprocess.run(words, input=cpio.archive(entries), cwd=tmp_path, check=True)
    assert (tmp_path / "l").read_bytes() == b"abc"


@pytest.mark.parametrize("name", ["", "/bin/sh", "a\0b"])
def test_a_name_that_the_kernel_would_misread_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="relative name"):
        cpio.archive([cpio.file(name, b"")])


ARTIFACTS = Artifacts(kernel=Path("/a b/k"), initrd=Path("/i,j"), config=Path("/c"))


def test_the_arguments_take_no_pci_slot_and_double_the_commas_of_paths() -> None:
    words = boot.arguments(ARTIFACTS, channel=Path("/r,un/c"), console=Path("/con"))
    assert words[:4] == ["-kernel", "/a b/k", "-initrd", "/i,j"]
    assert "socket,id=tgchan,path=/r,,un/c,server=on,wait=off" in words
    assert "file,id=tgcon,path=/con" in words
    devices = [value for option, value in pairwise(words) if option == "-device"]
    assert all(device.startswith("isa-serial,") for device in devices)


def test_a_console_that_the_caller_does_not_want_goes_nowhere() -> None:
    assert "null,id=tgcon" in boot.arguments(ARTIFACTS, channel=Path("/c"), console=None)


def test_a_socket_path_that_does_not_fit_is_refused() -> None:
    boot.arguments(ARTIFACTS, channel=Path("/" + "x" * 106), console=None)
    with pytest.raises(BuildError, match="at most 107 bytes"):
        boot.arguments(ARTIFACTS, channel=Path("/" + "x" * 107), console=None)


def test_the_rate_of_the_time_stamp_counter_is_one_and_the_same() -> None:
    first, second = tsc.measure(), tsc.measure()
    assert first is not None
    assert second is not None
    assert 500_000 < first < 10_000_000
    assert second == pytest.approx(first, rel=0.01)


@given(st.lists(st.binary(max_size=30).map(lambda line: line.translate(None, b"\r\n"))))
def test_lines_come_out_whole_however_they_come_in(lines: list[bytes]) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    reader, found = Lines(), list[bytes]()
    for at in range(0, len(stream), 7):
        found += reader.feed(stream[at : at + 7])
    assert found == [line for line in lines if line]


def test_a_line_without_an_end_is_given_up() -> None:
    reader = Lines()
    for _ in range(3):
        assert reader.feed(b"x" * 40_000) == []
    assert len(reader._rest) <= channel.LONGEST_LINE


def spoken(*lines: bytes) -> Transcript:
    transcript = Transcript(b"n1")
    for line in lines:
        transcript.take(line)
    return transcript


def test_an_answer_is_what_stands_between_begin_and_end() -> None:
    said = base64.b64encode(b"\0\xff\n" * 9)
    transcript = spoken(b"noise", b"begin n1", said[:20], said[20:], b"end n1 37")
    assert transcript.code == 37
    assert transcript.output() == b"\0\xff\n" * 9


def test_another_exchange_is_passed_over() -> None:
    transcript = spoken(b"begin n0", b"AAAA", b"end n0 0", b"begin n1", b"", b"end n1 1")
    assert transcript.code == 1
    assert transcript.output() == b""


@pytest.mark.parametrize("line", [b"end n1 x", b"end n1 ", b"end n1", b"end n10 0"])
def test_half_an_end_is_no_end(line: bytes) -> None:
    assert spoken(b"begin n1", line).code is None


@pytest.mark.parametrize("line", [b"QUJ", b"QU!JD", b"Q\0UJD"])
def test_output_that_was_damaged_is_an_error(line: bytes) -> None:
    with pytest.raises(ChannelError, match="damaged"):
        spoken(b"begin n1", line, b"end n1 0").output()


def test_a_command_is_sent_with_its_length_so_that_half_of_it_does_not_run() -> None:
    verb, nonce, length, encoded = channel.request("n1", "echo 'ü'").split()
    assert (verb, nonce, int(length)) == (b"run", b"n1", len(encoded))
    assert base64.b64decode(encoded).decode() == "echo 'ü'"


@pytest.mark.parametrize("command", ["x" * (channel.LONGEST_COMMAND + 1), "a\0b"])
def test_a_command_that_cannot_be_sent_is_refused(command: str) -> None:
    with pytest.raises(ChannelError, match="at most"):
        channel.request("n1", command)


@contextmanager
def listening() -> Iterator[tuple[Path, socket.socket]]:
    with short_directory() as directory, socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "c"))
        server.listen()
        yield directory / "c", server


def test_a_guest_that_never_answers_is_waited_for_no_longer_than_asked() -> None:
    with (
        listening() as (path, _),
        pytest.raises(ChannelTimeoutError, match=r"within 0\.1 s"),
    ):
        channel.wait(path, seconds=0.1)


def test_a_guest_that_does_not_read_for_long_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that boots slowly: what QEMU has not taken fills the socket."""
    monkeypatch.setattr(channel, "PING_AGAIN", 0.0005)
    with listening() as (path, _), pytest.raises(ChannelTimeoutError, match="no answer within"):
        channel.wait(path, seconds=1.5)


def test_a_qemu_that_ended_is_not_waited_for() -> None:
    with short_directory() as directory, pytest.raises(ChannelError, match="No such file"):
        channel.wait(directory / "c", alive=lambda: False)


def tinyguest(*words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program with the Python that it names; it may fail, but never with a traceback."""
    done = subprocess.run(
        [sys.executable, PROGRAM, *words],
        env=os.environ | ({"PATH": path} if path is not None else {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(15),
    )
    assert "Traceback" not in done.stderr
    return done


def test_a_guest_that_is_not_there_is_125_and_one_that_does_not_answer_is_124(
    tmp_path: Path,
) -> None:
    gone = tinyguest("exec", str(tmp_path / "none"), "--", "true")
    assert (gone.returncode, gone.stderr.count("\n")) == (125, 1)
    with listening() as (path, _):
        silent = tinyguest("exec", "--timeout", "0.2", str(path), "--", "true")
    assert silent.returncode == 124


@pytest.mark.parametrize("words", [[], ["boot"], ["exec"], ["args"], ["wait"]])
def test_wrong_use_is_2(words: list[str]) -> None:
    assert tinyguest(*words).returncode == 2


def test_without_debians_tools_one_line_says_so(tmp_path: Path) -> None:
    done = tinyguest("build", "--dir", str(tmp_path), path="/proc/nonexistent")
    assert done.returncode == 3
    first = "apt-get" if IS_ROOT else "sudo"
    assert done.stderr.splitlines()[-1].startswith(f"tinyguest: {first}: not found")


def test_a_failing_apt_is_told_in_its_own_words_and_leaves_nothing(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("apt-get", "apt-cache", "sudo"):
        (tools / name).write_text("#!/bin/sh\necho E: no network here >&2\nexit 100\n")
        (tools / name).chmod(0o755)
    done = tinyguest("build", "--dir", str(tmp_path / "d"), path=f"{tools}:/bin")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].endswith("failed: E: no network here")
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["lock", "packages"]
    assert list((tmp_path / "d/packages").iterdir()) == []


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = tinyguest("build", "--dir", str(tmp_path / "file/d"))
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)


def test_an_installed_copy_builds_in_the_users_cache(tmp_path: Path) -> None:
    package = tmp_path / "qmpmem"
    shutil.copytree(PROGRAM.parent, package / "launchers")
    asked = subprocess.run(
        [sys.executable, package / "launchers/tinyguest", "build"],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": "/proc/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 3
    assert (tmp_path / "cache/qmpmem/tinyguest/lock").exists()
