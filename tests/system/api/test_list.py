"""`qmpmem list` by way of an agent: as before, and not stopped by one that hangs."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from qmpmem.agent.guest_state import NOT_SEEN
from qmpmem.api.addresses import admin_path
from qmpmem.api.records import Status
from qmpmem.errors import AgentUnreachable
from qmpmem.guests import access, rundir
from qmpmem.model.guest import GuestView
from qmpmem.wire import kernel
from tests.rig.agent import ask, asking, beside, has_begun, record, running, said
from tests.rig.command import PROGRAM, Ran, called, called_each, plain_environment
from tests.rig.fakeqmp import FakeQmp, Step, greet, hang, negotiate, serve
from tests.rig.patience import within
from tests.rig.qemu import short_directory, until

GUESTS = 20
HUNG = 5
HEALTHY: list[Step] = [greet(), negotiate(), serve()]


@pytest.fixture
def run() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


def register(run: Path, guest: str) -> Path:
    """Have a guest whose process is this one, and give the path of its socket."""
    process = kernel.process(os.getpid())
    assert process is not None
    (run / guest).mkdir()
    path = run / guest / "qmp.sock"
    rundir.write_record(run, record(guest, start_time=process.start_time, socket=str(path)))
    return path


async def with_fakes(stack: AsyncExitStack, run: Path, count: int, hung: int) -> list[FakeQmp]:
    fakes = []
    for number in range(count):
        path = await ask(partial(register, run, f"g{number}"))
        script = [hang()] if number < hung else HEALTHY
        fakes.append(await stack.enter_async_context(FakeQmp(path, script)))
    return fakes


def called_within(seconds: float, *words: str, run: Path) -> Ran:
    with within(seconds):
        return called(*words, run=run)


@pytest.mark.timeout(90)
async def test_a_list_asks_the_agent_alone_though_a_quarter_of_the_guests_hang(run: Path) -> None:
    """That the agent waits for none that hangs is in tests/unit/api/test_handlers.py."""
    async with AsyncExitStack() as stack:
        fakes = await with_fakes(stack, run, GUESTS, HUNG)
        agent = await stack.enter_async_context(beside(run))
        await ask(lambda: until(lambda: settled(run), seconds=30, what="all were looked at"))
        ran = await ask(lambda: called("list", run=run))
        lines = ran.out.splitlines()
        assert (len(lines), ran.err) == (GUESTS + 1, "")
        assert sum("  running  " in line for line in lines) == GUESTS - HUNG
        assert sum("  unreachable  " in line for line in lines) == HUNG
        assert {each.client for fake in fakes for each in fake.conversations} == {agent.pid}


async def test_an_agent_of_a_test_has_looked_at_each_guest(run: Path) -> None:
    async with AsyncExitStack() as stack:
        await with_fakes(stack, run, 2, 1)
        await stack.enter_async_context(beside(run))
        status = await ask(lambda: asking(run).get("status", Status))
        assert status.guests[0].reason == "it is unreachable"
        assert status.guests[1].reason != NOT_SEEN


def settled(run: Path) -> bool:
    guests = asking(run).get("guests", list[GuestView])
    seen = Counter(guest.state for guest in guests)
    return seen == {"running": GUESTS - HUNG, "unreachable": HUNG} and not any(
        "not seen it yet" in (guest.problem or "") for guest in guests
    )


def test_a_dead_agents_socket_is_no_agent(run: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        (run / ".agent").mkdir()
        dead.bind(str(run / ".agent/agent.sock"))
    ran = called_within(2, "list", run=run)
    assert (ran.code, ran.err) == (0, "")
    asked = called("agent", "status", run=run)
    assert asked.code == 5
    assert "no agent runs" in asked.err
    assert "`qmpmem agent` starts one" in asked.err


def test_without_an_agent_every_question_is_5_with_a_hint(run: Path) -> None:
    questions = (
        *("status", "why web1", "plan", "hold", "release", "pin web1 1G", "unpin web1"),
        *("reserve 1G", "unreserve x", "status --json", "status --watch"),
    )
    calls = [f"agent {question}".split() for question in questions]
    *asked, unpinned = called_each([*calls, ["unpin", "web1"]], run=run)
    for words, ran in zip(questions, asked, strict=True):
        assert ran.code == 5, words
        assert ran.err == "qmpmem: no agent runs; `qmpmem agent` starts one\n", words
        if "--json" in words:
            assert json.loads(ran.out)["error"]["exit_code"] == ran.code
        else:
            assert ran.out == ""
    assert unpinned.code == 5


def test_the_policys_numbers_are_shown_without_an_agent(run: Path) -> None:
    ran = called("agent", "policy", "show", run=run)
    assert ran.code == 0
    assert "ESX caps the balloon" in ran.out


async def test_an_agent_that_hangs_stops_no_command_and_is_named(
    run: Path, subtests: pytest.Subtests
) -> None:
    async with AsyncExitStack() as stack:
        await with_fakes(stack, run, 1, 0)
        agent = await stack.enter_async_context(beside(run))
        agent.send_signal(signal.SIGSTOP)
        path = await ask(lambda: register(run, "new"))
        await stack.enter_async_context(FakeQmp(path, HEALTHY))
        agent.send_signal(signal.SIGCONT)
        ran = await ask(lambda: called("list", run=run))
        with subtests.test("a guest that the agent does not know yet is listed"):
            listed = [line.split()[:2] for line in ran.out.splitlines()[1:]]
            assert listed == [["g0", "running"], ["new", "running"]]
        agent.send_signal(signal.SIGSTOP)
        for call in ("list", "info g0", "set g0 200M --dry-run"):
            with subtests.test(call):
                ran = await ask(partial(called_within, 12, *call.split(), run=run))
                assert f"the agent, pid {agent.pid}, does not answer" in ran.err
                assert "asking QEMU itself" in ran.err
        agent.send_signal(signal.SIGCONT)
        await ask(lambda: until(lambda: called("list", run=run).err == "", what="it is back"))


def test_two_agents_are_not_had(run: Path) -> None:
    """Row F58: two real ones."""
    with running(run) as first:
        ran = called_within(1.5, "agent", run=run)
        assert ran.code == 2
        assert f"an agent runs already: pid {first.pid} holds" in ran.err
        assert len(ran.err.splitlines()) == 1


def test_what_a_killed_agent_left_is_no_obstacle(run: Path) -> None:
    with running(run) as first:
        first.kill()
        first.wait()
        assert called("list", run=run).code == 0
        with within(5), running(run):
            pass
    assert not (run / ".agent/agent.sock").exists()


def test_a_listener_of_another_user_is_no_agent(run: Path) -> None:
    """Row F74."""
    if os.geteuid() != 0:
        pytest.skip("not root: may not be another user")
    run.chmod(0o755)
    (run / ".agent").mkdir()
    (run / ".agent").chmod(0o777)
    program = (
        "import os, socket, sys, time; os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); time.sleep(60)"
    )
    path = run / ".agent/agent.sock"
    planted = subprocess.Popen(["/usr/bin/python3", "-c", program, path])
    try:
        until(path.exists, what="it listens")
        until(lambda: "uid 65534" in called("list", run=run).err, what="it is known")
        assert called("agent", "status", run=run).code == 5
    finally:
        planted.kill()
        planted.wait()


@pytest.mark.parametrize("option", ["--once", "--dry-run"])
async def test_what_changes_nothing_says_so(run: Path, option: str) -> None:
    async with AsyncExitStack() as stack:
        await with_fakes(stack, run, 2, 0)
        if option == "--once":
            ran = await ask(lambda: called("agent", "--once", run=run))
            assert ran.code == 0, ran.err
            assert ran.out.splitlines()[-1].startswith("g1  ")
            assert not (run / ".agent/agent.sock").exists()
            return
        await stack.enter_async_context(beside(run, "--dry-run"))
        status = await ask(lambda: called("agent", "status", run=run))
        assert "changes nothing (--dry-run)" in status.out
        plan = (await ask(lambda: called("agent", "plan", run=run))).out.splitlines()
        assert "times the reserve is available" in plan[0]
        assert plan[1:3] == ["nothing to change", ""]
        assert plan[3].startswith("ID  VERDICT ")
        assert [line.split()[:2] for line in plan[4:]] == [["g0", "exempt"], ["g1", "exempt"]]
        asked = await ask(lambda: called("agent", "reserve", "1M", run=run))
        assert (asked.code, "--dry-run" in asked.err) == (2, True)


def test_the_configuration_is_read_again_or_stays(run: Path) -> None:
    """Row F56."""
    config = run / ".config.toml"
    config.write_text('reserve = "1G"\n')
    with running(run, "--config", str(config)) as agent:
        config.write_text('reserve = "2G"\n')
        agent.send_signal(signal.SIGHUP)
        until(lambda: "changed: reserve" in said(run), what="it is read")
        config.write_text("reserve = 2\nnonsense = 1\n")
        agent.send_signal(signal.SIGHUP)
        until(lambda: "stays as it was" in said(run), what="it is refused")
        assert f"{config}:2: " in said(run)
        assert agent.poll() is None

        def reserve() -> str:
            status = called("agent", "status", run=run)
            return next(line for line in status.out.splitlines() if "reserve:" in line)

        until(lambda: "2 GiB" in reserve(), what="a round goes by it")


def test_an_agent_with_a_mistaken_configuration_does_not_start(run: Path) -> None:
    """Row F56."""
    config = run / ".config.toml"
    config.write_text("nonsense = 1\nreserve = 3\n")
    ran = called("agent", "--config", str(config), run=run)
    assert ran.code == 2
    assert f"{config}:1: " in ran.err
    assert f"{config}:2: " in ran.err
    assert not has_begun(run)
    assert not (run / ".agent/agent.lock").exists()


@pytest.mark.timeout(120)  # twenty guests, fifteen rounds, on a machine that others use
async def test_a_process_that_does_not_read_what_the_agent_says_does_not_stop_it(run: Path) -> None:
    """Row F60: its stdout is a pipe that no process reads. Each round is a line of kilobytes."""
    async with AsyncExitStack() as stack:
        await with_fakes(stack, run, 20, 0)
        reading, writing = os.pipe()
        stack.callback(os.close, reading)
        (run / ".toml").write_text('period = "200ms"')
        environment = plain_environment() | {
            "QMPMEM_RUN_DIR": str(run),
            "QMPMEM_CONFIG": str(run / ".toml"),
        }
        agent = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "KILL", *command(), "--json",
            stdout=writing, stderr=asyncio.subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        os.close(writing)
        try:
            await ask(lambda: until(lambda: rounds(run) >= 15, seconds=60, what="rounds go on"))
        finally:
            agent.terminate()
            assert await agent.wait() == 0


def command() -> list[str]:
    return [str(PROGRAM), "agent"]


def rounds(run: Path) -> int:
    try:
        return asking(run).get("status", Status).number
    except AgentUnreachable:
        return 0


def keep_connected(run: Path, count: int, seconds: float) -> int:
    """Have clients that say nothing, at both sockets and ever anew; how often one was let in."""
    places = (access.agent_socket(run), admin_path(access.agent_socket(run)))
    kept: deque[socket.socket] = deque()
    over = time.monotonic() + seconds
    connected = 0
    while time.monotonic() < over:
        for place in places:
            while len(kept) >= count:
                kept.popleft().close()
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)  # noqa: FBT003 - its only argument
            try:
                client.connect(str(place))
            except BlockingIOError:
                client.close()
            else:
                kept.append(client)
                connected += 1
        time.sleep(0.01)
    for client in kept:
        client.close()
    return connected


@pytest.mark.timeout(180)
async def test_clients_take_no_descriptor_that_rounds_need(run: Path) -> None:
    """A limit of 64, forty guests, of which eleven are watched, and sixty idle clients."""
    async with AsyncExitStack() as stack:
        await with_fakes(stack, run, 40, 0)
        context = running(run, before=("prlimit", "--nofile=64:64"))
        agent = await ask(context.__enter__)
        stack.push_async_callback(ask, partial(context.__exit__, None, None, None))
        before = await ask(lambda: asking(run).get("status", Status))
        assert len(before.guests) == 11
        assert await ask(partial(keep_connected, run, 60, 8.0)) > 100
        after = await ask(lambda: asking(run).get("status", Status))
        assert after.number - before.number >= 4
        assert [each.guest for each in after.guests] == [each.guest for each in before.guests]
        assert agent.poll() is None
        for words in ("left out", "Too many open files", "Traceback", "out of system resource"):
            assert words not in said(run), said(run)
