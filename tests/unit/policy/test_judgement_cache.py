"""What is kept from round to round changes no decision, whatever happens to guests and host."""

import operator
from collections.abc import Callable
from random import Random
from typing import Final, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.model.config import Config
from qmpmem.model.observation import GuestReading, OperatorRequests, Snapshot
from qmpmem.model.round import HostState, Plan
from qmpmem.policy import History, decide, engine
from qmpmem.policy.judgement_cache import Keeper, Memo
from qmpmem.policy.tracked_numbers import Range, Watched
from qmpmem.records import replace
from qmpmem.units import MIB, Bytes
from tests.bench import deciding
from tests.rig import chance, laws
from tests.rig.readings import changed

Patch = pytest.MonkeyPatch

ROUNDS: Final = 250
ENCODER: Final = msgspec.json.Encoder()
"""It refuses a number that is still watched."""


class Both:
    """Decides with what is kept and without, and compares."""

    def __init__(self, patch: Patch) -> None:
        self._patch = patch
        self.hits = 0

    def __call__(
        self, snapshot: Snapshot, history: History, config: Config
    ) -> tuple[Plan, History]:
        """Decide on a round."""
        with self._patch.context() as patch:
            patch.setattr(engine, "MANY", 1 << 30)
            plain, bare = decide(snapshot, replace(history, kept=None), config)
            patch.setattr(engine, "MANY", 0)
            plan, after = decide(snapshot, history, config)
        before = history.kept
        if isinstance(before, Memo) and isinstance(after.kept, Memo):
            news = after.kept.guests
            self.hits += sum(news.get(guest) is kept for guest, kept in before.guests.items())
        assert ENCODER.encode(plan) == ENCODER.encode(plain)
        assert replace(after, kept=None) == bare
        assert ENCODER.encode(after.guests) == ENCODER.encode(bare.guests)
        return plan, after


@pytest.mark.parametrize("seed", chance.some(range(60), 6))
def test_hosts_made_by_chance(seed: int, monkeypatch: Patch) -> None:
    for _ in laws.rounds(laws.world(seed), Both(monkeypatch)):
        pass


STATES: Final[tuple[HostState, ...]] = ("SLACK", "BALANCED", "SOFT", "HARD")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("seed", chance.some(range(20), 2))
def test_guests_to_which_something_happens_now_and_then(
    state: HostState, seed: int, monkeypatch: Patch
) -> None:
    both, random = Both(monkeypatch), Random(seed)  # noqa: S311 - repeatable on purpose
    deck = deciding.deck(12, state, seed)
    history, config = History(), Config(reserve=deciding.RESERVE)
    for _ in range(ROUNDS):
        _happen(deck, random)
        snapshot = deck.step(random.choice((0.25, 0.9, 1.0, 1.0, 1.0, 2.9)))
        snapshot = replace(snapshot, requests=_requests(random))
        plan, history = both(snapshot, history, config)
        if random.random() < 0.9:
            deck.obey(plan)
    assert both.hits > ROUNDS


def _requests(random: Random) -> OperatorRequests:
    pins = {"g0003": Bytes(700 * MIB)} if random.random() < 0.05 else {}
    return OperatorRequests(hold=random.random() < 0.02, pins=pins)


def _happen(deck: deciding.Deck, random: Random) -> None:
    """Let something happen to a guest, or to the host."""
    if random.random() < 0.03:
        deck.state = random.choice(STATES)
    if random.random() < 0.15:
        number = random.randrange(len(deck.guests))
        change = random.choice(CHANGES)
        deck.guests[number] = change(deck.guests[number])


def _swaps(reading: GuestReading) -> GuestReading:
    some = Bytes(20 * MIB)
    return changed(
        reading,
        age=0.0,
        available=some,
        free=some,
        swap_in=Bytes((reading.stats.swap_in or 0) + 99 * MIB),
    )


CHANGES: Final[tuple[Callable[[GuestReading], GuestReading], ...]] = (
    _swaps,
    lambda reading: changed(reading, age=0.0, available=Bytes(30 * MIB), free=Bytes(30 * MIB)),
    lambda reading: replace(reading, age=0.0, reads=Bytes((reading.reads or 0) + 500 * MIB)),
    lambda reading: replace(reading, epoch=reading.epoch + 1, began="reset", age=None, up=0.0),
    lambda reading: replace(reading, epoch=reading.epoch + 1, began="seen", age=None, up=None),
    lambda reading: replace(reading, actual=reading.maximum),
    lambda reading: replace(reading, actual=Bytes((reading.maximum or 0) // 2)),
    lambda reading: replace(reading, state="paused", exempt="paused"),
    lambda reading: replace(reading, state="running", exempt=None),
    lambda reading: replace(reading, implausible=not reading.implausible),
    lambda reading: replace(reading, cost=reading.maximum),
    lambda reading: replace(reading, deflates=not reading.deflates),
    lambda reading: replace(reading, age=40.0),
    lambda reading: replace(reading, age=14.2),
    lambda reading: replace(reading, refused="no"),
    lambda reading: replace(reading, ceiling=Bytes(900 * MIB)),
)


NUMBERS: Final = st.integers(-1000, 1000) | st.floats(-1e3, 1e3)
COMPARISONS: Final = (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne)


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.sampled_from(COMPARISONS))
def test_within_its_range_the_answer_is_the_same(
    value: float, offset: float, limit: float, other: float, compare: Callable[..., bool]
) -> None:
    noted = Range()
    answer = compare(cast("float", Watched(value, noted)) - offset, limit)
    assert answer == compare(value - offset, limit)
    if noted.low < other < noted.high:
        assert answer == compare(other - offset, limit)


OTHER: Final = cast("float", Watched(4, Range()))
USES: Final[tuple[Callable[[float], object], ...]] = (
    lambda x: x * 2,
    lambda x: 2 / x,
    lambda x: 7 // x,
    lambda x: x // 2,
    lambda x: 5 - x,
    lambda x: int(x) + 1,
    lambda x: round(float(x)),
    lambda x: f"{x:.0f}",
    lambda x: divmod(x, 2),
    lambda x: -x,
    lambda x: abs(x) + 1,
    lambda x: {x: 1},
    lambda x: x + OTHER,
    lambda x: x < OTHER,
    lambda x: x == 3,
)


@pytest.mark.parametrize("use", USES)
def test_what_is_more_than_a_comparison_keeps_nothing(use: Callable[[float], object]) -> None:
    noted = Range()
    found = use(cast("float", Watched(3, noted)))
    assert found == use(3)
    assert not noted.low < 3 < noted.high


def test_a_report_stays_of_its_time_as_it_ages() -> None:
    clock = Range()
    age = Range(clock=clock)
    assert Watched(100.0, clock) - Watched(2.5, age) == 97.5
    assert clock.low < 100 < clock.high
    assert age.low < 2.5 < age.high


def test_few_guests_are_judged_anew(monkeypatch: Patch) -> None:
    monkeypatch.setattr(engine, "MANY", 2)
    deck = deciding.deck(2, "BALANCED")
    config = Config(reserve=deciding.RESERVE)
    _, history = decide(deck.step(), History(), config)
    assert isinstance(history.kept, Memo)
    deck.guests.pop()
    _, history = decide(deck.step(), history, config)
    assert history.kept is None


def test_nothing_is_kept_over_a_change_of_settings() -> None:
    memo = Memo(config=Config(grace=1.0))
    keeper = Keeper(memo, Config(grace=2.0), 1.0, is_worth=True)
    assert keeper.memo() == Memo(config=Config(grace=2.0))
