"""The main job, for real: guests give memory, get it back, and share it, as a user would type it.

Every line after a ``$`` is a command that is run just so by a shell. Guests, sockets and records
live in a directory of the demo's own; it is gone at the end, also after Ctrl-C or a failure. Were
the demo itself killed, the kernel ends what it started (prctl(2): PR_SET_PDEATHSIG), and a janitor
removes the directory. The janitor reads a pipe whose other end is open in the demo and in all that
it starts, and is never written to: it goes to work when the last of them has ended (pipe(7)).
"""

import argparse
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmpmem.api.client import Client  # noqa: E402 - found through the line above
from qmpmem.api.records import Status, Why  # noqa: E402 - likewise
from qmpmem.errors import AgentUnreachable, QmpmemError  # noqa: E402 - likewise
from qmpmem.model.guest import GuestView  # noqa: E402 - likewise
from qmpmem.units import MIB  # noqa: E402 - likewise
from qmpmem.wire import kvm  # noqa: E402 - likewise
from qmpmem.wire.kernel import ksm as ksm_files  # noqa: E402 - likewise
from tests.rig import interrupts, ksm  # noqa: E402 - found through the line above
from tests.rig.interrupts import uninterrupted  # noqa: E402 - found through the line above

STAGES: Final = "qmpmem-demo-"
"""Directories in /tmp: the path of a socket must be short (unix(7): sun_path, 108 bytes)."""

AT_ONCE: Final = "SIGKILL"
"""How those end that run beside the demo: an agent that ends in good order tells its guests
something first, and waits for them, while they are ending."""

JANITOR: Final = ("sh", "-c", 'cat; rm -rf -- "$1"', "janitor")

TIDYING: Final = 10.0
"""Seconds for all that is left to end."""

GUESTS: Final = ("web1", "web2")
EQUALS: Final = ("eq1", "eq2", "eq3", "eq4")
SHARERS: Final = ("vm1", "vm2", "vm3", "vm4")
ROOM: Final = 180 * MIB
"""What the third act's budget is beyond what its guests hold: so much that the host is calm before
the eater eats and after it, and so little that what is kept against bursts puts it in SOFT while
the eater eats. At the end 1.8 times the reserve is available, and 1.6 times are calm: QEMUs that
take 35 MiB more than they did at first do not keep the host in SOFT."""

NEEDED: Final = 205 * MIB
"""What the eater uses when it has eaten."""
LIMIT: Final = 240.0
"""Seconds for a guest or the agent to come to where a step leads: half a minute where the machine
has nothing else to do, and some times that where it has."""
CALM: Final = ("SLACK", "BALANCED")
"""States of a host that wants nothing of any guest."""

QUIET: Final = 6
"""Looks in a row at an agent that asks no guest for anything."""

LINGER: Final = 60.0
"""Seconds for which the page can be looked at."""

PATIENCE: Final = "DEMO_PATIENCE"
"""Seconds to wait for other programs that use KSM, which a host has once; 60 where not set."""


class DemoFailedError(Exception):
    """A command of the demo failed; its own words are on the screen."""


def until(holds: Callable[[], bool], what: str) -> None:
    """Look twice a second until something holds.

    Raises:
        DemoFailedError: it does not, within LIMIT; says what.
    """
    end = time.monotonic() + LIMIT
    while not holds():
        if time.monotonic() > end:
            raise DemoFailedError(f"{what} after {LIMIT:.0f} s")
        time.sleep(0.5)


def tied(command: str, end: str = "SIGTERM") -> list[str]:
    """Say how to run a command that ends with us, however we end.

    The kernel tells only of a parent's death that is yet to come (prctl(2)), so the command is not
    begun where we are not the parent any more.
    """
    guarded = f'[ "$PPID" = {os.getpid()} ] || exit 1; exec {command}'
    return ["setpriv", "--pdeathsig", end, "sh", "-c", guarded]


