"""The page in a real browser: what a person sees, and does."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser

from qmpmem.actions import Explanation, Plan, SetBalloon, Tick, Verdict
from qmpmem.control.listener import Listeners
from qmpmem.sight import GuestSight, HostSight, Snapshot
from qmpmem.snapshot import KsmState
from qmpmem.units import GIB, Bytes
from tests.rig.agent import Office, own_listener
from tests.rig.browser import Window, browser, window
from tests.rig.page import Served, served
from tests.rig.qemu import short_directory
from tests.rig.waiting import until

pytestmark = pytest.mark.timeout(120)

FLEET: Final[
    tuple[tuple[str, str | None, Verdict, float, float, float | None, float | None], ...]
] = (
    # id, name, verdict, maximum, actual, available and target in GiB
    ("web1", None, "distress", 2, 1.4, 0.02, 1.6),
    ("db1", None, "normal", 8, 6.4, 2.6, None),
    ("build-07", None, "normal", 4, 2.4, 2.0, 2.2),
    ("Windows-10", "Windows 10", "stale", 4, 4, None, None),
    ("desk3", None, "normal", 4, 2, 1.0, None),
    ("ci-12", None, "grace", 1, 1, 0.72, None),
)
REASONS: Final = {
    "distress": "it swaps in 3.1 MiB/s; given what is spare",
    "stale": "it no longer reports what it uses",
    "grace": "it has just started",
    "normal": "it has what it needs",
}


def gib(size: float) -> Bytes:
    return Bytes(int(size * GIB))


def sights(extra: int = 0) -> Iterator[tuple[GuestSight, Explanation]]:
    """Guests as a host may have them; more of them where that is asked for."""
    more = ((f"vm{number}", None, "normal", 2.0, 1.5, 0.5, None) for number in range(extra))
    for guest, name, verdict, maximum, actual, available, target in (*FLEET, *more):
        sight = GuestSight(
            id=guest,
            name=name,
            state="running",
            maximum=gib(maximum),
            actual=gib(actual),
            rss=gib(actual * 0.97),
            available=None if available is None else gib(available),
            free=None if available is None else gib(available / 4),
            age=41.0 if verdict == "stale" else 1.0,
            every=2.0,
        )
        said = Explanation(
            guest=guest,
            name=name,
            verdict=verdict,  # type: ignore[arg-type]
            reason=REASONS[verdict],
            bound="spare",
            actual=sight.actual,
            used=None if available is None else gib(actual - available),
            minimum=gib(maximum * 0.35),
            maximum=sight.maximum,
            entitlement=gib(maximum * 0.6),
            demand=gib(maximum * 0.7),
            target=None if target is None else gib(target),
        )
        yield sight, said


def fill(office: Office, extra: int = 0) -> Tick:
    """Have the agent see these guests in a round."""
    both = list(sights(extra))
    for sight, _ in both:
        if sight.id not in office.sights:
            office.add(sight.id, name=sight.name or sight.id)
    office.number += 1
    host = HostSight(
        total=gib(64),
        available=gib(3.1),
        swap_total=gib(8),
        swap_free=gib(8),
        some=0.4,
        full=0.0,
    )
    ksm = KsmState(page_size=Bytes(4096), run=1, pages_sharing=300_000, full_scans=9)
    tick = Tick(
        number=office.number,
        snapshot=Snapshot(
            time=time.monotonic(),
            wall=time.time(),
            host=host,
            ksm=ksm,
            guests=tuple(sight for sight, _ in both),
            wishes=office.agent.orders.wishes,
        ),
        plan=Plan(
            state="SOFT",
            reserve=gib(2.5),
            budget=gib(62),
            spare=gib(6.6),
            guests=tuple(said for _, said in both),
            balloons=tuple(
                SetBalloon(guest=said.guest, target=said.target, reason=said.reason)
                for _, said in both
                if said.target is not None
            ),
        ),
    )
    office.desk.publish(tick)
    return tick


@pytest.fixture
def listener() -> Iterator[Listeners]:
    with short_directory() as directory, own_listener(directory) as made:
        yield made


@asynccontextmanager
async def opened(
    listener: Listeners, office: Office, extra: int = 0
) -> AsyncIterator[tuple[Browser, Served]]:
    """Serve a page, with a round each half second, and run a browser."""

    async def go_on() -> None:
        while True:
            fill(office, extra)
            await asyncio.sleep(0.5)

    fill(office, extra)
    async with office.open(listener) as client, served(client) as page, browser() as program:
        rounds = asyncio.create_task(go_on())
        try:
            yield program, page
        finally:
            rounds.cancel()
            with suppress(asyncio.CancelledError):
                await rounds


def at(page: Served, path: str = "/") -> str:
    return f"http://localhost:{page.port}{path}"


async def shown(seen: Window, path: str) -> None:
    """Go to a page, and wait until it is live."""
    await seen.page.goto(path)
    await seen.holds("document.getElementById('live').textContent.startsWith('live')")


LOOKS: Final[dict[str, dict[str, Any]]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 640}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 640}},
    "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
}


@pytest.mark.parametrize("look", LOOKS)
async def test_pages_are_live_without_a_word_on_the_console_and_for_everybody(
    listener: Listeners, look: str
) -> None:
    office = Office(Path("/proc/none"))
    async with opened(listener, office) as (program, page):
        for path in ("/", "/guest/web1", "/decisions", "/ksm", "/login"):
            async with window(program, **LOOKS[look]) as seen:
                await shown(seen, at(page, path))
                await asyncio.sleep(1.2)  # some rounds are laid over the page
                name = path.strip("/").replace("/", "-") or "host"
                await seen.picture(f"{name}-{look}")
                assert not await seen.faults(), path
                assert not seen.said, path
                wide = await seen.page.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert wide <= 0, f"{path} is wider than its window"


async def test_a_round_changes_what_is_shown_and_nothing_of_what_a_person_does(
    listener: Listeners,
) -> None:
    office = Office(Path("/proc/none"))
    async with opened(listener, office) as (program, page), window(program) as seen:
        await shown(seen, at(page))
        await seen.page.fill("#filter", "win")
        rows = seen.page.locator("#guests tr:visible")
        await until(lambda: is_count(rows, 1), what="the filter leaves one guest")
        before = office.number
        await until(lambda: office.number >= before + 3)
        assert await seen.page.evaluate("document.activeElement.id") == "filter"
        assert await seen.page.input_value("#filter") == "win"
        assert await rows.count() == 1
        await seen.page.fill("#filter", "")
        first = seen.page.locator("#guests tr th").first
        assert await first.inner_text() == "web1", "who suffers comes first"
        await seen.page.click("thead >> text=Guest")
        await seen.page.wait_for_url("**/?sort=name")
        assert await first.inner_text() == "build-07"
        assert not seen.said


async def is_count(rows: Any, count: int) -> bool:  # noqa: ANN401 - playwright's Locator
    return bool(await rows.count() == count)
