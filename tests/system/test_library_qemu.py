"""The library and `qmpmem events` beside a real agent, and without one: no client is shut out."""

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from qmpmem import MIB, Agent, Bytes, Guest, QmpmemError
from qmpmem.errors import AgentUnreachable, ConfigError, GuestUnreachable
from qmpmem.wire import kernel
from qmpmem.wire.qmp import connect
from tests.rig.agent import running, said, stop
from tests.rig.command import PROGRAM, called, plain_environment
from tests.rig.patience import patient
from tests.rig.qemu import BALLOON, paused, short_directory, until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]


class Host(NamedTuple):
    """A run directory with guest g, and a second monitor of that guest."""

    run: Path
    qemu: "subprocess.Popen[bytes]"
    other: str

    def do(self, *commands: str) -> None:
        """Run QMP commands on the second monitor."""

        async def work() -> None:
            async with connect(self.other, guest="g") as session:
                for command in commands:
                    await session.change(command)

        asyncio.run(work())

    def is_held(self) -> bool:
        path = str(self.run / "g" / "qmp.sock")
        return any(each.path == path and each.connected for each in kernel.unix_sockets())


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    with short_directory() as directory:
        run = directory / "run"
        run.mkdir()
        other = str(directory / "other")
        monitor = ("-qmp", f"unix:{other},server=on,wait=off")
        monkeypatch.setenv("QMPMEM_RUN_DIR", str(run))
        with paused(run, "g", extra=(*BALLOON, *monitor)) as children:
            yield Host(run, children["g"], other)


@contextmanager
def following(host: Host, *options: str) -> Iterator["Followed"]:
    """Run `qmpmem events` in the background, and end it by Ctrl-C."""
    number = len(list(host.run.glob(".events*.out")))
    out, err = host.run / f".events{number}.out", host.run / f".events{number}.err"
    environment = plain_environment() | {"QMPMEM_RUN_DIR": str(host.run)}
    with out.open("w") as stdout, err.open("w") as stderr:
        child = subprocess.Popen(
            [PROGRAM, "events", *options], env=environment, stdout=stdout, stderr=stderr
        )
    try:
        yield Followed(child, out, err)
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(timeout=patient(20))


class Followed(NamedTuple):
    child: "subprocess.Popen[bytes]"
    out: Path
    err: Path

    def wait_for(self, *words: str) -> list[str]:
        until(
            lambda: all(word in self.out.read_text() for word in words),
            seconds=30,
            what=f"{words}; so far: {self.out.read_text()} {self.err.read_text()}",
        )
        return self.out.read_text().splitlines()


def provoke(host: Host, followed: Followed) -> None:
    """Have things happen until all are seen: a client may begin to follow in the middle of them."""

    def seen() -> bool:
        host.do("cont", "stop", "system_reset")
        text = followed.out.read_text()
        return all(event in text for event in ("RESUME", "STOP", "RESET"))

    until(seen, seconds=40, what=f"all events are seen; {followed.err.read_text()}")


def test_two_follow_the_events_while_an_agent_holds_the_guest(host: Host) -> None:
    with running(host.run), following(host) as plain:
        provoke(host, plain)
        lines = plain.wait_for("STOP")
        assert any(line.endswith("g RESUME runs again") for line in lines)
        assert any(line.endswith("g RESET reset by QMP's system_reset") for line in lines)
        with following(host, "g", "--json") as one:
            provoke(host, one)
            events = [json.loads(line) for line in one.wait_for("RESUME")]
        assert all(each["id"] == "g" and each["time"] > 1e9 for each in events)
        assert set(events[0]) == {"id", "name", "event", "data", "time", "dropped"}
        ran = called("info", "g", run=host.run)
        assert ran.code == 0, ran.err


def test_without_an_agent_another_shell_is_told_which_command_holds_the_guest(host: Host) -> None:
    with following(host) as followed:
        until(host.is_held, seconds=20, what="the events are followed")
        for words in (("set", "g", "200M"), ("info", "g")):
            ran = called(*words, run=host.run)
            assert ran.code == 5
            assert f"process {followed.child.pid} (qmpmem events, uid" in ran.err
            assert "most likely" not in ran.err
            assert "that command lets go when it ends" in ran.err or words[0] == "info"
        provoke(host, followed)


