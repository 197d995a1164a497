"""The page as an ASGI application: paths, and what they answer.

Rules of this file:
    Every request passes `fences` before anything is looked up, also where no path is meant. GET
    changes nothing. A mistake of ours is a 500 and a line in the log, and the server goes on.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from qmpmem.control.body import OddError
from qmpmem.control.bounded import TAKING
from qmpmem.control.client import Client
from qmpmem.errors import ConfigError, QmpmemError
from qmpmem.records import Record
from qmpmem.serve import changes, fences, guest, pages, past, shipped, trying
from qmpmem.serve.board import Board, Row, Sort
from qmpmem.serve.changes import Changes
from qmpmem.serve.guest import Told
from qmpmem.serve.html import join, tag
from qmpmem.serve.hub import SORTS, Hub
from qmpmem.serve.keys import COOKIE, LASTS, Keys
from qmpmem.serve.once import Once
from qmpmem.serve.pages import Frame
from qmpmem.serve.past import Past
from qmpmem.serve.requests import (
    FRESH,
    asked,
    content,
    fields,
    plain,
    see_other,
    shows_pages,
    visitor,
)
from qmpmem.serve.scraping import Metrics
from qmpmem.serve.trying import Trials
from qmpmem.serve.visit import Visitor
from qmpmem.serve.window import window

WRONG: Final = 1.0
"""Seconds until the answer to a wrong token; one is looked at after the other."""
REFUSED: Final = 502
"""The agent refuses, or does not answer (RFC 9110, 15.6.3)."""
NOWHERE: Final = 404
KEPT: Final = {"Cache-Control": "max-age=86400"}
"""Of files whose address has `shipped.mark` in it."""


class Site(Record, frozen=True):
    """What the application is made of."""

    hub: Hub
    client: Client
    keys: Keys
    past: Past
    host: str
    """The name of the host, for people."""
    hosts: frozenset[str]
    """The names under which this server is known."""
    log: Callable[[str], None]


def application(site: Site) -> Any:  # noqa: ANN401 - ASGI
    """Make the application."""
    pages_ = _Pages(site)
    table: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("GET", "/", pages_.host),
        ("GET", "/guest/{id}", pages_.guest),
        ("GET", "/guest/{id}/plot", pages_.plot),
        ("GET", "/guest/{id}/values", pages_.values),
        ("GET", "/guest/{id}/table.csv", pages_.table),
        ("GET", "/host", pages_.of_host),
        ("GET", "/host/plot", pages_.plot),
        ("GET", "/host/values", pages_.values),
        ("GET", "/decisions", pages_.decisions),
        ("GET", "/ksm", pages_.ksm),
        ("GET", "/try", pages_.trial),
        ("POST", "/try", pages_.play),
        ("GET", "/events", pages_.events),
        ("GET", "/metrics", Metrics(site.hub, site.client).answer),
        ("GET", "/static/{name}", _static),
        ("GET", "/login", pages_.login),
        ("POST", "/login", pages_.sign_in),
        ("POST", "/logout", pages_.sign_out),
        ("POST", "/hold", partial(pages_.hold, on=True)),
        ("POST", "/release", partial(pages_.hold, on=False)),
        ("POST", "/guest/{id}/check", pages_.check),
        ("POST", "/guest/{id}/pin", pages_.pin),
        ("POST", "/guest/{id}/unpin", pages_.unpin),
    ]
    routes = [
        Route(path, _guarded(work, pages_, f"{method} {path}"), methods=[method])
        for method, path, work in table
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: pages_.unknown})
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

        refusal = fences.refusal(asked(scope), self._hosts)
        if refusal is not None:
            await plain(refusal.code, refusal.words)(scope, receive, sealed)
            return
        await self._app(scope, receive, sealed)


_SEALS: Final = [(name.lower().encode(), value.encode()) for name, value in fences.HEADERS.items()]


def _guarded(
    work: Callable[[Request], Awaitable[Response]], pages_: "_Pages", name: str
) -> Callable[[Request], Awaitable[Response]]:
    async def view(request: Request) -> Response:
        try:
            if request.method in ("GET", "HEAD"):
                await content(request, most=0)
            return await work(request)
        except OddError as error:
            return pages_.refused(request, error.code, error.message)
        except QmpmemError as error:
            return pages_.refused(request, REFUSED, _words(error))
        except Exception as error:  # noqa: BLE001 - the one boundary: a visitor must not end the server
            pages_.site.log(f"{name}: {type(error).__name__}: {error}")
            return pages_.refused(request, 500, "internal error")

    return view


class _Pages:
    """Answers with pages, and does what is asked on them."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._hub = site.hub
        self._changes = Changes(site.client)
        self._whys = Once(lambda: site.hub.version, self._changes.why)
        self._wrong = asyncio.Lock()
        self._trials = Trials()

    async def host(self, request: Request) -> Response:
        """Show the host and its guests."""
        return self._host(request)

    def _host(self, request: Request, refusal: str | None = None) -> Response:
        hub, by = self._hub, _sort(request)
        shown, code = hub.shown, 200 if refusal is None else REFUSED
        notice = None if refusal is None else pages.notice(refusal)
        if shown is None:
            return self._page(request, "Guests", join(notice, _empty()), current="/", code=code)
        rows = (hub.row(each) for each in pages.ordered(shown, by))
        body = join(notice, pages.tiles(shown), pages.table(shown, rows, by))
        return self._page(request, "Guests", body, current="/", code=code)

    async def guest(self, request: Request) -> Response:
        """Show one guest."""
        return await self._guest(request, Told())

    async def of_host(self, request: Request) -> Response:
        """Show what the host did over some time."""
        over, past_ = window(request.query_params), self.site.past
        plot = await past_.plot(None, over)
        shown = self._hub.shown
        tiles = None if shown is None else pages.tiles(shown)
        return self._page(
            request, "Host", join(tiles, past.section(plot, "/host", over, past_.now, table=False))
        )

    async def plot(self, request: Request) -> Response:
        """Draw a guest, or the host, for a page that is open."""
        over = window(request.query_params)
        found = await self.site.past.plot(request.path_params.get("id"), over)
        content = found.encode("utf-8", "replace")
        return Response(content, media_type="text/html", headers=FRESH)

    async def values(self, request: Request) -> Response:
        """Give what the plot of a page shows at each time."""
        over = window(request.query_params)
        content = await self.site.past.values(request.path_params.get("id"), over)
        return Response(content, media_type="application/json", headers=FRESH)

    async def table(self, request: Request) -> Response:
        """Give what is known of a guest to spreadsheets and scripts."""
        row, _ = self._row(request)
        over = window(request.query_params)
        content = await self.site.past.table(row.id, over)
        name = {"Content-Disposition": f'attachment; filename="{row.id}-{over.name}.csv"'}
        return Response(content, media_type="text/csv", headers={**FRESH, **name})

    async def decisions(self, request: Request) -> Response:
        """Show the last decisions."""
        return self._page(request, "Decisions", guest.decisions(self._hub.trail.decisions))

    async def ksm(self, request: Request) -> Response:
        """Show what merging does."""
        seen = self._hub.seen
        if seen is None or seen.snapshot.ksm is None:
            words = "no round has been seen yet" if seen is None else "this kernel does not merge"
            return self._page(request, "Merging", tag("p", words))
        return self._page(request, "Merging", guest.pairs("Merging", guest.merging(seen)))

    async def trial(self, request: Request) -> Response:
        """Ask for a host to be played."""
        return self._page(request, "Try a policy", trying.page(trying.EXAMPLE, None))

    async def play(self, request: Request) -> Response:
        """Play a host under all policies."""
        text = (await fields(request, most=3 * trying.LARGEST)).get("scenario", "")
        if len(text) > trying.LARGEST:
            raise OddError(413, f"expected {trying.LARGEST} characters at most")
        if self._trials.are_busy:
            raise OddError(503, "another visitor's host is being played; try again in a minute")
        played = await self._trials.play(text.replace("\r\n", "\n"))
        return self._page(request, "Try a policy", trying.page(text, played))

    async def events(self, request: Request) -> Response:
        """Send each round to a page that is open."""
        if not visitor(request).follows():
            raise OddError(503, "too many pages are open")
        mark = request.headers.get("last-event-id") or request.query_params.get("since")
        source = self._hub.follow(_sort(request), mark)
        return StreamingResponse(
            self._taken(source, visitor(request)), media_type="text/event-stream", headers=FRESH
        )

    async def login(self, request: Request) -> Response:
        """Ask for the token."""
        if not self.site.keys.exist:
            raise OddError(404, "this page is for looking: it was started without a token file")
        return self._page(request, "Sign in", _login(""))

    async def sign_in(self, request: Request) -> Response:
        """Let a browser in that has the token."""
        given = await fields(request)
        async with self._wrong:
            if not self.site.keys.fits(given.get("token", "")):
                await asyncio.sleep(WRONG)
                self._log(request, "a wrong token")
                return self._page(request, "Sign in", _login("That is not the token."), code=403)
        self._log(request, "signed in")
        answer = see_other("/")
        answer.set_cookie(
            COOKIE, self.site.keys.admit(), max_age=int(LASTS), httponly=True, samesite="strict"
        )
        return answer

    async def sign_out(self, request: Request) -> Response:
        """Forget a browser."""
        await fields(request)
        self.site.keys.dismiss(request.cookies.get(COOKIE))
        answer = see_other("/")
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    async def hold(self, request: Request, *, on: bool) -> Response:
        """Have the agent take nothing from guests, or go on."""
        await self._expect_key(request)
        self._log(request, "hold" if on else "go on")
        try:
            await self._changes.hold(visitor(request).name, on=on)
        except QmpmemError as error:
            if not shows_pages(request):
                raise
            return self._host(request, _words(error))
        return see_other("/")

    async def check(self, request: Request) -> Response:
        """Answer what a size would mean."""
        size = (await self._expect_key(request)).get("size", "")
        row, shown = self._row(request)
        try:
            done = await self._changes.pin(row, size, visitor(request).name, dry_run=True)
        except QmpmemError as error:
            told = Told(size=size, says=_words(error))
        else:
            told = Told(size=size, says=changes.consequence(done, row, shown), checked=True)
        if "application/json" in request.headers.get("accept", ""):
            body = msgspec.json.encode({"says": told.says, "ok": told.checked})
            return Response(body, media_type="application/json", headers=FRESH)
        return await self._guest(request, told)

    async def pin(self, request: Request) -> Response:
        """Keep a guest at a size."""
        size = (await self._expect_key(request)).get("size", "")
        row, _ = self._row(request)
        self._log(request, f"pin {row.id}")
        try:
            await self._changes.pin(row, size, visitor(request).name)
        except QmpmemError as error:
            return await self._guest(request, Told(size=size, says=_words(error)))
        return see_other(f"/guest/{row.id}")

    async def unpin(self, request: Request) -> Response:
        """Let the agent move a guest again."""
        await self._expect_key(request)
        row, _ = self._row(request)
        self._log(request, f"unpin {row.id}")
        try:
            await self._changes.unpin(row, visitor(request).name)
        except QmpmemError as error:
            if not shows_pages(request):
                raise
            return await self._guest(request, Told(says=_words(error)), code=REFUSED)
        return see_other(f"/guest/{row.id}")

    def refused(self, request: Request, code: int, words: str) -> Response:
        """Answer that a request is refused: a browser that shows pages gets one."""
        if not shows_pages(request):
            return plain(code, words)
        body = pages.notice(words, tag("a", "All guests", href="/"))
        return self._page(request, "Refused", body, code=code, current="")

    async def unknown(self, request: Request, error: Exception) -> Response:
        """Answer where there is no such page."""
        code = error.status_code if isinstance(error, HTTPException) else NOWHERE
        return self.refused(request, code, "no such page" if code == NOWHERE else "no such method")

    async def _taken(self, source: AsyncIterator[bytes], reader: Visitor) -> AsyncIterator[bytes]:
        """Send events; a visitor that does not take one in time is cut off."""
        try:
            async for event in source:
                reader.within(TAKING)
                yield event
                reader.arrived()
        except Exception as error:
            self.site.log(f"GET /events: {type(error).__name__}: {error}")
            raise

    async def _guest(self, request: Request, told: Told, *, code: int = 200) -> Response:
        row, _ = self._row(request)
        why, problem = None, None
        try:
            why = await self._whys.get(row.id)
        except QmpmemError as error:
            problem = _words(error)
        known = msgspec.structs.replace(
            told, why=why, problem=problem, can_change=self._has_key(request)
        )
        over, past_ = window(request.query_params), self.site.past
        path = f"/guest/{row.id}"
        plot = await past_.plot(row.id, over)
        drawn = past.section(plot, path, over, past_.now, table=True)
        body = guest.content(row, known, drawn)
        return self._page(request, row.name, body, current=path, code=code)

    def _row(self, request: Request) -> tuple[Row, Board]:
        shown = self._hub.shown
        row = None if shown is None else shown.rows.get(request.path_params["id"])
        if row is None or shown is None:
            raise OddError(404, "no such guest")
        return row, shown

    def _page(
        self,
        request: Request,
        title: str,
        body: str,
        *,
        code: int = 200,
        current: str | None = None,
    ) -> Response:
        frame = Frame(
            self.site.host,
            shipped.mark(),
            can_change=self._has_key(request),
            has_token=self.site.keys.exist,
        )
        path = request.url.path if current is None else current
        text = frame.page(title, self._hub.shown, body, current=path, mark=self._hub.mark)
        return Response(text, status_code=code, media_type="text/html", headers=FRESH)

    def _has_key(self, request: Request) -> bool:
        word = request.headers.get("authorization", "")
        if fences.has_token(asked(request.scope)):
            return self.site.keys.fits(word.partition(" ")[2].strip())
        return self.site.keys.knows(request.cookies.get(COOKIE))

    async def _expect_key(self, request: Request) -> dict[str, str]:
        """Return the fields of a form, where the visitor may change something."""
        given = await fields(request)
        if not self._has_key(request):
            words = "sign in first" if self.site.keys.exist else "this page is for looking"
            raise OddError(403, words)
        return given

    def _log(self, request: Request, words: str) -> None:
        self.site.log(f"{visitor(request).name}: {words}")


async def _static(request: Request) -> Response:
    found = shipped.files().get(request.path_params["name"])
    if found is None:
        raise OddError(404, "no such page")
    return Response(found.content, media_type=found.media, headers=KEPT)


def _sort(request: Request) -> Sort:
    by = request.query_params.get("sort", "attention")
    known: dict[str, Sort] = {each: each for each in SORTS}
    return known.get(by, "attention")


def _words(error: QmpmemError) -> str:
    is_odd = isinstance(error, ConfigError) and error.hint is not None
    return f"{error.message}; {error.hint}" if is_odd else error.message


def _empty() -> str:
    return tag("p", "No round has been seen yet. This page goes on by itself.", class_="notice")


def _login(problem: str) -> str:
    return tag(
        "section",
        tag("h2", "Sign in"),
        tag(
            "form",
            tag("p", problem, class_="old", role="alert") if problem else None,
            tag("label", "Token", for_="token"),
            tag(
                "div",
                tag(
                    "input",
                    id="token",
                    name="token",
                    type="password",
                    required=True,
                    autocomplete="off",
                ),
                tag("button", "Sign in"),
                class_="row",
            ),
            tag("p", "It is in the file that --token-file names.", class_="dim"),
            method="post",
            action="/login",
        ),
    )
