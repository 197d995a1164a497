"""Jobs that guests have in turn: each needs memory within its time, and frees it in the end.

Theory of operation:
    What is measured is what the guest itself says: whether it had touched what the job needs, and
    when. What a job reads stays cached. A job that was late has done no work. What was touched
    came evenly, so half of it was waited for.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from tests.bench.host import Guest, Host

FREE: Final = (
    """eat status | awk '$2 ~ /^(random|half)$/ && $5 == "held" { print $1 }' | xargs -r kill -9"""
)
"""Frees what was touched, and leaves what was read where it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """What guests do in turn. Sizes in MiB, times in seconds."""

    count: int
    touches: int
    kind: str = "random"
    """What it is filled with, as of `eat`."""
    reads: int = 0
    every: float
    """From the start of one job to that of the next."""
    lasts: float
    """From its start until a job ends, whether it had its memory or not."""
    late: float | None = None
    """From its start until its memory is not waited for any more, which may be after its end; None:
    its end. A test that only looks whether it gets its memory waits longer on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How it went."""

    work: int
    """MiB that jobs had before they were late."""
    unmet: int
    """MiB·s that they were short of."""


def run(host: Host, guests: Sequence[Guest], jobs: Jobs) -> Done:
    """Have the guests work in turn, until the last job is over."""
    start = time.monotonic()

    def work(number: int) -> float | None:
        guest, begin = guests[number % len(guests)], start + number * jobs.every
        host.sleep_until(begin)
        command = f"eat {jobs.kind} {jobs.touches}"
        reading = f" && eat cache {jobs.reads}" if jobs.reads else ""
        took = guest.take(command + reading, jobs.lasts if jobs.late is None else jobs.late)
        host.sleep_until(begin + jobs.lasts)
        guest.do(FREE)
        return took

    took = host.together([partial(work, number) for number in range(jobs.count)])
    waited = sum(jobs.lasts if each is None else each / 2 for each in took)
    return Done(
        work=jobs.touches * sum(each is not None for each in took),
        unmet=int(waited * jobs.touches),
    )
