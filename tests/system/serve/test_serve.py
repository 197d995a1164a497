"""The page over real sockets: what it answers to which client, and what no client can do to it."""

import asyncio
import gzip
import os
import re
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from qmpmem.api import bounded_connection
from qmpmem.api.client import Client
from qmpmem.api.permissions import Permissions
from qmpmem.api.sockets import Listeners
from qmpmem.errors import ConfigError, KernelError
from qmpmem.model.round import SetBalloon
from qmpmem.serve import server, token_guesses, visitor_connection
from qmpmem.units import GIB
from tests.rig.agent import EveryClient, Office
from tests.rig.command import PROGRAM, plain_environment
from tests.rig.logs import level_of
from tests.rig.page import TOKEN, Answer, Served, parsed, served
from tests.rig.patience import patient
from tests.rig.qemu import short_directory
from tests.rig.qemu import until as until_then
from tests.rig.users import NOBODY, needs_root
from tests.rig.waiting import until

HOSTILE: Final = """<img src=x onerror=alert(1)>"'&"""
READER: Final = EveryClient(owner=0, access="read")


@pytest.fixture
def office() -> Office:
    made = Office(Path("/proc/none"))
    made.add("web1")
    made.add("evil", 800, name=HOSTILE)
    return made


@pytest.fixture
def opened(office: Office, listener: Listeners) -> "Opened":
    return Opened(office, listener)


class Opened:
    """Opens the page on an agent that has made a round."""

    def __init__(self, office: Office, listener: Listeners) -> None:
        self.office = office
        self._listener = listener

    @asynccontextmanager
    async def page(
        self, permissions: Permissions | None = None, *, token: str | None = TOKEN
    ) -> AsyncIterator[Served]:
        self.office.round()
        async with (
            self.office.open(self._listener, permissions) as client,
            served(client, token=token) as page,
        ):
            await until(lambda: is_shown(page), what="the page has a round")
            yield page


async def is_shown(page: Served) -> bool:
    return "guest-web1" in (await page.ask("GET", "/")).body


async def signed_in(page: Served) -> str:
    """Sign in as a browser does; returns what it sends from then on."""
    answer = await page.ask("POST", "/login", form=f"token={TOKEN}")
    assert answer.code == 303
    cookie = answer.headers["set-cookie"]
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    # The name of the cookie keeps its case in the answer, which `parsed` makes small.
    raw = await page.talk(
        f"POST /login HTTP/1.1\r\nHost: localhost:{page.port}\r\n"
        f"Origin: http://localhost:{page.port}\r\nContent-Length: {len(TOKEN) + 6}\r\n\r\n"
        f"token={TOKEN}".encode()
    )
    match = re.search(rb"set-cookie: (qmpmem=[^;]+)", raw)
    assert match is not None
    return match[1].decode()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/?sort=used",
        "/?sort=x'\"<",
        "/guest/web1",
        "/guest/evil",
        "/decisions",
        "/ksm",
        "/login",
    ],
)
async def test_every_page_is_there_without_javascript(opened: Opened, path: str) -> None:
    async with opened.page() as page:
        answer = await page.ask("GET", path)
    assert answer.code == 200
    assert answer.body.startswith("<!doctype html>")
    assert "<img" not in answer.body
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "name", ["page.css", "page.js", "icon.svg", "prometheus-rules.yml", "grafana-dashboard.json"]
)
async def test_what_a_page_needs_is_shipped(opened: Opened, name: str) -> None:
    async with opened.page() as page:
        answer = await page.ask("GET", f"/static/{name}")
    assert answer.code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/guest/nobody", 404),
        ("GET", "/guest/..%2f..%2fetc", 404),
        ("GET", "/static/..%2fpages.py", 404),
        ("GET", "/static/%2e%2e/pages.py", 404),
        ("GET", "/hold", 405),
        ("GET", "/guest/web1/pin", 405),
        ("HEAD", "/", 200),
    ],
)
async def test_what_is_not_there_is_said_in_a_line(
    opened: Opened, method: str, path: str, code: int
) -> None:
    async with opened.page() as page:
        answer = await page.ask(method, path)
    assert answer.code == code
    assert "content-security-policy" in answer.headers


