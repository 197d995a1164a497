"""The page in a real browser: what a person sees, and does."""

import asyncio
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser

from qmpmem.api.client import Client
from qmpmem.api.sockets import Listeners
from qmpmem.files.launcher_paths import launchers_directory
from qmpmem.model.guest import GuestView
from qmpmem.model.observation import GuestReading
from qmpmem.units import MIB
from tests.rig import fleet
from tests.rig.agent import Office, ask, asking, running, said, stop
from tests.rig.browser import Window, browser, window
from tests.rig.command import PROGRAM, plain_environment
from tests.rig.guests import boot
from tests.rig.page import TOKEN, Served, served
from tests.rig.patience import within
from tests.rig.qemu import short_directory
from tests.rig.qemu import until as until_then
from tests.rig.waiting import until

LAUNCHER: Final = str(launchers_directory() / "kvm")
BALLOON: Final = ("-device", "virtio-balloon-pci,deflate-on-oom=on")
"""Without free-page-reporting, which takes longer under emulation."""

pytestmark = pytest.mark.timeout(300)

HOSTILE: Final = """<img src=x onerror=alert(1)><script>alert(2)</script>"'&"""
NONE: Final = Path("/proc/none")
COUNT: Final = len(fleet.FLEET)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal.db"
    fleet.write(path, time.time())
    return path


@asynccontextmanager
async def opened(
    listener: Listeners, office: Office, extra: int = 0, *, journal: Path = NONE
) -> AsyncIterator[tuple[Browser, Served]]:
    """Serve a page, with a round each half second, and run a browser."""

    async def go_on() -> None:
        while True:
            fleet.go_on(office, extra)
            await asyncio.sleep(0.5)

    fleet.go_on(office, extra)
    async with (
        office.open(listener) as client,
        served(client, journal=journal) as page,
        browser() as program,
    ):
        rounds = asyncio.create_task(go_on())
        try:
            yield program, page
        finally:
            rounds.cancel()
            with suppress(asyncio.CancelledError):
                await rounds


def at(page: Served, path: str = "/") -> str:
    return f"http://localhost:{page.port}{path}"


async def sign_in(seen: Window, page: Served) -> None:
    await seen.page.goto(at(page, "/login"))
    await seen.page.fill("#token", TOKEN)
    await seen.page.click("main button")
    await seen.page.wait_for_selector("#tiles")


async def shown(seen: Window, path: str) -> None:
    """Go to a page, and wait until it is live."""
    await seen.page.goto(path)
    await seen.holds("document.getElementById('live').textContent.startsWith('live')")


PATHS: Final = ("/", "/host", "/decisions", "/ksm", "/try", "/login", "/guest/web1")
"""All pages; from that on which a visitor signs in, as one that has signed in."""
LOOKS: Final[dict[str, dict[str, Any]]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 640}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 640}},
    "phone-dark": {"color_scheme": "dark", "viewport": {"width": 380, "height": 740}},
    "phone": {"color_scheme": "light", "viewport": {"width": 380, "height": 740}},
}


@pytest.mark.parametrize("look", LOOKS)
async def test_pages_are_live_and_accessible_without_a_word_on_the_console(
    listener: Listeners, journal: Path, look: str
) -> None:
    office = Office(NONE)
    async with (
        opened(listener, office, journal=journal) as (program, page),
        window(program, **LOOKS[look]) as seen,
    ):
        for path in PATHS:
            if path == "/login":
                await sign_in(seen, page)
            await shown(seen, at(page, path))
            await until(
                partial(has_come, office, office.number + 2), what="rounds are laid over it"
            )
            name = path.strip("/").replace("/", "-") or "host"
            await seen.picture(f"{name}-{look}")
            assert not await seen.faults(), path
            assert not seen.said, path
            wide = await seen.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{path} is wider than its window"


async def test_a_round_changes_what_is_shown_and_nothing_of_what_a_person_does(
    listener: Listeners,
) -> None:
    office = Office(NONE)
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


def has_come(office: Office, number: int) -> bool:
    return office.number >= number


