"""What can be asked, as a table: the paths below `/v1`, and the records that pass.

The application and the OpenAPI document are both made of this table, so they cannot differ.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

from qmpmem.api.handlers import Handlers
from qmpmem.api.leases import Gone
from qmpmem.api.permissions import Peer
from qmpmem.api.policy_constants import constants
from qmpmem.api.records import (
    Constant,
    HoldResult,
    LeaseEnded,
    LeaseRequest,
    LeaseResult,
    PinRequest,
    PinResult,
    Status,
    Why,
)
from qmpmem.model.guest import GuestEvent, GuestView
from qmpmem.model.round import Plan, Tick
from qmpmem.proxy.client_connection import Connection
from qmpmem.records import Record


class Call(Record, frozen=True):
    """What was asked, taken apart."""

    handlers: Handlers
    peer: Peer
    names: Mapping[str, str]
    """What stands for the names in the path."""
    body: Any
    """The record that the endpoint takes, or None."""
    dry_run: bool
    is_gone: Gone
    read_only: bool = False


Work = Callable[[Call], Awaitable[object]]


class Endpoint(Record, frozen=True):
    """One thing that can be asked."""

    method: str
    path: str
    """Below the version, as in ``guests/{name}``."""
    summary: str
    answer: Any
    """The type of the answer."""
    work: Work
    body: type[Record] | None = None
    writes: bool = False
    waits: bool = False
    """Whether the answer comes only when something has happened."""
    stream: Callable[[Call], AsyncIterator[Any]] | None = None
    """Where the answer is a line after another, until one of both ends it; None is an empty line.
    Raises before the first line what there is to say against it."""
    session: Callable[[Call], Awaitable[Connection]] | None = None
    """Where the connection becomes something else than HTTP's, with this protocol (RFC 9110, 7.8:
    Upgrade). Raises before what there is to say against it."""


async def _status(asked: Call) -> object:
    return asked.handlers.status()


async def _guests(asked: Call) -> object:
    return await asked.handlers.guests()


async def _guest(asked: Call) -> object:
    return await asked.handlers.guest(asked.names["name"])


async def _why(asked: Call) -> object:
    return asked.handlers.why(asked.names["name"])


async def _plan(asked: Call) -> object:
    return await asked.handlers.plan()


async def _policy(_: Call) -> object:
    return constants()


async def _hold(asked: Call) -> object:
    return await _kept(asked, asked.handlers.hold(asked.peer, on=True))


async def _release(asked: Call) -> object:
    return await _kept(asked, asked.handlers.hold(asked.peer, on=False))


async def _pin(asked: Call) -> object:
    done = asked.handlers.pin(asked.names["name"], asked.body, asked.peer, dry_run=asked.dry_run)
    return await _kept(asked, done)


async def _unpin(asked: Call) -> object:
    return await _kept(asked, asked.handlers.unpin(asked.names["name"], asked.peer))


async def _kept(asked: Call, answer: object) -> object:
    """Return an answer as soon as what it tells of outlives the agent."""
    await asked.handlers.agent.requests.kept()
    return answer


async def _reserve(asked: Call) -> object:
    return await asked.handlers.reserve(asked.body, asked.peer, asked.is_gone)


async def _give_back(asked: Call) -> object:
    return asked.handlers.give_back(asked.names["lease"], asked.peer)


async def _no_answer(_: Call) -> object:
    raise AssertionError("a stream and a session have no single answer")


async def ticks(asked: Call) -> AsyncIterator[Tick]:
    """Yield each round; a client that is slow to take them misses some, and costs nothing."""
    rounds = asked.handlers.rounds
    if rounds.last is not None:
        yield rounds.last
    while True:
        yield await rounds.next()


async def monitor(asked: Call) -> Connection:
    """Open a QMP session with a guest."""
    return await asked.handlers.monitor(
        asked.names["name"], asked.peer, asked.is_gone, read_only=asked.read_only
    )


def events(asked: Call) -> AsyncIterator[GuestEvent | None]:
    """Yield events of all guests, or of the one in the path, from now on."""
    return asked.handlers.follow(asked.names.get("name"))


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint(
        method="GET",
        path="status",
        summary="How the agent and its host are",
        answer=Status,
        work=_status,
    ),
    Endpoint(
        method="GET",
        path="guests",
        summary="Every guest, as `qmpmem list --json`",
        answer=list[GuestView],
        work=_guests,
    ),
    Endpoint(
        method="GET",
        path="guests/{name}",
        summary="One guest, by its id",
        answer=GuestView,
        work=_guest,
    ),
    Endpoint(
        method="GET",
        path="guests/{name}/why",
        summary="Why it has the memory that it has: inputs, terms, the last decisions",
        answer=Why,
        work=_why,
    ),
    Endpoint(
        method="PUT",
        path="guests/{name}/pin",
        summary="Keep a guest at a size, within its limits",
        answer=PinResult,
        work=_pin,
        body=PinRequest,
        writes=True,
    ),
    Endpoint(
        method="DELETE",
        path="guests/{name}/pin",
        summary="Let the policy move it again",
        answer=PinResult,
        work=_unpin,
        writes=True,
    ),
    Endpoint(
        method="POST",
        path="guests/{name}/qmp",
        summary="A QMP session with a guest, beside the agent's own: with `Upgrade: qmp`, the "
        "connection is QMP's from the answer 101 on. `read_only=true` lets queries through alone",
        answer=None,
        work=_no_answer,
        writes=True,
        session=monitor,
    ),
    Endpoint(
        method="GET",
        path="plan",
        summary="What the next round would decide, as things are now",
        answer=Plan,
        work=_plan,
    ),
    Endpoint(
        method="PUT",
        path="hold",
        summary="Take nothing from any guest, until released",
        answer=HoldResult,
        work=_hold,
        writes=True,
    ),
    Endpoint(
        method="DELETE",
        path="hold",
        summary="Go on",
        answer=HoldResult,
        work=_release,
        writes=True,
    ),
    Endpoint(
        method="POST",
        path="leases",
        summary="Make room for a guest that is about to start; answers when it is there",
        answer=LeaseResult,
        work=_reserve,
        body=LeaseRequest,
        writes=True,
        waits=True,
    ),
    Endpoint(
        method="DELETE",
        path="leases/{lease}",
        summary="Give it back",
        answer=LeaseEnded,
        work=_give_back,
        writes=True,
    ),
    Endpoint(
        method="GET",
        path="policy",
        summary="The numbers that the policy rests on, and where they are from",
        answer=list[Constant],
        work=_policy,
    ),
    Endpoint(
        method="GET",
        path="ticks",
        summary="Each round as a line of JSON, until the client leaves",
        answer=Tick,
        work=_no_answer,
        stream=ticks,
    ),
    Endpoint(
        method="GET",
        path="events",
        summary="QEMU's events of all guests, a line of JSON each; an empty line after 15 s "
        "without one",
        answer=GuestEvent,
        work=_no_answer,
        stream=events,
    ),
    Endpoint(
        method="GET",
        path="guests/{name}/events",
        summary="Events of one guest as lines of JSON, until it ends",
        answer=GuestEvent,
        work=_no_answer,
        stream=events,
    ),
)
