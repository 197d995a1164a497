"""The page, served in this process to an agent whose rounds are made up; asked by bytes."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from qmpmem.api.client import Client
from qmpmem.serve import server, static_files
from tests.rig.logs import log_to
from tests.rig.patience import patient

TOKEN: Final = "a-token-for-the-tests"


static_files.mark()  # reads files, which the program does before it has an event loop


class Answer(NamedTuple):
    """What the page answers."""

    code: int
    headers: Mapping[str, str]
    body: str


class Served:
    """Asks the page that listens on a port."""

    def __init__(self, port: int, lines: list[str]) -> None:
        self.port = port
        self.lines = lines

    async def ask(
        self, method: str, path: str, *, form: str | None = None, **headers: str
    ) -> Answer:
        """Ask as a browser does that shows one of our pages, with these headers besides."""
        known = {"host": f"localhost:{self.port}"}
        if form is not None:
            known |= {
                "origin": f"http://localhost:{self.port}",
                "content-type": "application/x-www-form-urlencoded",
                "content-length": str(len(form)),
            }
        known |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in known.items())
        return parsed(
            await self.talk(f"{method} {path} HTTP/1.1\r\n{head}\r\n{form or ''}".encode())
        )

    async def talk(self, content: bytes, *, seconds: float = 10.0) -> bytes:
        """Send bytes, and take what comes until the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(patient(seconds)):
                writer.write(content)
                received = b""
                try:
                    while piece := await reader.read(65536):
                        received += piece
                except ConnectionError:
                    pass
                return received
        finally:
            writer.close()


def parsed(content: bytes) -> Answer:
    """Take an answer apart."""
    head, _, body = content.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Answer(int(first.split(" ")[1]), headers, body)


@asynccontextmanager
async def served(
    client: Client,
    *,
    token: str | None = TOKEN,
    port: int = 0,
    journal: Path = Path("/proc/none"),
    hosts: frozenset[str] = frozenset(),
) -> AsyncIterator[Served]:
    """Serve the page at a port, a free one by default, with what this agent says."""
    options = server.Options(
        listen=None,
        unix=None,
        token=token,
        hosts=hosts,
        host="vmhost3",
        run=Path("/proc/none"),
        journal=journal,
    )
    lines: list[str] = []
    with server.tcp("127.0.0.1", port) as listener:
        async with server.serving(options, client, log_to(lines), [listener]) as following:
            yield Served(listener.getsockname()[1], lines)
            if following.done():
                following.result()  # what ended it
