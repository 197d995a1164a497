"""What `qmpmem script` is measured by: the least that does the same, and nothing else.

    bare.py COUNT SOCKET...     COUNT balloon commands to each socket, all sockets at once

No deadlines, no limits, no checks, no results: only asyncio and json.
"""

import asyncio
import json
import sys
from typing import Final

TARGETS: Final = (200 << 20, 210 << 20)


async def main(count: int, sockets: list[str]) -> None:
    """Change all guests, one after the other in each."""
    await asyncio.gather(*(change(socket, count) for socket in sockets))


async def change(socket: str, count: int) -> None:
    """Change one guest many times over one connection, each change answered before the next."""
    reader, writer = await asyncio.open_unix_connection(socket)
    await reader.readline()
    await execute(reader, writer, {"execute": "qmp_capabilities", "id": -1})
    for number in range(count):
        arguments = {"value": TARGETS[number % 2]}
        request = {"execute": "balloon", "arguments": arguments, "id": number}
        await execute(reader, writer, request)
    writer.close()
    await writer.wait_closed()


async def execute(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: dict[str, object]
) -> None:
    """Send a request and read on until it is answered."""
    writer.write(json.dumps(request).encode() + b"\n")
    while True:
        answer = json.loads(await reader.readline())
        if answer.get("id") == request["id"]:
            assert "return" in answer, answer
            return


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
