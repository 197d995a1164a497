"""Answers to visitors: pages, refusals, and what both rest on."""

import logging
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from qmpmem.api.client import Client
from qmpmem.api.request_body import RequestError
from qmpmem.errors import ConfigError, QmpmemError
from qmpmem.records import Record
from qmpmem.serve import pages, request_checks, static_files
from qmpmem.serve.agent_follower import AgentFollower
from qmpmem.serve.host_page import HostPage, Row
from qmpmem.serve.html import tag
from qmpmem.serve.pages import Frame
from qmpmem.serve.past import Past
from qmpmem.serve.requests import FRESH, asked, fields, plain, shows_pages, visitor
from qmpmem.serve.token_guesses import TokenGuesses
from qmpmem.serve.tokens import COOKIE, Tokens

REFUSED: Final = 502
"""The status where the agent refuses, or does not answer: 502 (RFC 9110, 15.6.3)."""
NOWHERE: Final = 404


class Site(Record, frozen=True):
    """What the application is made of."""

    follower: AgentFollower
    client: Client
    keys: Tokens
    past: Past
    host: str
    """The name of the host, for people."""
    hosts: frozenset[str]
    """The names under which this server is known."""
    log: logging.Logger


class Responses:
    """Answers visitors of a site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._guesses = TokenGuesses()

    def refused(self, request: Request, code: int, words: str) -> Response:
        """Answer that a request is refused: a browser that shows pages gets one."""
        if not shows_pages(request):
            return plain(code, words)
        body = pages.notice(words, tag("a", "All guests", href="/"))
        return self.page(request, "Refused", body, code=code, current="")

    async def unknown(self, request: Request, error: Exception) -> Response:
        """Answer where there is no such page."""
        code = error.status_code if isinstance(error, HTTPException) else NOWHERE
        return self.refused(request, code, "no such page" if code == NOWHERE else "no such method")

    def row(self, request: Request) -> tuple[Row, HostPage]:
        """Return the guest that an address names, and the round it is of."""
        shown = self.site.follower.shown
        row = None if shown is None else shown.rows.get(request.path_params["id"])
        if row is None or shown is None:
            raise RequestError(404, "no such guest")
        return row, shown

    def page(
        self,
        request: Request,
        title: str,
        body: str,
        *,
        code: int = 200,
        current: str | None = None,
    ) -> Response:
        """Answer with a page.

        Args:
            request: what is answered.
            title: for the browser.
            body: below the head.
            code: the status.
            current: the path of the page, where that is not what was asked for.
        """
        frame = Frame(
            self.site.host,
            static_files.mark(),
            can_change=self.has_key(request),
            has_token=self.site.keys.exist,
        )
        path = request.url.path if current is None else current
        text = frame.page(
            title, self.site.follower.shown, body, current=path, mark=self.site.follower.mark
        )
        return Response(text, status_code=code, media_type="text/html", headers=FRESH)

    def has_key(self, request: Request) -> bool:
        """Tell whether a visitor may change something."""
        word = request.headers.get("authorization", "")
        if request_checks.has_token(asked(request.scope)):
            return self.site.keys.fits(word.partition(" ")[2].strip())
        return self.site.keys.knows(request.cookies.get(COOKIE))

    async def expect_key(self, request: Request) -> dict[str, str]:
        """Return the fields of a form.

        Raises:
            OddError: the visitor may change nothing.
        """
        given = await fields(request)
        if not self.has_key(request):
            if self.site.keys.exist and request_checks.has_token(asked(request.scope)):
                await self.wait_for_turn(request)
            words = "sign in first" if self.site.keys.exist else "this page is for looking"
            raise RequestError(403, words)
        return given

    async def wait_for_turn(self, request: Request) -> None:
        """Wait before the answer to a wrong token, and log it; as `TokenGuesses.wait`."""
        await self._guesses.wait(lambda: self.warn(request, "a wrong token"))

    def log(self, request: Request, words: str) -> None:
        """Write a line about what a visitor did."""
        self.site.log.info("%s: %s", visitor(request).name, words)

    def warn(self, request: Request, words: str) -> None:
        """Write a line about what a visitor should not have done."""
        self.site.log.warning("%s: %s", visitor(request).name, words)


def words(error: QmpmemError) -> str:
    """Write why something was refused, and what helps, in one line."""
    is_odd = isinstance(error, ConfigError) and error.hint is not None
    return f"{error.message}; {error.hint}" if is_odd else error.message
