"""The control socket: what it answers to which client, and what no client can do to it."""

import asyncio
import gc
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qmpmem.api import application, async_client, client_limits, connection
from qmpmem.api.addresses import admin_path
from qmpmem.api.client import Client
from qmpmem.api.endpoints import ENDPOINTS
from qmpmem.api.messages import error_of, problem_of
from qmpmem.api.permissions import Permissions
from qmpmem.api.records import (
    Constant,
    Failure,
    HoldResult,
    LeaseRequest,
    LeaseResult,
    PinRequest,
    PinResult,
    Status,
    Why,
)
from qmpmem.api.sockets import Listeners
from qmpmem.errors import (
    AgentUnreachable,
    ConfigError,
    GuestRefused,
    GuestUnreachable,
    KernelError,
    NotReached,
)
from qmpmem.model.guest import GuestView
from qmpmem.model.round import Plan, SetBalloon, Tick
from qmpmem.units import MIB, Bytes
from tests.rig.agent import EveryClient, Office, ask, own_listener, talk
from tests.rig.clock import VirtualLoop
from tests.rig.logs import level_of
from tests.rig.patience import patient
from tests.rig.qemu import short_directory, until
from tests.rig.users import needs_root

READER = EveryClient(owner=0, access="read")
STRANGER = EveryClient(owner=0, access="none")
GROUPS = Permissions(owner=0, readers=4711, writers=4712)


@pytest.fixture
def shared() -> Iterator[Listeners]:
    """Sockets that are for groups, in a directory that every user can pass through."""
    with short_directory() as directory:
        directory.chmod(0o755)
        with own_listener(directory, GROUPS) as made:
            yield made


@pytest.fixture
def office() -> Office:
    made = Office(Path("/proc/none"))
    made.add("web1")
    made.add("db1", 800)
    return made


def path_of(listener: Listeners) -> Path:
    return listener.path


def code_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def test_every_reading_endpoint_answers_with_its_record(
    office: Office, listener: Listeners
) -> None:
    office.round(warnings=("look out",))
    async with office.open(listener, READER) as client:
        status = await ask(lambda: client.get("status", Status))
        assert (status.number, status.state, status.warnings) == (1, "SLACK", ("look out",))
        guests = await ask(lambda: client.get("guests", list[GuestView]))
        assert [(each.id, each.actual) for each in guests] == [
            ("db1", 800 * MIB),
            ("web1", 512 * MIB),
        ]
        guest = await ask(lambda: client.get("guests/web1", GuestView))
        assert guest == next(each for each in guests if each.id == "web1")
        why = await ask(lambda: client.get("guests/web1/why", Why))
        assert (why.guest, why.explanation.actual) == ("web1", 512 * MIB)
        assert why.limits is not None
        plan = await ask(lambda: client.get("plan", Plan))
        assert {each.guest for each in plan.guests} == {"db1", "web1"}
        constants = await ask(lambda: client.get("policy", list[Constant]))
        assert "allocation.REVOKED_PERCENT" in {each.name for each in constants}


async def test_the_first_round_is_not_over_yet(office: Office, listener: Listeners) -> None:
    async with office.open(listener) as client:
        status = await ask(lambda: client.get("status", Status))
        assert (status.number, status.age) == (0, None)
        with pytest.raises(AgentUnreachable, match="only just started"):
            await ask(lambda: client.get("plan", Plan))
        assert len(await ask(lambda: client.get("guests", list[GuestView]))) == 2


