"""No file keeps the agent's event loop waiting, from its start to its stop.

The agent runs in a process that raises where its loop blocks, and measures how late it wakes.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from qmpmem.api.client import Client
from qmpmem.api.records import HoldResult, PinRequest, PinResult, Status
from qmpmem.errors import AgentUnreachable
from qmpmem.units import MIB, Bytes
from tests.rig.command import plain_environment
from tests.rig.patience import patient
from tests.rig.qemu import paused, short_directory, until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[3]
LAG = patient(0.2)
"""Seconds. What hangs here hangs for ever."""


class Watched(NamedTuple):
    process: "subprocess.Popen[bytes]"
    client: Client
    run: Path
    config: Path

    def said(self) -> str:
        return (self.run / ".err").read_text()

    def worst(self) -> float:
        return float((self.run / ".lag").read_text())

    def round(self) -> int:
        return self.client.get("status", Status).number

    def reload(self, expected: str) -> None:
        before = self.said().count(expected)
        self.process.send_signal(signal.SIGHUP)
        until(lambda: self.said().count(expected) > before, seconds=30, what=expected)

    def change(self) -> None:
        request = PinRequest(size=Bytes(200 * MIB))
        assert self.client.ask("PUT", "guests/g/pin", PinResult, request).changed
        assert self.client.ask("DELETE", "guests/g/pin", PinResult).changed
        assert self.client.ask("PUT", "hold", HoldResult).hold
        assert not self.client.ask("DELETE", "hold", HoldResult).hold

    def goes_on(self) -> None:
        """See some rounds more."""
        reached = self.round() + 3
        until(lambda: self.round() >= reached, seconds=30, what="rounds go on")


@contextmanager
def agent(directory: Path, hang: str = "") -> Iterator[Watched]:
    run, config = directory / "run", directory / "qmpmem.toml"
    run.mkdir(exist_ok=True)
    if not config.exists():
        config.write_text('period = "0.2s"\n')
    words = [sys.executable, "-m", "tests.rig.watched", str(run / ".lag"), hang]
    environment = plain_environment() | {"QMPMEM_RUN_DIR": str(run)}
    with (run / ".err").open("w") as err:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *words, "--config", str(config)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=err,
        )
    watched = Watched(process, Client(run / ".agent/agent.sock", patience=patient(5)), run, config)
    try:
        until(lambda: process.poll() is not None or _sees(watched), seconds=60, what="it sees g")
        assert process.poll() is None, watched.said()
        yield watched
        process.terminate()
        assert process.wait(timeout=patient(30)) == 0, watched.said()
    finally:
        process.kill()
        process.wait()
    assert "Blocking" not in watched.said(), watched.said()
    assert "Error" not in watched.said()
    assert watched.worst() < LAG, watched.said()


def _sees(watched: Watched) -> bool:
    try:
        guests = watched.client.get("status", Status).guests
    except AgentUnreachable:
        return False
    return [guest.guest for guest in guests if guest.actual is not None] == ["g"]


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as here, paused(here / "run", "g"):
        yield here


def test_nothing_blocks_from_start_to_stop(directory: Path) -> None:
    with agent(directory) as watched:
        watched.change()
        watched.config.write_text('period = "0.3s"\n')
        watched.reload("changed: period")
        watched.config.write_text("period = nonsense\n")
        watched.reload("the configuration stays as it was")
        watched.goes_on()
    kept = json.loads((directory / "run" / ".agent" / "agent.orders").read_bytes())
    assert not kept.get("pins")
    assert not kept.get("hold")


def test_a_fifo_in_place_of_a_file_is_said_and_not_waited_for(directory: Path) -> None:
    requests = directory / "run" / ".agent" / "agent.orders"
    requests.parent.mkdir(mode=0o700)
    os.mkfifo(requests)
    with agent(directory) as watched:
        assert (
            "expected a file, got a FIFO: what was pinned or held before is not known"
            in watched.said()
        )
        os.mkfifo(requests.with_name(f".agent.orders.{watched.process.pid}"))
        watched.change()
        assert requests.is_file()
        (directory / "conf.d").mkdir()
        os.mkfifo(directory / "conf.d" / "a.toml")
        watched.reload("expected a file, got a FIFO")
        (directory / "conf.d" / "a.toml").unlink()
        watched.config.unlink()
        os.mkfifo(watched.config)
        watched.reload("expected a file, got a FIFO")
        watched.goes_on()


@pytest.mark.parametrize("hang", ["qmpmem.toml", "agent.orders"])
def test_a_file_system_that_hangs_stops_neither_rounds_nor_answers_nor_the_end(
    directory: Path, hang: str
) -> None:
    with agent(directory, hang) as watched:
        (directory / "run" / ".lag.hang").touch()
        began = time.monotonic()
        watched.change()
        if hang == "agent.orders":
            assert re.search(r"agent\.orders: not written within 1 s", watched.said())
            assert time.monotonic() - began > 1
        else:
            watched.reload("not read within 5 s; the configuration stays as it was")
            watched.reload("not read within 5 s; the configuration stays as it was")
        watched.goes_on()


def test_what_hung_is_written_when_it_goes_on(directory: Path) -> None:
    with agent(directory, "agent.orders") as watched:
        (directory / "run" / ".lag.hang").touch()
        watched.client.ask("PUT", "guests/g/pin", PinResult, PinRequest(size=Bytes(200 * MIB)))
        assert not (directory / "run" / ".agent" / "agent.orders").exists()
        (directory / "run" / ".lag.hang").unlink()
        kept = directory / "run" / ".agent" / "agent.orders"
        until(lambda: kept.exists() and b"209715200" in kept.read_bytes(), seconds=20)
