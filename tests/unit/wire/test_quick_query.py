"""A glance at many guests: the healthy ones are read, all others are left to a session."""

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from qmpmem.records import replace
from qmpmem.units import MIB, Bytes
from qmpmem.wire import limits
from qmpmem.wire.quick_query import Address, QuickStatus, glance
from tests.rig.patience import patient

Answer = Callable[[str, str], str | bytes]
"""What to say to a command with the id; the id is empty where the command has none."""

GREETING = b'{"QMP": {"version": {}, "capabilities": ["oob"]}}\r\n'
EVENT = b'{"event": "RESUME", "timestamp": {}}\r\n'
RETURNS = {
    "qmp_capabilities": "{}",
    "query-status": '{"status": "running", "running": true}',
    "query-balloon": '{"actual": 134217728}',
    "query-memory-size-summary": '{"base-memory": 268435456, "plugged-memory": 0}',
    "qom-get": '"pc-i440fx-7.2-machine"',
}
WELL = QuickStatus(
    state="running", maximum=Bytes(256 * MIB), actual=128 * MIB, machine="pc-i440fx-7.2"
)


def well(command: str, identity: str) -> str:
    return reply(f'"return": {RETURNS[command]}', identity)


def reply(said: str, identity: str) -> str:
    return "{" + said + (f', "id": "{identity}"' if identity else "") + "}\n"


@contextmanager
def server(path: Path, answer: Answer, opening: bytes = GREETING) -> Iterator[None]:
    """Answer each of one client's requests, however they are cut up."""

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.sendall(opening)
            seen = 0
            text = ""
            while chunk := client.recv(4096):
                text += chunk.decode()
                requests = re.findall(r'"execute":"([^"]+)"[^}]*?(?:"id":"([^"]+)")?(?=})', text)
                for command, identity in requests[seen:]:
                    said = answer(command, identity)
                    client.sendall(said if isinstance(said, bytes) else said.encode())
                seen = len(requests)

    def quietly() -> None:
        with suppress(OSError):  # the client left: that is what some tests are about
            serve()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=quietly)
        thread.start()
        yield
        thread.join(timeout=patient(5))
        assert not thread.is_alive()


def look(path: Path, pid: int | None = None, patience: float = 5.0) -> QuickStatus | None:
    address = Address(str(path), os.getpid() if pid is None else pid)
    return glance({"a": address}, patience)["a"]


def test_a_healthy_guest_is_read(tmp_path: Path) -> None:
    with server(tmp_path / "s", well):
        assert look(tmp_path / "s") == WELL


def test_the_machine_is_only_asked_for_where_the_caller_wants_it(tmp_path: Path) -> None:
    asked: list[str] = []

    def listening(command: str, identity: str) -> str:
        asked.append(command)
        return well(command, identity)

    address = Address(str(tmp_path / "s"), os.getpid())
    with server(tmp_path / "s", listening):
        seen = glance({"a": address}, 5.0, machine=False)["a"]
    assert seen == replace(WELL, machine=None)
    assert "qom-get" not in asked


def test_events_and_answers_for_others_are_passed_over(tmp_path: Path) -> None:
    def talkative(command: str, identity: str) -> bytes:
        stray = b'{"return": {"actual": 1}, "id": "zz2"}\n{"return": {}, "id": [1]}\n'
        return EVENT + stray + well(command, identity).encode()

    with server(tmp_path / "s", talkative, opening=EVENT + GREETING):
        assert look(tmp_path / "s") == WELL


def test_what_was_asked_without_an_id_before_us_is_no_answer_of_ours(tmp_path: Path) -> None:
    def late(command: str, identity: str) -> bytes:
        stray = b'{"return": {"actual": 1}}\n' if command == "qmp_capabilities" else b""
        return stray + well(command, identity).encode()

    with server(tmp_path / "s", late, opening=GREETING + b'{"return": {"status": "x"}}\n'):
        assert look(tmp_path / "s") == WELL


