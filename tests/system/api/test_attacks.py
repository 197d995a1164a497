"""Attacks of other users on the agent's sockets: for real, by users of their own, on a real agent.

Each has a /run and groups of its own. What is attacked are all sockets below /run/qmpmem, so that
no test depends on what they are called.
"""

import json
import re
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.rig.command import Ran, plain_environment
from tests.rig.guests import end, processor_clock
from tests.rig.namespace import USER, Namespace, namespace
from tests.rig.patience import patient
from tests.rig.qemu import short_directory, until
from tests.rig.users import needs_root

pytestmark = [pytest.mark.timeout(180), needs_root("may not mount")]

FLOOD = """
import errno, socket, sys, threading, time
places = sys.argv[1].split()
assert places
seen = {"connected": 0, "refused": 0}
over = time.monotonic() + float(sys.argv[2])
def attack():
    while time.monotonic() < over:
        for place in places:
            s = socket.socket(socket.AF_UNIX)
            s.setblocking(False)
            try: s.connect(place)
            except PermissionError: seen["refused"] += 1
            except OSError: pass
            else: seen["connected"] += 1
            s.close()
threads = [threading.Thread(target=attack) for _ in range(2)]
[t.start() for t in threads]
print("begun", flush=True)
[t.join() for t in threads]
print(seen["connected"], seen["refused"], flush=True)
"""

IDLE = """
import socket, sys, time
places = sys.argv[1].split()
kept = []
print("begun", flush=True)
over = time.monotonic() + float(sys.argv[2])
while time.monotonic() < over:
    for place in places:
        if len(kept) >= 60: kept.pop(0).close()
        s = socket.socket(socket.AF_UNIX)
        s.setblocking(False)
        try: s.connect(place)
        except OSError: s.close()
        else: kept.append(s)
    time.sleep(0.01)
"""

QUESTIONS = """
import socket, sys, threading, time
places = sys.argv[1].split()
codes = {}
over = time.monotonic() + float(sys.argv[2])
ask = f"GET /v1/{sys.argv[3]} HTTP/1.0\\r\\nHost: qmpmem\\r\\n\\r\\n".encode()
def attack():
    while time.monotonic() < over:
        for place in places:
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(30)
            try:
                s.connect(place)
                try: s.sendall(ask)
                except (BrokenPipeError, ConnectionResetError): pass
                answer = b""
                try:
                    while piece := s.recv(65536): answer += piece
                except ConnectionResetError: pass
                code = answer.split(b" ", 2)[1].decode() if answer else "none"
            except PermissionError: code = "refused"
            except OSError: code = "error"
            codes[code] = codes.get(code, 0) + 1
            s.close()
threads = [threading.Thread(target=attack) for _ in range(50)]
[t.start() for t in threads]
print("begun", flush=True)
[t.join() for t in threads]
import json
print(json.dumps(codes), flush=True)
"""

BODIES = """
import socket, sys, threading
places = sys.argv[1].split()
kinds = (
    b"PUT /v1/hold HTTP/1.1\\r\\nHost: qmpmem\\r\\nContent-Length: 10485760\\r\\n\\r\\n",
    b"POST /v1/leases HTTP/1.1\\r\\nHost: qmpmem\\r\\nTransfer-Encoding: chunked\\r\\n"
    b"\\r\\nA00000\\r\\n",
    b"POST /v1/none HTTP/1.1\\r\\nHost: qmpmem\\r\\nTransfer-Encoding: chunked\\r\\n"
    b"\\r\\nA00000\\r\\n",
)
body = b"x" * 10485760
def attack(place, head):
    for _ in range(10):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(20)
        try:
            s.connect(place)
            s.sendall(head + body)
            while s.recv(65536): pass
        except OSError: pass
        s.close()
print("begun", flush=True)
threads = [
    threading.Thread(target=attack, args=(place, kinds[number % 3]))
    for place in places for number in range(50)
]
[t.start() for t in threads]
[t.join() for t in threads]
"""


ROOM = """
import json, socket, sys, time
place = next(each for each in sys.argv[1].split() if "admin" in each)
with open("/proc/meminfo") as file:
    size = int(file.readline().split()[1]) * 600
body = json.dumps({"size": size, "timeout": 100.0, "keep": 1.0}).encode()
head = b"POST /v1/leases HTTP/1.1\\r\\nHost: qmpmem\\r\\nContent-Length: %d\\r\\n\\r\\n"
kept = []
def fill():
    for _ in range(60):
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(place)
            s.sendall(head % len(body) + body)
        except OSError: s.close()
        else: kept.append(s)
fill()
print("begun", flush=True)
while True:
    time.sleep(1)
    fill()
    del kept[:60]
"""

