"""A broker that holds guests' monitors, and an agent that has no right but to ask it."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from qmpmem.guests.rundir import GuestRecord, read_record
from qmpmem.wire import sock_diag
from tests.rig import foreign_qemu
from tests.rig.command import Ran, called, plain_environment
from tests.rig.guests import RunningGuest, boot, end
from tests.rig.namespace import GROUPS, Namespace, namespace
from tests.rig.patience import patient
from tests.rig.permitted import BALLOON, INTERVAL, PASSED, REFUSED, Command, get, put
from tests.rig.qemu import paused, short_directory, until
from tests.rig.talker import talking
from tests.rig.users import needs_root

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180), needs_root("drops rights")]

MIB: Final = 1 << 20
AGENT: Final = 990
"""The user qmpmem-agent, and its group."""
OTHER: Final = 4242
ROOT: Final = Path(__file__).resolve().parents[3]
LAUNCHER: Final = str(ROOT / "launchers" / "kvm")
WITH_US: Final = ("setpriv", "--pdeathsig", "KILL")
NO_RIGHTS: Final = ("--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
AS_BROKER: Final = (*WITH_US, "--reuid=0", f"--regid={AGENT}", "--clear-groups", *NO_RIGHTS)

SPEAK: Final = """
import json, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(100)
try:
    connection.connect(sys.argv[1])
except OSError as error:
    print(json.dumps({"errno": error.errno}))
    sys.exit()
file = connection.makefile("rwb")
file.readline()
for line in sys.stdin:
    file.write(line.encode())
    file.flush()
    answer = {"event": ""}
    while "event" in answer:
        answer = json.loads(file.readline() or b"null") or {}
    print(json.dumps(answer))
