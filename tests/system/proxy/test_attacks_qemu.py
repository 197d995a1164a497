"""Attacks by QMP sessions of the agent: by users of their own, on a real agent and a real QEMU."""

import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from qmpmem.api.qmp_log import TOLD
from tests.rig.agent import running, said
from tests.rig.command import called, plain_environment
from tests.rig.guests import processor_clock
from tests.rig.namespace import USER, Namespace, namespace
from tests.rig.patience import patient
from tests.rig.qemu import paused, short_directory, until
from tests.rig.users import needs_root

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60), needs_root("may not mount")]

MIB: Final = 1 << 20
ADMIN: Final = ("qmpmem", "qmpmem-admin")
OTHER: Final = USER + 1

FRAME: Final = """
import select, socket, sys, time
path, sessions, query = sys.argv[1], int(sys.argv[2]), sys.argv[3]
head = f"POST /v1/guests/web1/qmp{query} HTTP/1.1\\r\\nHost: qmpmem\\r\\nConnection: upgrade\\r\\n"
head += "Upgrade: qmp\\r\\nContent-Length: 0\\r\\n\\r\\n"
def opened():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(path)
    s.sendall(head.encode())
    f = s.makefile("rb")
    code = f.readline()
    if b"101" not in code: return None
    while f.readline().strip(): pass
    f.readline()
    s.sendall(b'{"execute": "qmp_capabilities"}')
    f.readline()
    return s
kept = []
while len(kept) < sessions:
    s = opened()
    if s is None: break
    kept.append(s)
def message(size, unit, command=b"query-status"):
    start = b'{"execute":"' + command + b'","arguments":{"a":['
    return start + (unit * ((size - len(start) - 3) // len(unit)))[:-1] + b"]}}"
print("begun", len(kept), flush=True)
"""

SEND: Final = """
texts, at = [message(int(sys.argv[4]), each.encode()) for each in sys.argv[5:]], {}
for number, s in enumerate(kept):
    s.setblocking(False)
    at[s] = texts[number % len(texts)] * 2, 0
while True:
    for s in select.select([], kept, [])[1]:
        text, sent = at[s]
        try: sent += s.send(text[sent:])
        except BlockingIOError: continue
        except OSError: s = kept.remove(s); continue
        at[s] = text, sent % len(text)
    for s in select.select(kept, [], [], 0)[0]:
        try:
            if not s.recv(65536): kept.remove(s)
        except OSError: kept.remove(s)
"""
"""Sends long messages, again and again."""

ASK: Final = """
text = message(4000, b"[[]],", b"quit")
for s in kept: s.sendall(text)
while True:
    for s in select.select(kept, [], [])[0]:
        if s.recv(65536): s.sendall(text)
"""
"""Sends a message that is refused, and the next when it has the answer."""

TRICKLE: Final = """
for s in kept: s.setblocking(False)
while kept:
    for s in list(kept):
        try: s.send(b"{")
        except BlockingIOError: pass
        except OSError: kept.remove(s)
    time.sleep(0.002)
"""
"""Sends as many pieces of a byte each as there is room for."""

ONCE: Final = """
for s in kept: s.sendall(message(262000, b"{},"))
print("sent", flush=True)
sys.stdin.read()
"""

WAIT: Final = """
import threading
text = head.replace("web1", "web2").encode()
def leave(s):
    time.sleep(0.05)
    s.close()
def wait():
    while True:
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(path)
            s.sendall(text)
        except OSError: pass
        leave(s)
for _ in range(20): threading.Thread(target=wait, daemon=True).start()
time.sleep(1)
print("waits", flush=True)
sys.stdin.read()
"""
"""Asks for a session with a guest that hangs, and leaves."""

AGAIN: Final = """
while True:
    s = opened()
    if s is not None: s.close()
"""
"""Opens a session and ends it, again and again."""

HOLD: Final = "sys.stdin.read()"


class Host(NamedTuple):
    """An agent of root's, and the guest web1."""

    inside: Namespace
    run: Path
    agent: int
    guest: int

    @contextmanager
    def attacked(
        self,
        program: str,
        sessions: int,
        *words: object,
        user: int = USER,
        query: str = "?read_only=true",
    ) -> Iterator["subprocess.Popen[str]"]:
        """Have a user attack while the context lasts; root has no groups that count."""
        path = self.run / ".agent" / "agent-admin.sock"
        groups: Sequence[str] | None = ADMIN if user else None
        attack = ("/usr/bin/python3", "-c", FRAME + program, path, sessions, query, *words)
        command = self.inside.words(*attack, groups=groups, user=user)
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdin is not None
        try:
            assert child.stdout.readline().startswith("begun ")
            yield child
        finally:
            child.kill()
            child.wait()
            child.stdin.close()
            child.stdout.close()

    def sessions(self) -> int:
        """Count the sessions that have begun and not ended."""
        log = said(self.run)
        return log.count("a session begins") - log.count("the session has ended")


@pytest.fixture
def host() -> Iterator[Host]:
    with short_directory() as directory, ExitStack() as stack:
        inside = stack.enter_context(namespace(directory))
        directory.chmod(0o755)
        run = directory / "run"
        children = stack.enter_context(paused(run, "web1", memory="64M"))
        agent = stack.enter_context(running(run, before=inside.words()))
        run.chmod(0o755)
        yield Host(inside, run, agent.pid, children["web1"].pid)


