"""Requests by chance to an agent: as its OpenAPI document allows, otherwise, and damaged bytes.

Theory of operation:
    Schemathesis makes requests out of the document that the agent serves, and judges the answers
    by it. They are sent over the agent's two sockets, one for each connection, as ours are. What
    is no stream is read to its end; of a stream its first bytes.

    What a request that was refused may have changed is looked for in the agent's status: holds,
    pins and leases.
"""

import asyncio
import http.client
import io
import json
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from requests import PreparedRequest, Request
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core import NOT_SET
from schemathesis.core.result import Ok
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode

from qmpmem.api import addresses
from qmpmem.api.client import Client
from qmpmem.api.records import Status
from qmpmem.records import Record
from tests.rig import mutate
from tests.rig.patience import patient

GUEST: Final = "web1"
STREAM: Final = 0.3
"""Seconds that are read of a stream, and that a damaged request is waited for."""
AT_ONCE: Final = 12
"""Connections at a time: fewer than there are places at the smaller socket."""
READING: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
SOUND: Final[Mapping[str, dict[str, object]]] = {
    "PUT": {"size": 209715200, "force": False},
    "POST": {"size": 1048576, "timeout": 0.5, "keep": 1.5, "guest": "new1"},
    "DELETE": {},
}
"""Bodies that are granted, by the method; no other are like to be."""
JUDGED: Final = ("not_a_server_error", "response_schema_conformance", "content_type_conformance")
"""Of Schemathesis' checks those that are about an answer alone."""


class State(Record, frozen=True):
    """What requests can change."""

    hold: bool
    pins: Mapping[str, int]
    leases: frozenset[str]


def state_of(client: Client) -> State:
    status = client.get("status", Status)
    return State(
        hold=status.hold,
        pins=dict(status.pins),
        leases=frozenset(each.id for each in status.leases),
    )