SILENT = """
import socket, sys, time
place = next(each for each in sys.argv[1].split() if "admin" in each)
kept = []
def fill():
    for _ in range(60):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(1)
        try: s.connect(place)
        except OSError: s.close()
        else: kept.append(s)
fill()
print("begun", flush=True)
while True:
    time.sleep(1)
    fill()
    del kept[:-120]
"""


STREAMS = """
import socket, sys
place = next(each for each in sys.argv[1].split() if "admin" in each)
kept, told = [], "none"
for _ in range(int(sys.argv[2])):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(place)
    s.sendall(b"GET /v1/ticks HTTP/1.1\\r\\nHost: qmpmem\\r\\n\\r\\n")
    told = s.recv(12).decode()
    if told != "HTTP/1.1 200": break
    kept.append(s)
print("begun", flush=True)
print(len(kept), told, flush=True)
sys.stdin.read()
"""


class Host(NamedTuple):
    """A host with groups, and an agent of root's on it."""

    inside: Namespace
    program: Path
    agent: "subprocess.Popen[bytes]"
    out: Path
    environ: dict[str, str]

    def told(self, groups: Sequence[str] | None, *words: str, user: int = USER) -> Ran:
        ran = self.inside.run(self.program, *words, groups=groups, environ=self.environ, user=user)
        assert "Traceback" not in ran.err
        return ran

    @contextmanager
    def attacked(
        self,
        program: str,
        *words: object,
        groups: Sequence[str] | None = (),
        user: int = USER,
    ) -> Iterator["subprocess.Popen[str]"]:
        """Have a user of these groups attack while the context lasts; None: root."""
        root = Path(f"/proc/{self.inside.pid}/root")
        found = (root / "run/qmpmem").rglob("*.sock")
        places = " ".join(f"/{each.relative_to(root)}" for each in found)
        attack = ("/usr/bin/python3", "-c", program, places, *words)
        command = self.inside.words(*attack, groups=groups, user=user)
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "begun\n"
            yield child
        finally:
            child.kill()
            child.wait()
            for file in (child.stdin, child.stdout):
                if file is not None:
                    file.close()

    def said(self) -> str:
        return self.out.with_suffix(".err").read_text()

    def rounds(self) -> list[float]:
        """Return the times of the rounds so far, as the agent's own clock has them."""
        lines = self.out.read_text().splitlines()
        return [json.loads(line)["snapshot"]["time"] for line in lines[:-1]]

    def pid(self) -> int:
        """Return the process of the agent itself: what runs it are programs that wait for it."""
        lock = next(Path(f"/proc/{self.inside.pid}/root/run/qmpmem").rglob("agent.lock"))
        return int(lock.read_text())