async def test_each_kind_of_error_arrives_as_itself(office: Office, listener: Listeners) -> None:
    office.round()
    office.add("static1", managed=False, mode="static")
    office.add("gone1")
    gone = office.agent.guests["gone1"]
    gone._inquiry.known = msgspec.structs.replace(
        gone._inquiry.known,
        reading=msgspec.structs.replace(gone._inquiry.known.reading, state="unreachable"),
        problem="guest gone1: it hangs",
    )
    small, large = PinRequest(size=Bytes(MIB)), PinRequest(size=Bytes(512 * MIB))

    def pin(name: str, request: PinRequest) -> PinResult:
        return client.ask("PUT", f"guests/{name}/pin", PinResult, request)

    async with office.open(listener) as client:
        with pytest.raises(ConfigError, match="no such guest"):
            await ask(lambda: client.get("guests/none", GuestView))
        with pytest.raises(ConfigError, match="less than its floor"):
            await ask(lambda: pin("web1", small))
        with pytest.raises(GuestRefused, match="static1: started in mode static") as refused:
            await ask(lambda: pin("static1", large))
        assert refused.value.error_class == "NotManaged"
        with pytest.raises(GuestUnreachable, match="it hangs") as unreachable:
            await ask(lambda: pin("gone1", large))
        assert unreachable.value.reason == "state"
        room = LeaseRequest(size=Bytes(512 * MIB), timeout=0)
        with pytest.raises(NotReached, match="no room for 512 MiB after 0 s"):
            await ask(lambda: client.ask("POST", "leases", LeaseResult, room))


async def test_changes_are_logged_with_the_client_that_made_them(
    office: Office, listener: Listeners
) -> None:
    office.round()
    who = f"uid {os.geteuid()} pid {os.getpid()}: "
    async with office.open(listener) as client:
        assert (await ask(lambda: client.ask("PUT", "hold", HoldResult))).changed
        assert not (await ask(lambda: client.ask("PUT", "hold", HoldResult))).changed
        request = PinRequest(size=Bytes(512 * MIB))
        await ask(lambda: client.ask("PUT", "guests/web1/pin", PinResult, request))
        await ask(lambda: client.ask("DELETE", "guests/web1/pin", PinResult))
        await ask(lambda: client.ask("DELETE", "hold", HoldResult))
    assert office.lines == [
        f"{who}hold",
        f"{who}hold",
        f"{who}pin web1 to 512 MiB",
        f"{who}unpin web1",
        f"{who}go on",
    ]


async def test_a_client_that_may_only_read_changes_nothing(
    office: Office, listener: Listeners
) -> None:
    """Row F76."""
    office.round()
    bodies = {"leases": b'{"size":1}', "guests/web1/pin": b'{"size":536870912}'}
    before = office.agent.requests.in_force
    async with office.open(listener, READER) as client:
        assert (await ask(lambda: client.get("status", Status))).number == 1
        for each in ENDPOINTS:
            if not each.writes:
                continue
            path = each.path.replace("{name}", "web1").replace("{lease}", "x")
            body = bodies.get(path, b"")
            line = f"{each.method} /v1/{path}".encode()
            asked = question(line, LENGTH % len(body), body=body)
            assert code_of(await talk(client.path, asked)) == 403, each
        with pytest.raises(KernelError, match="qmpmem-admin"):
            await ask(lambda: client.ask("PUT", "hold", HoldResult))
    assert office.agent.requests.in_force == before
    [said] = office.lines  # one a minute
    assert said.startswith(f"turned away uid {os.geteuid()} pid {os.getpid()}: ")
    assert said.endswith(": only root and the group qmpmem-admin may change something")


async def test_a_stranger_hears_403_before_he_is_read(office: Office, listener: Listeners) -> None:
    """Row F74."""
    async with office.open(listener, STRANGER) as client:
        assert code_of(await talk(client.path, b"")) == 403
        for _ in range(5):
            with pytest.raises(KernelError, match="only root, and the groups"):
                await ask(lambda: client.get("status", Status))
        await talk(client.path, b"x" * 1_000_000)
    assert len(office.lines) == 1, "one line a minute, however often the client tries"
    assert f"turned away uid {os.geteuid()}" in office.lines[0]
    assert level_of(office.lines[0]) == "INFO"


