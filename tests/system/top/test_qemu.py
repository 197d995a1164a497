"""`qmpmem top` on a terminal, with a real guest: keys move its balloon, the past is as it was."""

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import pytest

from qmpmem.feed import Past
from qmpmem.top.text import brief
from qmpmem.units import MIB
from tests.rig.agent import running
from tests.rig.command import called
from tests.rig.guests import RunningGuest, boot
from tests.rig.qemu import short_directory, until
from tests.rig.terminal import Terminal, on_screen

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[3]


class World(NamedTuple):
    """A run directory with a guest in it, and what an agent of it needs."""

    run: Path
    guest: RunningGuest
    config: Path
    journal: Path


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Have web1, of 512 MiB."""
    with short_directory() as directory:
        run = directory / "guests"
        run.mkdir()
        journal, config = directory / "j.db", directory / "c.toml"
        config.write_text(
            f'period = "250ms"\ngrace = "0s"\non_stop = "keep"\n[journal]\npath = "{journal}"\n'
        )
        config.chmod(0o600)
        with boot(
            [str(ROOT / "launchers" / "kvm")],
            memory="512M",
            extra=["-name", "web1"],
            environ={"QMPMEM_RUN_DIR": str(run)},
        ) as guest:
            yield World(run, guest, config, journal)


def actual(world: World) -> int:
    size: int = json.loads(called("info", "web1", "--json", run=world.run).out)["actual"]
    return size


def is_at(world: World, mib: int) -> bool:
    return abs(actual(world) - mib * MIB) < MIB


def screen(world: World) -> AbstractContextManager[Terminal]:
    words = ("top", "--journal", str(world.journal))
    return on_screen(*words, run=world.run, size=(100, 40))


def test_a_pin_by_keys_moves_a_real_balloon_and_the_past_shows_how_it_was(world: World) -> None:
    with running(world.run, "--config", str(world.config)), screen(world) as terminal:
        terminal.expect("web1", "agent ", seconds=20)
        until(lambda: "waiting" not in terminal.line("> web1"), seconds=30, what="web1 reports")
        terminal.press("down", "p", "\x15", "300M")
        terminal.expect("the agent would take it", seconds=20)
        before = float(int(time.time()))  # as it can be typed
        time.sleep(1.0)  # so that a round of before can be asked for
        terminal.press("enter")
        terminal.expect("web1 is pinned to 300M", seconds=20)
        until(lambda: is_at(world, 300), seconds=60, what="the balloon is there")
        terminal.expect("300M", seconds=20)
        until(lambda: " P " in terminal.line("> web1"), seconds=20, what="the pin is shown")

        then = Past(world.journal).at(before)
        assert then is not None
        [guest] = then.snapshot.guests
        assert guest.actual is not None
        assert abs(guest.actual - 300 * MIB) > MIB
        terminal.press("t", time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(before)), "enter")
        terminal.expect("ago)", brief(guest.actual), seconds=20)
        assert " P " not in terminal.line("> web1")
        terminal.press("p")
        terminal.expect("this is the past")
        terminal.press("left", "right", "end")
        until(lambda: "ago)" not in terminal.text(), seconds=20, what="it is live again")

        terminal.press("u", "enter")
        terminal.expect("web1 is not pinned any more", seconds=20)
        terminal.press("enter", "enter")
        terminal.expect("last decisions", seconds=20)
        terminal.press("q")
        assert terminal.wait() == 0
        assert terminal.is_sane()


def test_without_an_agent_the_guest_is_asked_and_set_directly(world: World) -> None:
    with screen(world) as terminal:
        terminal.expect("web1", "no agent decides", seconds=30)
        until(lambda: "?" not in terminal.line("> web1"), seconds=30, what="it is asked itself")
        terminal.press("down", "p", "\x15", "300M", "enter")
        terminal.expect("no agent runs, so nothing keeps it", seconds=20)
        terminal.press("s", "256M")
        terminal.expect("it would be set", seconds=20)
        terminal.press("enter")
        terminal.expect("was told to go to 256M", seconds=20)
        until(lambda: is_at(world, 256), seconds=60, what="the balloon is there")
        terminal.expect("256M", seconds=60)
        with running(world.run, "--config", str(world.config)):
            terminal.expect("x reserve", seconds=60)
        terminal.expect("no round for", seconds=60)
        terminal.press("q")
        assert terminal.wait() == 0


def test_what_is_printed_is_what_the_guest_has(world: World) -> None:
    assert called("set", "web1", "400M", "--wait", run=world.run).code == 0
    ran = called("top", "--json", "-n", "1", run=world.run)
    assert ran.code == 0, ran.err
    seen = json.loads(ran.out)
    [guest] = seen["guests"]
    assert (seen["source"], guest["id"], guest["actual"]) == ("guests", "web1", 400 * MIB)
    assert guest["used"] + guest["cache"] + guest["free"] == guest["actual"]
    assert guest["verdict"] is None
    assert "400M" in called("top", "--once", run=world.run).out
    with running(world.run, "--config", str(world.config)):
        ran = called("top", "--csv", "-n", "2", run=world.run)
    assert ran.code == 0, ran.err
    assert len(ran.out.splitlines()) == 3
    assert f",{512 * MIB}," in ran.out
