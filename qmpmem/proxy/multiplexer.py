"""The sessions of all clients around the one session with the guest.

Rules of this file:
    Pure: messages in, messages out; no I/O, no clock, no chance.
    A client gets the answers to its own commands, in its order, with its ids; no other's. What one
    client sends, or does not read, changes nothing for another but the order of their turns.

Theory of operation:
    One command of all clients is with QEMU at a time. QEMU carries out one at a time anyway, and
    reads no further while eight wait (monitor/qmp.c: QMP_REQ_QUEUE_LEN_MAX), so more would hold up
    the commands of the agent, which shares the connection. Users take turns, one command each, and
    so do the clients of one user.

    A client's next message is looked at only when the one before is answered, and when its answers
    have been read: until then it stays where it is, and a client that sends much and reads nothing
    stops itself. Events come unasked, so they are what fills a queue: a client with more than
    `client.QUEUE` bytes waiting is dropped at the next event.

    What is answered here costs QEMU nothing, so nothing of QEMU's holds up a client that sends
    100,000 messages to be refused. Of those `TURN` are looked at, then others have their turn:
    the client is behind until `go_on` has looked at the rest.

    What QEMU works on for a client that has gone is not taken back: its answer is awaited, and
    dropped. What it has not been sent yet, it is not sent.
"""

from typing import Final, cast

import msgspec

from qmpmem.proxy import requests
from qmpmem.proxy.client import UNREAD, Client
from qmpmem.proxy.framing import TooLongError
from qmpmem.proxy.requests import Command
from qmpmem.proxy.turns import Turns
from qmpmem.records import Record

TURN: Final = 32
"""Messages of a client that are looked at before anything else is done: each takes some 15 us."""
TURN_BYTES: Final = 64 * 1024
"""Bytes of a client's messages that are looked at before anything else is done; the last message
may go beyond."""

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Request(Record, frozen=True):
    """What is to be sent to QEMU."""

    line: bytes
    command: str
    client: Client