def memory(pid: int, key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize(
    ("size", "units"), [(262_000, ("-6,", "{},")), (8_000, ("{},", "[],"))], ids=["long", "short"]
)
def test_a_session_that_only_reads_fills_neither_the_agent_nor_qemu(
    host: Host, size: int, units: tuple[str, ...]
) -> None:
    """Row F94."""
    assert called("qmp", "web1", "query-status", run=host.run).code == 0
    agent, guest = memory(host.agent, "VmRSS"), memory(host.guest, "VmHWM")
    with host.attacked(SEND, 100, size, *units):
        for _ in range(4):
            assert called("qmp", "web1", "query-status", run=host.run).code == 0
            time.sleep(0.5)
        assert memory(host.agent, "VmRSS") - agent < 48 * MIB
        assert memory(host.guest, "VmHWM") - guest < 4 * MIB


def test_what_a_client_that_has_gone_had_sent_is_not_done(host: Host) -> None:
    """Row F95: QEMU takes the better part of a second for each."""
    with host.attacked(ONCE, 16, user=0, query="") as attack:
        assert attack.stdout is not None
        assert attack.stdout.readline() == "sent\n"
        assert host.sessions() == 16
        attack.kill()
        until(lambda: host.sessions() == 0, seconds=1.5, what="their places are free")
        began = time.monotonic()
        assert called("qmp", "web1", "query-status", run=host.run).code == 0
        assert time.monotonic() - began < patient(3)


def test_root_has_a_session_whatever_others_hold_and_they_share_the_rest(host: Host) -> None:
    """Row F96."""
    with host.attacked(HOLD, 300):
        held = host.sessions()
        for _ in range(3):
            assert called("qmp", "web1", "query-status", run=host.run).code == 0
        with host.attacked(HOLD, 3, user=OTHER) as other:
            assert f"uid {USER} " in said(host.run)
            until(lambda: f"ended for one of uid {OTHER}" in said(host.run))
            assert host.sessions() == held
            assert other.poll() is None
        ended = re.findall(rf"uid {USER} pid \d+: qmp web1: all places are taken", said(host.run))
        assert len(ended) == 3


def test_clients_that_wait_for_a_guest_that_hangs_keep_no_other_out() -> None:
    """Row F96: they leave at once, and come again."""
    with short_directory() as directory, ExitStack() as stack:
        inside = stack.enter_context(namespace(directory))
        directory.chmod(0o755)
        run = directory / "run"
        children = stack.enter_context(paused(run, "web1", "web2", memory="64M"))
        children["web2"].send_signal(signal.SIGSTOP)
        stack.callback(children["web2"].send_signal, signal.SIGCONT)
        agent = stack.enter_context(running(run, before=inside.words()))
        run.chmod(0o755)
        host = Host(inside, run, agent.pid, children["web1"].pid)
        with host.attacked(WAIT, 0) as attack:
            assert attack.stdout is not None
            assert attack.stdout.readline() == "waits\n"
            for _ in range(3):
                with host.attacked(HOLD, 2, user=OTHER):
                    pass
            log = said(run)
            begun = re.findall(rf"uid {OTHER} pid \d+: qmp web1: a session begins", log)
            assert len(begun) == 6
        assert len(list(Path(f"/proc/{agent.pid}/fd").iterdir())) < 100


def test_a_command_whose_session_is_ended_for_another_user_says_so(
    host: Host, shared_program: Path
) -> None:
    """Row F96."""
    environ = plain_environment() | {"QMPMEM_RUN_DIR": str(host.run)}
    words = host.inside.words(shared_program, "qmp", "web1", "--read-only", groups=ADMIN)
    with subprocess.Popen(
        words,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert '"QMP"' in child.stdout.readline()
        with host.attacked(HOLD, 300), host.attacked(HOLD, 1, user=OTHER):
            assert child.wait(patient(20)) == 5
            assert f"ended for one of uid {OTHER}" in child.stderr.read()


def test_sessions_that_begin_and_end_leave_few_lines_in_the_log(host: Host) -> None:
    """Row F100."""
    with host.attacked(AGAIN, 0) as attack:
        until(lambda: said(host.run).count("has ended") >= TOLD)
        assert called("qmp", "web1", "stop", run=host.run).code == 0
        time.sleep(2)
        assert attack.poll() is None
    for user, begun, ended in ((USER, TOLD, TOLD), (0, 1, 1)):
        told = re.findall(rf"uid {user} pid \d+: qmp web1: (.*)", said(host.run))
        assert sum("begins" in each for each in told) == begun
        assert sum("has ended" in each for each in told) <= ended
        assert ("stop" in told) == (user == 0)


@pytest.mark.parametrize(
    ("program", "sessions", "most"), [(ASK, 100, 0.5), (TRICKLE, 200, 0.38)], ids=["asks", "bytes"]
)
def test_short_messages_take_a_part_of_the_event_loop(
    host: Host, program: str, sessions: int, most: float
) -> None:
    """Row F97."""
    clock = processor_clock(host.agent)
    with host.attacked(program, sessions):
        used, began = time.clock_gettime(clock), time.monotonic()
        for _ in range(5):
            assert called("qmp", "web1", "query-status", run=host.run).code == 0
            time.sleep(0.4)
        part = (time.clock_gettime(clock) - used) / (time.monotonic() - began)
    assert part < most