BROWSER: Final = "text/html,application/xhtml+xml,*/*;q=0.8"


@pytest.mark.parametrize(
    ("method", "path", "code", "words"),
    [
        ("GET", "/nothing", 404, "no such page"),
        ("GET", "/guest/nobody", 404, "no such guest"),
        ("GET", "/hold", 405, "no such method"),
        ("POST", "/hold", 403, "sign in first"),
    ],
)
async def test_a_browser_gets_a_page_also_where_a_request_is_refused(
    opened: Opened, method: str, path: str, code: int, words: str
) -> None:
    form = None if method == "GET" else ""
    async with opened.page() as page:
        answer = await page.ask(method, path, form=form, accept=BROWSER)
        plain = await page.ask(method, path, form=form)
    assert (answer.code, plain.code) == (code, code)
    assert f'<p role="alert">{words}</p>' in answer.body
    assert 'href="/"' in answer.body
    assert answer.headers["content-type"].startswith("text/html")
    assert plain.body == f"{words}\n"


@pytest.mark.parametrize(
    ("path", "code", "shown"),
    [
        ("/hold", 502, 'id="guests"'),
        ("/release", 502, 'id="guests"'),
        ("/guest/web1/pin", 200, 'id="plot"'),  # a form to be filled in again
        ("/guest/web1/unpin", 502, 'id="plot"'),
    ],
)
async def test_what_the_agent_refuses_is_told_on_the_page_where_it_was_asked(
    opened: Opened, path: str, code: int, shown: str
) -> None:
    async with opened.page(READER) as page:
        cookie = await signed_in(page)
        headers = {"cookie": cookie, "accept": BROWSER}
        answer = await page.ask("POST", path, form="size=700M", **headers)
        assert answer.code == code
        assert shown in answer.body
        said = re.findall(r'<p[^>]* role="(?:alert|status)">([^<]+)</p>', answer.body)
        assert any("qmpmem-admin" in words for words in said), said
        place = re.search(r'data-path="([^"]*)"', answer.body)
        assert place is not None
        again = await page.ask("GET", place[1], cookie=cookie)
        assert again.code == 200, "a page that is open fetches itself from there"


WRITES: Final = ("/hold", "/release", "/guest/web1/pin", "/guest/web1/unpin", "/guest/web1/check")


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize("token", [TOKEN, None])
async def test_without_the_token_nothing_is_changed(
    opened: Opened, path: str, token: str | None
) -> None:
    before = opened.office.agent.requests.in_force
    async with opened.page(token=token) as page:
        wrong = {"authorization": f"Bearer {TOKEN}x"}
        for headers in ({}, {"cookie": "qmpmem=x"}, {"cookie": "qmpmem="}, wrong):
            answer = await page.ask("POST", path, form="size=700M", **headers)
            assert answer.code == 403, headers
    assert opened.office.agent.requests.in_force == before


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"host": "evil.example"}, 421),
    ],
)
async def test_another_site_changes_nothing_with_a_browser_that_is_signed_in(
    opened: Opened, path: str, headers: dict[str, str], code: int
) -> None:
    before = opened.office.agent.requests.in_force
    async with opened.page() as page:
        cookie = await signed_in(page)
        answer = await page.ask("POST", path, form="size=700M", cookie=cookie, **headers)
        assert answer.code == code
    assert opened.office.agent.requests.in_force == before


ROUTES: Final = (
    "/",
    "/guest/web1",
    "/decisions",
    "/ksm",
    "/events",
    "/metrics",
    "/static/page.js",
    "/login",
    "/nothing",
)


@pytest.mark.parametrize("path", ROUTES)
async def test_a_name_that_is_not_ours_gets_nowhere(opened: Opened, path: str) -> None:
    async with opened.page() as page:
        answer = await page.ask("GET", path, host="evil.example")
    assert answer.code == 421
    assert "web1" not in answer.body


