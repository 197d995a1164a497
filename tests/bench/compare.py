"""The squeeze bench, real and simulated: is the simulator to be believed?

    python -m tests.bench.compare --real rows.json     rows of `tests/bench --only squeeze --json`
    python -m tests.bench.compare                      plays the real rows first: half an hour
    python -m tests.bench.compare --simulated          shows the simulated rows alone

The simulated guests go through what tests/bench/squeeze.py does to real ones: three have read much,
one needs much at once, then all have jobs in turn. What is compared is what guests lacked and how
much work was done: which policy is ahead of which, and how far apart the figures are.

Exit code 1: two policies that are far apart in one are the other way round in the other, or a
figure is more than 1.5 times the other.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from qmpmem.model.config import Config, Rule
from qmpmem.simulate import guest as guest_model
from qmpmem.simulate import policy_table
from qmpmem.simulate.guest import Guest
from qmpmem.simulate.loads import Load, Steady
from qmpmem.simulate.policy_table import RIVALS, PolicyRow
from qmpmem.simulate.results import ResultsCounter
from qmpmem.simulate.spec import GuestSpec, HostSpec, World
from qmpmem.units import GIB, MIB, PAGE, Bytes
from qmpmem.view.rows import columns
from tests.bench import limits, squeeze
from tests.bench.stacks import DEVICES, STACKS, Stack

TOUCHES: Final = 100.0 * MIB
"""Bytes a second that a guest without KVM touches (README: 307 MiB take 3 s)."""
KERNEL: Final = Bytes(53 * MIB)
"""What the guest's kernel keeps (31 MiB less in MemTotal than QEMU's -m) or has in use."""
OVERHEAD: Final = 85 * MIB
"""What QEMU needs beside the guest's memory: RssAnon of an idle guest without KVM."""
NEAR: Final = 1.5
"""Times: figures that are nearer say the same."""


@dataclass(slots=True, kw_only=True)
class Job:
    """A guest needs so much from a time on, until it had it for long enough."""

    begin: float
    size: int
    lasts: float
    reads: int = 0
    """Bytes, once it has that."""
    had: float | None = None
    """When it had it; None: it has not."""
    took: float | None = None
    """Seconds until it had it, and had read."""


@dataclass(slots=True, kw_only=True)
class Course:
    """What all guests know: when the jobs begin, which is when the burst is over."""

    size: squeeze.Size
    start: float | None = None
    workers: list["Worker"] = field(default_factory=list["Worker"])

    def begin(self, now: float) -> None:
        """Give each guest its jobs, in turn."""
        self.start = now
        jobs = self.size.jobs
        for number in range(jobs.count):
            worker = self.workers[number % len(self.workers)]
            worker.jobs.append(
                Job(
                    begin=now + number * jobs.every,
                    size=jobs.touches * MIB,
                    reads=jobs.reads * MIB,
                    lasts=jobs.lasts,
                )
            )

    @property
    def jobs(self) -> list[Job]:
        return [job for worker in self.workers for job in worker.jobs]


@dataclass(slots=True, kw_only=True)
class Worker:
    """One guest's load: stands in the place of a `Load`, and sees what its guest has."""

    course: Course
    burst: Job | None
    jobs: list[Job] = field(default_factory=list[Job])
    guest: Guest | None = None

    def at(self, now: float) -> float:
        """Return what is wanted."""
        guest = self.guest
        if guest is None:
            return 0.0
        held = guest.anon + guest.swapped - guest.spec.kernel + PAGE
        if self.burst is not None and now >= self.burst.begin:
            wanted = self._burst(self.burst, held, now)
            if wanted:
                return wanted
        return self._job(guest, held, now)

    def _burst(self, job: Job, held: float, now: float) -> float:
        if job.took is None and held >= job.size:
            job.took = now - job.begin
        if job.took is None and now < job.begin + job.lasts:
            return job.size
        if self.course.start is None:
            self.course.begin(now)
        return 0.0

    def _job(self, guest: Guest, held: float, now: float) -> float:
        wanted = 0
        for job in self.jobs:
            if job.begin <= now < job.begin + job.lasts:
                wanted += job.size
                if job.had is None and held >= wanted:
                    job.had = now
                    guest.open_files(job.reads)
                if job.took is None and job.had is not None and guest.has_read():
                    job.took = now - job.begin
        return wanted


