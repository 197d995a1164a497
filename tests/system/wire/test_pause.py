"""A pause of this process itself, for which a thread has to sleep."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress

from qmpmem.errors import GuestUnreachable
from qmpmem.wire.qmp import Deadlines, connect
from tests.rig.fakeguest import FakeGuest, connect_point
from tests.rig.qemu import short_directory


async def test_an_answer_that_comes_with_the_deadline_is_not_waited_for_afterwards() -> None:
    """Row F52: after a pause of our own, answer and deadline come in the same turn of the loop."""
    with short_directory() as run:
        guest = _Pausing("a")
        server = await connect_point(run, guest)
        deadlines = Deadlines(query=0.2, probe=0.2)
        path = str(run / "a" / "qmp.sock")
        async with connect(path, guest="a", deadlines=deadlines) as session:
            guest.pause = 0.3
            with suppress(GuestUnreachable):
                await session.query("query-balloon")
            guest.pause = 0.0
            assert await session.query("query-balloon") == {"actual": guest.actual}
        server.close()


class _Pausing(FakeGuest):
    """A guest that answers, and then nothing runs in this process for a while."""

    pause = 0.0

    def reply(self, command: str, words: Mapping[str, object]) -> Mapping[str, object]:
        if self.pause:
            asyncio.get_running_loop().call_soon(time.sleep, self.pause)
        return super().reply(command, words)
