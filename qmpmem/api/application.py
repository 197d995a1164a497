"""The table of endpoints as an ASGI application, and as an OpenAPI document.

Rules of this file:
    Whatever is odd about a request is answered with 4xx before anything is looked up. A unix socket
    has no host and no origin: a request that names another host was meant for another server.
    A mistake of ours is a 500 and a line in the log, and the agent goes on.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from qmpmem.api.bounded_connection import TAKING
from qmpmem.api.connection import Caller
from qmpmem.api.endpoints import ENDPOINTS, Call, Endpoint
from qmpmem.api.handlers import Handlers
from qmpmem.api.messages import BEHALF, problem_of
from qmpmem.api.mistakes import report
from qmpmem.api.permissions import Peer
from qmpmem.api.records import VERSION, Failure, Problem
from qmpmem.api.request_body import RequestError, read
from qmpmem.errors import AgentUnreachable, QmpmemError
from qmpmem.guests import access
from qmpmem.metrics import content_type
from qmpmem.records import replace

LARGEST: Final = 64 * 1024
"""Bytes of a request's body."""
NAMED: Final = 80
"""Most characters of the name of a person for whom a process asks."""
HOSTS: Final = frozenset({"qmpmem", "localhost"})

CODES: Final[Mapping[str, int]] = {
    "NotReached": 409,
    "ConfigError": 400,
    "KernelError": 500,
    "AgentUnreachable": 503,
    "GuestUnreachable": 502,
    "GuestRefused": 422,
}
"""The status for each kind of error; what says more is in the body."""

PROTOCOL: Final = "qmp"
"""What a connection can become."""

_JSON: Final = "application/json"
_LINES: Final = "application/x-ndjson"


def application(handlers: Handlers, log: logging.Logger) -> Starlette:
    """Make the application that answers for an agent."""
    routes = [
        Route(
            f"/{VERSION}/{each.path}",
            _view(f"{each.method} {each.path}", partial(_respond, each, handlers), log),
            methods=[each.method],
        )
        for each in ENDPOINTS
    ]
    scrape = _view("GET metrics", partial(_scrape, handlers), log)
    routes.append(Route("/metrics", scrape, methods=["GET"]))
    document = msgspec.json.encode(openapi())

    async def describe(request: Request) -> Response:
        try:
            _check(request)
        except RequestError as error:
            return _failed(error.code, Problem(kind="ConfigError", message=error.message))
        return Response(document, media_type=_JSON)

    routes.append(Route(f"/{VERSION}/openapi.json", describe, methods=["GET"]))
    return Starlette(routes=routes, exception_handlers={HTTPException: _unknown})


