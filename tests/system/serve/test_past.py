"""Plots and tables on the page: what the journal has of a guest and of the host."""

import csv
import io
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from qmpmem.api.sockets import Listeners
from qmpmem.journal.store import Store
from qmpmem.model.config import Config
from qmpmem.units import MIB, Bytes
from tests.rig.agent import Office
from tests.rig.page import Served, served
from tests.rig.rounds import busy
from tests.rig.waiting import until

ROUNDS: Final = 300


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Five minutes of three guests, up to now."""
    path = tmp_path / "journal.db"
    store = Store(path, Bytes(8 * MIB))
    now = time.time()
    for number in range(ROUNDS):
        store.add(busy(number, wall=now - ROUNDS + number), Config())
    store.close()
    return path


@asynccontextmanager
async def opened(listener: Listeners, journal: Path) -> AsyncIterator[Served]:
    office = Office(Path("/proc/none"))
    for guest in ("g0", "new"):
        office.add(guest)
    office.round()
    async with office.open(listener) as client, served(client, journal=journal) as page:
        await until(lambda: is_shown(page), what="the page has a round")
        yield page


async def is_shown(page: Served) -> bool:
    return "guest-g0" in (await page.ask("GET", "/")).body


@pytest.mark.parametrize("path", ["/guest/g0", "/host"])
@pytest.mark.parametrize("stretch", ["10m", "1h", "24h"])
async def test_a_page_has_a_plot(
    listener: Listeners, journal: Path, path: str, stretch: str
) -> None:
    async with opened(listener, journal) as page:
        whole = await page.ask("GET", f"{path}?range={stretch}")
        alone = await page.ask("GET", f"{path}/plot?range={stretch}")
    for answer in (whole, alone):
        assert answer.code == 200
        assert "<desc" in answer.body
        assert "style=" not in answer.body
        assert "<style" not in answer.body
        ids = re.findall(r'\bid="([^"]+)"', answer.body)
        assert len(ids) == len(set(ids))
    assert re.search(rf'range={stretch}" aria-current="true"', whole.body)


@pytest.mark.parametrize("path", ["/guest/g0", "/host"])
@pytest.mark.parametrize("window", ["range=10m", "from={}&to={}"])
async def test_a_plot_has_values_at_each_time(
    listener: Listeners, journal: Path, path: str, window: str
) -> None:
    now = int(time.time())
    begin, end = (now - 120, now - 20) if "{" in window else (now - 600, now)
    query = window.format(begin, end)
    async with opened(listener, journal) as page:
        whole = await page.ask("GET", f"{path}?{query}")
        answer = await page.ask("GET", f"{path}/values?{query}")
    assert f'data-query="{query.replace("&", "&amp;")}"' in whole.body
    found = json.loads(answer.body)
    assert (found["begin"], found["end"]) == pytest.approx((begin, end), abs=60)
    assert found["panels"][0]["names"]
    for panel in found["panels"]:
        for row in panel["rows"]:
            assert found["begin"] < row[1]
            assert row[0] < found["end"]
            assert len(row[3]) == len(panel["names"])
    assert any("iB" in word for row in found["panels"][0]["rows"] for word in row[3])


async def test_what_was_before_the_page_was_served_is_on_it(
    listener: Listeners, journal: Path
) -> None:
    async with opened(listener, journal) as page:
        await until(lambda: has_decisions(page), what="decisions of the journal are shown")
        shown = (await page.ask("GET", "/")).body
    row = shown[shown.index('id="guest-g0"') :]
    assert "<polyline" in row[: row.index("</tr>")]


async def has_decisions(page: Served) -> bool:
    return "made up" in (await page.ask("GET", "/decisions")).body


async def test_a_guest_has_a_table_of_values(listener: Listeners, journal: Path) -> None:
    async with opened(listener, journal) as page:
        answer = await page.ask("GET", "/guest/g0/table.csv?range=10m")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="g0-10m.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.body)))
    assert len(rows) > 100
    assert any(row["actual"].isdecimal() for row in rows)
    assert rows[0]["time"].startswith("20")


@pytest.mark.parametrize("path", ["/guest/new", "/guest/new/plot", "/host", "/guest/g0"])
async def test_without_a_journal_that_is_said(
    listener: Listeners, tmp_path: Path, path: str
) -> None:
    async with opened(listener, tmp_path / "none.db") as page:
        answer = await page.ask("GET", path)
        assert answer.code == 200
        assert "no journal" in answer.body
        assert (await page.ask("GET", "/guest/g0/table.csv")).code == 502


async def test_a_guest_that_the_journal_does_not_know_has_no_plot(
    listener: Listeners, journal: Path
) -> None:
    async with opened(listener, journal) as page:
        answer = await page.ask("GET", "/guest/new")
        assert answer.code == 200
        assert "<desc" not in answer.body
        assert (await page.ask("GET", "/guest/nobody/plot")).code == 200
        for odd in ("x" * 2000, "%1b", "-x", "g0%0a"):
            for what in ("plot", "values"):
                assert (await page.ask("GET", f"/guest/{odd}/{what}")).code == 404


async def test_a_damaged_journal_ends_no_page(listener: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    async with opened(listener, path) as page:
        assert (await page.ask("GET", "/guest/g0")).code == 200
        assert not page.lines