async def is_count(rows: Any, count: int) -> bool:  # noqa: ANN401 - playwright's Locator
    return bool(await rows.count() == count)


async def test_a_hostile_name_is_text(listener: Listeners) -> None:
    office = Office(NONE)
    office.add("evil", name=HOSTILE)
    office.readings["evil"] = GuestReading(id="evil", name=HOSTILE, state="running")
    office.round()
    async with (
        office.open(listener) as client,
        served(client) as page,
        browser() as program,
        window(program) as seen,
    ):
        await shown(seen, at(page))
        office.round()
        await asyncio.sleep(0.5)
        assert HOSTILE in await seen.page.inner_text("#guests")
        await seen.page.click("#guests a")
        assert HOSTILE in await seen.page.inner_text("h2 >> nth=0")
        assert await seen.page.locator("img, main script").count() == 0
        assert not seen.said


async def test_without_javascript_there_is_all_but_life(listener: Listeners) -> None:
    office = Office(NONE)
    async with (
        opened(listener, office) as (program, page),
        window(program, java_script_enabled=False) as seen,
    ):
        await seen.page.goto(at(page))
        assert await seen.page.locator("#guests tr").count() == COUNT
        assert "without JavaScript" in await seen.page.inner_text("#live")
        await seen.page.click("text=web1")
        assert "swaps in 3.1 MiB/s" in await seen.page.inner_text("#why")


async def test_a_page_that_is_open_comes_back_after_the_agent_was_away(
    listener: Listeners,
) -> None:
    office = Office(NONE)
    fleet.go_on(office)
    client = Client(listener.path)
    async with served(client) as page, browser() as program, window(program) as seen:
        async with office.open(listener):
            await shown(seen, at(page))
            await seen.holds("document.getElementById('state').textContent === 'SOFT'")
        await seen.holds("document.getElementById('top').textContent.includes('agent')")
        assert "SOFT" not in await seen.page.inner_text("#state")
        again = Office(NONE)
        fleet.go_on(again)
        async with again.open(listener):
            await seen.holds("document.getElementById('state').textContent === 'SOFT'")
            assert not seen.said


async def test_a_page_that_is_open_comes_back_after_the_server_was_away(
    listener: Listeners,
) -> None:
    office = Office(NONE)
    fleet.go_on(office)
    async with office.open(listener) as client, browser() as program, window(program) as seen:
        async with served(client) as page:
            await shown(seen, at(page))
            rows = seen.page.locator("#guests tr")
            for extra in range(1, 6):  # the server that comes back has seen fewer rounds than this
                fleet.go_on(office, extra)
                await until(partial(is_count, rows, COUNT + extra), what="it is seen")
        fleet.go_on(office, 6)
        async with served(client, port=page.port):
            await until(lambda: is_count(rows, COUNT + 6), seconds=20, what="the new one is seen")


async def test_200_guests_are_there_at_once(listener: Listeners) -> None:
    office = Office(NONE)
    async with opened(listener, office, 200) as (program, page), window(program) as seen:
        await shown(seen, at(page))  # what a browser keeps is kept
        with within(1):  # `make bench` holds it to 300 ms
            await seen.page.goto(at(page), wait_until="domcontentloaded")
            count = await seen.page.locator("#guests tr").count()
        assert count == COUNT + 200
        with within(1):
            await shown(seen, at(page))


