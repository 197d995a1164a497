"""Playing hosts on the page: what comes of them, and that nothing else waits for that."""

import asyncio
import os
import re
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest

from qmpmem.api.client import Client
from qmpmem.serve import simulate_page, simulate_process
from tests.rig.page import Answer, Served, served
from tests.rig.qemu import short_directory

pytestmark = pytest.mark.timeout(60)

LONG: Final = simulate_page.EXAMPLE.replace("seconds = 180", "seconds = 86400").replace(
    "count = 3", "count = 60"
)


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as made:
        yield made


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Served]:
    async with served(Client(directory / "none.sock")) as page:
        yield page


async def played(page: Served, text: str) -> Answer:
    return await page.ask("POST", "/try", form=f"scenario={quote(text)}")


async def test_the_example_is_played_under_all_policies(directory: Path) -> None:
    async with opened(directory) as page:
        assert "bursts" in (await page.ask("GET", "/try")).body
        answer = await played(page, simulate_page.EXAMPLE.replace("\n", "\r\n"))
    assert answer.code == 200
    for policy in ("ours", "static", "proxmox", "mom", "ksmtuned-only"):
        assert f'<th scope="row">{policy}</th>' in answer.body
    assert answer.body.count("<desc") > 5
    ids = re.findall(r'\bid="([^"]+)"', answer.body)
    assert len(ids) == len(set(ids))
    assert "<style" not in answer.body
    assert "style=" not in answer.body


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "host.toml: host"),
        ("x", "host.toml"),
        ('[host]\nmemory = "6"\n', "memory"),
        ("</textarea><script>alert(1)</script>", "host.toml"),
        ("[[guest]]\nname = 1e999", "host.toml"),
        ("a = " + "[" * 5000, "host.toml"),
    ],
)
async def test_a_mistake_is_named_and_what_was_written_stays(
    directory: Path, text: str, words: str
) -> None:
    async with opened(directory) as page:
        answer = await played(page, text)
    assert answer.code == 200
    assert words in answer.body
    assert "<script>alert" not in answer.body
    assert "Traceback" not in answer.body


async def test_what_takes_too_long_is_ended(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate_page, "PATIENCE", 2.0)
    async with opened(directory) as page:
        assert simulate_page.TOO_MUCH.partition(";")[0] in (await played(page, LONG)).body


async def test_one_host_is_played_at_a_time(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate_page, "PATIENCE", 3.0)
    async with opened(directory) as page:
        answers = await asyncio.gather(
            played(page, LONG), played(page, LONG), page.ask("GET", "/"), played(page, LONG)
        )
    assert sorted(answer.code for answer in answers) == [200, 200, 503, 503]


async def test_what_is_sent_is_bounded(directory: Path) -> None:
    async with opened(directory) as page:
        assert (await played(page, "#" * (simulate_page.LARGEST + 1))).code == 413
        head = "POST /try HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n"
        assert b" 403 " in (await page.talk(head.encode())).split(b"\r\n")[0]


def test_the_process_that_plays_is_bound() -> None:
    assert simulate_process.SECONDS <= 60
    assert simulate_process.MEMORY <= 1 << 30


def test_it_is_bound_where_a_unit_forbids_another_niceness(monkeypatch: pytest.MonkeyPatch) -> None:
    """As SystemCallFilter=~@resources does (systemd.exec(5)); prlimit64 is no part of that."""
    bound: list[int] = []

    def refuse(_: int) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "nice", refuse)
    monkeypatch.setattr(resource, "setrlimit", lambda which, _: bound.append(which))
    simulate_process.bind()
    assert bound == [resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_CORE]
