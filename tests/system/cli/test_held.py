"""A guest whose monitor an agent took just now: the command asks that agent, once."""

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from qmpmem.api import async_client
from qmpmem.api.addresses import admin_path
from qmpmem.api.client import Client
from qmpmem.api.sockets import Listeners
from qmpmem.cli import show_guests
from qmpmem.cli.set_progress import SetRequest, move
from qmpmem.errors import GuestUnreachable
from qmpmem.guests import access
from qmpmem.model.halts import Standing
from qmpmem.units import MIB, parse_change
from tests.rig.agent import Office, own_listener
from tests.rig.fakeguest import register
from tests.rig.patience import patient
from tests.rig.qemu import short_directory


@pytest.fixture(autouse=True)
def no_blocking_calls(blockbuster: BlockBuster) -> None:
    """Let a command block: no other task is on its loop."""
    blockbuster.deactivate()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run directory with guest g, which is this process."""
    with short_directory() as directory:
        monkeypatch.setenv("QMPMEM_RUN_DIR", str(directory))
        (directory / "g").mkdir()
        register(directory, "g", os.getpid())
        yield directory


@pytest.fixture
def monitor(run: Path) -> Iterator[socket.socket]:
    """The guest's monitor, which another client holds."""
    path = str(run / "g/qmp.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as holder:
        listener.bind(path)
        listener.listen()
        holder.connect(path)
        with listener.accept()[0]:
            yield listener


@contextmanager
def agent(run: Path, *guests: str) -> Iterator[Path]:
    """Have an agent answer on a loop of its own, at a socket where no command looks for it."""
    begun = threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def work(listeners: Listeners) -> None:
        office = Office(run)
        for guest in guests:
            office.add(guest, 300)
        office.round()
        async with office.open(listeners):
            begun.set()
            await over.wait()

    with own_listener(run) as listeners:
        thread = threading.Thread(target=lambda: loop.run_until_complete(work(listeners)))
        thread.start()
        try:
            assert begun.wait(patient(10))
            yield run / "a.sock"
        finally:
            loop.call_soon_threadsafe(over.set)
            thread.join()
            loop.close()


def place(run: Path) -> Path:
    """Return the path at which an agent of this run directory listens, in a directory."""
    (run / ".agent").mkdir()
    return access.agent_socket(run)


def put_in_place(path: Path, run: Path) -> None:
    """Have the agent's sockets where the agent of this run directory is looked for."""
    path.rename(at := place(run))
    admin_path(path).rename(admin_path(at))


def open_when_asked(monitor: socket.socket, then: Callable[[], object]) -> int:
    """Get at guest g; `then` is called when its monitor is connected to."""

    async def scene() -> int:
        loop = asyncio.get_running_loop()

        def notice() -> None:
            loop.remove_reader(monitor)
            then()

        # On the command's own loop: that is before it can have lost patience with the monitor.
        loop.add_reader(monitor, notice)
        async with show_guests.open_guest("g") as guest:
            return await guest.actual()

    return asyncio.run(scene())


def test_an_agent_that_took_the_monitor_meanwhile_is_asked(
    run: Path, monitor: socket.socket
) -> None:
    with agent(run, "g") as path:
        found = open_when_asked(monitor, lambda: path.rename(place(run)))
    assert found == 300 * MIB


def test_an_agent_that_does_not_know_the_guest_is_not_its_holder(
    run: Path, monitor: socket.socket
) -> None:
    with agent(run) as path, pytest.raises(GuestUnreachable, match="holds the monitor") as caught:
        open_when_asked(monitor, lambda: path.rename(place(run)))
    assert caught.value.reason == "taken"


def test_an_agent_that_did_not_answer_is_not_asked_twice(run: Path, monitor: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(place(run)))
        hung.listen()
        with pytest.raises(GuestUnreachable, match="holds the monitor"):
            open_when_asked(monitor, lambda: None)
        hung.setblocking(False)  # noqa: FBT003 - its name says what it is
        hung.accept()[0].close()
        with pytest.raises(BlockingIOError):
            hung.accept()


def test_set_asks_the_agent_twice(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once for the guest of that name, and once to move it: the agent works the change out."""
    asked = []
    ask = async_client.ask

    async def note(client: Client, question: bytes, kind: type[object], **more: float) -> object:
        asked.append(question.split()[:2])
        return await ask(client, question, kind, **more)

    monkeypatch.setattr(async_client, "ask", note)
    request = SetRequest(
        change=parse_change("+100M"), waits=False, timeout=1, force=False, dry_run=False, json=False
    )

    async def move_it() -> None:
        async with show_guests.open_guest("g") as guest:
            await move(guest, request, terminal=False)

    with agent(run, "g") as path:
        put_in_place(path, run)
        asyncio.run(move_it())
    assert asked == [[b"GET", b"/v1/guests/g"], [b"PUT", b"/v1/guests/g/pin"]]
    assert "pinned to 400 MiB" in capsys.readouterr().out


def test_a_change_that_is_only_tried_ends_no_pin(run: Path) -> None:
    async def scene() -> tuple[Standing, Standing]:
        async with show_guests.open_guest("g") as guest:
            await guest.resize(parse_change("+100M"))
            tried = await guest.resize(parse_change("+80M"), dry_run=True)
            return tried.standing, await guest.standing()

    with agent(run, "g") as path:
        put_in_place(path, run)
        tried, after = asyncio.run(scene())
    assert (tried.pinned, after.pinned) == (False, True)
