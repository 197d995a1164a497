"""What merging saves and what it costs: the same six guests under each way to run KSM.

Theory of operation:
    Four guests hold the same pages, each page unlike the others of its guest, as programs and
    libraries are; two hold random ones. They live through all rows; a row starts from unmerged
    memory and the kernel's values of boot, writes its settings, and is looked at every second.
    KSM is held for a row at a time, so that others get their turn between rows.

    The guests have as much memory as the kernel's default speed (16 MiB/s, where a sleep of 20 ms
    takes 24) just about sees enough of twice in five minutes: merging it takes ksmd five
    CPU-seconds whatever the speed, and the rest of a row is what its settings go on to take.

    Before the first row all is merged once, uncounted: this splits the guests' huge pages, which
    takes a scan more, and would be a handicap of the first row.

    The advisor begins by a mistake: it takes all CPU time of ksmd since boot for that of its first
    scan, and makes the second as slow as it can (mm/ksm.c: scan_time_advisor, advisor_ctx.cpu_time
    begins at 0). The more ksmd has run since boot, the worse its rows are: the table says how much.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from qmpmem.guests import inventory
from qmpmem.ksm import presets
from qmpmem.units import MIB, Bytes
from qmpmem.wire.kernel import ksm, pids
from tests.bench.ksm_table import BASE, Row, Sample, settings_note
from tests.rig import guests, ksmtuned
from tests.rig import ksm as rig
from tests.rig.guests import RunningGuest
from tests.rig.qemu import until

FILL: Final = (
    "mkdir -p /fill && mount -t tmpfs -o size=100% none /fill && "
    'awk \'BEGIN {{ rest = sprintf("%4087s", ""); '
    'for (page = 0; page < {pages}; page++) printf "%08d%s\\n", page, rest }}\' >/fill/equal'
)
"""A line is a page. `eat same` would make all pages of all guests one and the same."""
PATIENCE: Final = 300.0
"""Seconds, for guests to boot and fill on a machine that does other things."""

ADVISED: Final = (200, 60, 20)
"""Seconds: advisor_target_scan_time."""
SPLIT: Final[Mapping[str, str | int]] = {"pages_to_scan": 20_000, "run": rig.MERGE}
SPLIT_SCANS: Final = 4
"""Equal memory was all merged after the third."""
TURN: Final = 3 * rig.LOOK_SECONDS
"""Seconds for another process that waits for KSM to see that it is free."""

Settings = Mapping[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large the guests are, and how long a row takes."""

    seconds: int
    memory: int
    """MiB of a guest, for -m."""
    filled: int
    """MiB of it."""
    kinds: tuple[str, ...] = ("equal", "random", "equal", "equal", "random", "equal")
    """In the order in which they are booted, which is the one in which ksmd comes to them."""


