"""What QEMU says has happened, as it comes: the work of `qmpmem events`.

Theory of operation:
    Events come by way of the agent where one runs. Without one they come from the guests' own QMP
    sockets, which this then holds; an agent that begins meanwhile is noticed within a second, gets
    the sockets, and passes the events on.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import typer

from qmpmem.cli.app import put, put_json, say, warn
from qmpmem.cli.show_guests import live_guests
from qmpmem.errors import AgentUnreachable, ConfigError, GuestUnreachable, KernelError
from qmpmem.guests.guest import DirectGuest, find
from qmpmem.guests.inventory import LiveGuest
from qmpmem.library import Agent, client_of
from qmpmem.model.guest import GuestEvent
from qmpmem.view import events as view

LOOK_UP: Final = 1.0
"""Seconds between two looks at whether an agent has begun."""


async def follow(name: str | None, *, json: bool) -> None:
    """Show events until the guests end."""
    while True:
        if await _by_agent(name, json=json):
            return
        if await _directly(name, json=json):
            return
        say("an agent has begun; it passes the events on")


async def _by_agent(name: str | None, *, json: bool) -> bool:
    """Follow the agent's stream; whether all that there was to follow has ended."""
    if await asyncio.to_thread(client_of) is None:
        return False
    has_begun = False
    agent = Agent()
    try:
        if name is not None:
            await agent.guest(name)
        else:
            await agent.status()
        has_begun = True
        await _show(agent.events(name), json=json)
    except ConfigError:
        if has_begun:
            raise
        return False  # a guest that the agent has not found yet, or none at all
    except GuestUnreachable as error:
        say(error.message)
        return True
    except AgentUnreachable as error:
        if has_begun:
            say(f"{error.message}; listening to QEMU itself")
        elif error.reason != "none":
            warn(f"{error.message}; asking QEMU itself")
    except KernelError as error:  # this user may not ask it
        warn(f"agent: {error.message}; asking QEMU itself")
    return False


async def _directly(name: str | None, *, json: bool) -> bool:
    """Follow the guests' own sockets; whether they have ended, rather than an agent begun.

    Raises:
        Exit: a guest's socket was not to be had.
    """
    guests = [find(name)] if name else live_guests()
    following = asyncio.gather(*(_one(found, json=json) for found in guests))
    waiting = asyncio.create_task(_agent_begins())
    done, _ = await asyncio.wait((following, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if following not in done:
        following.cancel()
        await asyncio.wait((following,))
        return False
    if not all(following.result()):
        raise typer.Exit(GuestUnreachable.exit_code)
    return True


async def _one(found: LiveGuest, *, json: bool) -> bool:
    """Follow a guest to its end; whether that could begin."""
    has_begun = False
    try:
        async with DirectGuest(found) as guest:
            has_begun = True
            await _show(guest.events(), json=json)
    except GuestUnreachable as error:
        say(error.message)
    return has_begun


async def _agent_begins() -> None:
    """Return when there is an agent that answers this user."""
    while True:
        await asyncio.sleep(LOOK_UP)
        try:
            if await asyncio.to_thread(client_of) is not None:
                await Agent().status()
                return
        except (AgentUnreachable, KernelError):
            continue


async def _show(source: AsyncIterator[GuestEvent], *, json: bool) -> None:
    async for event in source:
        if json:
            put_json(event)
            continue
        if event.dropped:
            say(f"{event.dropped} events were dropped: they came faster than they were read")
        put(view.line(event))
