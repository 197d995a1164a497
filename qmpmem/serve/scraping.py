"""Metrics for scrapers: what the agent wrote, asked for once in a round and form."""

from starlette.requests import Request
from starlette.responses import Response

from qmpmem.control import asking
from qmpmem.control.client import Client
from qmpmem.errors import QmpmemError
from qmpmem.metrics import offer, text
from qmpmem.metrics.offer import Form
from qmpmem.serve.hub import Hub
from qmpmem.serve.once import Once
from qmpmem.serve.requests import FRESH


class Metrics:
    """Answers scrapers.

    Args:
        hub: knows of each round.
        client: the agent's address.
    """

    def __init__(self, hub: Hub, client: Client) -> None:
        self._client = client
        self._texts = Once(lambda: hub.version, self._scrape)

    async def answer(self, request: Request) -> Response:
        """Answer one; where no agent does, that is what there is to say."""
        headers = request.headers
        form = offer.form(headers.get("accept", ""), headers.get("accept-encoding", ""))
        try:
            content = await self._texts.get(form)
        except QmpmemError:
            form = Form(media=form.media, packed=False)
            write = text.open_metrics if form.media == offer.OPEN else text.plain
            content = write(text.down())
        return Response(content, headers={**form.headers, **FRESH})

    async def _scrape(self, form: Form) -> bytes:
        return await asking.scrape(self._client, form.media, "gzip" if form.packed else "identity")