FULL: Final = Size(seconds=300, memory=448, filled=320)
QUICK: Final = Size(seconds=1, memory=128, filled=16, kinds=("equal", "random", "equal"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to run KSM."""

    name: str
    settings: Callable[[Bytes], Settings]
    """What to write, for so much mergeable memory; run=1 is not among it."""
    runs: bool = True
    needs: str | None = None
    """A file that not every kernel has."""
    tuned: Mapping[str, str] | None = None
    """For ksmtuned, which does the writing."""


def ways() -> list[Way]:
    """List them, those of others first."""
    return [
        Way(name="off", settings=lambda _: {}, runs=False),
        Way(name=BASE, settings=lambda _: {}),
        Way(name="ksmtuned", settings=lambda _: {}, runs=False, tuned={}),
        Way(
            name="ksmtuned, THRES_COEF=100",
            settings=lambda _: {},
            runs=False,
            tuned={"KSM_THRES_COEF": "100"},
        ),
        *(_advised(seconds) for seconds in ADVISED),
        *(_preset(preset) for preset in presets.PRESETS.values()),
    ]


def _advised(seconds: int) -> Way:
    settings: Settings = {"advisor_target_scan_time": seconds, "advisor_mode": "scan-time"}
    return Way(name=f"advisor, {seconds} s", settings=lambda _: settings, needs=ksm.MODE)


def _preset(preset: presets.Preset) -> Way:
    def settings(mergeable: Bytes) -> Settings:
        state = ksm.state()
        assert state is not None
        return presets.settings(preset, state, mergeable)

    return Way(name=f"preset {preset.name}", settings=settings)


def why_not() -> str | None:
    """Say why nothing can be measured here; None: it can."""
    if ksm.ksmd() is None:
        return "this kernel has no KSM"
    return None if os.geteuid() == 0 else "needs root"


def measure(size: Size, say: Callable[[str], None], chosen: Sequence[Way]) -> Iterator[Row]:
    """Measure one row after the other.

    Args:
        size: of the guests, and of a row.
        say: is told what is being done.
        chosen: the rows.

    Raises:
        AssertionError: a guest does not come up, or KSM could not be put back.
        KernelError: a value is refused.
        TimeoutError: another process holds KSM all the time.
    """
    say(f"{len(size.kinds)} guests of {size.memory} MiB, {size.filled} MiB of it filled")
    with _filled(size) as living:
        _split_huge_pages()
        for number, way in enumerate(chosen, start=1):
            say(f"KSM {number}/{len(chosen)}, {size.seconds} s each: {way.name}")
            yield _row(way, living, size.seconds)
            time.sleep(TURN)


def strangers(living: Sequence[RunningGuest]) -> Bytes:
    """Say how much memory of other processes is mergeable: it is in the figures, too."""
    mine = {guest.pid for guest in living}
    others = (pid for pid in pids() if pid not in mine and ksm.process(pid).mergeable)
    return Bytes(sum(inventory.rss(pid) or 0 for pid in others))


@contextmanager
def _filled(size: Size) -> Generator[list[RunningGuest]]:
    fill = {
        "equal": FILL.format(pages=size.filled * MIB // 4096),
        "random": f"eat random {size.filled}",
    }
    commands = [fill[kind] for kind in size.kinds]
    with ExitStack() as stack:
        # Left last: a thread waits for its guest, also after Ctrl-C, unless the guest is gone.
        pool = stack.enter_context(ThreadPoolExecutor(os.cpu_count()))
        living = [stack.enter_context(guests.boot(memory=f"{size.memory}M")) for _ in commands]
        list(pool.map(lambda guest, line: guest.check(line, PATIENCE), living, commands))
        yield living


def _split_huge_pages() -> None:
    with rig.held() as machine:
        machine.reset()
        done = machine.number("full_scans") + SPLIT_SCANS
        machine.write(SPLIT)
        until(lambda: machine.number("full_scans") >= done, seconds=PATIENCE, what="all is split")
        machine.unmerge()


def _row(way: Way, living: Sequence[RunningGuest], seconds: int) -> Row:
    mergeable = Bytes(sum(inventory.rss(guest.pid) or 0 for guest in living))
    with rig.held() as machine, ExitStack() as stack:
        if way.needs and way.needs not in machine.before:
            return Row(name=way.name, samples=(), note=f"this kernel has no {way.needs}")
        machine.reset()
        settings = way.settings(mergeable)
        clock = _Clock(machine)
        machine.write(settings)
        if way.tuned is not None:
            tree = _ksmtuned()
            if tree is None:
                return Row(name=way.name, samples=(), note="the package cannot be fetched")
            stack.enter_context(ksmtuned.running(tree, way.tuned))
        if way.runs:
            machine.write({"run": rig.MERGE})
        samples = list(clock.samples(seconds))
        return Row(name=way.name, samples=samples, note=_note(way, settings, machine, living))


def _note(
    way: Way, settings: Settings, machine: rig.Machine, living: Sequence[RunningGuest]
) -> str:
    last = {name: machine.get(name) for name in ("run", "pages_to_scan", "sleep_millisecs")}
    told = settings_note(settings) or settings_note(way.tuned or {}) or "nothing set"
    others = strangers(living) // MIB
    foreign = f"; {others} MiB of other processes were mergeable" if others else ""
    return f"{told}; at the end {settings_note(last)}; {_age()}{foreign}"


def _age() -> str:
    pid = ksm.ksmd()
    ran = None if pid is None else ksm.cpu_time(pid)
    return "" if ran is None else f"ksmd has run for {ran:.0f} s since boot"


def _ksmtuned() -> Path | None:
    try:
        return ksmtuned.fetch()
    except subprocess.CalledProcessError as error:
        print(f"bench: ksmtuned: {error.stderr.strip()}", file=sys.stderr)
        return None


class _Clock:
    """Counts from where the kernel's counters stand when a row begins."""

    def __init__(self, machine: rig.Machine) -> None:
        pid = ksm.ksmd()
        assert pid is not None
        self._ksmd = pid
        self._machine = machine
        self._start = time.monotonic()
        self._cpu = ksm.cpu_time(pid) or 0.0
        self._scans = machine.number("full_scans")

    def samples(self, seconds: int) -> Iterator[Sample]:
        """Look once a second, at once and for the last time after so many seconds."""
        for second in count():
            time.sleep(max(0.0, self._start + second - time.monotonic()))
            yield self._sample()
            if second >= seconds:
                return

    def _sample(self) -> Sample:
        state = ksm.state()
        cpu = ksm.cpu_time(self._ksmd)
        assert state is not None
        assert cpu is not None
        profit = state.general_profit
        return Sample(
            at=time.monotonic() - self._start,
            saved=(state.pages_sharing or 0) * state.page_size / MIB,
            profit=None if profit is None else profit / MIB,
            cpu=cpu - self._cpu,
            scans=(state.full_scans or 0) - self._scans,
        )
