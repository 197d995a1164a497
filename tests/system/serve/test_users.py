"""The page as systemd runs it: served by a user that owns nothing, to look at root's guests."""

import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.rig.command import plain_environment
from tests.rig.namespace import Namespace, namespace
from tests.rig.page import TOKEN, Answer, parsed
from tests.rig.patience import patient
from tests.rig.qemu import short_directory, until
from tests.rig.users import needs_root

pytestmark = [pytest.mark.timeout(180), needs_root("may not mount")]

ENVIRON: Final = {
    "QMPMEM_DEFAULTS": "/proc/nonexistent",
    "XDG_RUNTIME_DIR": "/run/own",
    "STATE_DIRECTORY": "/run/state",
    "QMPMEM_KSM_DIR": "/run/ksm",
}
LOOKS, CHANGES = ["qmpmem"], ["qmpmem", "qmpmem-admin"]


@pytest.fixture
def host() -> Iterator[tuple[Namespace, Path]]:
    """Have a host with the groups, and a directory that all its users can read."""
    with short_directory() as directory, namespace(directory) as made:
        directory.chmod(0o755)
        yield made, directory


@contextmanager
def started(words: Sequence[str], said: Path, what: str) -> Iterator[None]:
    """Run a program until the context is left, from when it says this."""
    with said.open("w") as file:
        child = subprocess.Popen(
            words, env=plain_environment() | ENVIRON, stdin=subprocess.DEVNULL, stderr=file
        )
    try:
        until(lambda: what in said.read_text() or child.poll() is not None, seconds=30, what=what)
        assert child.poll() is None, said.read_text()
        yield
    finally:
        child.terminate()
        try:
            child.wait(patient(20))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class Page:
    """Asks a page that says where it listens."""

    def __init__(self, said: Path) -> None:
        match = re.search(r"http://127\.0\.0\.1:(\d+)/", said.read_text())
        assert match is not None
        self._port = int(match[1])

    def ask(self, line: str, *headers: str) -> Answer:
        with socket.create_connection(("127.0.0.1", self._port), patient(10)) as connection:
            lines = (f"{line} HTTP/1.1", "Host: localhost", *headers, "", "")
            connection.sendall("\r\n".join(lines).encode())
            received = b""
            while piece := connection.recv(65536):
                received += piece
        return parsed(received)


@contextmanager
def page_of(
    host: tuple[Namespace, Path], program: Path, groups: Sequence[str], *words: str
) -> Iterator[Page]:
    inside, directory = host
    said = directory / "page.err"
    command = inside.words(program, "serve", "--listen", "127.0.0.1:0", *words, groups=groups)
    with started(command, said, "the page is at"):
        yield Page(said)


def test_a_member_of_the_group_serves_the_page_of_roots_guests(
    host: tuple[Namespace, Path], shared_program: Path
) -> None:
    inside, directory = host
    agent = inside.words(shared_program, "agent")
    with started(agent, directory / "agent.err", "at work"):
        with page_of(host, shared_program, LOOKS) as page:
            until(lambda: "SLACK" in page.ask("GET /").body, seconds=20, what="a round is shown")
            assert "qmpmem_up 1\n" in page.ask("GET /metrics").body
        with page_of(host, shared_program, []) as page:
            assert "qmpmem_up 0\n" in page.ask("GET /metrics").body
            assert "SLACK" not in page.ask("GET /").body


def test_with_a_token_and_the_other_group_visitors_change_something(
    host: tuple[Namespace, Path], shared_program: Path
) -> None:
    inside, directory = host
    made = f"umask 077; echo {TOKEN} >/run/token; chown 4242 /run/token"
    assert inside.run("sh", "-c", made, environ={}).code == 0
    agent, log = inside.words(shared_program, "agent"), directory / "agent.err"
    hold = ("POST /hold", f"Authorization: Bearer {TOKEN}", "Content-Length: 0")
    with started(agent, log, "at work"):
        with page_of(host, shared_program, CHANGES, "--token-file", "/run/token") as page:
            assert page.ask(*hold).code == 303
        with page_of(host, shared_program, LOOKS, "--token-file", "/run/token") as page:
            answer = page.ask(*hold)
            assert (answer.code, "qmpmem-admin" in answer.body) == (502, True)
    assert re.search(r"uid 4242 pid \d+ for 127\.0\.0\.1 port \d+: hold", log.read_text())
    assert TOKEN not in log.read_text()
