"""What makes the unit lane's claim true: no process, no network, no real time."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.rig.clock import VirtualLoop
from tests.rig.memory import memory_directory
from tests.rig.purity import watched


class VirtualPolicy(asyncio.DefaultEventLoopPolicy):
    """Gives `asyncio.run` a loop whose clock jumps."""

    _loop_factory = VirtualLoop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Give a test that is a coroutine a loop whose clock jumps: an hour's wait takes no time."""
    return {"virtual": VirtualLoop}


@pytest.fixture(autouse=True)
def pure() -> Iterator[None]:
    """Fail a test that starts a process, sleeps or uses the network; give it no real clock."""
    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(VirtualPolicy())
    try:
        with watched():
            yield
    finally:
        asyncio.set_event_loop_policy(before)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Make a directory in memory; to make pytest's own takes longer than most tests."""
    with memory_directory() as path:
        yield path
