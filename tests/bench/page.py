"""What the page and the metrics take: of their clients, of their server, and of the agent.

Theory of operation:
    The agent and the page run as a user starts them, beside scripted guests that report. Pages that
    are open, screens and scrapers are tasks of this process, which read all that comes and wait in
    no other way; so what is measured of an answer is from the first byte that is sent to the last
    that is there. What a person waits for is measured by Chromium, each time with nothing kept:
    from the start of a visit to the first contentful paint (W3C, Paint Timing), and to the first
    round that comes after the page.
"""

import asyncio
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qmpmem.api import addresses
from qmpmem.api.client import Client
from qmpmem.api.messages import question
from tests.bench import agent
from tests.bench.agent import at_most, cpu
from tests.bench.table import AtMostTimes, Figure
from tests.rig.browser import browser, window
from tests.rig.command import PROGRAM, plain_environment
from tests.rig.guests import end
from tests.rig.interrupts import uninterrupted
from tests.rig.qemu import short_directory

METRICS: Final = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
PACKED: Final = b"Accept-Encoding: gzip\r\n"
STARTING: Final = 20.0
PAINTED: Final = """new Promise((done) => {
  new PerformanceObserver((list) => {
    const [found] = list.getEntriesByName("first-contentful-paint");
    if (found) done(found.startTime);
  }).observe({ type: "paint", buffered: true });
})"""
LIVE: Final = """new Promise((done) => {
  const look = () => {
    if (document.getElementById("live").textContent.startsWith("live")) done(performance.now());
    else setTimeout(look, 2);
  };
  look();
})"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    guests: int = 500
    few: int = 200
    """For the page."""
    scrapers: int = 50
    """At once."""
    scrapes: int = 10_000
    """In all, one after the other."""
    loads: int = 30
    """Of the page."""
    visits: int = 10
    """By Chromium."""
    screens: int = 10
    """Of `qmpmem top`, beside one page that is open and one scraper."""
    settle: float = 30.0
    seconds: float = 60.0


FULL: Final = Size()
QUICK: Final = Size(
    guests=20, few=10, scrapers=5, scrapes=50, loads=3, visits=1, screens=2, settle=2.0, seconds=3.0
)


def measure(size: Size, say: Callable[[str], None]) -> list[Figure]:
    """Measure with many guests, then the page with fewer."""
    say(f"page: {size.guests} scripted guests, {size.scrapers} scrapers at once")
    with _served(size.guests) as (watched, page, port, socket):
        time.sleep(size.settle)  # the first look at all guests is over
        figures = [*_scrapes(size, page, port), *_agent(size, watched, port, socket)]
    say(f"page: {size.few} scripted guests")
    seen: list[tuple[float, float]] = []
    with _served(size.few) as (_, _, port, _):
        took = [
            asyncio.run(_timed(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            for _ in range(size.loads)
        ]
        first = asyncio.run(
            _timed(port, b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\n\n")
        )
        if shutil.which("chromium"):
            seen = asyncio.run(_visited(port, size.visits))
        else:
            say("page: no Chromium: what a person waits for is not measured")
    what = f"page, {size.few} guests"
    return [
        *figures,
        at_most(f"{what}: 99 of 100 loads", "ms", _most(took), 300),
        at_most(f"{what}: first round", "ms", first, 1000),
        at_most(f"{what}: first paint", "ms", _median(each for each, _ in seen), 300),
        at_most(f"{what}: live", "ms", _median(each for _, each in seen), 1000),
    ]


def _scrapes(size: Size, page: int, port: int) -> list[Figure]:
    what = f"metrics, {size.guests} guests"
    took = asyncio.run(_together(port, size.scrapers, 10))
    before = _open_files(page), _resident(page)
    asyncio.run(_in_turn(port, size.scrapes))
    return [
        at_most(f"{what}: 99 of 100 of {size.scrapers} at once", "ms", _most(took), 100),
        at_most(
            f"{what}: descriptors more after {size.scrapes}", "", _open_files(page) - before[0], 2
        ),
        at_most(f"{what}: memory more after {size.scrapes}", "MiB", _resident(page) - before[1], 4),
    ]


def _agent(size: Size, watched: int, port: int, socket: Path) -> list[Figure]:
    """Compare the agent's work while screens, a page and a scraper ask with that while none does.

    It is alone before and after, so that a host that is busier then does no harm.
    """
    before = _percent(watched, size.seconds / 2)
    looked_at = asyncio.run(_looked_at(watched, port, socket, size))
    alone = (before + _percent(watched, size.seconds / 2)) / 2
    return [
        Figure(
            what=f"agent, {size.guests} guests, {size.screens} screens, a page, a scraper: CPU",
            unit="% of a core",
            ours=looked_at,
            reference=alone,
            goal=AtMostTimes(factor=1.1),
        )
    ]


async def _looked_at(watched: int, port: int, socket: Path, size: Size) -> float:
    """Return the percent of a core while all of them look; raises where one cannot."""
    tasks = [asyncio.create_task(_screen(socket)) for _ in range(size.screens)]
    tasks += [asyncio.create_task(_read(port)), asyncio.create_task(_scrape_often(port))]
    try:
        await asyncio.sleep(1)
        found = await asyncio.to_thread(_percent, watched, size.seconds)
        for each in tasks:
            if each.done():
                each.result()
                raise EOFError("a connection ended while it was measured")
        return found
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _screen(socket: Path) -> None:
    """Follow rounds as `qmpmem top` does."""
    reader, writer = await asyncio.open_unix_connection(socket)
    await _drain(reader, writer, question("GET", "ticks"))


async def _read(port: int) -> None:
    """Follow rounds as an open page does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await _drain(reader, writer, b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")


async def _drain(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, question: bytes
) -> None:
    writer.write(question)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    try:
        while await reader.read(1 << 18):
            pass
    finally:
        writer.close()


async def _visited(port: int, visits: int) -> list[tuple[float, float]]:
    """Visit the page; returns the milliseconds to the first paint, and until it is live."""
    found: list[tuple[float, float]] = []
    async with browser() as program:
        for _ in range(visits):
            async with window(program) as seen:
                await seen.page.goto(f"http://localhost:{port}/")
                live = float(await seen.page.evaluate(LIVE))
                found.append((float(await seen.page.evaluate(PAINTED)), live))
    return found


async def _scrape_often(port: int) -> None:
    while True:
        await _timed(port, METRICS % PACKED)
        await asyncio.sleep(5)


async def _together(port: int, count: int, times: int) -> list[float]:
    took: list[float] = []
    for _ in range(times):
        took += await asyncio.gather(*(_timed(port, METRICS % b"") for _ in range(count)))
    return took


async def _in_turn(port: int, count: int) -> None:
    for _ in range(count):
        await _timed(port, METRICS % PACKED)


async def _timed(port: int, question: bytes, until: bytes | None = None) -> float:
    """Ask, and read to the end, or to these bytes; returns the milliseconds."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    writer.write(question)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    if until is None:
        await reader.read(-1)
    else:
        await reader.readuntil(until)
    writer.close()
    return 1000 * (time.monotonic() - began)


def _median(took: Iterable[float]) -> float | None:
    known = list(took)
    return statistics.median(known) if known else None


def _most(took: Sequence[float]) -> float:
    return sorted(took)[(len(took) - 1) * 99 // 100]


def _percent(pid: int, seconds: float) -> float:
    began, spent = time.monotonic(), cpu(pid)
    time.sleep(seconds)
    return 100 * (cpu(pid) - spent) / (time.monotonic() - began)


def _open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _resident(pid: int) -> float:
    """MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


@contextmanager
def _served(count: int) -> Generator[tuple[int, int, int, Path]]:
    """Run an agent with scripted guests, and the page.

    Yields:
        The pids of both, the port of the page, and the socket of the agent.
    """
    with short_directory() as run, ExitStack() as stack:
        stack.enter_context(agent.scripted_guests(run, count, 0))
        watched = stack.enter_context(agent.started(run))
        environ = plain_environment() | agent.settings(run)
        socket = addresses.socket_path(environ, run)
        agent.wait_for(Client(socket, 20.0), count)
        said = run / ".page"
        with uninterrupted(), said.open("wb") as file:
            page = subprocess.Popen(
                [PROGRAM, "serve", "--listen", "127.0.0.1:0"],
                env=environ,
                stdin=subprocess.DEVNULL,
                stderr=file,
            )
            stack.callback(end, page, agent.STOPS)
        yield watched, page.pid, _port(said), socket


def _port(said: Path) -> int:
    limit = time.monotonic() + STARTING
    while time.monotonic() < limit:
        if match := re.search(r"http://127\.0\.0\.1:(\d+)/", said.read_text()):
            return int(match[1])
        time.sleep(0.05)
    raise TimeoutError(f"the page is not served within {STARTING:g} s: {said.read_text()}")