async def test_a_plot_gives_values_at_the_pointer_and_a_part_of_it_is_shown_alone(
    listener: Listeners, journal: Path
) -> None:
    async with (
        opened(listener, Office(NONE), journal=journal) as (program, page),
        window(program) as seen,
    ):
        mouse, keys = seen.page.mouse, seen.page.keyboard
        await shown(seen, at(page, "/guest/web1?range=1h"))
        await shown(seen, at(page, "/guest/web1"))
        box = await seen.page.locator("#plot .frame:visible").bounding_box()
        assert box is not None
        x, y, width = box["x"], box["y"] + box["height"] / 2, box["width"]
        await mouse.move(x + width / 2, y)
        await seen.holds("document.getElementById('reading').textContent.includes('used')")
        await mouse.move(x + width / 3, y)
        early = await seen.page.inner_text("#reading")
        assert re.match(r"\d\d:\d\d:\d\d · used [\d.]+ [MG]iB · cache ", early)
        await mouse.down()
        await mouse.move(x + width / 2, y)
        await mouse.move(x + width * 2 / 3, y)
        assert await seen.page.locator(".chosen").count() == 1
        await mouse.up()
        await seen.page.wait_for_url("**?from=*&to=*")
        begin, end = (int(each) for each in re.findall(r"=(\d+)", seen.page.url))
        assert end - begin == pytest.approx(200, abs=8)
        await seen.page.focus("#plot")
        await seen.holds(
            "document.getElementById('plot').dispatchEvent("
            "new KeyboardEvent('keydown', {key: 'End'})),"
            "document.getElementById('reading').textContent.includes('used')"
        )
        late = await seen.page.inner_text("#reading")
        await keys.press("ArrowLeft")
        assert early[:8] < (await seen.page.inner_text("#reading"))[:8] < late[:8]
        await keys.press("-")
        await seen.page.wait_for_url(lambda url: f"from={begin}" not in url)
        wide = [int(each) for each in re.findall(r"=(\d+)", seen.page.url)]
        assert wide[1] - wide[0] == pytest.approx(2 * (end - begin), abs=4)
        await seen.page.click("text=10 minutes")
        await seen.page.wait_for_url("**?range=10m")
        assert not seen.said


@pytest.mark.qemu
@pytest.mark.timeout(300)
def test_a_slider_moves_a_real_guest() -> None:
    with short_directory() as directory:
        run = directory / "guests"
        run.mkdir()
        extra, environ = ["-name", "web1", *BALLOON], {"QMPMEM_RUN_DIR": str(run)}
        with boot([LAUNCHER], extra=extra, environ=environ), running(run):
            with page_of(run, directory / "token") as port:
                asyncio.run(move(run, port))
            log = said(run)
    assert re.search(r"for 127\.0\.0\.1 port \d+: pin web1 to 200 MiB", log)
    assert TOKEN not in log


@contextmanager
def page_of(run: Path, token: Path) -> Iterator[int]:
    """Serve the page of a real agent by the program itself; yields the port."""
    token.write_text(TOKEN)
    token.chmod(0o600)
    words = ["serve", "--listen", "127.0.0.1:0", "--token-file", str(token)]
    err = token.with_name("page.err")
    with err.open("w") as file:
        page = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", str(PROGRAM), *words],
            env=plain_environment() | {"QMPMEM_RUN_DIR": str(run)},
            stderr=file,
            text=True,
        )
    try:
        until_then(lambda: "the page is at" in err.read_text(), seconds=20, what="it serves")
        match = re.search(r"http://127\.0\.0\.1:(\d+)/", err.read_text())
        assert match is not None
        yield int(match[1])
    finally:
        stop(page)


async def move(run: Path, port: int) -> None:
    """Sign in, look at what would happen, and pin the guest by the slider."""
    async with browser() as program, window(program) as seen:
        await sign_in(seen, Served(port, []))
        await seen.page.wait_for_selector("#guest-web1")
        await shown(seen, f"http://localhost:{port}/guest/web1")
        slider = seen.page.locator("#slider")
        for size in (220, 200):  # a size that was looked at says nothing of the next
            is_disabled = await slider.evaluate(
                "(slider, size) => { slider.value = size; slider.dispatchEvent(new Event('input'));"
                " return document.getElementById('pin').disabled }",
                size,
            )
            assert is_disabled
            assert await seen.page.input_value("#size") == f"{size}M"
            await seen.holds("!document.getElementById('pin').disabled")
        assert "to 200 MiB" in await seen.page.inner_text("#says")
        assert not await seen.faults()
        await seen.picture("change")
        await seen.page.click("#pin")
        await until(lambda: is_at(run, 200), seconds=60, what="the guest is at 200 MiB")
        assert not seen.said


async def is_at(run: Path, size: int) -> bool:
    seen = await ask(lambda: asking(run).get("guests/web1", GuestView))
    return seen.actual is not None and abs(seen.actual - size * MIB) < 8 * MIB
