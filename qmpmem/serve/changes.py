"""What a visitor may change, passed on to the agent with the visitor's name.

Rules of this file:
    The agent decides, by the rights of this process; what it refuses is told as it says it.
"""

from typing import Final

from qmpmem.api import async_client
from qmpmem.api.client import Client
from qmpmem.api.messages import question, quoted
from qmpmem.api.records import HoldResult, PinRequest, PinResult, Why
from qmpmem.serve.host_page import HostPage, Row
from qmpmem.units import Bytes, format_size

LONGEST: Final = 64
"""Characters of a size that are read."""


class AgentChanges:
    """Asks the agent.

    Args:
        client: the agent's address.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def why(self, guest: str) -> Why:
        """Ask why a guest has what it has."""
        return await async_client.get(self._client, f"guests/{quoted(guest)}/why", Why)

    async def hold(self, visitor: str, *, on: bool) -> None:
        """Have the agent take nothing from guests, or go on."""
        asked = question("PUT" if on else "DELETE", "hold", behalf=visitor)
        await async_client.ask(self._client, asked, HoldResult)

    async def pin(self, row: Row, text: str, visitor: str, *, dry_run: bool = False) -> PinResult:
        """Keep a guest at a size, or say what would come of it.

        Args:
            row: the guest.
            text: what the visitor wrote, as `qmpmem set` takes it.
            visitor: on whose behalf the agent is asked.
            dry_run: change nothing.

        Raises:
            QmpmemError: as the agent says.
        """
        request = PinRequest(size=text[:LONGEST])
        path = f"guests/{quoted(row.id)}/pin{'?dry_run=true' if dry_run else ''}"
        return await async_client.ask(
            self._client, question("PUT", path, request, behalf=visitor), PinResult
        )

    async def unpin(self, row: Row, visitor: str) -> None:
        """Let the agent move a guest again."""
        asked = question("DELETE", f"guests/{quoted(row.id)}/pin", behalf=visitor)
        await async_client.ask(self._client, asked, PinResult)


def consequence(done: PinResult, row: Row, shown: HostPage) -> str:
    """Write in a sentence what a size means for the guest and the host."""
    size, actual = done.size or Bytes(0), done.actual or Bytes(0)
    words = f"{row.name} goes from {format_size(actual)} to {format_size(size)}"
    less = actual - size
    if less > 0:
        words += f": the host gets {format_size(Bytes(less))}"
    elif less < 0:
        words += f": it takes {format_size(Bytes(-less))} of the host"
    words += _of_the_host(less, shown)
    return f"{words}. The agent leaves it alone, though: {done.exempt}" if done.exempt else words


def _of_the_host(less: int, shown: HostPage) -> str:
    if shown.available is None or shown.reserve is None:
        return ""
    after = shown.available + less
    if after < shown.reserve:
        return f", which then has {format_size(Bytes(after))}, less than its reserve"
    return f", which then has {format_size(Bytes(after))} available"