@contextmanager
def hosting(
    program: Path, *, before: Sequence[object] = (), prepare: Sequence[str] = ()
) -> Iterator[Host]:
    """Have a host with an agent.

    Args:
        program: a qmpmem that every user may run.
        before: a program that runs the agent.
        prepare: commands of root's before that.
    """
    with short_directory() as directory, namespace(directory) as inside:
        directory.chmod(0o755)
        environ = {
            "QMPMEM_DEFAULTS": "/proc/nonexistent",
            "XDG_RUNTIME_DIR": "/run/own",
            "STATE_DIRECTORY": "/run/state",
            "QMPMEM_KSM_DIR": "/run/ksm",
        }
        commands = ["install -d -m755 /run/qmpmem", "install -d -m777 /run/state", *prepare]
        for command in commands:
            ran = inside.run("sh", "-c", command, environ={})
            assert ran.code == 0, ran.err
        out = directory / "out"
        words = inside.words(*before, program, "agent", "--json")
        with out.open("w") as stdout, out.with_suffix(".err").open("w") as stderr:
            agent = subprocess.Popen(
                words,
                env=plain_environment() | environ,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        host = Host(inside, program, agent, out, environ)
        try:
            until(
                lambda: host.told(None, "agent", "status").code == 0,
                seconds=30,
                what="the agent answers",
            )
            yield host
        finally:
            end(agent, patient(20))


@pytest.fixture(scope="module")
def host(shared_program: Path) -> Iterator[Host]:
    with hosting(shared_program) as made:
        yield made


def test_a_stranger_that_connects_in_a_loop_keeps_no_client_out(host: Host) -> None:
    """The kernel refuses a stranger each time, and root holds and releases as ever."""
    before = cpu_of(host.pid())
    with host.attacked(FLOOD, 600) as attack:
        codes = [host.told(None, "agent", each).code for each in ("hold", "release") * 10]
        assert codes == [0] * 20
        assert host.told(["qmpmem-admin"], "agent", "hold").code == 0
        assert host.told(["qmpmem-admin"], "agent", "release").code == 0
        attack.kill()
    with host.attacked(FLOOD, 0.5) as attack:
        connected, refused = map(int, attack.communicate()[0].split())
    assert connected == 0
    assert refused > 0
    assert cpu_of(host.pid()) - before < 20, "it does not cost the agent a processor"
    assert "turned away" not in host.said()


def test_a_reader_that_connects_in_a_loop_keeps_no_admin_out(host: Host) -> None:
    with host.attacked(FLOOD, 600, groups=["qmpmem"]):
        codes = [host.told(None, "agent", each).code for each in ("hold", "release") * 10]
        assert codes == [0] * 20
        asked = host.told(["qmpmem", "qmpmem-admin"], "agent", "status")
        assert asked.code == 0, "who may change is answered at the other door"


@pytest.mark.parametrize("attack", [ROOM, SILENT], ids=["room", "silent"])
def test_an_admin_that_takes_all_places_keeps_root_from_holding_not_once(
    host: Host, attack: str
) -> None:
    """By room that is never there, and by questions that are never asked."""
    admin = ["qmpmem", "qmpmem-admin"]
    with host.attacked(attack, groups=admin):
        until(
            lambda: host.told(admin, "agent", "hold").code == 5,
            seconds=20,
            what="there is no place for another admin",
        )
        for word in ("hold", "release") * 3:
            held = host.told(None, "agent", word)
            assert held.code == 0, held.err
    until(lambda: host.told(admin, "agent", "release").code == 0, seconds=30, what="places again")


@pytest.mark.parametrize("attack", [ROOM, SILENT], ids=["room", "silent"])
def test_f98_a_user_that_takes_all_places_loses_one_to_another_that_may_change(
    host: Host, attack: str
) -> None:
    """Row F98: questions that are never asked give their places, or ones that wait."""
    admin = ["qmpmem", "qmpmem-admin"]
    with host.attacked(attack, groups=admin):
        until(lambda: host.told(admin, "agent", "hold").code == 5, seconds=20)
        for word in ("hold", "release") * 3:
            other = host.told(admin, "agent", word, user=USER + 1)
            assert other.code == 0, other.err
        room = host.told(admin, "agent", "reserve", "1M", "--timeout", "3", user=USER + 1)
        assert room.code in (0, 1), room.err  # there is room, or not in time: it was let in
    assert f"uid {USER} has most connections" in host.said()


def test_f98_users_that_take_all_places_to_look_lose_one_to_another(host: Host) -> None:
    """Row F98."""
    readers = ["qmpmem"]
    with ExitStack() as stack:
        for number in range(3):
            stack.enter_context(host.attacked(IDLE, 600, groups=readers, user=USER + number))
        codes = [host.told(readers, "agent", "status", user=USER + 9).code for _ in range(5)]
    assert codes == [0] * 5


def test_f98_a_user_that_takes_all_streams_loses_one_to_another(host: Host) -> None:
    """Row F98: nor does it keep root from the events."""
    admin = ["qmpmem", "qmpmem-admin"]
    with host.attacked(STREAMS, 30, groups=admin) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "14 HTTP/1.1 503\n", "two are kept for root"
        for user, groups in ((USER + 1, admin), (0, None)):
            with host.attacked(STREAMS, 1, groups=groups, user=user) as other:
                assert other.stdout is not None
                assert other.stdout.readline() == "1 HTTP/1.1 200\n"
        with host.attacked(STREAMS, 30, groups=admin, user=USER + 1) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "7 HTTP/1.1 503\n", "as many as the other"


def test_no_client_writes_to_the_terminal_that_shows_the_log(host: Host) -> None:
    odd = "%1b%5b31m%0aqmpmem:%20uid%200%20pid%201:%20hold"
    path = f"/v1/leases/{odd}{'x' * 4000}"
    talk = f"""
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(next(each for each in sys.argv[1].split() if "admin" in each))
s.sendall(b"DELETE {path} HTTP/1.0\\r\\nHost: qmpmem\\r\\n\\r\\n")
while s.recv(65536): pass
print("begun", flush=True)
"""
    with host.attacked(talk, groups=["qmpmem-admin"]):
        until(lambda: "give back lease" in host.said(), seconds=10, what="it is logged")
    [line] = [each for each in host.said().splitlines() if "give back lease" in each]
    assert "\x1b" not in host.said()
    assert line.startswith("qmpmem: uid 4242 pid ")
    assert len(line) < 400


def test_a_readers_questions_leave_the_rounds_their_second(host: Host) -> None:
    """Fifty at once, as fast as they are answered; each kind that costs something."""
    for question in ("policy", "plan", "guests"):
        began = len(host.rounds())
        with host.attacked(QUESTIONS, 6, question, groups=["qmpmem"]) as attack:
            codes = json.loads(attack.communicate(timeout=patient(60))[0])
        gaps = between(host.rounds()[began:])
        assert not {"500", "none"} & codes.keys(), codes
        assert codes["200"] > 20
        assert codes["429"] > 20, "one user has so many questions a second"
        # Half of them: what other programs of a busy machine hold up is some of the rounds.
        most = patient(0.3)
        assert statistics.median(gaps) < most, (question, gaps)
    assert "internal error" not in host.said()


def between(times: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


def test_a_body_that_is_refused_is_not_read(host: Host) -> None:
    """Ten MiB each, at fifty connections to each socket: to a change, in a chunk, to nothing.

    What is kept of them is as much as all places together have read of bodies at once, and does not
    become more however often that is done.
    """
    before = rss_of(host.pid())
    grown = [most_rss(host) - before for _ in range(3)]
    assert max(grown) < 48 << 20, [each >> 20 for each in grown]
    assert grown[2] - grown[1] < 8 << 20, [each >> 20 for each in grown]
    assert host.told(None, "agent", "status").code == 0


def most_rss(host: Host) -> int:
    """Return the most that the agent had while it was sent bodies."""
    most = 0
    with host.attacked(BODIES, groups=["qmpmem", "qmpmem-admin"]) as attack:
        while attack.poll() is None:
            most = max(most, rss_of(host.pid()))
            time.sleep(0.02)
    return most


def test_one_reader_cannot_take_all_places(host: Host) -> None:
    """A reader follows the rounds as often as it can, and keeps idle connections beside that."""
    with (
        host.attacked(QUESTIONS, 30, "ticks", groups=["qmpmem"]),
        host.attacked(IDLE, 600, groups=["qmpmem"]),
    ):
        other = host.inside.words(
            host.program, "agent", "status", "--json", groups=["qmpmem"], user=4243
        )
        codes = [
            subprocess.run(
                other,
                env=plain_environment() | host.environ,
                capture_output=True,
                check=False,
                timeout=patient(60),
            ).returncode
            for _ in range(5)
        ]
        assert codes == [0] * 5


def test_a_reader_that_wants_a_change_is_told_why_not(host: Host) -> None:
    for words in (["hold"], ["release"]):
        refused = host.told(["qmpmem"], "agent", *words)
        assert (refused.code, refused.out) == (4, "")
        assert "only root and the group qmpmem-admin may change something" in refused.err
        assert "usermod -aG qmpmem-admin USER`, then log in again" in refused.err
    stranger = host.told([], "agent", "hold")
    assert stranger.code == 5
    assert "no agent runs" in stranger.err, "a stranger sees its own agent, and has none"
    environ = host.environ | {"QMPMEM_RUN_DIR": "/run/qmpmem/guests"}
    for words in (["agent", "status"], ["agent", "hold"]):
        ran = host.inside.run(host.program, *words, groups=[], environ=environ)
        assert ran.code == 4
        assert "only root, and the groups qmpmem and qmpmem-admin, may ask" in ran.err
    assert "turned away uid 4242" in host.said(), "a change that is refused is logged"


def cpu_of(pid: int) -> float:
    """Return the seconds that a process has run."""
    return time.clock_gettime(processor_clock(pid))


def rss_of(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
