"""What passes between a visitor's request and the pages: what it carries, and plain answers."""

from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from qmpmem.api.request_body import RequestError, read
from qmpmem.serve.request_checks import CheckedRequest
from qmpmem.serve.visitor_connection import Visitor

LARGEST: Final = 4096
"""Bytes that a form may send."""
FIELDS: Final = 8
FRESH: Final = {"Cache-Control": "no-store"}


def asked(scope: Mapping[str, Any]) -> CheckedRequest:
    """Take out of an ASGI scope what the fences look at."""
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    target = scope["raw_path"].decode("latin-1")
    return CheckedRequest(method=scope["method"], target=target, headers=headers)


async def content(request: Request, *, most: int) -> bytes:
    """Read what a request carries, and let its connection last."""
    received = await read(request, most)
    visitor(request).arrived()
    return received


async def fields(request: Request, *, most: int = LARGEST) -> dict[str, str]:
    """Read what a form sends."""
    found = await content(request, most=most)
    try:
        return dict(parse_qsl(found.decode("ascii"), max_num_fields=FIELDS))
    except ValueError:
        raise RequestError(400, "expected the fields of a form") from None


def visitor(request: Request) -> Visitor:
    """Return the visitor that asks."""
    return cast("Visitor", request.state.visitor)


def shows_pages(request: Request) -> bool:
    """Tell whether a person reads the answer: browsers ask for HTML by name, programs do not."""
    return "text/html" in request.headers.get("accept", "")


def see_other(path: str) -> RedirectResponse:
    """Send a browser to a page, after it changed something."""
    return RedirectResponse(path, status_code=303, headers=FRESH)


def plain(code: int, words: str) -> Response:
    """Answer with a line of text."""
    text = f"{words}\n".encode("utf-8", "replace")
    return Response(text, status_code=code, media_type="text/plain", headers=FRESH)