def openapi() -> dict[str, Any]:
    """Describe what can be asked (OpenAPI 3.1). Pure."""
    kinds = [each.answer for each in ENDPOINTS] + [
        each.body for each in ENDPOINTS if each.body is not None
    ]
    schemas, components = msgspec.json.schema_components(
        [*kinds, Failure], ref_template="#/components/schemas/{name}"
    )
    shapes = dict(zip(map(repr, [*kinds, Failure]), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in ENDPOINTS:
        described = _describe(each, shapes)
        paths.setdefault(f"/{VERSION}/{each.path}", {})[each.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "qmpmem agent",
            "version": VERSION,
            "description": "HTTP over two unix sockets: agent.sock to look, for the group qmpmem, "
            "and agent-admin.sock to look and to change, for qmpmem-admin and root. Sizes are "
            "bytes, times seconds; what is not known is null. 429 and 503 say in Retry-After when "
            "to ask again. GET /metrics is for Prometheus.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _describe(endpoint: Endpoint, shapes: Mapping[str, Any]) -> dict[str, Any]:
    names = [part[1:-1] for part in endpoint.path.split("/") if part.startswith("{")]
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    parameters += [
        {"name": name, "in": "query", "schema": {"type": "boolean"}} for name in _choices(endpoint)
    ]
    kind = _JSON if endpoint.stream is None else _LINES
    failure = {"description": "why not", "content": {_JSON: {"schema": shapes[repr(Failure)]}}}
    done = {
        "description": "done",
        "content": {kind: {"schema": shapes[repr(endpoint.answer)]}},
    }
    described: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": f"{endpoint.method.lower()}-{endpoint.path}".replace("/", "-"),
        "parameters": parameters,
        "responses": {"200": done, "default": failure},
    }
    if endpoint.session is not None:
        switched = {"description": "the connection is QMP's from here on"}
        described["responses"] = {"101": switched, "default": failure}
    if endpoint.body is not None:
        content = {_JSON: {"schema": shapes[repr(endpoint.body)]}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _choices(endpoint: Endpoint) -> frozenset[str]:
    """Name the parameters that an endpoint takes beside its path."""
    if endpoint.session is not None:
        return frozenset({"read_only"})
    is_tried = endpoint.body is not None and endpoint.path.endswith("pin")
    return frozenset({"dry_run"} if is_tried else ())


def _view(
    name: str, respond: Callable[[Request], Awaitable[Response]], log: logging.Logger
) -> Callable[..., Any]:
    async def view(request: Request) -> Response:
        try:
            return await respond(request)
        except RequestError as error:
            kind = "KernelError" if error.code == 403 else "ConfigError"  # noqa: PLR2004 - Forbidden
            problem = Problem(kind=kind, message=error.message, hint=error.hint)
            return _failed(error.code, problem)
        except QmpmemError as error:
            problem = problem_of(error)
            return _failed(CODES.get(problem.kind, 500), problem)
        except Exception as error:  # noqa: BLE001 - the one boundary: a question must not end the agent
            words = f"internal error: {report(log, name, error)}"
            return _failed(500, Problem(kind="QmpmemError", message=words))

    return view


async def _respond(endpoint: Endpoint, handlers: Handlers, request: Request) -> Response:
    _check(request)
    odd = request.query_params.keys() - _choices(endpoint)
    if odd:  # such as dry-run: what was to be tried would be done
        raise RequestError(400, f"no such parameter: {min(odd)!r:.60}")
    caller: Caller = request.state.caller
    if endpoint.writes and caller.access != "write":
        caller.refused(f"{endpoint.method} {endpoint.path}: {access.NO_CHANGE}")
        raise RequestError(403, access.NO_CHANGE, _how_to_change(caller))
    content = await read(request, LARGEST)
    caller.arrived()
    asked = Call(
        handlers=handlers,
        peer=_for_whom(caller, request),
        names=request.path_params,
        body=_decoded(content, endpoint),
        dry_run=request.query_params.get("dry_run", "false") not in ("false", "0"),
        is_gone=request.is_disconnected,
        read_only=request.query_params.get("read_only", "false") not in ("false", "0"),
    )
    if endpoint.session is not None:
        if not (asked.read_only or caller.permissions.owns(caller.peer)):
            # `migrate exec:` runs what it is told, as QEMU's user: root, where guests run as root.
            caller.refused(f"{endpoint.method} {endpoint.path}: {access.NO_QMP}")
            raise RequestError(403, access.NO_QMP, "with `--read-only` a session takes queries")
        _expect_upgrade(request)
        caller.becomes(await endpoint.session(asked))
        return Response()  # for no one: the connection is not HTTP's any more
    if endpoint.stream is not None:
        lines = endpoint.stream(asked)
        refusal = caller.follows()
        if refusal is not None:
            raise AgentUnreachable(refusal, reason="busy")
        return StreamingResponse(_lines(lines, caller), media_type=_LINES)
    refusal = caller.waits() if endpoint.waits else None
    if refusal is not None:
        raise AgentUnreachable(refusal, reason="busy")
    async with caller.turn or nullcontext():
        return Response(msgspec.json.encode(await endpoint.work(asked)), media_type=_JSON)


async def _scrape(handlers: Handlers, request: Request) -> Response:
    """Answer a program that collects metrics."""
    _check(request)
    caller: Caller = request.state.caller
    if await read(request, LARGEST):
        raise RequestError(400, "expected no body")
    caller.arrived()
    headers = request.headers
    form = content_type.form(headers.get("accept", ""), headers.get("accept-encoding", ""))
    async with caller.turn or nullcontext():
        return Response(await handlers.metrics(form), headers=form.headers)


def _how_to_change(caller: Caller) -> str:
    """Return what gives this caller the right to change something."""
    if caller.permissions.of(caller.peer) == "write":
        return f"ask for that at {access.ADMIN_SOCKET}, beside this socket"
    return access.joining(access.WRITERS, caller.permissions.writers)


def _for_whom(caller: Caller, request: Request) -> Peer:
    """Return the peer with the name for which it asks, where it may change something itself."""
    behalf = request.headers.get(BEHALF, "")[:NAMED]
    if caller.access != "write" or not behalf or not behalf.isprintable() or not behalf.isascii():
        return caller.peer
    return replace(caller.peer, behalf=behalf)


def _check(request: Request) -> None:
    """Refuse what no honest client sends."""
    headers = request.headers
    host = headers.get("host", "").partition(":")[0].lower()
    if not request.url.path.startswith("/") or request.scope["raw_path"][:1] != b"/":
        raise RequestError(400, "expected a path, not an address")
    if not host or len(headers.getlist("host")) > 1:
        raise RequestError(400, "expected one Host")
    if host not in HOSTS:
        raise RequestError(421, f"host {host!r:.60}: expected qmpmem or localhost")
    if "origin" in headers:
        raise RequestError(403, "not for browsers")
    if "transfer-encoding" in headers and "content-length" in headers:
        raise RequestError(400, "Transfer-Encoding and Content-Length contradict each other")


def _expect_upgrade(request: Request) -> None:
    words = [word.strip().lower() for word in request.headers.get("connection", "").split(",")]
    if "upgrade" not in words or request.headers.get("upgrade", "").lower() != PROTOCOL:
        raise RequestError(426, f"expected Connection: upgrade and Upgrade: {PROTOCOL}")


def _decoded(content: bytes, endpoint: Endpoint) -> object:
    if endpoint.body is None:
        if content:
            raise RequestError(400, "expected no body")
        return None
    try:
        return msgspec.json.decode(content, type=endpoint.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"body: {error}") from error


async def _lines(source: AsyncIterator[object], caller: Caller) -> AsyncIterator[bytes]:
    """Write records as lines; a client that does not take one in time is cut off."""
    async for record in source:
        caller.within(TAKING)
        yield b"\n" if record is None else msgspec.json.encode(record) + b"\n"
        caller.arrived()


def _failed(code: int, problem: Problem) -> Response:
    body = msgspec.json.encode(Failure(error=problem))
    later = {"Retry-After": "1"} if code == CODES["AgentUnreachable"] else None
    return Response(body, status_code=code, media_type=_JSON, headers=later)


async def _unknown(_: Request, error: Exception) -> Response:
    """Answer what no endpoint is meant by: 404, 405."""
    code = error.status_code if isinstance(error, HTTPException) else 404
    words = "no such endpoint; /v1/openapi.json lists them" if code == 404 else "no such method"  # noqa: PLR2004
    return _failed(code, Problem(kind="ConfigError", message=words))
