"""The clock that jumps: nothing of real time and no thread has a part in what happens."""

import asyncio
import threading

from tests.rig.clock import VirtualLoop


def test_an_hour_takes_no_time_and_timers_fire_in_order() -> None:
    async def run() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        heard: list[tuple[str, float]] = []

        def hear(name: str) -> None:
            heard.append((name, loop.time()))

        loop.call_later(3600, hear, "late")
        loop.call_later(0.5, hear, "soon")
        await asyncio.sleep(7200)
        return heard

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(run()) == [("soon", 0.5), ("late", 3600.0)]


def test_what_a_thread_would_do_is_done_at_once_as_in_a_thread() -> None:
    def work() -> tuple[int, bool]:
        return threading.get_ident(), asyncio._get_running_loop() is None

    async def run() -> tuple[tuple[int, bool], float]:
        return await asyncio.to_thread(work), asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(run()) == ((threading.get_ident(), True), 0.0)


def test_what_fails_in_a_thread_fails_where_it_is_awaited() -> None:
    async def run() -> str:
        try:
            await asyncio.to_thread(int, "x")
        except ValueError as error:
            assert asyncio.get_running_loop().time() == 0.0
            return str(error)
        return ""

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert "invalid literal" in runner.run(run())
