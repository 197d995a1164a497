"""Events that the agent passes on: to each client that follows, and never at the agent's cost."""

import asyncio
import gc
from pathlib import Path

import pytest

from qmpmem.api import async_client, bounded_connection, client_limits, handlers
from qmpmem.api.client import Client
from qmpmem.api.recent_rounds import EVENTS, RecentEvents
from qmpmem.api.records import Status
from qmpmem.api.sockets import Listeners
from qmpmem.errors import AgentUnreachable, ConfigError, GuestUnreachable
from qmpmem.library import Agent
from qmpmem.model.guest import GuestEvent
from qmpmem.wire.events import Event
from tests.rig.agent import EveryClient, Office, talk
from tests.rig.clock import VirtualLoop
from tests.rig.patience import patient

READER = EveryClient(owner=0, access="read")
HEAD = b"GET /v1/events HTTP/1.0\r\nHost: qmpmem\r\n\r\n"


@pytest.fixture
def office() -> Office:
    made = Office(Path("/proc/none"))
    made.add("web1")
    made.add("db1")
    return made


def tell(office: Office, guest: str, name: str, when: float | None = 5.0) -> None:
    """Have the agent hear an event, as its watcher does."""
    assert office.agent.pass_on is not None
    office.agent.pass_on(guest, Event(name=name, data={"n": 1}, when=when))


async def following(office: Office, clients: int) -> None:
    """Wait until so many clients follow: until then they get no events."""
    async with asyncio.timeout(patient(10)):
        while office.handlers.events.followers < clients:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.005)


async def test_each_client_gets_each_event_of_the_guests_that_it_follows(
    office: Office, listener: Listeners
) -> None:
    async with office.open(listener, READER) as client:
        everything = asyncio.create_task(take(client, "events", 3))
        again = asyncio.create_task(take(client, "events", 3))
        one = asyncio.create_task(take(client, "guests/web1/events", 2))
        await following(office, 3)
        for guest, name in (("web1", "STOP"), ("db1", "RESET"), ("web1", "RESUME")):
            tell(office, guest, name)
        expected = [("web1", "STOP"), ("db1", "RESET"), ("web1", "RESUME")]
        for seen in (await everything, await again):
            assert [(each.id, each.event) for each in seen] == expected
        assert [each.event for each in await one] == ["STOP", "RESUME"]
        assert (await one)[0] == GuestEvent(
            id="web1", name="web1", event="STOP", data={"n": 1}, time=5.0
        )


async def take(client: Client, path: str, count: int) -> list[GuestEvent]:
    found: list[GuestEvent] = []
    async for event in async_client.follow(client, path, GuestEvent):
        found.append(event)
        if len(found) == count:
            break
    return found


async def test_a_guest_that_is_none_is_refused_before_the_stream_begins(
    office: Office, listener: Listeners
) -> None:
    async with office.open(listener, READER) as client:
        with pytest.raises(ConfigError, match="no such guest"):
            await take(client, "guests/none/events", 1)


async def test_the_stream_of_a_guest_ends_with_it_and_says_so(
    office: Office, listener: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "LOOK_UP", 0.02)
    monkeypatch.setenv("QMPMEM_AGENT_SOCKET", str(listener.path))

    async def follow() -> list[str]:
        events = aiter(Agent(Path("/proc/none")).events("web1"))
        first = await anext(events)
        with pytest.raises(GuestUnreachable, match="guest web1: it has ended") as caught:
            await anext(events)
        assert caught.value.reason == "closed"
        return [first.event]

    async with office.open(listener, READER):
        task = asyncio.create_task(follow())
        await following(office, 1)
        tell(office, "web1", "SHUTDOWN")
        office.remove("web1")
        assert await task == ["SHUTDOWN"]


async def test_all_streams_end_with_the_agent_and_say_so(
    office: Office, listener: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QMPMEM_AGENT_SOCKET", str(listener.path))

    async def follow(name: str | None) -> None:
        async for _ in Agent(Path("/proc/none"), patience=0.3).events(name):
            pass

    async with office.open(listener, READER):
        tasks = [asyncio.create_task(follow(name)) for name in (None, "web1")]
        await following(office, 2)
    for task in tasks:
        with pytest.raises(AgentUnreachable):
            await task


async def test_streams_leave_places_for_questions(office: Office, listener: Listeners) -> None:
    office.round()
    async with office.open(listener, READER) as client:
        each = client_limits.look_seats(80).streams_each
        streams = [asyncio.create_task(take(client, "events", 1)) for _ in range(each)]
        await following(office, each)
        for path in ("events", "guests/web1/events", "ticks"):
            with pytest.raises(AgentUnreachable, match="uid 0 follows the agent 8 times already"):
                await take(client, path, 1)
        assert (await async_client.get(client, "status", Status)).number == 1
        tell(office, "web1", "STOP")
        await asyncio.gather(*streams)
        async with asyncio.timeout(patient(10)):
            while office.handlers.events.followers:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.005)
        third = asyncio.create_task(take(client, "events", 1))
        await following(office, 1)
        tell(office, "web1", "STOP")
        assert len(await third) == 1


def test_a_slow_client_misses_the_oldest_and_hears_how_many() -> None:
    events = RecentEvents()
    for number in range(EVENTS + 10):
        events.publish("web1" if number % 2 else "db1", Event(name="STOP", data={}, when=number))
    seen = events.since(0)
    assert (len(seen), seen[0].time, seen[0].dropped) == (EVENTS, 10.0, 10)
    assert not any(each.dropped for each in seen[1:])
    assert {each.id for each in events.since(0, "db1")} == {"db1"}
    assert events.since(events.count) == []
    assert [each.time for each in events.since(events.count - 1)] == [EVENTS + 9]


def test_a_quiet_stream_has_an_empty_line_now_and_then(listener: Listeners) -> None:
    async def stay() -> bytes:
        office = Office(Path("/proc/none"))
        async with office.open(listener) as client:
            reading = asyncio.create_task(talk(client.path, HEAD, seconds=1000))
            await asyncio.sleep(3 * handlers.BEAT + 1)
            tell(office, "web1", "STOP")
            await asyncio.sleep(1)
        return await reading

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        _, _, lines = runner.run(stay()).partition(b"\r\n\r\n")
    assert lines.startswith(b"\n\n\n{")
    assert lines.count(b"\n") == 4


def test_a_client_that_does_not_read_is_cut_off_and_the_agent_does_not_wait(
    listener: Listeners,
) -> None:
    async def stay() -> float:
        office = Office(Path("/proc/none"))
        clock = asyncio.get_running_loop().time
        async with office.open(listener) as client:
            reader, writer = await asyncio.open_unix_connection(str(client.path), limit=1)
            writer.write(HEAD)
            await following(office, 1)
            began = clock()
            data = {"text": "x" * 4000}
            assert office.agent.pass_on is not None
            while office.handlers.events.followers:
                assert clock() - began < 60
                for _ in range(EVENTS):
                    office.agent.pass_on("web1", Event(name="STOP", data=data, when=1.0))
                await asyncio.sleep(1)
            took = clock() - began
            assert kept() <= EVENTS
            writer.close()
            del reader
        return took

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(stay()) <= bounded_connection.TAKING + 5


def kept() -> int:
    return sum(isinstance(each, GuestEvent) for each in gc.get_objects())
