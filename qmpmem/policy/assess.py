"""What one guest is, wants and suffers, by itself: the limits, the trend, and then the rest."""

from qmpmem.model import bounds
from qmpmem.model.config import Config, Limits
from qmpmem.model.observation import GuestReading
from qmpmem.policy import behaviour, demand, shares
from qmpmem.policy.behaviour import Judgement
from qmpmem.policy.cases import Case
from qmpmem.policy.state import GuestTrend
from qmpmem.records import Record, replace
from qmpmem.units import PAGE, Bytes


class Given(Record, frozen=True):
    """What holds for a guest, whatever it does."""

    size: Bytes
    """Its maximum; where that is not known, the size that it last had."""
    limits: Limits
    grace: float
    pin: Bytes | None


def assess(
    reading: GuestReading, before: GuestTrend | None, pin: Bytes | None, config: Config, now: float
) -> Case:
    """Work out what one guest is, wants and suffers."""
    given = give(reading, before, pin, config)
    trend = behaviour.follow(reading, before, given.limits, now)
    return judge(reading, trend, given, now)


def give(
    reading: GuestReading, before: GuestTrend | None, pin: Bytes | None, config: Config
) -> Given:
    """Return what holds for a guest: what the administrator wants, as far as that is possible."""
    size = reading.maximum or (before.actual if before and before.actual else PAGE)
    told = config.limits(reading.id, size, reading.name, reading.current)
    return Given(size=size, limits=_within_reach(told, reading), grace=config.grace, pin=pin)


def judge(reading: GuestReading, trend: GuestTrend, given: Given, now: float) -> Case:
    """Work out what follows from a guest's trend, which is of this round."""
    limits = given.limits
    wants = demand.estimate(reading, trend, limits, now)
    judgement = behaviour.judge(reading, trend, limits, given.grace, now)
    if reading.maximum is None and judgement.verdict != "exempt":
        judgement = Judgement(verdict="implausible", reason="its size is not known")
    return Case(
        reading=reading,
        trend=trend,
        limits=limits,
        verdict=judgement.verdict,
        reason=judgement.reason,
        demand=wants if not reading.implausible else replace(wants, known=False),
        active=shares.activity(wants.working + wants.cache, reading.actual or given.size),
        pin=given.pin,
    )


def _within_reach(limits: Limits, reading: GuestReading) -> Limits:
    """Return limits cut to what is possible: by the balloon, and by the guest's own cgroup.

    A guest that has more than its cgroup lets it have keeps that, and is given no more.
    """
    if reading.ceiling is not None and reading.ceiling < limits.maximum:
        has = limits.maximum if reading.actual is None else min(reading.actual, limits.maximum)
        most = Bytes(max(reading.ceiling, has))
        limits = replace(limits, maximum=most, minimum=min(limits.minimum, most))
    if not reading.beyond or reading.maximum is None:
        return limits
    least = min(bounds.floor(reading.maximum, reading.beyond), limits.maximum)
    return replace(limits, minimum=Bytes(max(limits.minimum, least)))
