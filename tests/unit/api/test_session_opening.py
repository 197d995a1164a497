"""A QMP session that a client waits for, and does not get."""

import asyncio

import pytest

from qmpmem.api.fair_places import FairPlaces
from qmpmem.api.session_opening import SessionOpening
from qmpmem.errors import AgentUnreachable, GuestUnreachable
from qmpmem.proxy.shared_session import SharedSession


class Wait:
    """A wait for a session with a guest that hangs."""

    def __init__(self) -> None:
        self.has_ended = False
        self.left = False

    async def never(self) -> SharedSession:
        try:
            await asyncio.Event().wait()
        finally:
            self.has_ended = True
        raise AssertionError

    async def is_gone(self) -> bool:
        return self.left


async def test_it_ends_when_the_client_leaves() -> None:
    wait = Wait()
    waiting = asyncio.ensure_future(SessionOpening().unless_gone(wait.never(), wait.is_gone))
    await asyncio.sleep(0)
    wait.left = True
    with pytest.raises(AgentUnreachable, match="has left"):
        await waiting
    assert wait.has_ended


async def test_it_ends_when_its_place_is_given_to_another_user() -> None:
    """Row F96."""
    places, wait = FairPlaces(3, 2), Wait()
    openings = list[asyncio.Task[SharedSession]]()
    for _ in range(2):
        place, opening = places.take(7, is_owner=False), SessionOpening()
        assert place is not None
        place.hold(opening)
        openings.append(asyncio.ensure_future(opening.unless_gone(wait.never(), wait.is_gone)))
    await asyncio.sleep(0)
    assert places.take(8, is_owner=False) is not None
    with pytest.raises(AgentUnreachable, match="ended for one of uid 8"):
        await openings[0]
    assert not openings[1].done()
    openings[1].cancel()


async def test_no_task_comes_between_the_session_and_its_use() -> None:
    """A session that no client uses is ended by another task."""
    wait, ran = Wait(), list[str]()

    async def opened() -> SharedSession:
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(ran.append, "another")
        return None  # type: ignore[return-value]

    await SessionOpening().unless_gone(opened(), wait.is_gone)
    assert ran == []


async def test_it_ends_with_the_question_and_with_what_went_wrong() -> None:
    wait = Wait()
    waiting = asyncio.ensure_future(SessionOpening().unless_gone(wait.never(), wait.is_gone))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0)
    assert wait.has_ended

    async def refused() -> SharedSession:
        raise GuestUnreachable("guest web1: hung", reason="timeout")

    with pytest.raises(GuestUnreachable, match="hung"):
        await SessionOpening().unless_gone(refused(), wait.is_gone)