class Wild:
    """Asks an agent.

    Args:
        client: of the agent; its socket to change things stands beside.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.codes: Counter[int] = Counter()
        self._state = state_of(client)
        load_all_checks()
        self._checks = CHECKS.get_by_names(list(JUDGED))
        document = self._document()
        self._schema = schemathesis.openapi.from_dict(document)

    def _document(self) -> dict[str, Any]:
        asked = b"GET /v1/openapi.json HTTP/1.1\r\nHost: qmpmem\r\n\r\n"
        parsed = _parsed(exchange(self.client.path, asked, patient(10)), "GET")
        assert parsed is not None
        return cast("dict[str, Any]", json.loads(parsed[2]))

    def requests(self) -> st.SearchStrategy[Any]:
        """Make any of the requests, about a guest that there is, or any other."""
        made: list[st.SearchStrategy[Any]] = []
        for found in self._schema.get_all_operations():
            assert isinstance(found, Ok)
            operation = found.ok()
            known = {"name": GUEST} if "{name}" in operation.path else {}
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                made += [
                    operation.as_strategy(generation_mode=mode),
                    operation.as_strategy(generation_mode=mode, path_parameters=known),
                ]
            body = SOUND.get(operation.method.upper())
            if body is not None and not operation.path.endswith("qmp"):
                sound = body if operation.body else NOT_SET
                made += [operation.as_strategy(path_parameters=known, body=sound)] * 2
        return st.one_of(made)

    def ask(self, case: Any, *, to_change: bool) -> None:  # noqa: ANN401 - schemathesis.Case
        """Send a request, and judge the answer."""
        prepared = Request(**case.as_transport_kwargs(base_url="http://localhost")).prepare()
        content = written(prepared)
        path = addresses.admin_path(self.client.path) if to_change else self.client.path
        is_stream = case.operation.path.endswith(("ticks", "events"))
        waits = case.method == "POST"
        began = time.monotonic()
        answer = exchange(path, content, STREAM if is_stream or waits else patient(10))
        parsed = _parsed(answer, case.method)
        code = None if parsed is None else parsed[0]
        self.codes[code or 0] += 1
        if parsed is None:
            assert waits or is_stream, (content, answer)
        elif not is_stream and code != http.client.SWITCHING_PROTOCOLS:
            response = Response(
                status_code=parsed[0],
                headers=parsed[1],
                content=parsed[2],
                request=prepared,
                elapsed=time.monotonic() - began,
                verify=False,
            )
            case.validate_response(response, checks=self._checks)
        if case.method not in READING:
            self.expect_kept(content, code)

    def expect_kept(self, asked: bytes, code: int | None) -> None:
        """Hold that only a request that was granted has changed something."""
        before, self._state = self._state, state_of(self.client)
        if code == http.client.OK:
            return
        now = self._state
        assert (now.hold, now.pins) == (before.hold, before.pins), (asked, code)
        if code is not None:  # else it may be waiting yet
            assert now.leases <= before.leases, (asked, code)

    def try_requests(self, count: int, number: int) -> None:
        """Ask so many, others for each number."""

        @seed(number)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        )
        @given(case=self.requests(), door=st.sampled_from(("change", "change", "look")))
        def attempt(case: Any, door: str) -> None:  # noqa: ANN401 - schemathesis.Case
            self.ask(case, to_change=door == "change")

        attempt()


def written(prepared: PreparedRequest) -> bytes:
    """Write a request as HTTP/1.1 has it."""
    target = (prepared.path_url or "/").encode("latin-1", "replace")
    lines = [f"{prepared.method} ".encode() + target + b" HTTP/1.1", b"Host: qmpmem"]
    lines += [
        f"{name}: {_text(value)}".encode("latin-1", "replace")
        for name, value in prepared.headers.items()
        if name.lower() != "host"
    ]
    body = prepared.body or b""
    return b"\r\n".join([*lines, b"", body if isinstance(body, bytes) else body.encode()])


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def exchange(path: Path, content: bytes, seconds: float) -> bytes:
    """Send bytes, and take what comes for so long, or until the connection ends."""
    over = time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        connection.connect(str(path))
        received = b""
        with suppress(TimeoutError, ConnectionError):
            with suppress(BrokenPipeError):  # turned away before all was read
                connection.sendall(content)
            while (left := over - time.monotonic()) > 0:
                connection.settimeout(left)
                piece = connection.recv(65536)
                if not piece:
                    break
                received += piece
        return received


class _Answer(io.BytesIO):
    """What was received, as `http.client` takes it: for a socket."""

    def makefile(self, *_: object) -> "_Answer":
        return self


def _parsed(answer: bytes, method: str) -> tuple[int, dict[str, list[str]], bytes] | None:
    """Take an answer apart: status, headers, body; None: there was none."""
    if not answer:
        return None
    response = http.client.HTTPResponse(cast("socket.socket", _Answer(answer)), method=method)
    response.begin()
    headers: dict[str, list[str]] = {}
    for name, value in response.getheaders():
        headers.setdefault(name, []).append(value)
    try:
        body = response.read()
    except http.client.IncompleteRead as error:  # a stream that goes on
        body = error.partial
    return response.status, headers, body


BODIES: Final = {
    "PUT /v1/guests/web1/pin": b'{"size": 209715200, "force": false}',
    "PUT /v1/guests/web1/pin?dry_run=true": b'{"size": 209715200}',
    "DELETE /v1/guests/web1/pin": b"",
    "PUT /v1/hold": b"",
    "DELETE /v1/hold": b"",
    "POST /v1/leases": b'{"size": 1048576, "timeout": 0.2, "keep": 1.5, "guest": "new1"}',
    "DELETE /v1/leases/1": b"",
    "GET /v1/status": b"",
    "GET /v1/guests": b"",
    "GET /v1/guests/web1": b"",
    "GET /v1/guests/web1/why": b"",
    "GET /v1/plan": b"",
    "GET /v1/policy": b"",
    "GET /v1/openapi.json": b"",
    "GET /v1/ticks": b"",
    "GET /v1/events": b"",
    "GET /v1/guests/web1/events": b"",
    "POST /v1/guests/web1/qmp?read_only=true": b"",
}
"""A request of each kind, and its body."""

HEADERS: Final = (
    *(b"Host: localhost", b"Host: example.org", b"Host:", b"Origin: null", b"Content-Length: -1"),
    *(b"Content-Length: 99999999999999999999", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    *(b"Transfer-Encoding: gzip, chunked", b"Expect: 100-continue", b"Connection: keep-alive"),
    *(
        b"Connection: upgrade",
        b"Upgrade: qmp",
        b"Upgrade: h2c",
        b": x",
        b"X",
        b"X: " + b"y" * 20000,
    ),
    *(b"Content-Type: text/plain", b"Cookie: a=b", b"X-\xff: \xfe", b" folded", b"Range: bytes=0-"),
)
TOKENS: Final = (
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"HTTP/1.0", b"HTTP/9.9", b"HTTP/1.1\r\n\r\n", b"%00"),
    *(b"%2f", b"../", b"//", b"?", b"&", b"=", b"#", b"\xff", b"*", b"CONNECT", b"PRI * HTTP/2.0"),
    *(b"5\r\nabcde\r\n0\r\n\r\n", b"ffffffffffffffff\r\n", b"-1\r\n", b"0\r\n\r\n"),
)


def damaged(number: int) -> bytes:
    """Make a request, damaged at one to eight places."""
    dice = random.Random(number)  # noqa: S311 - it shall be the same again
    line, body = dice.choice(list(BODIES.items()))
    headers = [b"Host: qmpmem", b"Content-Length: %d" % len(body)]
    if line.endswith("read_only=true"):
        headers += [b"Connection: upgrade", b"Upgrade: qmp"]
    for _ in range(dice.choice((0, 0, 1, 1, 2))):
        headers.insert(dice.randint(0, len(headers)), dice.choice(HEADERS))
    pieces = [
        line.encode() + b" HTTP/1.1\r\n",
        *(each + b"\r\n" for each in headers),
        b"\r\n",
        body,
    ]
    for _ in range(dice.choice((0, 1, 1, 2, 3, 8))):
        dice.choice((_insert, _insert, _insert, _mutate))(dice, pieces)
    return b"".join(pieces)


def _insert(dice: random.Random, pieces: list[bytes]) -> None:
    at = dice.randrange(len(pieces))
    place = dice.randint(0, len(pieces[at]))
    pieces[at] = pieces[at][:place] + dice.choice(TOKENS) + pieces[at][place:]


def _mutate(dice: random.Random, pieces: list[bytes]) -> None:
    mutate.damage(dice, pieces)


CODE: Final = re.compile(rb"HTTP/1\.1 (\d\d\d) ")


async def answer_to(path: Path, content: bytes) -> int | None:
    """Send bytes, and return the status of the answer; None: there is none."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(content)
        async with asyncio.timeout(STREAM):
            received = await reader.read(4096)
    except (TimeoutError, ConnectionError):
        return None
    finally:
        writer.transport.abort()
    if not received:
        return None
    found = CODE.match(received)
    assert found is not None, (content, received)
    return int(found[1])


async def try_damaged(path: Path, numbers: Sequence[int]) -> Counter[int]:
    """Send so many damaged requests, some at a time."""
    codes: Counter[int] = Counter()
    left = iter(numbers)

    async def work() -> None:
        for number in left:
            code = await answer_to(path, damaged(number))
            codes[code or 0] += 1
            assert code != http.client.INTERNAL_SERVER_ERROR, damaged(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    return codes