class Stage:
    """A shell with the demo's environment, and the guests it started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = os.environ | {
            "QMPMEM_RUN_DIR": str(directory / "guests"),
            "QMPMEM_KSM_DIR": str(directory / "ksm"),
            "STATE_DIRECTORY": str(directory / "state"),
            "PATH": f"{ROOT / 'launchers'}:{ROOT / '.venv/bin'}:{os.environ['PATH']}",
            "D": str(directory),
        }
        self.agent = Client(directory / "guests/.agent/agent.sock")
        self.guests: list[subprocess.Popen[bytes]] = []
        ends, self.alive = os.pipe()
        self.janitor = subprocess.Popen(
            [*JANITOR, directory],
            stdin=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a signal to all of the demo is not meant for it
        )
        os.close(ends)

    def run(self, command: str) -> None:
        """Show a command and run it.

        Raises:
            DemoFailedError: it exits with anything but 0.
        """
        print(f"\n$ {command}", flush=True)
        done = subprocess.run(
            tied(command), env=self.environment, pass_fds=[self.alive], check=False
        )
        if done.returncode:
            raise DemoFailedError(command)

    def prepare(self) -> None:
        """Build the guest, unless that is done: once, and not by each guest that starts.

        Raises:
            DemoFailedError: it cannot be built; why is on the screen.
        """
        words = tied("tinyguest build >/dev/null")
        if subprocess.run(
            words, env=self.environment, pass_fds=[self.alive], check=False
        ).returncode:
            raise DemoFailedError("tinyguest build")

    def start(self, command: str) -> None:
        """Show a command and start it in the background."""
        print(f"\n$ {command} &", flush=True)
        with uninterrupted():
            self.guests.append(
                subprocess.Popen(
                    tied(command, AT_ONCE),
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[self.alive],
                )
            )

    def wait(self, guest: str, holds: Callable[[GuestView], bool]) -> None:
        """Wait until something holds for a guest that the agent looks after.

        Raises:
            DemoFailedError: it does not, within LIMIT.
        """
        path = f"guests/{guest}"
        until(lambda: holds(self.agent.get(path, GuestView)), f"{guest} is not there")

    def wait_until_settled(self) -> None:
        """Wait until the agent knows its guests, and asks none for anything for some seconds.

        Raises:
            DemoFailedError: it does, for LIMIT.
        """
        quiet = 0

        def has_settled() -> bool:
            nonlocal quiet
            quiet = quiet + 1 if self._is_calm() else 0
            return quiet == QUIET

        until(has_settled, "the agent has not settled")

    def _is_calm(self) -> bool:
        """Ask the agent whether all is well: no guest and no host wants anything."""
        try:
            status = self.agent.get("status", Status)
        except AgentUnreachable:  # it begins
            return False
        at_rest = all(each.verdict == "normal" and each.target is None for each in status.guests)
        return len(status.guests) == len(SHARERS) and at_rest and status.state in CALM

    def wait_for_page(self, guests: Sequence[str]) -> None:
        """Wait until these guests are on the page that was started.

        Raises:
            DemoFailedError: they are not, within LIMIT.
        """

        page = self.directory / "page"

        def is_there() -> bool:
            said = page.read_text() if page.exists() else ""
            match = re.search(r"http://127\.0\.0\.1:(\d+)/", said)
            if match is None:
                return False
            with closing(HTTPConnection("127.0.0.1", int(match[1]), timeout=LIMIT)) as connection:
                connection.request("GET", "/")
                text = connection.getresponse().read().decode()
            return all(f'href="/guest/{guest}"' in text for guest in guests)

        until(is_there, "the page does not show its guests")

    def wait_until_calm(self, guest: str) -> None:
        """Wait until the agent takes a guest for one that is well.

        Raises:
            DemoFailedError: it does not, within LIMIT.
        """

        def is_well() -> bool:
            why = self.agent.get(f"guests/{guest}/why", Why)
            return why.explanation.verdict == "normal"

        until(is_well, f"{guest} is not well")

    def write_settings(self) -> None:
        """Make a budget that suits what guests cost on this host: emulated ones cost more."""
        words = tied("qmpmem list --json", AT_ONCE)
        done = subprocess.run(
            words, env=self.environment, pass_fds=[self.alive], stdout=subprocess.PIPE, check=True
        )
        held = sum(int(seen["rss"] or 0) for seen in json.loads(done.stdout))
        (self.directory / "qmpmem.toml").write_text(
            f'budget = "{(held + ROOM) // MIB}M"\nreserve = "64M"\ngrace = "5s"\n'
        )

    def close(self) -> None:
        """End every guest that is still there, and remove what the demo made."""
        self.end_guests()
        os.close(self.alive)
        try:
            self.janitor.wait(TIDYING)
        except subprocess.TimeoutExpired:
            self.janitor.kill()
            self.janitor.wait()
            shutil.rmtree(self.directory, ignore_errors=True)

    def end_guests(self) -> None:
        """End every guest that is still there."""
        for guest in self.guests:
            guest.terminate()
        for guest in self.guests:
            try:
                guest.wait(timeout=5)
            except subprocess.TimeoutExpired:
                guest.kill()
                guest.wait()
        self.guests.clear()

    def expect_powered_off(self) -> None:
        """Wait until the guests ended by themselves.

        Raises:
            DemoFailedError: one did not, or left something in the run directory.
        """
        for guest in self.guests:
            if guest.wait(timeout=LIMIT):
                raise DemoFailedError(f"a guest exited with {guest.returncode}")
        self.guests.clear()
        left = list((self.directory / "guests").glob("*/*.sock"))
        if left:
            raise DemoFailedError(f"left behind: {left}")


def boot(stage: Stage, guests: Sequence[str], memory: str, accel: str) -> None:
    """Start guests through the launcher, and wait until they are up."""
    for guest in guests:
        stage.start(
            f"kvm -name {guest} -m {memory} -display none{accel} "
            f"$(tinyguest args --channel $D/{guest})"
        )
    for guest in guests:
        stage.run(f"tinyguest wait $D/{guest}")


def play(stage: Stage, accel: str) -> None:
    """Play every step of the demo.

    Raises:
        DemoFailedError: a step did not do what it should.
    """
    boot(stage, GUESTS, "512M", accel)
    stage.run("tinyguest exec $D/web1 -- eat random 300   # web1 has work to do")
    stage.run("qmpmem list")
    stage.run("tinyguest exec $D/web1 -- 'eat stop; free -m'   # and is done with it")
    stage.run("qmpmem set web1 256M --wait")
    stage.run("qmpmem info web1")
    stage.run("tinyguest exec $D/web1 -- free -m")
    stage.run("qmpmem list")
    stage.run("qmpmem set web1 100% --wait")
    for guest in GUESTS:
        stage.run(f"tinyguest poweroff $D/{guest}")
    stage.expect_powered_off()
    stage.run("qmpmem list")


def play_merging(stage: Stage, accel: str) -> None:
    """Play the second act: four guests that hold the same, and a kernel that merges it.

    Raises:
        DemoFailedError: a step did not do what it should.
    """
    boot(stage, EQUALS, "192M", accel)
    for guest in EQUALS:
        stage.run(f"tinyguest exec $D/{guest} -- eat same 100")
    stage.run("qmpmem ksm status")
    stage.run("qmpmem ksm on --preset eager")
    stage.run("qmpmem ksm tune pages_to_scan=3000   # at any price: this is a demo")
    stage.run("qmpmem ksm status --watch 0.5 --until-settled")
    stage.run("qmpmem ksm status")
    stage.run("qmpmem ksm unmerge")
    stage.run("qmpmem ksm restore")
    for guest in EQUALS:
        stage.run(f"tinyguest poweroff $D/{guest}")
    stage.expect_powered_off()


def play_sharing(stage: Stage, accel: str) -> None:
    """Play the third act: a small budget, and an agent that moves memory to the guest that eats.

    Raises:
        DemoFailedError: a step did not do what it should.
    """
    boot(stage, SHARERS, "384M", accel)
    for guest in SHARERS[1:]:
        stage.run(f"tinyguest exec $D/{guest} -- eat cache 120   # read once, and idle since")
    stage.write_settings()
    stage.run("cat $D/qmpmem.toml")
    stage.start("qmpmem agent --config $D/qmpmem.toml")
    stage.wait_until_settled()
    stage.run("qmpmem agent status   # there is room: no guest is asked for anything")
    stage.run("tinyguest exec $D/vm1 -- eat grow 8 150   # MiB a second, up to so many MiB")
    stage.wait("vm1", lambda seen: (seen.used or 0) > NEEDED)
    stage.wait_until_calm("vm1")
    stage.run("qmpmem agent status")
    stage.run(
        "tinyguest exec $D/vm1 -- eat stop   # it is done; half a minute without need is calm"
    )
    stage.wait("vm1", lambda seen: (seen.used or NEEDED) < NEEDED / 2)
    stage.wait_until_settled()
    stage.run("qmpmem agent status   # calm again")
    stage.run("qmpmem history vm2")
    stage.run("qmpmem plot vm2 --since 3m")
    stage.start("qmpmem serve --listen 127.0.0.1:0 2>$D/page")
    stage.wait_for_page(SHARERS)
    stage.run("cat $D/page   # all of it in a browser")
    stage.run("qmpmem top --once   # and on a terminal; without --once it is live, too")
    linger()
    for guest in SHARERS:
        stage.run(f"tinyguest poweroff $D/{guest}")
    stage.end_guests()


def linger() -> None:
    """Leave the page where a person may look at it, until Enter is pressed."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        print(f"\ndemo: Enter ends it; it ends by itself in {LINGER:.0f} s", flush=True)
        select.select([sys.stdin], [], [], LINGER)


