"""The page as an ASGI application: paths, and what they answer.

Rules of this file:
    Every request passes `fences` before anything is looked up, also where no path is meant. GET
    changes nothing. A mistake of ours is a 500 and a line in the log, and the server goes on.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from qmpmem.api.mistakes import report
from qmpmem.api.request_body import RequestError
from qmpmem.errors import QmpmemError
from qmpmem.serve import request_checks, static_files
from qmpmem.serve.changes import AgentChanges
from qmpmem.serve.get_handlers import GetHandlers
from qmpmem.serve.post_handlers import PostHandlers
from qmpmem.serve.requests import asked, content, plain
from qmpmem.serve.responses import REFUSED, Responses, Site, words
from qmpmem.serve.scrape import Metrics

KEPT: Final = {"Cache-Control": "max-age=86400"}
"""Headers of files whose address has `shipped.mark` in it."""


def application(site: Site) -> Any:  # noqa: ANN401 - ASGI
    """Make the application."""
    answers, changes = Responses(site), AgentChanges(site.client)
    views = GetHandlers(answers, changes)
    orders = PostHandlers(answers, views, changes)
    table: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("GET", "/", views.host),
        ("GET", "/guest/{id}", views.guest),
        ("GET", "/guest/{id}/plot", views.plot),
        ("GET", "/guest/{id}/values", views.values),
        ("GET", "/guest/{id}/table.csv", views.table),
        ("GET", "/host", views.of_host),
        ("GET", "/host/plot", views.plot),
        ("GET", "/host/values", views.values),
        ("GET", "/decisions", views.decisions),
        ("GET", "/ksm", views.ksm),
        ("GET", "/try", views.trial),
        ("POST", "/try", views.play),
        ("GET", "/events", views.events),
        ("GET", "/metrics", Metrics(site.follower, site.client).answer),
        ("GET", "/static/{name}", _static),
        ("GET", "/login", orders.login),
        ("POST", "/login", orders.sign_in),
        ("POST", "/logout", orders.sign_out),
        ("POST", "/hold", partial(orders.hold, on=True)),
        ("POST", "/release", partial(orders.hold, on=False)),
        ("POST", "/guest/{id}/check", orders.check),
        ("POST", "/guest/{id}/pin", orders.pin),
        ("POST", "/guest/{id}/unpin", orders.unpin),
    ]
    routes = [
        Route(path, _guarded(work, answers, f"{method} {path}"), methods=[method])
        for method, path, work in table
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: answers.unknown})
    return _Fenced(app, site.hosts)


class _Fenced:
    """Refuses what is not to be asked here, and gives every answer its headers."""

    def __init__(self, app: Any, hosts: frozenset[str]) -> None:  # noqa: ANN401 - ASGI
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        async def sealed(message: Any) -> None:  # noqa: ANN401 - ASGI
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_SEALS]
            await send(message)

        refusal = request_checks.refusal(asked(scope), self._hosts)
        if refusal is not None:
            await plain(refusal.code, refusal.words)(scope, receive, sealed)
            return
        await self._app(scope, receive, sealed)


_SEALS: Final = [
    (name.lower().encode(), value.encode()) for name, value in request_checks.HEADERS.items()
]


def _guarded(
    work: Callable[[Request], Awaitable[Response]], answers: Responses, name: str
) -> Callable[[Request], Awaitable[Response]]:
    async def view(request: Request) -> Response:
        try:
            if request.method in ("GET", "HEAD"):
                await content(request, most=0)
            return await work(request)
        except RequestError as error:
            return answers.refused(request, error.code, error.message)
        except QmpmemError as error:
            return answers.refused(request, REFUSED, words(error))
        except Exception as error:  # noqa: BLE001 - the one boundary: a visitor must not end the server
            report(answers.site.log, name, error)
            return answers.refused(request, 500, "internal error")

    return view


async def _static(request: Request) -> Response:
    found = static_files.files().get(request.path_params["name"])
    if found is None:
        raise RequestError(404, "no such page")
    return Response(found.content, media_type=found.media, headers=KEPT)
