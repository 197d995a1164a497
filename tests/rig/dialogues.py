"""QMP dialogues that were recorded with a real guest, and the questions that were asked in them.

    python -m tests.rig.dialogues    boots a guest, and writes tests/data/dialogues.txt anew

Theory of operation:
    A dialogue is what the program asks in one of `TALKS`, and what QEMU said meanwhile. The client
    was connected to a relay, which wrote down each line in its order. The two characters that
    begin all ids of a client are left out, so the first request has the id "1".
"""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from qmpmem.errors import GuestRefused
from qmpmem.guests import read_guest
from qmpmem.model import sanitise
from qmpmem.model.guest import BalloonDevice, GuestDevices
from qmpmem.units import MIB, Bytes
from qmpmem.wire import commands, guest_devices
from qmpmem.wire.channel import Channel
from qmpmem.wire.qmp import connect
from tests.rig.guests import boot
from tests.rig.qemu import BALLOON, short_directory

FILE: Final = Path(__file__).parents[1] / "data" / "dialogues.txt"
DEVICE: Final = BalloonDevice(driver="virtio-balloon-pci", path="/machine/peripheral/qmpmem0")
DISK: Final = ("-drive", "file=null-co://,if=virtio,format=raw")
QUIET: Final = 1.5
"""Seconds that are waited for events while a dialogue is recorded."""
MOST: Final = Bytes(256 * MIB)

Step = Callable[[Channel], Awaitable[object]]


async def _size(channel: Channel) -> object:
    claimed = await commands.balloon_actual(channel)
    actual = sanitise.balloon_actual(claimed, MOST)
    return sanitise.balloon_problem(claimed, actual, "running")


async def _statistics(channel: Channel) -> object:
    raw = await commands.guest_stats(channel, DEVICE)
    return sanitise.guest_stats(raw.stats, raw.last_update, maximum=MOST, now=time.time())


async def _poll(channel: Channel) -> object:
    await commands.set_polling_interval(channel, DEVICE, 1)
    return None


async def _shrink(channel: Channel) -> object:
    await commands.set_balloon(channel, Bytes(128 * MIB))
    return None


async def _given(channel: Channel) -> object:
    return await read_guest.given(channel, GuestDevices())


TALKS: Final[Mapping[str, Sequence[Step]]] = {
    "size": (commands.run_state, _size, _given),
    "balloon": (commands.find_balloon,),
    "statistics": (
        lambda channel: commands.polling_interval(channel, DEVICE),
        _poll,
        _statistics,
    ),
    "change": (_shrink, _size, commands.run_state),
    "machine": (commands.machine_type, commands.kvm_enabled, commands.memory_devices),
    "surroundings": (guest_devices.look,),
    "disks": (commands.disks,),
    "refused": (
        lambda channel: channel.query("qom-get", {"path": "/machine", "property": "no-such"}),
        lambda channel: channel.query("no-such-command"),
    ),
    "reset": (lambda channel: channel.change("system_reset"), _size),
    "stop": (lambda channel: channel.change("stop"), lambda channel: channel.change("cont")),
}
"""What the program asks QEMU for; and two that people ask, for the events that follow."""


class Dialogue(NamedTuple):
    """What was said."""

    name: str
    pieces: tuple[bytes, ...]
    """What QEMU said at first, and after each of the client's requests."""


def read() -> tuple[Dialogue, ...]:
    """Read all of them."""
    entries = FILE.read_bytes().split(b"\n== ")[1:]
    return tuple(_read(*entry.split(b"\n", 1)) for entry in entries)


def _read(title: bytes, body: bytes) -> Dialogue:
    pieces = [b""]
    for line in body.splitlines():
        if line.startswith(b"> "):
            pieces.append(b"")
        else:
            pieces[-1] += line[2:] + b"\r\n"
    return Dialogue(title.decode(), tuple(pieces))


class _Relay:
    """Stands between a client and QEMU, and writes down what they say."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lines: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, to_qemu = await asyncio.open_unix_connection(str(self._path), limit=1 << 20)
        try:
            async with asyncio.TaskGroup() as group:
                answers = group.create_task(self._pass_on(theirs, writer, b"< "))
                await self._pass_on_requests(reader, to_qemu)
                answers.cancel()
        finally:
            writer.close()
            to_qemu.close()

    async def _pass_on_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while content := await reader.read(4096):  # a request each: the client waits for answers
            self.lines.append(b"> " + content.strip())
            writer.write(content)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mark: bytes
    ) -> None:
        while line := await reader.readline():
            self.lines.append(mark + line.rstrip())
            writer.write(line)


@asynccontextmanager
async def _relayed(path: Path, place: Path) -> AsyncIterator[_Relay]:
    relay = _Relay(path)
    server = await asyncio.start_unix_server(relay.serve, str(place), limit=1 << 20)
    async with server:
        yield relay
    os.unlink(place)  # noqa: PTH108 - no other task of this loop waits


async def _record(path: Path, place: Path, steps: Sequence[Step]) -> list[bytes]:
    async with (
        _relayed(path, place) as relay,
        connect(str(place), guest="g", expect_pid=os.getpid()) as session,
    ):
        for step in steps:
            with suppress(GuestRefused):
                await step(session)
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET):
                async for _ in session.events():
                    pass
    return [re.sub(rb'("id": ?")[^"]{2}', rb"\1", line) for line in relay.lines]


async def _record_all(path: Path, place: Path) -> bytes:
    version = subprocess.run(  # noqa: ASYNC221 - nothing else is to be done meanwhile
        ["qemu-system-x86_64", "--version"], capture_output=True, check=True
    ).stdout.splitlines()[0]
    content = b"# Made by `python -m tests.rig.dialogues`, with " + version + b".\n"
    for name, steps in TALKS.items():
        lines = await _record(path, place, steps)
        content += b"\n".join([b"\n== " + name.encode(), *lines, b""])
    return content


def main() -> None:
    with short_directory() as directory:
        path = directory / "q"
        monitor = ("-qmp", f"unix:{path},server=on,wait=off")
        with boot(extra=[*monitor, *BALLOON, *DISK]) as _:
            FILE.write_bytes(asyncio.run(_record_all(path, directory / "relay")))
    print(FILE, file=sys.stderr)


if __name__ == "__main__":
    main()
