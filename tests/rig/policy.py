"""The policy's terms, made up: a guest as it is seen, a course of time, a round, and a closed loop.

Sizes of the arguments are MiB, those of the records are bytes.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from qmpmem.model.config import Config, Limits
from qmpmem.model.guest import GuestStats
from qmpmem.model.observation import GuestReading, HostReading, OperatorRequests, Snapshot
from qmpmem.model.round import Explanation, Plan
from qmpmem.policy import History, behaviour, decide, demand, shares
from qmpmem.policy.cases import Case, Round
from qmpmem.policy.habits import Use
from qmpmem.policy.state import GuestTrend
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.readings import changed

GRACE: Final = 60.0


def limits(maximum: int = 4096, **more: object) -> Limits:
    """Return the limits of a guest of a size."""
    return replace(Config().limits("a", Bytes(maximum * MIB)), **more)


def reading(
    actual: int = 4096, used: int = 1024, maximum: int = 4096, **more: object
) -> GuestReading:
    """Return a guest that has touched all it has."""
    size = Bytes(actual * MIB)
    base = GuestReading(
        id="a",
        state="running",
        maximum=Bytes(maximum * MIB),
        actual=size,
        rss=size,
        cost=size,
        stats=GuestStats(
            available=Bytes((actual - used) * MIB),
            free=Bytes((actual - used) * MIB),
            swap_in=Bytes(0),
            major_faults=0,
            oom_kills=0,
            alloc_stalls=0,
        ),
        age=0.5,
    )
    return changed(base, **more)


Course = Callable[[float], GuestReading]


def play(
    course: Course | GuestReading,
    until: float,
    trend: GuestTrend | None = None,
    start: float = 0.0,
) -> GuestTrend:
    """Follow a guest once a second, from `start` to `until`."""
    now = start
    while now <= until:
        seen = course if isinstance(course, GuestReading) else course(now)
        trend = behaviour.follow(seen, trend, limits((seen.maximum or Bytes(0)) // MIB), now)
        now += 1.0
    assert trend is not None
    return trend


def case(seen: GuestReading, trend: GuestTrend, now: float = 100.0, **more: object) -> Case:
    """Return what the engine would work out about a guest; its entitlement is what it has."""
    allowed = limits((seen.maximum or Bytes(0)) // MIB)
    judged = behaviour.judge(seen, trend, allowed, GRACE, now)
    wants = demand.estimate(seen, trend, allowed, now)
    has = seen.actual or allowed.maximum
    found = Case(
        reading=seen,
        trend=trend,
        limits=allowed,
        verdict=judged.verdict,
        reason=judged.reason,
        demand=wants,
        active=shares.activity(wants.working + wants.cache, has),
        entitlement=has,
    )
    return replace(found, **more)


def quiet(**more: object) -> Round:
    """Return a round at second 100, of a host with plenty of memory and nothing to do."""
    base = Round(
        now=100.0,
        state="SLACK",
        spare=16 * GIB,
        easy=16 * GIB,
        margin=0,
        base=GIB,
        swap=0,
        swap_total=0,
        cheap=0,
        lacks=dict.fromkeys(("idle", "modest", "bare", "minimum"), 0),
        last=0,
        plenty=0,
        filled=0,
        exposed=-GIB,
        hold=False,
        tax=0.75,
    )
    return replace(base, **more)


def use(day: int) -> Use:
    """Return what guest `a`, of 2 GiB, used in the hour from nine of a day."""
    return Use(
        guest="a",
        day=day,
        hour=9,
        usual=Bytes(900 * MIB),
        peak=Bytes(1200 * MIB),
        start=None,
        maximum=Bytes(2 * GIB),
        minutes=60,
    )


CONFIG: Final = Config(reserve=Bytes(200 * MIB), grace=5.0)


class World:
    """A host and its guests of 1 GiB, or of `maximum`.

    A guest has touched all it has, and its balloon moves at once.
    """

    def __init__(
        self, total: int, used: Mapping[str, int], config: Config = CONFIG, maximum: int = 1024
    ) -> None:
        self.total = total
        self.used = dict(used)
        self.maximum = maximum
        self.actual = dict.fromkeys(used, maximum)
        self.more: dict[str, dict[str, object]] = {name: {} for name in used}
        self.host: dict[str, object] = {}
        self.ksm = Snapshot(time=0.0, host=HostReading()).ksm
        self.config = config
        self.history = History()
        self.time = 0.0
        self.requests = OperatorRequests()
        self.kept = 0
        """Taken by others on the host."""
        self.stuck: set[str] = set()
        """The guests whose balloons do not move."""

    @property
    def available(self) -> int:
        return max(0, self.total - self.kept - sum(self.actual.values()))

    def reading(self, name: str) -> GuestReading:
        seen = reading(self.actual[name], min(self.used[name], self.actual[name]), self.maximum)
        return changed(seen, **({"id": name, "free": None} | self.more[name]))

    def look(self) -> Snapshot:
        host = HostReading(total=Bytes(self.total * MIB), available=Bytes(self.available * MIB))
        guests = tuple(self.reading(name) for name in self.used)
        host = replace(host, **self.host)
        return Snapshot(
            time=self.time, host=host, guests=guests, requests=self.requests, ksm=self.ksm
        )

    def step(self, seconds: float = 1.0) -> Plan:
        self.time += seconds
        plan, self.history = decide(self.look(), self.history, self.config)
        for change in plan.balloons:
            if change.guest not in self.stuck:
                self.actual[change.guest] = change.target // MIB
        return plan

    def run(self, seconds: int) -> list[Plan]:
        return [self.step() for _ in range(seconds)]

    def sizes(self, name: str, seconds: int) -> list[int]:
        """Return what a guest has in each of the next seconds."""
        found = []
        for _ in range(seconds):
            self.step()
            found.append(self.actual[name])
        return found


def told(plans: list[Plan]) -> set[str]:
    """Return the guests that got a command."""
    return {change.guest for plan in plans for change in plan.balloons}


def about(plan: Plan, guest: str) -> Explanation:
    """Return what a plan says of a guest."""
    return next(each for each in plan.guests if each.guest == guest)


def moves(plans: list[Plan], guest: str) -> Iterator[int]:
    """Yield the targets that a guest was told, in MiB."""
    for plan in plans:
        for change in plan.balloons:
            if change.guest == guest:
                yield change.target // MIB
