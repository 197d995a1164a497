"""Sockets that are their user's alone from the start, and a umask that stays as it is."""

import ast
import os
import socket
import stat
from pathlib import Path

import pytest

from qmpmem.files import sockets
from tests.rig.qemu import short_directory

SOURCES = Path(__file__).parents[3]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o277, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o660])
@pytest.mark.parametrize("by_descriptor", [False, True])
def test_its_mode_does_not_depend_on_the_umask(
    mask: int, mode: int, *, by_descriptor: bool
) -> None:
    with short_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        within = os.open(directory, os.O_PATH) if by_descriptor else None
        before = os.umask(mask)
        try:
            name = "s" if by_descriptor else str(directory / "s")
            sockets.bind(listener, name, within, mode=mode)
            assert os.umask(mask) == mask
        finally:
            os.umask(before)
            if within is not None:
                os.close(within)
        assert stat.S_IMODE((directory / "s").lstat().st_mode) == mode


def test_it_is_never_open_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not between bind(2) and a chmod(2) either, with a umask that takes nothing."""
    seen: list[int] = []
    opened = os.open

    def look(path: str, *args: int, dir_fd: int | None = None) -> int:
        seen.append(stat.S_IMODE(os.lstat(path, dir_fd=dir_fd).st_mode))
        return opened(path, *args, dir_fd=dir_fd)

    before = os.umask(0)
    try:
        with short_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
            monkeypatch.setattr(os, "open", look)
            sockets.bind(listener, str(directory / "s"))
            monkeypatch.undo()
    finally:
        os.umask(before)
    assert seen == [0o600]


def test_a_name_that_exists_is_not_bound_and_keeps_its_mode() -> None:
    with short_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        (directory / "s").write_text("x")
        (directory / "s").chmod(0o640)
        with pytest.raises(OSError, match="in use"):
            sockets.bind(listener, str(directory / "s"))
        assert stat.S_IMODE((directory / "s").stat().st_mode) == 0o640


@pytest.mark.parametrize("folder", ["qmpmem", "launchers"])
def test_no_code_changes_the_umask(folder: str) -> None:
    """It is one for all threads. `umask=` of subprocess is the child's, which has one thread."""
    for path in (SOURCES / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Attribute):
                assert node.attr != "umask", f"{path}:{node.lineno}"