async def test_a_browser_with_the_token_holds_and_pins_and_the_agent_logs_its_address(
    opened: Opened,
) -> None:
    office = opened.office
    async with opened.page() as page:
        cookie = await signed_in(page)
        assert (await page.ask("POST", "/hold", form="", cookie=cookie)).code == 303
        assert office.agent.requests.in_force.hold
        assert (await page.ask("POST", "/release", form="", cookie=cookie)).code == 303
        answer = await page.ask(
            "POST", "/guest/web1/check", form="size=700M", cookie=cookie, accept="application/json"
        )
        assert '"ok":true' in answer.body
        assert not office.agent.requests.in_force.pins
        answer = await page.ask("POST", "/guest/web1/pin", form="size=700M", cookie=cookie)
        assert (answer.code, answer.headers["location"]) == (303, "/guest/web1")
        assert office.agent.requests.in_force.pins == {"web1": 700 << 20}
        assert (await page.ask("POST", "/guest/web1/unpin", form="", cookie=cookie)).code == 303
        assert (await page.ask("POST", "/logout", form="", cookie=cookie)).code == 303
        assert (await page.ask("POST", "/hold", form="", cookie=cookie)).code == 403
        said = page.lines
    caller = rf"uid {os.geteuid()} pid {os.getpid()} for 127\.0\.0\.1 port \d+: "
    words = ("hold", "go on", "pin web1 to 700 MiB", "unpin web1")
    assert [re.sub(caller, "", line) for line in office.lines] == list(words)
    assert all(re.match(caller, line) for line in office.lines)
    assert TOKEN not in "".join((*said, *office.lines))
    assert cookie.partition("=")[2] not in "".join((*said, *office.lines))


async def test_a_program_shows_the_token_itself(opened: Opened) -> None:
    bearer = f"Bearer {TOKEN}"
    async with opened.page() as page:
        head = f"Host: localhost\r\nAuthorization: {bearer}\r\nContent-Length: 0\r\n\r\n"
        answer = parsed(await page.talk(f"POST /hold HTTP/1.1\r\n{head}".encode()))
        assert answer.code == 303
    assert opened.office.agent.requests.in_force.hold


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("1M", "floor"),
        ("9G", "maximum"),
        ("x", "not a size"),
        ("", "not a size"),
        ("700", "a unit is missing"),
    ],
)
async def test_a_size_that_cannot_be_is_said_and_changes_nothing(
    opened: Opened, size: str, words: str
) -> None:
    async with opened.page() as page:
        cookie = await signed_in(page)
        for path in ("check", "pin"):
            answer = await page.ask(
                "POST", f"/guest/web1/{path}", form=f"size={size}", cookie=cookie
            )
            assert answer.code == 200
            assert words in answer.body, path
    assert not opened.office.agent.requests.in_force.pins


async def test_a_page_whose_process_may_only_look_says_so(opened: Opened) -> None:
    async with opened.page(READER) as page:
        cookie = await signed_in(page)
        answer = await page.ask("POST", "/guest/web1/pin", form="size=700M", cookie=cookie)
        assert "qmpmem-admin" in answer.body
        assert (await page.ask("GET", "/guest/web1")).code == 200
    assert not opened.office.agent.requests.in_force.pins


@pytest.mark.timeout(60)
async def test_wrong_tokens_take_turns(opened: Opened) -> None:
    async with opened.page() as page:
        began = asyncio.get_running_loop().time()
        answers = await asyncio.gather(
            *(page.ask("POST", "/login", form=f"token=wrong{number}") for number in range(3))
        )
        assert asyncio.get_running_loop().time() - began >= 3.0
    assert [answer.code for answer in answers] == [403] * 3
    assert "wrong0" not in "".join((*page.lines, *(answer.body for answer in answers)))