@needs_root("may not take other groups")
@pytest.mark.parametrize(
    ("groups", "seen"),
    [
        ([], "- - - -"),
        ([4711], "200 403 - -"),
        ([7, 4712], "- - 200 200"),
        ([4711, 4712], "200 403 200 200"),
    ],
)
async def test_other_users_by_their_groups(
    office: Office, shared: Listeners, groups: list[int], seen: str
) -> None:
    """Row F74: the kernel lets each group to its socket, and no other user to any."""
    office.round()
    program = (
        "import os, socket, sys\n"
        f"os.setgroups({groups}); os.setgid(65534); os.setuid(65534)\n"
        "for place in sys.argv[1:]:\n"
        "    for method, path in (('GET', 'status'), ('PUT', 'hold')):\n"
        "        s = socket.socket(socket.AF_UNIX)\n"
        "        try: s.connect(place)\n"
        "        except PermissionError: print('-'); continue\n"
        "        ask = f'{method} /v1/{path} HTTP/1.0\\r\\nHost: qmpmem\\r\\n\\r\\n'\n"
        "        s.sendall(ask.encode())\n"
        "        print(s.recv(100).split()[1].decode())"
    )
    async with office.open(shared, GROUPS):
        child = await asyncio.create_subprocess_exec(
            *("/usr/bin/python3", "-c", program, shared.path, admin_path(shared.path)),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await child.communicate()
    assert out.decode().split() == seen.split()
    assert office.agent.requests.in_force.hold is seen.endswith("200")
    assert groups or office.lines == [], "the agent does not hear of a stranger"


def question(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    """Write a question to the right Host."""
    return b"\r\n".join((line + b" HTTP/1.1", b"Host: qmpmem", *headers, b"", body))


STATUS = b"GET /v1/status"
HOLD = b"PUT /v1/hold"
LEASE = b"POST /v1/leases"
PIN = b"PUT /v1/guests/web1/pin"
CHUNKED = b"Transfer-Encoding: chunked"
LENGTH = b"Content-Length: %d"
CHUNK = b"1000\r\n" + b"x" * 4096 + b"\r\n"
MEGABYTE = b"x" * 1_000_000

ODD = {
    "no Host": (STATUS + b" HTTP/1.1\r\n\r\n", 400),
    "no Host, HTTP/1.0": (STATUS + b" HTTP/1.0\r\n\r\n", 400),
    "evil Host": (STATUS + b" HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
    "two Hosts": (question(STATUS, b"Host: evil"), 400),
    "evil Origin": (question(STATUS, b"Origin: http://evil"), 403),
    "absolute form": (question(b"GET http://qmpmem/v1/status"), 404),
    "authority form": (question(b"CONNECT qmpmem:80"), 404),
    "both lengths": (question(HOLD, CHUNKED, LENGTH % 5, body=b"0\r\n\r\n"), 400),
    "two lengths": (question(HOLD, LENGTH % 1, LENGTH % 2, body=b"ab"), 400),
    "negative length": (question(HOLD, LENGTH % -1), 400),
    "endless length": (question(HOLD, LENGTH % 99_999_999_999), 413),
    "a body of 64 KiB and one": (question(LEASE, LENGTH % 65537, body=b"[" * 65537), 413),
    "chunks without end": (question(LEASE, CHUNKED, body=CHUNK * 21), 413),
    "a header of 1 MB": (question(STATUS, b"X: " + MEGABYTE), 400),
    "a path of 1 MB": (question(b"GET /" + MEGABYTE), 400),
    "no HTTP": (b"\0\1\2\3\r\n\r\n", 400),
    "QMP": (b'{"execute":"qmp_capabilities"}\r\n\r\n', 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404),
    "no such version": (question(b"GET /v2/status"), 404),
    "no such endpoint": (question(b"GET /v1/none"), 404),
    "dots": (question(b"GET /v1/guests/../status"), 404),
    "no such method": (question(b"POST /v1/status"), 405),
    "a body where none is": (question(HOLD, LENGTH % 2, body=b"{}"), 400),
    "a body that is no JSON": (question(PIN, LENGTH % 2, body=b"{'"), 400),
    "a body that is no UTF-8": (question(PIN, LENGTH % 4, body=b'"\xff\xff"'), 400),
    "depth": (question(PIN, LENGTH % 60000, body=b'{"x":' + b"[" * 59995), 400),
    "a size that is none": (question(PIN, LENGTH % 14, body=b'{"size": 1e99}'), 400),
    "a parameter that is not known": (
        question(PIN + b"?dry-run=true", LENGTH % 19, body=b'{"size": 943718400}'),
        400,
    ),
    "another's parameter": (question(HOLD + b"?dry_run=true"), 400),
    "an upgrade": (
        question(b"GET /v1/none", b"Connection: upgrade", b"Upgrade: websocket"),
        404,
    ),
}


@pytest.mark.parametrize("name", ODD)
async def test_what_is_odd_gets_4xx_and_does_no_harm(
    office: Office, listener: Listeners, name: str
) -> None:
    """Row F79."""
    office.round()
    before = office.agent.requests.in_force
    content, code = ODD[name]
    async with office.open(listener) as client:
        answer = await talk(admin_path(client.path), content)
        assert code_of(answer) == code, answer[:300]
        assert answer.count(b"HTTP/1.1") == 1
        assert (await ask(lambda: client.get("status", Status))).number == 1
    assert office.agent.requests.in_force == before
    assert office.lines == []


async def test_one_question_for_each_connection(office: Office, listener: Listeners) -> None:
    """What follows the first cannot be smuggled in behind it."""
    office.round()
    async with office.open(listener) as client:
        answer = await talk(admin_path(client.path), question(STATUS) + question(HOLD))
        assert answer.count(b"HTTP/1.1 200") == 1
    assert not office.agent.requests.in_force.hold


async def test_a_name_may_hold_anything(office: Office, listener: Listeners) -> None:
    office.round()
    async with office.open(listener) as client:
        for name in (b"%2e%2e", b"%00", b"a%0d%0aX: y", b"%ff%fe", b"x" * 5000):
            answer = await talk(client.path, question(b"GET /v1/guests/" + name))
            assert code_of(answer) in (400, 404), answer[:200]
            assert b"\r\nX: y" not in answer


async def test_a_mistake_of_ours_ends_one_answer_and_not_the_agent(
    office: Office, listener: Listeners
) -> None:
    office.round()
    office.agent._watchers["broken"] = (None, None)  # type: ignore[assignment]
    async with office.open(listener) as client:
        assert code_of(await talk(client.path, question(b"GET /v1/guests"))) == 500
        assert (await ask(lambda: client.get("status", Status))).number == 1
    assert len(office.lines) == 1
    assert "GET guests: AttributeError" in office.lines[0]
    assert level_of(office.lines[0]) == "ERROR"


LOOK, CHANGE = client_limits.look_seats(80), client_limits.change_seats(80)


async def sitting(path: Path, count: int) -> list[asyncio.StreamWriter]:
    """Have clients that say nothing."""
    return [(await asyncio.open_unix_connection(str(path)))[1] for _ in range(count)]


async def leave(clients: Iterable[asyncio.StreamWriter]) -> None:
    for each in clients:
        each.close()
    await asyncio.gather(*(each.wait_closed() for each in clients))


async def answers(client: Client) -> None:
    """Wait until there is a place again."""
    async with asyncio.timeout(patient(5)):
        while True:
            with suppress(AgentUnreachable):
                assert (await ask(lambda: client.get("status", Status))).number == 1
                return
            await asyncio.sleep(0.01)


async def test_one_reader_has_some_of_the_places(office: Office, listener: Listeners) -> None:
    office.round()
    async with office.open(listener, READER) as client:
        waiting = await sitting(client.path, LOOK.places_each)
        with pytest.raises(AgentUnreachable, match="uid 0 has 16 connections already"):
            await ask(lambda: client.get("status", Status))
        with pytest.raises(AgentUnreachable, match="has 16 connections already"):
            await async_client.get(client, "status", Status)
        await leave(waiting)
        await answers(client)


async def test_a_client_that_may_change_finds_a_place_though_the_other_socket_is_full(
    office: Office, listener: Listeners
) -> None:
    """Questions as well, in both ways to ask."""
    office.round()
    async with office.open(listener) as client:
        waiting = await sitting(client.path, LOOK.places)
        for _ in range(3):
            assert (await ask(lambda: client.get("status", Status))).number == 1
            assert (await async_client.get(client, "status", Status)).number == 1
            await ask(lambda: client.ask("PUT", "hold", HoldResult))
        lines = client.lines("ticks", Tick)
        assert (await ask(lambda: next(lines))).number == 1
        lines.close()
        waiting += await sitting(admin_path(client.path), CHANGE.places)
        with pytest.raises(AgentUnreachable, match="32 others are asking"):
            await ask(lambda: client.get("status", Status))
        await leave(waiting)
        await answers(client)


async def test_at_the_door_to_look_nothing_is_changed_not_even_by_root(
    office: Office, listener: Listeners
) -> None:
    """What is given that socket alone, as a container whose root is the host's, can look."""
    office.round()
    async with office.open(listener) as client:
        answer = await talk(client.path, question(HOLD))
        assert code_of(answer) == 403
        assert b"ask for that at agent-admin.sock" in answer
        assert code_of(await talk(client.path, question(STATUS))) == 200
        assert code_of(await talk(admin_path(client.path), question(STATUS))) == 200
        assert not office.agent.requests.in_force.hold
        assert code_of(await talk(admin_path(client.path), question(HOLD))) == 200
        assert office.agent.requests.in_force.hold


async def test_a_client_that_asks_too_often_is_told_when_to_come_again(
    office: Office, listener: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty questions are none too many; a client waits by itself, in both ways to ask."""
    monkeypatch.setattr(client_limits, "BURST", 60.0)
    monkeypatch.setattr(client_limits, "RATE", 2.0)
    office.round()
    async with office.open(listener, READER) as client:
        for _ in range(60):
            assert code_of(await talk(client.path, question(STATUS))) == 200
        answers = [await talk(client.path, question(STATUS)) for _ in range(3)]
        assert 429 in [code_of(answer) for answer in answers]
        refused = next(answer for answer in answers if code_of(answer) == 429)
        assert b"\r\nRetry-After: 1\r\n" in refused
        why = msgspec.json.decode(refused.partition(b"\r\n\r\n")[2], type=Failure).error
        assert why.message == "uid 0 asks more often than 25 times a second"
        assert (await ask(lambda: client.get("status", Status))).number == 1
        assert (await async_client.get(client, "status", Status)).number == 1


async def test_a_client_that_may_change_may_ask_as_often_as_it_likes(
    office: Office, listener: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_limits, "BURST", 1.0)
    office.round()
    async with office.open(listener) as client:
        for path in (client.path, admin_path(client.path)) * 10:
            assert code_of(await talk(path, question(STATUS))) == 200


def test_a_client_that_sends_slowly_is_cut_off(listener: Listeners) -> None:
    """Row F79, slowloris: in a time that jumps, a byte every second comes to nothing after five."""

    async def drip() -> int:
        office = Office(Path("/proc/none"))
        office.round()
        async with office.open(listener):
            reader, writer = await asyncio.open_unix_connection(str(path_of(listener)))
            sent = 0
            try:
                for byte in question(STATUS)[:-2]:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    sent += 1
                    await asyncio.sleep(1)
                    if reader.at_eof():
                        break
                assert await reader.read() == b""
            except ConnectionError:
                pass
            writer.close()
            assert asyncio.get_running_loop().time() < 10
            return sent

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert 3 <= runner.run(drip()) <= 7


def test_a_client_that_sends_half_a_body_is_answered_and_cut_off(listener: Listeners) -> None:
    async def half() -> bytes:
        office = Office(Path("/proc/none"))
        office.round()
        async with office.open(listener):
            half_of_it = question(LEASE, LENGTH % 100, body=b"{")
            return await talk(admin_path(path_of(listener)), half_of_it, seconds=60)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        answer = runner.run(half())
        assert answer == b"" or code_of(answer) == 408


async def never_reads(path: Path, asked: bytes) -> socket.socket:
    """Ask, and take no byte of the answer."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, str(path))
    await loop.sock_sendall(client, asked)
    return client


def test_a_client_that_never_reads_costs_its_answer_for_some_seconds(listener: Listeners) -> None:
    async def stay() -> tuple[int, int]:
        office = Office(Path("/proc/none"))
        for number in range(2000):
            office.add(f"guest-{number}")
        office.round()
        async with office.open(listener):
            path, guests = path_of(listener), question(b"GET /v1/guests")
            clients = [await never_reads(path, guests) for _ in range(3)]
            held = 0
            for _ in range(3):
                await asyncio.sleep(1)
                held = max(held, buffered(office.pool.inside))
            await asyncio.sleep(20)
            left = buffered(gc.get_objects())
            for client in clients:
                client.close()
            return held, left

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        held, left = runner.run(stay())
    assert held == 3
    assert left == 0


def buffered(objects: Iterable[object]) -> int:
    """Count connections that wait for their client to read."""
    found = [each for each in objects if isinstance(each, connection._Connection)]
    return sum(each.transport.get_write_buffer_size() > 0 for each in found)


async def test_the_stream_has_each_round_and_ends_with_the_agent(
    office: Office, listener: Listeners
) -> None:
    office.round()
    async with office.open(listener, READER) as client:
        lines = client.lines("ticks", Tick)
        assert (await ask(lambda: next(lines))).number == 1
        office.round(told=[SetBalloon(guest="web1", target=Bytes(MIB), reason="so")])
        second = await ask(lambda: next(lines))
        assert (second.number, second.plan.balloons[0].guest) == (2, "web1")
        rest = asyncio.create_task(ask(lambda: list(lines)))
    assert await rest == []


def test_a_client_that_reads_no_stream_is_cut_off_and_nothing_is_kept_for_it(
    listener: Listeners,
) -> None:
    async def stay() -> int:
        office = Office(Path("/proc/none"))
        for number in range(300):
            office.add(f"guest-{number}")
        office.round()
        async with office.open(listener) as client:
            slow = await never_reads(client.path, question(b"GET /v1/ticks"))
            most = 0
            for _ in range(60):
                office.round()
                await asyncio.sleep(1)
                most = max(most, buffered(office.pool.inside))
            assert most == 1
            left = buffered(gc.get_objects())
            slow.close()
            return left

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(stay()) == 0


async def test_plan_is_worked_out_once_for_each_round_and_wish(
    office: Office, listener: Listeners
) -> None:
    office.round()
    async with office.open(listener) as client:
        await ask(lambda: client.get("plan", Plan))
        first = office.handlers._planned
        await ask(lambda: client.get("plan", Plan))
        assert office.handlers._planned is first
        await ask(lambda: client.ask("PUT", "hold", HoldResult))
        await ask(lambda: client.get("plan", Plan))
        assert office.handlers._planned is not first


async def test_the_document_describes_what_is_there(office: Office, listener: Listeners) -> None:
    async with office.open(listener, READER) as client:
        found = await ask(lambda: client.get("openapi.json", dict[str, Any]))
    assert found == msgspec.json.decode(msgspec.json.encode(application.openapi()))
    assert found["openapi"].startswith("3.1")
    session = found["paths"]["/v1/guests/{name}/qmp"]["post"]
    assert [each["name"] for each in session["parameters"]] == ["name", "read_only"]
    assert session["responses"].keys() == {"101", "default"}
    described = {
        (method.upper(), path) for path, methods in found["paths"].items() for method in methods
    }
    assert described == {(each.method, f"/v1/{each.path}") for each in ENDPOINTS}
    text = msgspec.json.encode(found).decode()
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(found["components"]["schemas"])
    assert {"Status", "Why", "Plan", "LeaseRequest", "Failure", "GuestView"} <= names
    identities = [each["operationId"] for path in found["paths"].values() for each in path.values()]
    assert len(set(identities)) == len(identities)


async def test_nothing_is_left_open(office: Office, listener: Listeners) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    office.round()
    before = await ask(descriptors)
    async with office.open(listener) as client:
        for _ in range(20):
            await ask(lambda: client.get("status", Status))
        slow, writer = await asyncio.open_unix_connection(str(client.path))
        await ask(lambda: client.get("status", Status))  # by now that one was let in, too
    assert await slow.read() == b""
    writer.close()
    await writer.wait_closed()
    await ask(lambda: until(lambda: descriptors() <= before, what="all is closed"))


def test_what_hangs_is_known_by_its_silence(listener: Listeners) -> None:
    """A hung agent's socket still takes connections: the kernel does that."""
    client = Client(path_of(listener), patience=0.2)
    with pytest.raises(AgentUnreachable, match=f"pid {os.getpid()}, does not answer") as met:
        client.get("status", Status)
    assert met.value.reason == "timeout"


@contextmanager
def late(listener: Listeners, proc: Path, *, is_busy: bool) -> Generator[Client]:
    """An agent that answers later than it should, and waits for a processor until then, or sleeps.

    So that this process may be late, too, a hundred threads of the agent wait.
    """
    thread = proc / str(os.getpid()) / "task" / "7"
    thread.mkdir(parents=True)

    def wait(seconds: float) -> None:
        (proc / "new").write_text(f"0 {int(seconds * 1e11) if is_busy else 0} 1")
        (proc / "new").replace(thread / "schedstat")

    def answer() -> None:
        connection = listener.look.accept()[0]
        with connection:
            began = time.monotonic()
            while (passed := time.monotonic() - began) < 2.5 and not over.is_set():
                wait(passed)
                time.sleep(0.01)
            with suppress(OSError):  # it was not waited for
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n[]")

    wait(0.0)
    over = threading.Event()
    listener.look.settimeout(patient(10))
    server = threading.Thread(target=answer)
    server.start()
    try:
        yield Client(path_of(listener), patience=2.0, proc=proc)
    finally:
        over.set()
        server.join()


@pytest.mark.parametrize("way", ["plain", "in a loop"])
@pytest.mark.parametrize("is_busy", [True, False])
def test_an_agent_that_waits_for_a_processor_is_told_from_one_that_hangs(
    listener: Listeners, tmp_path: Path, way: str, *, is_busy: bool
) -> None:
    expected = nullcontext() if is_busy else pytest.raises(AgentUnreachable, match="not answer")
    with late(listener, tmp_path, is_busy=is_busy) as client, expected:
        if way == "plain":
            client.get("guests", list[GuestView])
        else:
            asyncio.run(async_client.get(client, "guests", list[GuestView]))


UNINTERRUPTIBLE = """
import ctypes, os, platform, signal, socket, sys, time
CLONE, CLONE_VFORK = {"x86_64": 56, "aarch64": 220}[platform.machine()], 0x4000
listening = socket.socket(fileno=int(sys.argv[1]))
listening.listen()
print("ready", flush=True)
connection = listening.accept()[0]
if sys.argv[2] == "D":
    child = ctypes.PyDLL(None).syscall(CLONE, CLONE_VFORK | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        time.sleep(4)
        os._exit(0)
else:
    time.sleep(4)
connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n[]")
"""
"""A server that answers after four seconds. It waits for a child that vfork(2) made, in the same
state as a thread that waits for a disk, or sleeps."""


@pytest.mark.parametrize("way", ["plain", "in a loop"])
@pytest.mark.parametrize("state", ["D", "S"])
def test_an_agent_that_waits_for_a_disk_is_told_from_one_that_hangs(way: str, state: str) -> None:
    """Row F80."""
    expected = nullcontext() if state == "D" else pytest.raises(AgentUnreachable, match="answer")
    with short_directory() as directory, socket.socket(socket.AF_UNIX) as listening:
        client = Client(directory / "agent.sock")
        listening.bind(str(client.path))
        number = listening.fileno()
        arguments = [sys.executable, "-c", UNINTERRUPTIBLE, str(number), state]
        with (
            subprocess.Popen(
                arguments, pass_fds=[number], stdout=subprocess.PIPE, text=True
            ) as server,
            expected,
        ):
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            try:
                if way == "plain":
                    client.get("guests", list[GuestView])
                else:
                    asyncio.run(async_client.get(client, "guests", list[GuestView]))
            finally:
                server.kill()


def test_no_agent_is_told_from_one_that_is_dead(listener: Listeners) -> None:
    listener.look.close()
    with pytest.raises(AgentUnreachable, match="no agent runs") as met:
        Client(path_of_dead(listener)).get("status", Status)
    assert met.value.reason == "none"


def path_of_dead(listener: Listeners) -> Path:
    del listener
    return Path("/proc/none/a.sock")


def test_a_failure_is_what_it_was() -> None:
    """Every error that can be met comes over the wire as itself."""
    met = [
        NotReached("a", hint="b"),
        ConfigError("a"),
        KernelError("a"),
        AgentUnreachable("a", reason="early"),
        GuestUnreachable("a", reason="busy"),
        GuestRefused("a", error_class="NotManaged", hint="b"),
    ]
    for error in met:
        problem = msgspec.json.decode(
            msgspec.json.encode(Failure(error=problem_of(error))), type=Failure
        ).error
        again = error_of(problem)
        assert type(again) is type(error)
        assert (again.message, again.hint) == (error.message, error.hint)
        assert vars(again) == vars(error)


def test_ucred_is_as_the_kernel_has_it() -> None:
    assert struct.calcsize("=iII") == 12
