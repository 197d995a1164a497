"""Which form of the metrics a scraper takes, by the headers of its request. Pure.

Source: RFC 9110, 12.5.1 (Accept), 12.5.3 (Accept-Encoding); Prometheus asks for OpenMetrics first.
"""

from collections.abc import Iterator
from typing import Final

from qmpmem.records import Record

PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"
OPEN: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

LONGEST: Final = 1024
"""Characters of a header that are read; the rest of a longer one is not."""


class Form(Record, frozen=True):
    """How the metrics are written."""

    media: str
    packed: bool
    """Whether the metrics are compressed by gzip."""

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of an answer in this form."""
        packed = {"Content-Encoding": "gzip"} if self.packed else {}
        return {"Content-Type": self.media, "Vary": "Accept, Accept-Encoding", **packed}


def form(accept: str, encoding: str) -> Form:
    """Choose a form.

    Args:
        accept: the header Accept. An empty one asks for anything.
        encoding: the header Accept-Encoding. An empty one takes no compression.
    """
    wants = dict(_weighed(accept))
    modern = wants.get("application/openmetrics-text", 0.0)
    known = max(wants.get(each, 0.0) for each in ("text/plain", "text/*", "*/*"))
    packings = dict(_weighed(encoding))
    return Form(
        media=OPEN if modern > 0 and modern >= known else PLAIN,
        packed=packings.get("gzip", packings.get("*", 0.0)) > 0,
    )


def _weighed(header: str) -> Iterator[tuple[str, float]]:
    """Take a list with weights apart; the highest of one name comes last."""
    found: list[tuple[float, str]] = []
    for each in header[:LONGEST].split(","):
        name, *parameters = (part.strip().lower() for part in each.split(";"))
        weights = [part[2:] for part in parameters if part.startswith("q=")]
        try:
            weight = float(weights[0]) if weights else 1.0
        except ValueError:
            weight = 0.0
        found.append((weight, name))
    yield from ((name, weight) for weight, name in sorted(found))
