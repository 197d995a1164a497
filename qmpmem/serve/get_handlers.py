"""What visitors look at: each method answers a path that changes nothing."""

from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from qmpmem.api.bounded_connection import TAKING
from qmpmem.api.mistakes import report
from qmpmem.api.request_body import RequestError
from qmpmem.errors import QmpmemError
from qmpmem.model.names import SAFE_ID
from qmpmem.serve import guest_page, pages, past, simulate_page
from qmpmem.serve.agent_follower import SORTS
from qmpmem.serve.changes import AgentChanges
from qmpmem.serve.guest_page import Told
from qmpmem.serve.host_page import Sort
from qmpmem.serve.html import Markup, join, tag
from qmpmem.serve.once_per_round import OncePerRound
from qmpmem.serve.requests import FRESH, fields, visitor
from qmpmem.serve.responses import NOWHERE, REFUSED, Responses, words
from qmpmem.serve.simulate_page import SimulatePage
from qmpmem.serve.time_range import window
from qmpmem.serve.visitor_connection import Visitor


class GetHandlers:
    """Shows pages, and what an open page fetches.

    Args:
        answers: writes the pages.
        changes: asks the agent.
    """

    def __init__(self, answers: Responses, changes: AgentChanges) -> None:
        self._answers = answers
        self._site = answers.site
        follower = answers.site.follower
        self._whys = OncePerRound(lambda: follower.version, changes.why)
        self._trials = SimulatePage()

    async def host(self, request: Request, refusal: str | None = None) -> Response:
        """Show the host and its guests, and what was refused."""
        follower, by = self._site.follower, _sort(request)
        shown, code = follower.shown, 200 if refusal is None else REFUSED
        notice = None if refusal is None else pages.notice(refusal)
        if shown is None:
            return self._answers.page(
                request, "Guests", join(notice, _empty()), current="/", code=code
            )
        rows = (follower.row(each) for each in pages.ordered(shown, by))
        body = join(notice, pages.tiles(shown), pages.table(shown, rows, by))
        return self._answers.page(request, "Guests", body, current="/", code=code)

    async def guest(
        self, request: Request, told: Told | None = None, *, code: int = 200
    ) -> Response:
        """Show one guest, and what was asked for last."""
        row, _ = self._answers.row(request)
        why, problem = None, None
        try:
            why = await self._whys.get(row.id)
        except QmpmemError as error:
            problem = words(error)
        known = msgspec.structs.replace(
            told or Told(), why=why, problem=problem, can_change=self._answers.has_key(request)
        )
        over, past_ = window(request.query_params), self._site.past
        path = f"/guest/{row.id}"
        plot = await past_.plot(row.id, over)
        drawn = past.section(plot, path, over, past_.now, table=True)
        body = guest_page.content(row, known, drawn)
        return self._answers.page(request, row.name, body, current=path, code=code)

    async def of_host(self, request: Request) -> Response:
        """Show what the host did over some time."""
        over, past_ = window(request.query_params), self._site.past
        plot = await past_.plot(None, over)
        shown = self._site.follower.shown
        tiles = None if shown is None else pages.tiles(shown)
        return self._answers.page(
            request, "Host", join(tiles, past.section(plot, "/host", over, past_.now, table=False))
        )

    async def plot(self, request: Request) -> Response:
        """Draw a guest, or the host, for a page that is open."""
        over = window(request.query_params)
        found = await self._site.past.plot(_id(request), over)
        content = found.encode("utf-8", "replace")
        return Response(content, media_type="text/html", headers=FRESH)

    async def values(self, request: Request) -> Response:
        """Return what the plot of a page shows at each time."""
        over = window(request.query_params)
        content = await self._site.past.values(_id(request), over)
        return Response(content, media_type="application/json", headers=FRESH)

    async def table(self, request: Request) -> Response:
        """Return what is known of a guest as a table that spreadsheets and scripts can read."""
        row, _ = self._answers.row(request)
        over = window(request.query_params)
        content = await self._site.past.table(row.id, over)
        name = {"Content-Disposition": f'attachment; filename="{row.id}-{over.name}.csv"'}
        return Response(content, media_type="text/csv", headers={**FRESH, **name})

    async def decisions(self, request: Request) -> Response:
        """Show the last decisions."""
        return self._answers.page(
            request, "Decisions", guest_page.decisions(self._site.follower.recent.decisions)
        )

    async def ksm(self, request: Request) -> Response:
        """Show what merging does."""
        seen = self._site.follower.seen
        if seen is None or seen.snapshot.ksm is None:
            text = "no round has been seen yet" if seen is None else "this kernel does not merge"
            return self._answers.page(request, "Merging", tag("p", text))
        return self._answers.page(
            request, "Merging", guest_page.pairs("Merging", guest_page.merging(seen))
        )

    async def trial(self, request: Request) -> Response:
        """Ask for a host to be played."""
        return self._answers.page(
            request, "Try a policy", simulate_page.page(simulate_page.EXAMPLE, None)
        )

    async def play(self, request: Request) -> Response:
        """Play a host under all policies."""
        text = (await fields(request, most=3 * simulate_page.LARGEST)).get("scenario", "")
        if len(text) > simulate_page.LARGEST:
            raise RequestError(413, f"expected {simulate_page.LARGEST} characters at most")
        if self._trials.are_busy:
            raise RequestError(503, "another visitor's host is being played; try again in a minute")
        played = await self._trials.play(text.replace("\r\n", "\n"))
        return self._answers.page(request, "Try a policy", simulate_page.page(text, played))

    async def events(self, request: Request) -> Response:
        """Send each round to a page that is open."""
        if not visitor(request).follows():
            raise RequestError(503, "too many pages are open")
        mark = request.headers.get("last-event-id") or request.query_params.get("since")
        source = self._site.follower.follow(_sort(request), mark)
        return StreamingResponse(
            self._taken(source, visitor(request)), media_type="text/event-stream", headers=FRESH
        )

    async def _taken(self, source: AsyncIterator[bytes], reader: Visitor) -> AsyncIterator[bytes]:
        """Send events; a visitor that does not take one in time is cut off."""
        try:
            async for event in source:
                reader.within(TAKING)
                yield event
                reader.arrived()
        except Exception as error:
            report(self._site.log, "GET /events", error)
            raise


def _sort(request: Request) -> Sort:
    by = request.query_params.get("sort", "attention")
    known: dict[str, Sort] = {each: each for each in SORTS}
    return known.get(by, "attention")


def _empty() -> Markup:
    return tag("p", "No round has been seen yet. This page goes on by itself.", class_="dim")


def _id(request: Request) -> str | None:
    """Return the guest that a path is about, which may have ended; None: the host.

    Raises:
        OddError: no guest ever had this id.
    """
    found: str | None = request.path_params.get("id")
    if found is not None and not SAFE_ID.fullmatch(found):
        raise RequestError(NOWHERE, "no such guest")
    return found