@pytest.mark.timeout(60)
async def test_wrong_tokens_keep_the_right_one_waiting_for_nothing(opened: Opened) -> None:
    """Guesses of any user of the host, at the form and without it."""
    clock = asyncio.get_running_loop().time
    async with opened.page() as page:
        wrong = [
            asyncio.create_task(page.ask("POST", "/login", form=f"token=wrong{number}"))
            for number in range(20)
        ] + [
            asyncio.create_task(page.ask("POST", "/hold", authorization=f"Bearer wrong{number}"))
            for number in range(20)
        ]
        await until(lambda: any(each.done() for each in wrong), what="too many wait")
        began = clock()
        await signed_in(page)
        assert not all(each.done() for each in wrong)
        assert clock() - began < token_guesses.WRONG * patient(2)
        codes = Counter([(await each).code for each in wrong])
        assert codes == {403: token_guesses.WAITING, 429: 40 - token_guesses.WAITING}
        told = [line for line in page.lines if "a wrong token" in line]
        assert len(told) == token_guesses.WAITING
        assert {level_of(line) for line in told} == {"WARNING"}
        assert len(page.lines) <= token_guesses.WAITING + 2


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_scrapers_get_what_the_agent_writes(opened: Opened, encoding: str) -> None:
    async with opened.page() as page:
        head = f"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: {encoding}\r\n\r\n"
        answers = await asyncio.gather(*(page.talk(head.encode()) for _ in range(20)))
    [content] = {answer.partition(b"\r\n\r\n")[2] for answer in answers}
    found = gzip.decompress(content) if encoding == "gzip" else content
    assert b"qmpmem_up 1\n" in found
    assert b'qmpmem_guest_maximum_bytes{guest="web1"}' in found


async def test_without_an_agent_the_page_says_so_and_so_do_the_metrics() -> None:
    with short_directory() as directory:
        client = Client(directory / "none.sock")
        async with served(client) as page:
            answer = await page.ask("GET", "/metrics")
            assert (answer.code, "qmpmem_up 0\n" in answer.body) == (200, True)
            answer = await page.ask("GET", "/metrics", accept="application/openmetrics-text")
            assert answer.body.endswith("qmpmem_up 0\n# EOF\n")
            assert (await page.ask("GET", "/")).code == 200


async def test_a_page_that_is_open_is_sent_each_round(opened: Opened) -> None:
    async with opened.page() as page:
        reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(patient(10)):
            await reader.readuntil(b'"guest-web1"')
            opened.office.round(told=[SetBalloon(guest="web1", target=GIB, reason="for a test")])
            await reader.readuntil(b"event: round")
            await reader.readuntil(b"\n\n")
        writer.close()
        assert "for a test" in (await page.ask("GET", "/decisions")).body


async def test_there_are_places_for_so_many_and_no_more(opened: Opened) -> None:
    async with opened.page() as page:
        streams = [
            await asyncio.open_connection("127.0.0.1", page.port)
            for _ in range(visitor_connection.STREAMS + 2)
        ]
        try:
            for _, writer in streams:
                writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(patient(10)):
                heads = [await reader.readline() for reader, _ in streams]
            codes = [int(head.split(b" ")[1]) for head in heads]
            assert sorted(codes) == [200] * visitor_connection.STREAMS + [503] * 2
            assert (await page.ask("GET", "/")).code == 200
        finally:
            for _, writer in streams:
                writer.close()


