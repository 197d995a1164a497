"""What a request carries, of the agent's API and of the page: so much, and within so long."""

import asyncio

from starlette.requests import Request

from qmpmem.api.bounded_connection import ARRIVAL


class RequestError(Exception):
    """A request that is not answered as it asks.

    Attributes:
        code: the status.
        message: what is odd.
        hint: what to do about it.
    """

    def __init__(self, code: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


async def read(request: Request, most: int) -> bytes:
    """Read the body of a request.

    Args:
        request: as it came.
        most: bytes that it may have. One that announces more is not read at all.

    Raises:
        OddError: it is too large, or does not arrive in time.
    """
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > most:
        raise RequestError(413, f"expected {most} bytes at most")
    content = b""
    try:
        async with asyncio.timeout(ARRIVAL):
            async for piece in request.stream():
                content += piece
                if len(content) > most:
                    raise RequestError(413, f"expected {most} bytes at most")
    except TimeoutError:
        raise RequestError(408, f"expected all of it within {ARRIVAL:g} s") from None
    return content
