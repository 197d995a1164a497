"""The order that a guest is to be told, and the pause that it ends."""

import asyncio

import pytest

from qmpmem.agent.pause import Pause
from qmpmem.agent.pending_order import PendingOrder
from qmpmem.model.round import Outcome
from qmpmem.units import MIB, Bytes

SIZE = Bytes(256 * MIB)


def ordered() -> PendingOrder:
    order = PendingOrder("g")
    order.target = SIZE
    return order


async def is_settled(order: PendingOrder) -> bool:
    waiting = asyncio.ensure_future(order.settled())
    await asyncio.sleep(0)
    settled = waiting.done()
    waiting.cancel()
    return settled


async def test_an_order_is_settled_when_it_was_told_and_not_while_it_is() -> None:
    order = ordered()
    assert not await is_settled(order)
    assert order.take() == SIZE
    assert order.target is None
    assert not await is_settled(order)
    order.told()
    assert await is_settled(order)


async def test_where_there_is_no_order_nothing_is_told() -> None:
    order = PendingOrder("g")
    assert order.take() is None
    assert await is_settled(order)


async def test_one_that_came_while_another_is_told_is_kept() -> None:
    order = ordered()
    order.take()
    order.target = Bytes(MIB)
    order.told()
    order.report(None)
    assert not await is_settled(order)
    assert order.take() == MIB


@pytest.mark.parametrize("is_withdrawn", [False, True])
async def test_a_task_that_waits_hears_that_it_is_settled(*, is_withdrawn: bool) -> None:
    order = ordered()
    waiting = asyncio.ensure_future(order.settled())
    await asyncio.sleep(0)
    if is_withdrawn:
        order.withdraw()
    else:
        order.take()
        order.told()
        order.report("no")
    await asyncio.wait_for(waiting, 1)


def test_what_came_of_orders_is_given_once() -> None:
    order = ordered()
    order.report(None, 0.5)
    order.report("no")
    done = Outcome(guest="g", done=True, error=None, seconds=0.5)
    assert order.outcomes() == (done, Outcome(guest="g", done=False, error="no"))
    assert order.outcomes() == ()
    order.withdraw()
    assert order.outcomes() == ()


async def test_a_pause_is_as_long_as_it_is_to_be_or_a_little_shorter() -> None:
    clock = asyncio.get_running_loop().time
    start = clock()
    await Pause().wait(10)
    assert 9 <= clock() - start <= 10.1


async def test_a_pause_that_is_ended_is_over_at_once_and_so_is_the_next_one_only() -> None:
    clock = asyncio.get_running_loop().time
    pause, start = Pause(), clock()
    waiting = asyncio.ensure_future(pause.wait(10))
    await asyncio.sleep(0)
    pause.end()
    pause.end()
    await waiting
    assert clock() - start < 1
    pause.end()
    await pause.wait(10)
    assert clock() - start < 1, "it was ended before it began"
    await pause.wait(10)
    assert clock() - start >= 9


async def test_what_was_left_of_an_ended_pause_does_not_end_the_next() -> None:
    loop, pause = asyncio.get_running_loop(), Pause()
    loop.call_later(5, pause.end)
    await pause.wait(10)
    start = loop.time()
    await pause.wait(10)
    assert loop.time() - start >= 9