@pytest.mark.timeout(60)
async def test_idle_connections_are_cut_and_make_way(opened: Opened) -> None:
    async with opened.page() as page:
        idle = [
            await asyncio.open_connection("127.0.0.1", page.port)
            for _ in range(visitor_connection.PLACES)
        ]
        for number, (_, writer) in enumerate(idle):
            writer.write(b"GET / HT" if number % 2 else b"")
        await asyncio.sleep(0)
        answer = await page.talk(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ") or not answer
        async with asyncio.timeout(patient(bounded_connection.ARRIVAL + 5)):
            for reader, writer in idle:
                await reader.read()
                writer.close()
        assert (await page.ask("GET", "/")).code == 200


@contextmanager
def connected_as(uid: int, port: int, count: int) -> Iterator[list[socket.socket]]:
    """Open connections whose sockets are another user's."""
    os.seteuid(uid)
    try:
        made = [socket.socket() for _ in range(count)]
    finally:
        os.seteuid(0)
    try:
        for each in made:
            each.settimeout(patient(10))
            each.connect(("127.0.0.1", port))
        yield made
    finally:
        for each in made:
            each.close()


@needs_root("connections of another user")
async def test_no_user_holds_all_places(opened: Opened) -> None:
    """Row F81."""
    async with opened.page() as page:
        with connected_as(NOBODY, page.port, visitor_connection.PLACES) as held:
            for _ in range(3):
                assert (await page.ask("GET", "/")).code == 200
            for each in held[3:]:  # of the one that holds most, the oldest gave way
                each.setblocking(False)  # noqa: FBT003 - its only argument
                with pytest.raises(BlockingIOError):
                    each.recv(1)
            with connected_as(NOBODY, page.port, 1) as [late], suppress(ConnectionError):
                answer = await asyncio.to_thread(late.recv, 4096)
                assert answer.startswith(b"HTTP/1.1 503 ") or not answer


@needs_root("connections of another user")
async def test_no_user_holds_all_streams(opened: Opened) -> None:
    asked = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with opened.page() as page:
        with connected_as(NOBODY, page.port, visitor_connection.STREAMS) as held:
            for each in held:
                each.sendall(asked)
                assert (await asyncio.to_thread(each.recv, 15)) == b"HTTP/1.1 200 OK"
            reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
            writer.write(asked)
            assert b" 200 " in await reader.readline()
            writer.close()


LOGIN: Final = b"POST /login HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"
PIECE: Final = b"1000\r\n%s\r\n" % (b"a" * 4096)
BODIES: Final = {
    "too long": (LOGIN + b"Content-Length: 99999999\r\n\r\n", 413),
    "endless": (LOGIN + b"Transfer-Encoding: chunked\r\n\r\n" + PIECE * 3, 413),
    "where none is": (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 413),
    "no text": (LOGIN + b"Content-Length: 2\r\n\r\n\xff\xfe", 400),
    "many fields": (LOGIN + b"Content-Length: 60\r\n\r\n" + b"a=&" * 20, 400),
    "a long head": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n" % (b"a" * 40000), 400),
    "no HTTP": (b"\x16\x03\x01\x02\x00", 400),
}


@pytest.mark.parametrize("case", BODIES)
async def test_what_is_sent_is_bounded(opened: Opened, case: str) -> None:
    content, code = BODIES[case]
    async with opened.page() as page:
        assert parsed(await page.talk(content)).code == code
        assert (await page.ask("GET", "/")).code == 200


@pytest.mark.timeout(60)
async def test_a_slow_reader_is_cut_off_and_delays_no_other(opened: Opened) -> None:
    for number in range(200):
        opened.office.add(f"guest-{number}")
    async with opened.page() as page:
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        slow.connect(("127.0.0.1", page.port))
        slow.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await page.ask("GET", "/")).code == 200
        await asyncio.sleep(bounded_connection.TAKING + 1)
        received = await asyncio.to_thread(everything, slow)
        assert not received.rstrip().endswith(b"</html>")
        slow.close()


def everything(connection: socket.socket) -> bytes:
    connection.settimeout(patient(5))
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionError:
        pass
    return received


def test_a_socket_of_another_is_not_taken() -> None:
    with short_directory() as directory:
        path = directory / "page.sock"
        with server.unix(path):
            assert path.lstat().st_mode & 0o777 == 0o660
            with pytest.raises(ConfigError, match="listens there"), server.unix(path):
                pass
        assert not path.exists()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        with server.unix(path):
            pass
        path.write_text("mine")
        with pytest.raises(ConfigError, match="expected a socket"), server.unix(path):
            pass
        assert path.read_text() == "mine"


def test_a_port_that_is_taken_is_said_in_a_line() -> None:
    with server.tcp("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(KernelError, match=f"port {port}"), server.tcp("127.0.0.1", port):
            pass


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_serves_until_it_is_told_to_stop(number: int) -> None:
    with short_directory() as run:
        path, err = run / "page.sock", run / "err"
        environment = plain_environment() | {"QMPMEM_RUN_DIR": str(run / "guests")}
        with err.open("w") as file:
            page = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", str(PROGRAM), "serve", "--unix", str(path)],
                env=environment,
                stderr=file,
            )
        try:
            until_then(
                lambda: "the page is at" in err.read_text() or page.poll() is not None,
                seconds=20,
                what="it serves",
            )
            assert page.poll() is None, err.read_text()
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                connection.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer: Answer = parsed(everything(connection))
            assert answer.code == 200
            page.send_signal(number)
            assert page.wait(patient(10)) == 0
            assert "Traceback" not in err.read_text()
            assert not path.exists()
        finally:
            page.kill()
            page.wait()