def test_an_agent_that_begins_gets_the_guests_and_passes_the_events_on(host: Host) -> None:
    with following(host) as followed:
        until(host.is_held, seconds=20, what="the events are followed")
        with running(host.run) as agent:
            until(
                lambda: "an agent has begun" in followed.err.read_text(),
                seconds=20,
                what="events let go",
            )
            until(
                lambda: json.loads(called("list", "--json", run=host.run).out)[0]["actual"],
                seconds=40,
                what=f"the agent has the guest; {said(host.run)}",
            )
            provoke(host, followed)
            stop(agent)
        until(lambda: "the agent has ended" in followed.err.read_text(), seconds=20)
        before = len(followed.out.read_text())
        until(host.is_held, seconds=20, what="the events are followed again")
        host.do("system_reset")
        until(lambda: len(followed.out.read_text()) > before, seconds=20, what="one more RESET")


def test_events_of_one_guest_end_with_it(host: Host) -> None:
    with running(host.run), following(host, "g") as followed:
        provoke(host, followed)
        host.qemu.kill()
        host.qemu.wait()
        assert followed.child.wait(timeout=patient(30)) == 0
        assert "guest g: it has ended" in followed.err.read_text()


@pytest.mark.parametrize("with_agent", [False, True], ids=["alone", "beside an agent"])
def test_a_guest_is_the_same_with_and_without_an_agent(host: Host, *, with_agent: bool) -> None:
    if with_agent:
        with running(host.run):
            asyncio.run(use(pinned=True))
    else:
        asyncio.run(use(pinned=False))


async def use(*, pinned: bool) -> None:
    async with Guest("g") as guest:
        assert guest.id == "g"
        assert await guest.maximum() == 256 * MIB
        assert await guest.actual() == 256 * MIB
        seen = await guest.snapshot()
        assert (seen.id, seen.state) == ("g", "prelaunch")
        with pytest.raises(ConfigError):
            await guest.set(Bytes(1024 * MIB))
        with pytest.raises(ConfigError):
            await guest.check(Bytes(1 * MIB))
        await guest.set(Bytes(200 * MIB))
        assert await guest.unpin() is pinned
    with pytest.raises(ConfigError, match="no such guest"):
        async with Guest("none"):
            pass


def test_what_the_agent_offers_from_python(host: Host) -> None:
    with running(host.run):
        asyncio.run(ask_everything(host))


async def ask_everything(host: Host) -> None:
    agent = Agent()
    status = await agent.status()
    assert status.run == str(host.run)
    assert [guest.id for guest in await agent.guests()] == ["g"]
    assert (await agent.guest("g")).maximum == 256 * MIB
    assert (await agent.why("g")).explanation.guest == "g"
    assert (await agent.plan()).state == status.state
    assert any(constant.name.startswith("reach.") for constant in await agent.policy())
    assert (await agent.pin("g", Bytes(200 * MIB), dry_run=True)).changed is False
    assert (await agent.set("g", Bytes(200 * MIB))).size == 200 * MIB
    assert (await agent.status()).pins == {"g": 200 * MIB}
    assert (await agent.unpin("g")).changed
    assert (await agent.hold()).hold
    assert not (await agent.release()).hold
    async with agent.lease(Bytes(16 * MIB), guest="new1") as lease:
        assert lease.lease in {each.id for each in (await agent.status()).leases}
    assert not (await agent.give_back(lease.lease)).changed
    async for tick in agent.rounds():
        assert tick.number > 0
        break
    with pytest.raises(QmpmemError):
        await agent.guest("none")
    with pytest.raises(ConfigError):
        await agent.pin("g", Bytes(1 * MIB))


def test_an_agent_that_hangs_or_is_none_is_one_error_in_time(host: Host) -> None:
    async def ask(patience: float) -> str:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(AgentUnreachable) as caught:
            await Agent(patience=patience).status()
        assert loop.time() - began < patience + 5
        return caught.value.reason

    assert asyncio.run(ask(2.0)) == "none"
    with running(host.run) as agent:
        agent.send_signal(signal.SIGSTOP)
        assert asyncio.run(ask(0.3)) == "timeout"

        async def open_it() -> None:
            lines: list[str] = []
            with pytest.raises(GuestUnreachable, match=f"process {agent.pid} "):
                async with Guest("g", warn=lines.append):
                    pass
            assert f"the agent, pid {agent.pid}, does not answer" in lines[0]

        asyncio.run(open_it())
        agent.send_signal(signal.SIGCONT)
