"""What visitors change: each method answers a path that is posted to, and expects the token."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from qmpmem.api.request_body import RequestError
from qmpmem.errors import QmpmemError
from qmpmem.serve import changes
from qmpmem.serve.changes import AgentChanges
from qmpmem.serve.get_handlers import GetHandlers
from qmpmem.serve.guest_page import Told
from qmpmem.serve.html import Markup, tag
from qmpmem.serve.requests import FRESH, fields, see_other, shows_pages, visitor
from qmpmem.serve.responses import REFUSED, Responses, words
from qmpmem.serve.tokens import COOKIE, LASTS


class PostHandlers:
    """Passes on what visitors want changed, and lets them sign in and out.

    Args:
        answers: writes the pages.
        views: shows the page on which something was refused.
        changes: asks the agent.
    """

    def __init__(self, answers: Responses, views: GetHandlers, changes: AgentChanges) -> None:
        self._answers = answers
        self._views = views
        self._changes = changes
        self._keys = answers.site.keys

    async def login(self, request: Request) -> Response:
        """Ask for the token."""
        if not self._keys.exist:
            raise RequestError(404, "this page is for looking: it was started without a token file")
        return self._answers.page(request, "Sign in", _login(""))

    async def sign_in(self, request: Request) -> Response:
        """Let a browser in that has the token."""
        given = await fields(request)
        if not self._keys.fits(given.get("token", "")):
            await self._answers.wait_for_turn(request)
            text = _login("That is not the token.")
            return self._answers.page(request, "Sign in", text, code=403)
        self._answers.log(request, "signed in")
        answer = see_other("/")
        answer.set_cookie(
            COOKIE, self._keys.admit(), max_age=int(LASTS), httponly=True, samesite="strict"
        )
        return answer

    async def sign_out(self, request: Request) -> Response:
        """Forget a browser."""
        await fields(request)
        self._keys.dismiss(request.cookies.get(COOKIE))
        answer = see_other("/")
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    async def hold(self, request: Request, *, on: bool) -> Response:
        """Have the agent take nothing from guests, or go on."""
        await self._answers.expect_key(request)
        self._answers.log(request, "hold" if on else "go on")
        try:
            await self._changes.hold(visitor(request).name, on=on)
        except QmpmemError as error:
            if not shows_pages(request):
                raise
            return await self._views.host(request, words(error))
        return see_other("/")

    async def check(self, request: Request) -> Response:
        """Answer what a size would mean."""
        size = (await self._answers.expect_key(request)).get("size", "")
        row, shown = self._answers.row(request)
        try:
            done = await self._changes.pin(row, size, visitor(request).name, dry_run=True)
        except QmpmemError as error:
            told = Told(size=size, says=words(error))
        else:
            told = Told(size=size, says=changes.consequence(done, row, shown), checked=True)
        if "application/json" in request.headers.get("accept", ""):
            body = msgspec.json.encode({"says": told.says, "ok": told.checked})
            return Response(body, media_type="application/json", headers=FRESH)
        return await self._views.guest(request, told)

    async def pin(self, request: Request) -> Response:
        """Keep a guest at a size."""
        size = (await self._answers.expect_key(request)).get("size", "")
        row, _ = self._answers.row(request)
        self._answers.log(request, f"pin {row.id}")
        try:
            await self._changes.pin(row, size, visitor(request).name)
        except QmpmemError as error:
            return await self._views.guest(request, Told(size=size, says=words(error)))
        return see_other(f"/guest/{row.id}")

    async def unpin(self, request: Request) -> Response:
        """Let the agent move a guest again."""
        await self._answers.expect_key(request)
        row, _ = self._answers.row(request)
        self._answers.log(request, f"unpin {row.id}")
        try:
            await self._changes.unpin(row, visitor(request).name)
        except QmpmemError as error:
            if not shows_pages(request):
                raise
            return await self._views.guest(request, Told(says=words(error)), code=REFUSED)
        return see_other(f"/guest/{row.id}")


def _login(problem: str) -> Markup:
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
