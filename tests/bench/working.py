"""Guests that use a working set again and again, and say how fast: `work` in the tiny guest."""

from dataclasses import dataclass

from tests.bench.host import PATIENCE, Guest


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a working set was used."""

    rate: float
    """Operations a second."""
    median: float
    """Milliseconds that half of them took at most."""
    p99: float
    """Milliseconds that 99 of 100 of them took at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Seconds of work: those before it counts, and those that count."""

    before: int
    counted: int


def use(guest: Guest, what: str, size: int, span: Span, think: int) -> Pace | None:
    """Use a working set for so long; None: the guest did not say how that went.

    Args:
        guest: what works.
        what: ``reads DEVICE`` or ``touches``.
        size: of the working set, in MiB.
        span: how long.
        think: microseconds between two operations.
    """
    command = f"work {what} {size} {span.before} {span.counted} {think}"
    said = guest.say(command, span.before + span.counted + PATIENCE)
    if said is None:
        return None
    count, median, p99, _ = (int(word) for word in said.split())
    return Pace(rate=count / span.counted, median=median / 1000, p99=p99 / 1000)


def written(pace: Pace | None) -> tuple[str, str, str]:
    """Write the operations a second, the median and what 99 of 100 took at most."""
    if pace is None:
        return ("?", "?", "?")
    return (f"{pace.rate:.0f}/s", f"{pace.median:.1f} ms", f"{pace.p99:.1f} ms")