class Multiplexer:
    """All clients of one guest.

    Args:
        greeting: what QEMU said of itself: the value of its greeting's ``QMP``.
        first: the first id to give to QEMU; others than those of the session before.
    """

    def __init__(self, greeting: object, first: int) -> None:
        known = cast("dict[str, object]", greeting) if isinstance(greeting, dict) else {}
        version = known.get("version")
        shown: object = {"QMP": {"version": version, "capabilities": []}}
        self._greeting = msgspec.json.encode(shown) + b"\r\n"
        self._next = first
        self._ready = Turns[Client](lambda client: client.user)
        self._in_flight: tuple[int, Client, Command] | None = None
        self._touched: dict[Client, None] = {}
        self._clients: dict[Client, None] = {}
        self._behind: dict[Client, None] = {}

    @property
    def clients(self) -> int:
        """Count the clients."""
        return len(self._clients)

    @property
    def served(self) -> Client | None:
        """Return the client that QEMU has a command of."""
        return None if self._in_flight is None else self._in_flight[1]

    def attach(self, client: Client) -> None:
        """Begin a session: greet the client."""
        self._clients[client] = None
        client.is_greeted = True
        client.put(self._greeting)
        self._touched[client] = None
        self._advance(client)
        client.count()

    def detach(self, client: Client) -> None:
        """End a session, whatever it was in the middle of."""
        self._clients.pop(client, None)
        self._touched.pop(client, None)
        self._behind.pop(client, None)
        self._ready.leave(client)
        client.forget()

    def receive(self, client: Client, data: bytes, *, is_late: bool = False) -> None:
        """Take in what a client sent; one that is behind, or not greeted yet, waits for its turn.

        Args:
            client: that client.
            data: what it sent.
            is_late: whether they have to wait.
        """
        client.framer.feed(data)
        if client.is_greeted and not client.is_behind:
            self._advance_or_wait(client, is_late=is_late)
        client.count()

    def take_output(self, client: Client) -> bytes:
        """Return what waits to be written to a client."""
        content = b"".join(client.output)
        client.output.clear()
        client.waiting = 0
        if client.is_behind and client in self._clients:
            self._behind[client] = None
        return content

    @property
    def behind(self) -> list[Client]:
        """Return the clients for which `go_on` has something to do, in the order of their turns."""
        return list(self._behind)

    @property
    def is_behind(self) -> bool:
        """Tell whether there is one."""
        return bool(self._behind)

    def go_on(self, client: Client) -> None:
        """Have a client that is behind take a turn."""
        if client not in self._behind:
            return
        del self._behind[client]
        self._touched[client] = None
        self._advance(client)
        client.count()

    def take_touched(self) -> list[Client]:
        """Return the clients that have something to be written, or have ended."""
        touched = list(self._touched)
        self._touched.clear()
        return touched

    def take_request(self) -> Request | None:
        """Return what is to be sent to QEMU now; None: nothing."""
        if self._in_flight is not None or not self._ready:
            return None
        client = self._ready.take()
        command = client.pending
        if command is None:
            raise RuntimeError("a client takes a turn without a command")
        identity, self._next = self._next, self._next + 1
        self._in_flight = (identity, client, command)
        line = requests.encode(command, identity)
        return Request(line=line, command=command.name, client=client)

    def take_answer(self, line: bytes, *, is_late: bool = False) -> bool:
        """Take in a line from QEMU where it answers a client's command; whether it does.

        An error without an id is one, too: QEMU did not understand a request, and those of the
        agent have a form that every QEMU understands.
        """
        if self._in_flight is None:
            return False
        try:
            fields = _FIELDS.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        identity, client, command = self._in_flight
        given = fields.get("id")
        is_blind = given is None and "error" in fields
        if "event" in fields or not (is_blind or _is_number(given, identity)):
            return False
        self._in_flight = None
        if client in self._clients:
            if "error" in fields:
                answer = requests.failure(bytes(fields["error"]), command.identity)
            else:
                value = bytes(fields.get("return", b"null"))
                answer = requests.success(value, command.identity)
            client.put(answer)
            client.pending = None
            self._touched[client] = None
            self._advance_or_wait(client, is_late=is_late)
            client.count()
        return True

    def take_event(self, line: bytes) -> None:
        """Take in a line from QEMU, and pass it on to every client where it is an event."""
        try:
            fields = _FIELDS.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if "event" not in fields:
            return
        for client in self._clients:
            client.put_event(line)
            self._touched[client] = None

    def _advance_or_wait(self, client: Client, *, is_late: bool) -> None:
        if is_late and client.framer and client.ending is None:
            client.is_behind = True
            self._behind[client] = None
        else:
            self._advance(client)

    def _advance(self, client: Client) -> None:
        """Look at a client's messages up to the first that QEMU has to answer, and `TURN` of them.

        One that leaves too much unread is behind as well, and goes on when it has read that.
        """
        looked, size = 0, len(client.framer)
        client.is_behind = False
        while not client.is_busy and client.ending is None:
            is_unread = client.waiting > UNREAD
            if is_unread or looked >= TURN or size - len(client.framer) >= TURN_BYTES:
                client.is_behind = True
                if not is_unread:
                    self._behind[client] = None
                return
            looked += 1
            try:
                message = client.framer.take()
            except TooLongError:
                text = f"QMP input: a message of over {client.longest} bytes"
                client.put(requests.refusal(text).line)
                client.ending = "flush"
                self._touched[client] = None
                return
            if message is None:
                return
            self._take(client, message)

    def _take(self, client: Client, message: bytes) -> None:
        judged = requests.judge(
            message,
            negotiated=client.negotiated,
            permit=client.permit,
        )
        if isinstance(judged, Command):
            client.pending = judged
            self._ready.join(client)
            return
        client.negotiated = client.negotiated or judged.negotiates
        client.put(judged.line)
        self._touched[client] = None


def _is_number(value: msgspec.Raw | None, number: int) -> bool:
    return value is not None and bytes(value) == str(number).encode()
