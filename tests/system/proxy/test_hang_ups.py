"""Clients that go while nothing is read from them, seen by the kernel."""

import asyncio
import socket

from qmpmem.proxy import hang_ups
from tests.rig.waiting import until


async def test_it_is_told_once_that_the_other_end_has_closed_and_not_that_it_sends_no_more() -> (
    None
):
    watched, told = hang_ups.of_this_loop(), list[str]()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        watched.watch(ours.fileno(), lambda: told.append("gone"))
        theirs.sendall(b"unread")
        theirs.shutdown(socket.SHUT_WR)
        for _ in range(20):
            await asyncio.sleep(0)
        assert told == []
        theirs.close()
        await until(lambda: told)
        for _ in range(20):
            await asyncio.sleep(0)
        assert told == ["gone"]
        watched.forget(ours.fileno())
        watched.forget(ours.fileno())


async def test_a_descriptor_that_is_anothers_by_then_is_not_taken_for_the_one_that_has_gone() -> (
    None
):
    watched, told = hang_ups.of_this_loop(), list[str]()
    first, gone = socket.socketpair()
    second, stays = socket.socketpair()
    number = first.fileno()
    watched.watch(number, lambda: told.append("first"))
    gone.close()
    watched._look()
    assert told == [], "what came before is read first"
    watched.forget(number)
    first.close()
    again = second.dup()
    with again, second, stays:
        assert again.fileno() == number
        watched.watch(number, lambda: told.append("second"))
        for _ in range(20):
            await asyncio.sleep(0)
        watched.forget(number)
    assert told == []
