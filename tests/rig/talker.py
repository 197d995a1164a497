"""A client of a shared QMP session, which speaks it as plainly as a script does."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from tests.rig.command import PROGRAM, plain_environment
from tests.rig.patience import patient


class Talker:
    """A client that is connected.

    Attributes:
        greeting: what it was greeted with.
        events: the names of the events that came before an answer.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.greeting: Any = None
        self.events: list[str] = []

    async def read(self) -> Any:  # noqa: ANN401 - JSON
        async with asyncio.timeout(patient(20)):
            line = await self.reader.readline()
        return json.loads(line) if line else None

    async def run(self, command: str, identity: object = None, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        """Run a command, and return its answer."""
        self.send(command, identity, **arguments)
        return await self.answer()

    def send(self, command: str, identity: object = None, **arguments: object) -> None:
        message: dict[str, object] = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        if identity is not None:
            message["id"] = identity
        self.writer.write(json.dumps(message).encode() + b"\n")

    async def answer(self) -> Any:  # noqa: ANN401 - JSON
        while (message := await self.read()) is not None:
            if "event" not in message:
                return message
            self.events.append(message["event"])
        return None

    async def event(self, name: str) -> Any:  # noqa: ANN401 - JSON
        while (message := await self.read()) is not None:
            if message.get("event") == name:
                return message
        raise AssertionError(f"the session ended without {name}")


@asynccontextmanager
async def talking(path: Path, *, negotiates: bool = True) -> AsyncIterator[Talker]:
    """Connect to a shared session."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=16 << 20)
    talker = Talker(reader, writer)
    try:
        talker.greeting = await talker.read()
        if negotiates:
            assert await talker.run("qmp_capabilities") == {"return": {}}
        yield talker
    finally:
        writer.transport.abort()


@contextmanager
def listening(
    run: Path, guest: str, *options: str, before: Sequence[str] = ()
) -> Iterator[tuple[Path, "subprocess.Popen[str]"]]:
    """Run `qmpmem qmp GUEST --listen`, and yield the path of its socket."""
    environment = plain_environment() | {"QMPMEM_RUN_DIR": str(run)}
    words = ["setpriv", "--pdeathsig", "KILL", *before, str(PROGRAM), "qmp", guest, "--listen"]
    with subprocess.Popen(
        [*words, *options], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stderr is not None
        line = child.stdout.readline().strip()
        try:
            assert line, child.stderr.read()
            yield Path(line), child
        finally:
            child.terminate()
            try:
                child.wait(timeout=patient(20))
            finally:
                child.kill()
