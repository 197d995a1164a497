"""Requests that are refused before anything is looked up: no page of ours makes them. Pure.

Theory of operation:
    A browser that visits another site can be made to send requests here: by a form or an image of
    that site, or under a name of that site's that leads to 127.0.0.1 (DNS rebinding). The first are
    told by Sec-Fetch-Site and Origin, which no page can forge (Fetch, "Sec-Fetch-Site header"), the
    last by Host: only names that are ours count. Programs send neither of the first two; what they
    change, they ask for with the token itself.
"""

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from qmpmem.records import Record

HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

POLICY: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'"
)
"""No inline script or style, nothing from anywhere else (Content Security Policy 3)."""

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
"""The headers of every answer."""


class CheckedRequest(Record, frozen=True):
    """What of a request is looked at. Headers by names in small letters, each once or more."""

    method: str
    target: str
    """The target of the request as it was sent: a path, and no address."""
    headers: Mapping[str, Sequence[str]]


class Refusal(Record, frozen=True):
    """Why a request is not answered as it asks."""

    code: int
    words: str


def refusal(asked: CheckedRequest, hosts: frozenset[str] = HOSTS) -> Refusal | None:
    """Return why a request is refused; None: it is not.

    Args:
        asked: the request.
        hosts: the names under which this server is known, without a port.
    """
    if not asked.target.startswith("/") or asked.target.startswith("//"):
        return Refusal(code=400, words="expected a path, not an address")
    names = asked.headers.get("host", ())
    if len(names) != 1:
        return Refusal(code=400, words="expected one Host")
    if _without_port(names[0]) not in hosts:
        known = ", ".join(sorted(hosts))
        return Refusal(code=421, words=f"host {names[0]!r:.60}: expected {known}")
    if {"transfer-encoding", "content-length"} <= asked.headers.keys():
        return Refusal(code=400, words="Transfer-Encoding and Content-Length contradict each other")
    if asked.method in ("GET", "HEAD"):
        return _reading(asked)
    return _changing(asked, names[0])


def _reading(asked: CheckedRequest) -> Refusal | None:
    """Let other sites link to a page, and nothing else."""
    site = _first(asked, "sec-fetch-site")
    is_visit = _first(asked, "sec-fetch-mode") == "navigate"
    is_visit &= _first(asked, "sec-fetch-dest") in ("document", None)
    if site in ("same-origin", "none", None) or is_visit:
        return None
    return Refusal(code=403, words="asked for by a page of another site")


def _changing(asked: CheckedRequest, host: str) -> Refusal | None:
    site, origin = _first(asked, "sec-fetch-site"), _first(asked, "origin")
    if site not in ("same-origin", None):
        return Refusal(code=403, words="asked for by a page of another site")
    if origin is not None:
        if _is_ours(origin, host):
            return None
        return Refusal(code=403, words="asked for by a page of another origin")
    if site is None and has_token(asked):
        return None  # no browser
    return Refusal(code=403, words="expected Origin, or Authorization: Bearer")


def has_token(asked: CheckedRequest) -> bool:
    """Tell whether a request says that it has the token."""
    return (_first(asked, "authorization") or "").lower().startswith("bearer ")


def _is_ours(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _first(asked: CheckedRequest, name: str) -> str | None:
    values = asked.headers.get(name, ())
    return values[0] if values else None


def _without_port(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdecimal() else host.lower()
