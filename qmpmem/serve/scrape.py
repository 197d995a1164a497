"""Metrics for scrapers: what the agent wrote, asked for once in a round and form."""

from starlette.requests import Request
from starlette.responses import Response

from qmpmem.api import async_client
from qmpmem.api.client import Client
from qmpmem.errors import QmpmemError
from qmpmem.metrics import content_type, text
from qmpmem.metrics.content_type import Form
from qmpmem.serve.agent_follower import AgentFollower
from qmpmem.serve.once_per_round import OncePerRound
from qmpmem.serve.requests import FRESH


class Metrics:
    """Answers scrapers.

    Args:
        follower: knows of each round.
        client: the agent's address.
    """

    def __init__(self, follower: AgentFollower, client: Client) -> None:
        self._client = client
        self._texts = OncePerRound(lambda: follower.version, self._scrape)

    async def answer(self, request: Request) -> Response:
        """Answer one; where no agent does, that is what there is to say."""
        headers = request.headers
        form = content_type.form(headers.get("accept", ""), headers.get("accept-encoding", ""))
        try:
            content = await self._texts.get(form)
        except QmpmemError:
            form = Form(media=form.media, packed=False)
            write = text.open_metrics if form.media == content_type.OPEN else text.plain
            content = write(text.down())
        return Response(content, headers={**form.headers, **FRESH})

    async def _scrape(self, form: Form) -> bytes:
        return await async_client.scrape(
            self._client, form.media, "gzip" if form.packed else "identity"
        )
