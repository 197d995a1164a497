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
from qmpmem.serve.past import STRETCHES, Past, Stretch
from qmpmem.serve.requests import FRESH, asked, content, fields, plain, see_other, visitor
from qmpmem.serve.scraping import Metrics
from qmpmem.serve.trying import Trials
from qmpmem.serve.visit import Visitor

WRONG: Final = 1.0
"""Seconds until the answer to a wrong token; one is looked at after the other."""
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
        ("GET", "/guest/{id}/table.csv", pages_.table),
        ("GET", "/host", pages_.of_host),
        ("GET", "/host/plot", pages_.plot),
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
        Route(path, _guarded(work, site, f"{method} {path}"), methods=[method])
        for method, path, work in table
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _unknown})
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
    work: Callable[[Request], Awaitable[Response]], site: Site, name: str
) -> Callable[[Request], Awaitable[Response]]:
    async def view(request: Request) -> Response:
        try:
            if request.method in ("GET", "HEAD"):
                await content(request, most=0)
            return await work(request)
        except OddError as error:
            return plain(error.code, error.message)
        except QmpmemError as error:
            return plain(502, error.message)
        except Exception as error:  # noqa: BLE001 - the one boundary: a visitor must not end the server
            site.log(f"{name}: {type(error).__name__}: {error}")
            return plain(500, "internal error")

    return view


class _Pages:
    """Answers with pages, and does what is asked on them."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._hub = site.hub
        self._changes = Changes(site.client)
        self._whys = Once(lambda: site.hub.version, self._changes.why)
        self._wrong = asyncio.Lock()
        self._trials = Trials()

    async def host(self, request: Request) -> Response:
        """Show the host and its guests."""
        hub, by = self._hub, _sort(request)
        shown = hub.shown
        if shown is None:
            return self._page(request, "Guests", _empty())
        rows = (hub.row(each) for each in pages.ordered(shown, by))
        body = join(pages.tiles(shown), pages.table(shown, rows, by))
        return self._page(request, "Guests", body)

    async def guest(self, request: Request) -> Response:
        """Show one guest."""
        return await self._guest(request, Told())

    async def of_host(self, request: Request) -> Response:
        """Show what the host did over some time."""
        stretch = _stretch(request)
        plot = await self._site.past.plot(None, stretch)
        return self._page(request, "Host", past.section(plot, "/host", stretch, None))

    async def plot(self, request: Request) -> Response:
        """Draw a guest, or the host, for a page that is open."""
        found = await self._site.past.plot(request.path_params.get("id"), _stretch(request))
        content = found.encode("utf-8", "replace")
        return Response(content, media_type="text/html", headers=FRESH)

    async def table(self, request: Request) -> Response:
        """Give what is known of a guest to spreadsheets and scripts."""
        row, _ = self._row(request)
        stretch = _stretch(request)
        content = await self._site.past.table(row.id, stretch)
        name = {"Content-Disposition": f'attachment; filename="{row.id}-{stretch}.csv"'}
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
        if not self._site.keys.exist:
            raise OddError(404, "this page is for looking: it was started without a token file")
        return self._page(request, "Sign in", _login(""))

    async def sign_in(self, request: Request) -> Response:
        """Let a browser in that has the token."""
        given = await fields(request)
        async with self._wrong:
            if not self._site.keys.fits(given.get("token", "")):
                await asyncio.sleep(WRONG)
                self._log(request, "a wrong token")
                return self._page(request, "Sign in", _login("That is not the token."), code=403)
        self._log(request, "signed in")
        answer = see_other("/")
        answer.set_cookie(
            COOKIE, self._site.keys.admit(), max_age=int(LASTS), httponly=True, samesite="strict"
        )
        return answer

    async def sign_out(self, request: Request) -> Response:
        """Forget a browser."""
        await fields(request)
        self._site.keys.dismiss(request.cookies.get(COOKIE))
        answer = see_other("/")
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    async def hold(self, request: Request, *, on: bool) -> Response:
        """Have the agent take nothing from guests, or go on."""
        await self._expect_key(request)
        self._log(request, "hold" if on else "go on")
        await self._changes.hold(visitor(request).name, on=on)
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
        await self._changes.unpin(row, visitor(request).name)
        return see_other(f"/guest/{row.id}")

    async def _taken(self, source: AsyncIterator[bytes], reader: Visitor) -> AsyncIterator[bytes]:
        """Send events; a visitor that does not take one in time is cut off."""
        try:
            async for event in source:
                reader.within(TAKING)
                yield event
                reader.arrived()
        except Exception as error:
            self._site.log(f"GET /events: {type(error).__name__}: {error}")
            raise

    async def _guest(self, request: Request, told: Told) -> Response:
        row, _ = self._row(request)
        why, problem = None, None
        try:
            why = await self._whys.get(row.id)
        except QmpmemError as error:
            problem = _words(error)
        known = msgspec.structs.replace(
            told, why=why, problem=problem, can_change=self._has_key(request)
        )
        stretch = _stretch(request)
        plot = await self._site.past.plot(row.id, stretch)
        path = f"/guest/{row.id}"
        over = past.section(plot, path, stretch, f"{path}/table.csv")
        return self._page(request, row.name, guest.content(row, known, over), current="")

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
            self._site.host,
            shipped.mark(),
            can_change=self._has_key(request),
            has_token=self._site.keys.exist,
        )
        path = request.url.path if current is None else current
        text = frame.page(title, self._hub.shown, body, current=path, mark=self._hub.mark)
        return Response(text, status_code=code, media_type="text/html", headers=FRESH)

    def _has_key(self, request: Request) -> bool:
        word = request.headers.get("authorization", "")
        if fences.has_token(asked(request.scope)):
            return self._site.keys.fits(word.partition(" ")[2].strip())
        return self._site.keys.knows(request.cookies.get(COOKIE))

    async def _expect_key(self, request: Request) -> dict[str, str]:
        """Return the fields of a form, where the visitor may change something."""
        given = await fields(request)
        if not self._has_key(request):
            words = "sign in first" if self._site.keys.exist else "this page is for looking"
            raise OddError(403, words)
        return given

    def _log(self, request: Request, words: str) -> None:
        self._site.log(f"{visitor(request).name}: {words}")


async def _static(request: Request) -> Response:
    found = shipped.files().get(request.path_params["name"])
    if found is None:
        raise OddError(404, "no such page")
    return Response(found.content, media_type=found.media, headers=KEPT)


def _stretch(request: Request) -> Stretch:
    known: dict[str, Stretch] = {each: each for each in STRETCHES}
    return known.get(request.query_params.get("range", ""), "10m")


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


async def _unknown(_: Request, error: Exception) -> Response:
    code = error.status_code if isinstance(error, HTTPException) else 404
    return plain(code, "no such page" if code == 404 else "no such method")  # noqa: PLR2004