def merge(stage: Stage, accel: str) -> None:
    """Play the second act with KSM to itself, and put KSM back as it was, whatever happens.

    Where that is not possible, a line says why.

    Raises:
        DemoFailedError: a step did not do what it should.
    """
    if reason := why_not():
        skip(reason)
        return
    with ExitStack() as stack:
        try:
            machine = stack.enter_context(ksm.held(timeout=float(os.environ.get(PATIENCE) or 60.0)))
        except TimeoutError:
            skip("another test or demo is using KSM")
            return
        if machine.get("run") == ksm.MERGE:
            skip("KSM is at work for others on this host")
            return
        stack.callback(stage.end_guests)  # before KSM is put back: their pages need not be split
        play_merging(stage, accel)


def why_not() -> str | None:
    """Say why we cannot steer KSM here; None: we can."""
    run = Path("/", ksm_files.DIRECTORY, "run")
    if not run.exists():
        return "this kernel has no KSM"
    return None if os.access(run, os.W_OK) else "only root may change KSM"


def skip(reason: str) -> None:
    """Say why the second act is not played."""
    print(f"\ndemo: merging is not shown: {reason}", flush=True)


ACTS: Final = {"ballooning": play, "merging": merge, "sharing": play_sharing}


def main(acts: Sequence[str]) -> int:
    """Play these acts of the demo; 0 where every step did what it should."""
    started = time.monotonic()
    accel = "" if kvm.usable(Path("/")).usable else " -accel tcg,tb-size=32"
    interrupts.receive()
    try:
        with ExitStack() as exits:
            with uninterrupted():
                place = tempfile.mkdtemp(prefix=f"{STAGES}{os.getpid()}-", dir="/tmp")
                stage = Stage(Path(place))
                exits.callback(stage.close)
            stage.prepare()
            for act in acts:
                ACTS[act](stage, accel)
    except (DemoFailedError, QmpmemError, subprocess.TimeoutExpired) as error:
        print(f"\ndemo: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"\ndemo: done in {time.monotonic() - started:.0f} s; nothing is left behind")
    return 0


def chosen_acts(words: Sequence[str]) -> Sequence[str]:
    """Return the acts that a command line names; all where it names none."""
    parser = argparse.ArgumentParser(description="Play the demo, or only some acts of it.")
    parser.add_argument("act", nargs="*", help=f"one of: {', '.join(ACTS)} (default: all)")
    acts: list[str] = parser.parse_args(words).act
    for act in acts:
        if act not in ACTS:
            parser.error(f"{act}: there is no such act; the acts are {', '.join(ACTS)}")
    return acts or list(ACTS)


if __name__ == "__main__":
    sys.exit(main(chosen_acts(sys.argv[1:])))