def test_more_answers_than_questions_are_left_to_a_session(tmp_path: Path) -> None:
    def double(command: str, identity: str) -> str:
        return well(command, identity) * (2 if command == "qom-get" else 1)

    with server(tmp_path / "s", double):
        assert look(tmp_path / "s") is None


def test_what_qemu_does_not_know_yet_is_not_known(tmp_path: Path) -> None:
    def early(command: str, identity: str) -> str:
        if command in ("qmp_capabilities", "query-status"):
            return well(command, identity)
        return reply('"error": {"class": "CommandNotFound", "desc": ""}', identity)

    with server(tmp_path / "s", early):
        seen = look(tmp_path / "s")
    assert seen == QuickStatus(state="running", maximum=None, actual=None, machine=None)


@pytest.mark.parametrize(
    "said",
    [
        b"not json\n",
        b"[1]\n",
        b"\xff\xfe{\x00}\x00\n",
        b'{"id": NaN}\n',
        b"[" * 5000 + b"\n",
        b"x" * (limits.LINE + 1),
        b'{"event": "X", "data": "' + b"x" * limits.LINE + b'"}\n',
    ],
    ids=["text", "list", "utf-16", "nan", "deep", "endless", "long"],
)
def test_a_guest_that_talks_nonsense_is_left_to_a_session(tmp_path: Path, said: bytes) -> None:
    with server(tmp_path / "s", lambda _command, _identity: said):
        assert look(tmp_path / "s") is None


@pytest.mark.parametrize(
    ("command", "returned"),
    [
        ("query-status", '{"status": 5}'),
        ("query-status", "null"),
        ("query-status", '{"status": "gone"}'),
        ("query-status", '{"status": "\\u001b[2J"}'),
        ("query-balloon", "[]"),
        ("query-memory-size-summary", '{"base-memory": "much"}'),
        ("qom-get", "{}"),
    ],
)
def test_an_answer_of_another_shape_is_left_to_a_session(
    tmp_path: Path, command: str, returned: str
) -> None:
    def odd(asked: str, identity: str) -> str:
        if asked != command:
            return well(asked, identity)
        return reply(f'"return": {returned}', identity)

    with server(tmp_path / "s", odd):
        assert look(tmp_path / "s") is None


def test_plugged_memory_is_left_to_a_session_which_asks_of_what_kind_it_is(tmp_path: Path) -> None:
    def grown(command: str, identity: str) -> str:
        if command != "query-memory-size-summary":
            return well(command, identity)
        return reply('"return": {"base-memory": 268435456, "plugged-memory": 4096}', identity)

    with server(tmp_path / "s", grown):
        assert look(tmp_path / "s") is None


def test_a_guest_that_does_not_answer_costs_no_more_than_the_patience(tmp_path: Path) -> None:
    with server(tmp_path / "s", lambda _command, _identity: ""):
        assert look(tmp_path / "s", patience=0.05) is None


def test_a_guest_that_hangs_up_is_left_to_a_session(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def hang_up() -> None:
            client, _ = listener.accept()
            client.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        assert look(tmp_path / "s") is None
        thread.join()


def test_another_process_in_the_guests_place_is_not_spoken_to(tmp_path: Path) -> None:
    def never(command: str, identity: str) -> str:
        raise AssertionError(f"asked {command} {identity}")

    with server(tmp_path / "s", never):
        assert look(tmp_path / "s", pid=1) is None


@pytest.mark.parametrize("kind", ["missing", "file", "symlink", "refused"])
def test_what_is_no_live_socket_is_left_to_a_session(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other"))
        other.listen()
        match kind:
            case "file":
                path.touch()
            case "symlink":
                path.symlink_to(tmp_path / "other")
            case "refused":
                with socket.socket(socket.AF_UNIX) as dead:
                    dead.bind(str(path))
            case _:
                pass
        assert look(path) is None


def test_nothing_stays_open(tmp_path: Path) -> None:
    before = {path.name for path in Path("/proc/self/fd").iterdir()}
    with server(tmp_path / "s", lambda _command, _identity: ""):
        look(tmp_path / "s", patience=0.01)
        look(tmp_path / "missing")
    assert {path.name for path in Path("/proc/self/fd").iterdir()} == before