def world(size: squeeze.Size, course: Course) -> World:
    """Return the host and its guests as the bench makes them."""
    limit = size.guests * size.share * MIB
    beside = size.guests * (OVERHEAD - guest_model.OVERHEAD)
    for number in range(size.guests):
        first = Job(begin=size.settle, size=size.burst * MIB, lasts=size.late)
        course.workers.append(Worker(course=course, burst=None if number else first))
    guests = tuple(
        GuestSpec(
            id=f"g{number}",
            memory=Bytes(512 * MIB),
            load=cast("Load", course.workers[number]),
            kernel=KERNEL,
            files=Bytes(size.cache * MIB if 1 <= number <= 3 else 0),
            allocates=TOUCHES,
            restarts=False,
        )
        for number in range(size.guests)
    )
    jobs = size.jobs
    return World(
        host=HostSpec(
            memory=Bytes(24 * GIB),
            own=Steady(size=Bytes(GIB)),
            swap=Bytes(limit // 4),
            swap_speed=float(limits.SLOW),
            budget=Bytes(limit - beside),
        ),
        guests=guests,
        config=Config(grace=5.0, rules=(Rule(match="*", minimum=Bytes(96 * MIB)),)),
        seconds=size.settle + size.late + jobs.count * jobs.every + jobs.lasts,
    )


def simulated(rival: PolicyRow, size: squeeze.Size) -> squeeze.Row:
    """Play one row in the simulator."""
    course = Course(size=size)
    counter = ResultsCounter(world(size, course), rival)
    host = counter.run.host
    for worker, guest in zip(course.workers, host.guests, strict=True):
        worker.guest = guest
    by_then: int | None = None
    for _ in counter.ticks():
        if by_then is None and course.start is not None:
            by_then = host.kills + sum(guest.kills for guest in host.guests)
    report, jobs = counter.report(), course.jobs
    burst = course.workers[0].burst
    waited = sum(job.lasts if job.took is None else job.took / 2 for job in jobs)
    return squeeze.Row(
        burst=None if burst is None else burst.took,
        by_then=by_then,
        work=size.jobs.touches * sum(job.took is not None for job in jobs),
        unmet=int(waited * size.jobs.touches),
        turns=report.turns,
        kills=report.guest_kills,
        lost=report.host_kills,
        swapped=report.host_swap_in // MIB,
        hits=0,
    )


def row_of(stack: Stack) -> PolicyRow:
    """Return the simulated row that is meant by a real one."""
    name = "at-minimum" if stack.is_small else stack.rival or "static"
    devices = "launcher" if stack.devices == "launcher" else "stock"
    return next((row for row in policy_table.rows(name) if row.devices == devices), RIVALS[name])


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One row, real and simulated."""

    key: str
    real: squeeze.Row
    simulated: squeeze.Row


def breaches(pairs: Sequence[Pair]) -> Iterator[str]:
    """Say where the simulator is not to be believed."""
    for pair in pairs:
        if not _is_near(pair.real.unmet, pair.simulated.unmet):
            yield f"{pair.key}: {pair.real.unmet} MiB·s unmet, simulated {pair.simulated.unmet}"
    for number, one in enumerate(pairs):
        for other in pairs[number + 1 :]:
            real = one.real.unmet, other.real.unmet
            if not _is_near(*real) and (real[0] < real[1]) != (
                one.simulated.unmet < other.simulated.unmet
            ):
                yield f"{one.key} and {other.key} are the other way round"


def _is_near(one: float, other: float) -> bool:
    return max(one, other) <= NEAR * max(1.0, min(one, other))


def lines(pairs: Sequence[Pair]) -> Iterator[str]:
    """Write both rows of each policy below each other, and what is wrong."""
    cells = [
        (key, *(word for _, word in squeeze.cells(row)))
        for pair in pairs
        for key, row in ((pair.key, pair.real), ("  simulated", pair.simulated))
    ]
    headers = [name for name, _ in squeeze.cells(pairs[0].real)] if pairs else []
    yield from columns(("POLICY", *headers), cells)
    yield ""
    yield from breaches(pairs)


def real_rows(path: Path | None) -> Iterator[tuple[Stack, squeeze.Row]]:
    """Yield the rows of a document that the bench wrote; None: play them."""
    by_key = {stack.key: stack for stack in STACKS}
    if path is None:
        for stack in STACKS:
            say(f"squeeze: {stack.key}")
            yield stack, squeeze.play(stack, squeeze.FULL)
        return
    names = {(stack.policy, DEVICES[stack.devices]): stack.key for stack in STACKS}
    for row in json.loads(path.read_text())["loads"]["squeeze"]:
        words = row.pop("policy"), row.pop("balloons")
        key = words[0] if words[0] in by_key else names[words]
        yield by_key[key], squeeze.Row(**row)


def say(text: str) -> None:
    """Talk to the user, on stderr."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main(words: list[str]) -> int:
    """Play or read the real rows, simulate them, and compare."""
    parser = argparse.ArgumentParser("compare", description="The squeeze bench and the simulator.")
    parser.add_argument("--real", type=Path, help="what `tests/bench --only squeeze --json` wrote")
    parser.add_argument("--simulated", action="store_true", help="nothing real")
    asked = parser.parse_args(words)
    if asked.simulated:
        rows = [(stack, simulated(row_of(stack), squeeze.FULL)) for stack in STACKS]
        headers = [name for name, _ in squeeze.cells(rows[0][1])]
        cells = [(stack.key, *(word for _, word in squeeze.cells(row))) for stack, row in rows]
        print("\n".join(columns(("POLICY", *headers), cells)))
        return 0
    reason = None if asked.real else limits.why_not()
    if reason is not None:
        say(f"no guests under a limit: {reason}")
        return 2
    pairs = [
        Pair(key=stack.key, real=row, simulated=simulated(row_of(stack), squeeze.FULL))
        for stack, row in real_rows(asked.real)
    ]
    print("\n".join(lines(pairs)))
    return 1 if any(True for _ in breaches(pairs)) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
