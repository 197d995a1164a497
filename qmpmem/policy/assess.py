"""What one guest is, wants and suffers, by itself: the limits, the trend, and then the rest."""

from qmpmem import bounds
from qmpmem.config import Config, Limits
from qmpmem.policy import conduct, demand, shares
from qmpmem.policy.cases import Case
from qmpmem.policy.conduct import Judgement
from qmpmem.policy.history import GuestTrend
from qmpmem.records import Record, replace
from qmpmem.sight import GuestSight
from qmpmem.units import PAGE, Bytes


class Given(Record, frozen=True):
    """What holds for a guest, whatever it does."""

    size: Bytes
    """Its maximum; what it last had where that is not known."""
    limits: Limits
    grace: float
    pin: Bytes | None


def assess(
    sight: GuestSight, before: GuestTrend | None, pin: Bytes | None, config: Config, now: float
) -> Case:
    """Work out what one guest is, wants and suffers."""
    given = give(sight, before, pin, config)
    trend = conduct.follow(sight, before, given.limits, now)
    return judge(sight, trend, given, now)


def give(sight: GuestSight, before: GuestTrend | None, pin: Bytes | None, config: Config) -> Given:
    """Return what holds for a guest: what the administrator says, as far as that is possible."""
    size = sight.maximum or (before.actual if before and before.actual else PAGE)
    told = config.limits(sight.id, size, sight.name, sight.current)
    return Given(size=size, limits=_within_reach(told, sight), grace=config.grace, pin=pin)


def judge(sight: GuestSight, trend: GuestTrend, given: Given, now: float) -> Case:
    """Work out what follows from a guest's trend, which is of this round."""
    limits = given.limits
    wants = demand.estimate(sight, trend, limits, now)
    judgement = conduct.judge(sight, trend, limits, given.grace, now)
    if sight.maximum is None and judgement.verdict != "exempt":
        judgement = Judgement(verdict="implausible", reason="its size is not known")
    return Case(
        sight=sight,
        trend=trend,
        limits=limits,
        verdict=judgement.verdict,
        reason=judgement.reason,
        demand=wants if not sight.implausible else replace(wants, known=False),
        active=shares.activity(wants.working + wants.cache, sight.actual or given.size),
        pin=given.pin,
    )


def _within_reach(limits: Limits, sight: GuestSight) -> Limits:
    """Keep limits to what is possible: by the balloon, and by the guest's own cgroup.

    A guest that has more than its group lets it have keeps that; it is only not given more.
    """
    if sight.ceiling is not None and sight.ceiling < limits.maximum:
        has = limits.maximum if sight.actual is None else min(sight.actual, limits.maximum)
        most = Bytes(max(sight.ceiling, has))
        limits = replace(limits, maximum=most, minimum=min(limits.minimum, most))
    if not sight.beyond or sight.maximum is None:
        return limits
    least = min(bounds.floor(sight.maximum, sight.beyond), limits.maximum)
    return replace(limits, minimum=Bytes(max(limits.minimum, least)))
