"""What a visitor may change, passed on to the agent with the visitor's name.

Rules of this file:
    The agent decides, by the rights of this process; what it refuses is told as it says it.
"""

from typing import Final

from qmpmem.control import asking
from qmpmem.control.client import Client
from qmpmem.control.message import question, quoted
from qmpmem.control.records import Held, Pinned, Why, Wish
from qmpmem.errors import ConfigError
from qmpmem.serve.board import Board, Row
from qmpmem.units import Bytes, format_size, parse_change, resolve

LONGEST: Final = 64
"""Characters of a size."""


class Changes:
    """Asks the agent.

    Args:
        client: the agent's address.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def why(self, guest: str) -> Why:
        """Ask why a guest has what it has."""
        return await asking.get(self._client, f"guests/{quoted(guest)}/why", Why)

    async def hold(self, visitor: str, *, on: bool) -> None:
        """Have the agent take nothing from guests, or go on."""
        asked = question("PUT" if on else "DELETE", "hold", behalf=visitor)
        await asking.ask(self._client, asked, Held)

    async def pin(self, row: Row, text: str, visitor: str, *, dry_run: bool = False) -> Pinned:
        """Keep a guest at a size, or say what would come of it.

        Raises:
            ConfigError: no size, or one that the guest cannot have.
            QmpmemError: as the agent says.
        """
        wish = Wish(size=target(row, text))
        path = f"guests/{quoted(row.id)}/pin{'?dry_run=true' if dry_run else ''}"
        return await asking.ask(self._client, question("PUT", path, wish, behalf=visitor), Pinned)

    async def unpin(self, row: Row, visitor: str) -> None:
        """Let the agent move a guest again."""
        asked = question("DELETE", f"guests/{quoted(row.id)}/pin", behalf=visitor)
        await asking.ask(self._client, asked, Pinned)


def target(row: Row, text: str) -> Bytes:
    """Return the size that is meant.

    Raises:
        ConfigError: none is.
    """
    change = parse_change(text[:LONGEST])
    if row.actual is None or row.maximum is None:
        raise ConfigError(f"guest {row.name}: its size is not known")
    return resolve(change, actual=row.actual, maximum=row.maximum)


def consequence(done: Pinned, row: Row, shown: Board) -> str:
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


def _of_the_host(less: int, shown: Board) -> str:
    if shown.available is None or shown.reserve is None:
        return ""
    after = shown.available + less
    if after < shown.reserve:
        return f", which then has {format_size(Bytes(after))}, less than its reserve"
    return f", which then has {format_size(Bytes(after))} available"