"""


def speak(user: int, path: Path, *commands: Command) -> list[Any]:
    """Have a process of a user speak QMP, and return the answers."""
    lines: list[dict[str, Any]] = [{"execute": "qmp_capabilities"}]
    for name, arguments in commands:
        message: dict[str, Any] = {"execute": name}
        lines.append(message if arguments is None else message | {"arguments": arguments})
    words = [*WITH_US, f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    python = str(Path(sys.executable).resolve())
    done = subprocess.run(
        [*words, python, "-I", "-c", SPEAK, str(path)],
        input="".join(f"{json.dumps(line)}\n" for line in lines),
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(60),
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return answers if "errno" in answers[0] else answers[1:]


@contextmanager
def brokering(
    program: Path, run: Path, shown: Path, *options: str
) -> Iterator["subprocess.Popen[str]"]:
    """Run a broker as its unit does: root, without a capability, in the agent's group."""
    words = [*AS_BROKER, str(program), "agent", "broker", "--dir", str(shown), *options]
    run.mkdir(mode=0o700, exist_ok=True)
    environment = plain_environment() | {"QMPMEM_RUN_DIR": str(run)}
    environment["QMPMEM_DEFAULTS"] = os.devnull
    with (run / ".broker").open("a") as said:
        child = subprocess.Popen(
            [*words, "--group", str(AGENT)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            text=True,
        )
    try:
        yield child
    finally:
        end(child, patient(20))


class World(NamedTuple):
    """A paused guest g, and a broker that shows it."""

    run: Path
    shown: Path
    guest: "subprocess.Popen[bytes]"
    broker: "subprocess.Popen[str]"

    @property
    def socket(self) -> Path:
        return self.shown / "g" / "qmp.sock"

    @property
    def own(self) -> Path:
        return self.run / "g" / "qmp.sock"


@contextmanager
def made(program: Path) -> Iterator[World]:
    with short_directory() as directory:
        directory.chmod(0o755)
        run, shown = directory / "guests", directory / "broker"
        with paused(run, "g") as children, brokering(program, run, shown) as broker:
            run.chmod(0o700)
            world = World(run, shown, children["g"], broker)
            until(world.socket.exists, seconds=30, what="g is shown")
            yield world


@pytest.fixture(scope="module")
def world(shared_program: Path) -> Iterator[World]:
    with made(shared_program) as found:
        yield found


def test_an_agent_moves_memory_and_reads(world: World) -> None:
    commands: list[Command] = [
        *((name, arguments) for name, arguments in PASSED if name.startswith("query")),
        ("balloon", {"value": 128 * MIB}),
        ("qom-list", {"path": "/machine/peripheral"}),
        get("/machine", "type"),
        get(BALLOON, "guest-stats"),
        get(BALLOON, "deflate-on-oom"),
        put(BALLOON, INTERVAL, 2),
        get(BALLOON, INTERVAL),
        put(BALLOON, INTERVAL, 0),
    ]
    answers = speak(AGENT, world.socket, *commands)
    failed = [pair for pair in zip(commands, answers, strict=True) if "return" not in pair[1]]
    assert failed == []
    assert answers[-2]["return"] == 2


def test_an_agent_can_have_nothing_else_done(world: World) -> None:
    """Each is a command of QEMU's, which does it where it gets it."""
    victim = world.run / "victim"
    sharp: list[Command] = [
        ("migrate", {"uri": f"exec:cat >{victim}"}),
        ("human-monitor-command", {"command-line": "info status"}),
        ("object-add", {"qom-type": "rng-random", "id": "rng9"}),
        ("device_add", {"driver": "virtio-rng-pci", "id": "rng9"}),
        ("netdev_add", {"type": "user", "id": "net9"}),
        (
            "chardev-add",
            {"id": "c9", "backend": {"type": "file", "data": {"out": str(victim)}}},
        ),
        ("blockdev-add", {"driver": "null-co", "node-name": "n9"}),
        ("dump-guest-memory", {"paging": False, "protocol": f"file:{victim}"}),
        ("pmemsave", {"val": 0, "size": 4096, "filename": str(victim)}),
        ("screendump", {"filename": str(victim)}),
        put(BALLOON, "deflate-on-oom", value=False),
        ("system_reset", None),
        ("cont", None),
        ("quit", None),
    ]
    commands = [*REFUSED, *sharp]
    answers = speak(AGENT, world.socket, *commands)
    passed = [
        command
        for command, answer in zip(commands, answers, strict=True)
        if "moves memory and reads" not in answer.get("error", {}).get("desc", "")
    ]
    assert passed == []
    assert not victim.exists()
    status, devices = speak(0, world.socket, ("query-status", None), get("/machine", "type"))
    assert status["return"]["status"] == "prelaunch"
    assert "return" in devices
    assert world.guest.poll() is None


def test_an_agents_queries_have_no_arguments_that_fill_qemu(world: World) -> None:
    """Row F94: each empty object takes QEMU 4 KiB, before it refuses them."""

    def largest() -> int:
        status = Path(f"/proc/{world.guest.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])

    assert "return" in speak(AGENT, world.socket, ("query-status", None))[0]
    before = largest()
    many: list[Command] = [("query-status", {"a": [{}] * 2000})] * 4
    for answer in speak(AGENT, world.socket, *many):
        assert answer["error"]["desc"] == "Parameter 'a' is unexpected"
    assert largest() - before < 2048
    flat: Command = ("query-named-block-nodes", {"flat": True})
    assert "return" in speak(AGENT, world.socket, flat)[0]


ROWS: Final[dict[str, list[Command]]] = {
    "move": [("balloon", {"value": 128 * MIB}), put(BALLOON, INTERVAL, 0)],
    "read": [
        ("query-status", None),
        ("qom-list", {"path": "/objects"}),
        ("query-memdev", None),
        get(BALLOON, "guest-stats"),
    ],
    "all": [
        ("human-monitor-command", {"command-line": "info status"}),
        ("qom-list-types", None),
        ("stop", None),
    ],
}
COLUMNS: Final = (0, AGENT, OTHER)


def test_the_manual_says_what_each_user_may(world: World) -> None:
    text = (ROOT / "qmpmem" / "manual" / "security.md").read_text()
    table = text.partition("| by way of the broker |")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert len(rows) == len(ROWS)
    for what, *words in rows:
        commands = ROWS[what.partition(" ")[0].strip(":")]
        for user, word in zip(COLUMNS, words, strict=True):
            answers = speak(user, world.socket, *commands)
            done = ["return" in answer for answer in answers]
            assert done == [word == "yes"] * len(answers), (what, user, answers)


def test_no_other_user_gets_to_a_guest(world: World) -> None:
    for user, path in ((OTHER, world.socket), (OTHER, world.own), (AGENT, world.own)):
        assert speak(user, path) == [{"errno": errno.EACCES}], (user, path)
    record = read_record(world.shown / "g")
    assert isinstance(record, GuestRecord)
    assert (record.uid, record.pid, record.shared) == (0, world.guest.pid, True)
    assert record.listener == world.broker.pid
    words = [*WITH_US, f"--reuid={AGENT}", f"--regid={AGENT}", "--clear-groups", "sh", "-c"]
    for change in ("echo >x", "echo >g/x", "rm -rf g/qmp.sock", "mv g h", "echo >>g/record.json"):
        done = subprocess.run([*words, change], cwd=world.shown, capture_output=True, check=False)
        assert done.returncode != 0, change


async def test_root_has_all_of_qmp_beside_the_agent(world: World) -> None:
    async with talking(world.socket) as talker:
        said = await talker.run("human-monitor-command", **{"command-line": "info status"})
        assert "paused" in said["return"]
    assert "qmp g: human-monitor-command" in (world.run / ".broker").read_text()


def test_the_broker_has_no_capability_and_holds_a_monitor_while_it_is_used(world: World) -> None:
    status = Path(f"/proc/{world.broker.pid}/status").read_text()
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"):
        assert line in status
    until(lambda: sock_diag.holder(str(world.own)) is None, seconds=30, what="it is let go")
    seen = called("info", "g", "--json", run=world.run)
    assert (seen.code, json.loads(seen.out)["state"]) == (0, "prelaunch")


def test_there_is_one_broker_for_a_directory(world: World) -> None:
    again = called("agent", "broker", "--dir", str(world.shown), "--group", "990", run=world.run)
    assert (again.code, "a broker runs already" in again.err) == (2, True)
    none = called("agent", "broker", "--dir", str(world.shown), "--group", "n-o-n-e", run=world.run)
    assert (none.code, "no such group" in none.err) == (2, True)
    assert "return" in speak(AGENT, world.socket, ("query-status", None))[0]


def test_a_guest_that_has_ended_is_shown_no_more(shared_program: Path) -> None:
    with made(shared_program) as world:
        assert "return" in speak(AGENT, world.socket, ("query-status", None))[0]
        world.guest.kill()
        world.guest.wait()
        until(lambda: not world.socket.exists(), seconds=30, what="g is gone")
        assert world.broker.poll() is None
        world.broker.terminate()
        assert world.broker.wait(timeout=patient(20)) == 0
        assert [path.name for path in world.shown.iterdir()] == [".lock"]


def test_a_guest_that_made_itself_a_daemon_is_shown_as_its_own_process(
    shared_program: Path,
) -> None:
    """Without a capability, the listener is known by asking the socket alone."""
    with short_directory() as directory:
        directory.chmod(0o755)
        run, shown, pidfile = directory / "guests", directory / "broker", directory / "pid"
        environ = plain_environment() | {"QMPMEM_RUN_DIR": str(run)}
        words = ["-name", "d", "-S", "-display", "none", "-vga", "none", "-m", "64"]
        words += ["-accel", "tcg,tb-size=32", "-daemonize", "-pidfile", str(pidfile)]
        done = subprocess.run(
            [LAUNCHER, *words], env=environ, check=False, capture_output=True, timeout=patient(60)
        )
        assert done.returncode == 0, done.stderr
        pid = int(pidfile.read_text())
        try:
            with brokering(shared_program, run, shown):
                until((shown / "d" / "record.json").exists, seconds=30)
                record = read_record(shown / "d")
                assert isinstance(record, GuestRecord)
                assert record.pid == pid
                answer = speak(AGENT, shown / "d" / "qmp.sock", ("query-balloon", None))[0]
                assert "return" in answer
        finally:
            os.kill(pid, 9)


def test_a_broker_adopts_by_rule_and_holds_an_adopted_monitor_no_longer_than_it_is_used(
    shared_program: Path,
) -> None:
    with short_directory() as directory:
        directory.chmod(0o755)
        run, shown, own = directory / "guests", directory / "broker", directory / "vms/db1.qmp"
        own.parent.mkdir(mode=0o700)
        config = directory / "config.toml"
        config.write_text(f'[[adopt]]\nsocket = "{own.parent}/*.qmp"\n')
        options = ("--config", str(config))
        with (
            foreign_qemu.started("-qmp", f"unix:{own},server=on,wait=off", wait_for=own),
            brokering(shared_program, run, shown, *options),
        ):
            until((shown / "db1" / "record.json").exists, seconds=30, what="db1 is shown")
            record = read_record(shown / "db1")
            assert isinstance(record, GuestRecord)
            assert (record.origin, record.shared) == ("adopted", True)
            answer = speak(AGENT, shown / "db1/qmp.sock", ("query-status", None))[0]
            assert answer["return"]["status"] == "prelaunch"
            until(lambda: sock_diag.holder(str(own)) is None, seconds=30, what="it is let go")


class Host(NamedTuple):
    """A host with the user, a guest that runs, and where its agent is asked."""

    inside: Namespace
    program: Path
    run: Path
    shown: Path
    guest: RunningGuest

    def told(self, *words: str, groups: Sequence[str] | None = None) -> Ran:
        """Call a command, as root or as a user in these groups."""
        environ = ENVIRON | {"QMPMEM_RUN_DIR": str(self.run)}
        return self.inside.run(self.program, *words, groups=groups, environ=environ)

    def sees(self) -> bool:
        seen = self.told("agent", "status", "--json")
        guests = json.loads(seen.out)["guests"] if seen.code == 0 else []
        return any(each["guest"] == "web1" and each.get("actual") for each in guests)

    def actual(self) -> int:
        seen = self.told("info", "web1", "--json")
        return int((json.loads(seen.out) if seen.code == 0 else {}).get("actual") or 0)

    def epoch(self) -> int:
        seen = self.told("agent", "why", "web1", "--json")
        return int(json.loads(seen.out)["reading"].get("epoch", 0))

    def goes_to(self, size: int) -> None:
        done = self.told("agent", "pin", "web1", f"{size}M")
        assert done.code == 0, done.err
        until(lambda: abs(self.actual() - size * MIB) < 9 * MIB, seconds=60, what=f"{size} MiB")


ENVIRON: Final = {
    "QMPMEM_DEFAULTS": os.devnull,
    "STATE_DIRECTORY": "/run/state",
    "QMPMEM_KSM_DIR": "/run/qmpmem/agent/ksm",
    "QMPMEM_AGENT_SOCKET": "/run/qmpmem/agent/agent.sock",
}
PREPARED: Final = (
    f"cp /etc/passwd /run/passwd; echo qmpmem-agent:x:{AGENT}:{AGENT}::/:/bin/false >>/run/passwd",
    "mount --bind /run/passwd /etc/passwd",
    "install -d -m755 /run/qmpmem",
    f"install -d -m711 -o {AGENT} -g {AGENT} /run/qmpmem/agent",
    f"install -d -m755 -o {AGENT} -g {AGENT} /run/state",
)


@pytest.fixture
def host(shared_program: Path) -> Iterator[Host]:
    with ExitStack() as stack:
        directory = stack.enter_context(short_directory())
        directory.chmod(0o755)
        inside = stack.enter_context(namespace(directory))
        for command in PREPARED:
            ran = inside.run("sh", "-c", command, environ={})
            assert ran.code == 0, ran.err
        run, shown = directory / "guests", directory / "broker"
        environ = {"QMPMEM_RUN_DIR": str(run)}
        guest = stack.enter_context(boot([LAUNCHER], extra=["-name", "web1"], environ=environ))
        (directory / "config.toml").write_text('period = "250ms"\ngrace = "0s"\non_stop = "keep"\n')
        yield Host(inside, shared_program, run, shown, guest)


@contextmanager
def agent_of(host: Host) -> Iterator["subprocess.Popen[bytes]"]:
    """Run an agent as its user, without a capability and in both groups, on what is shown."""
    become = ("setpriv", f"--reuid={AGENT}", f"--regid={AGENT}", "--groups=4711,4712", *NO_RIGHTS)
    config = host.run.parent / "config.toml"
    with (host.run / ".agent-said").open("a") as said:
        child = subprocess.Popen(
            host.inside.words(*become, host.program, "agent", "--config", config),
            env=plain_environment() | ENVIRON | {"QMPMEM_RUN_DIR": str(host.shown)},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


@pytest.mark.timeout(300)
def test_an_agent_without_rights_manages_roots_guests(host: Host) -> None:
    with ExitStack() as stack:
        broker = stack.enter_context(brokering(host.program, host.run, host.shown))
        until((host.shown / "web1" / "record.json").exists, seconds=30, what="web1 is shown")
        agent = stack.enter_context(agent_of(host))
        until(host.sees, seconds=60, what="the agent sees web1")
        status = Path(f"/proc/{agent.pid}/status").read_text()
        assert f"Uid:\t{AGENT}\t{AGENT}\t{AGENT}\t{AGENT}\n" in status
        assert "CapEff:\t0000000000000000" in status
        host.goes_to(160)
        held = sock_diag.holder(str(host.run / "web1" / "qmp.sock"))
        assert held is not None
        assert held.pid == broker.pid

        # All of QMP is root's, by way of the broker; queries are the writers', by way of the agent.
        full = host.told("qmp", "web1", "human-monitor-command", "command-line=info status")
        assert (full.code, "running" in full.out) == (0, True), full.err
        both = ["qmpmem", "qmpmem-admin"]
        asked = host.told("qmp", "web1", "--read-only", "query-status", groups=both)
        assert (asked.code, "running" in asked.out) == (0, True), asked.err
        for groups in (both, ["qmpmem"], []):
            assert host.told("qmp", "web1", "stop", groups=groups).code != 0
        assert "web1" in host.told("list", groups=["qmpmem"]).out
        journal = host.inside.run("stat", "-c", "%a %g", "/run/state/journal.db", environ={})
        assert journal.out == f"640 {GROUPS['qmpmem']}\n"

        # Another broker, of the same guests: the agent goes on, and takes them for the same.
        before = host.epoch()
        broker.kill()
        broker.wait()
        again = stack.enter_context(brokering(host.program, host.run, host.shown))
        until(lambda: host.actual() > 0, seconds=60, what="the agent sees web1 again")
        host.goes_to(200)
        assert host.epoch() == before
        assert again.poll() is None
        assert agent.poll() is None

        # Another agent: nothing that it was told is lost, and the guest is where it was.
        agent.kill()
        agent.wait()
        until(lambda: sock_diag.holder(str(host.run / "web1" / "qmp.sock")) is None, seconds=30)
        assert abs(host.actual() - 200 * MIB) < 9 * MIB  # without an agent root asks QEMU itself
        stack.enter_context(agent_of(host))
        until(host.sees, seconds=60, what="the new agent sees web1")
        pins = json.loads(host.told("agent", "status", "--json").out)["pins"]
        assert pins == {"web1": 200 * MIB}
        assert host.guest.process.poll() is None
