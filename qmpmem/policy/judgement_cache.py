"""Judgements that are kept from round to round: of thousands of guests a round changes a few.

Theory of operation:
    What is decided about a guest follows from what is seen of it, what is remembered of it, the
    settings, and numbers that change all the time: the time, ages, its entitlement, and what the
    host has. A guest is judged with watched numbers (`tracked_numbers`), so it is known how far
    these may go. As long as they do not go further and nothing else changes, the next rounds take
    the judgement as it is. Only one that moves nothing is kept: a command changes its guest.

Rules of this file:
    Nothing here decides. A round that keeps nothing makes the same plan, and a test holds that.
"""

from collections.abc import Mapping
from math import inf
from typing import Final, cast

from qmpmem.model.config import Config
from qmpmem.model.observation import GuestReading
from qmpmem.model.round import Explanation, HostState
from qmpmem.policy import assess, behaviour, commands, demand, goals
from qmpmem.policy.cases import Case, Round
from qmpmem.policy.commands import Move
from qmpmem.policy.goals import Goal
from qmpmem.policy.state import GuestTrend
from qmpmem.policy.tracked_numbers import Range, Watched
from qmpmem.records import Record, replace
from qmpmem.units import Bytes

MANY: Final = 50
"""Guests from which on judgements are kept: with fewer, to watch costs more than to judge anew."""

Span = tuple[float, float, float, float, float, float, float, float]
"""The limits between which a judgement holds: two numbers each for the time, the age of the report,
the seconds since the start, and the entitlement."""


class Terms:
    """What a decision asked of the host, and the answers.

    Args:
        state: of the host.
        flags: what was asked, and is no number.
        ranges: between which each number may go.
    """

    __slots__ = ("_flags", "_ranges", "_state")

    def __init__(
        self,
        state: HostState,
        flags: Mapping[str, object],
        ranges: tuple[tuple[str, float, float], ...],
    ) -> None:
        self._state, self._flags, self._ranges = state, flags, ranges

    def hold(self, now: Round) -> bool:
        """Tell whether a round gives the same answers."""
        return (
            now.state == self._state
            and all(getattr(now, name) == value for name, value in self._flags.items())
            and all(low < getattr(now, name) < high for name, low, high in self._ranges)
        )


class Asked:
    """A round that notes what is asked of it.

    Args:
        round_: the round.
        clock: the range of the time.
    """

    NUMBERS: Final = tuple(
        name
        for name, kind in Round.__annotations__.items()
        if kind is int and name not in ("now", "state", "tax")
    )

    def __init__(self, round_: Round, clock: Range) -> None:
        self._round = round_
        self._flags: dict[str, object] = {}
        self._ranges = {name: Range() for name in self.NUMBERS}
        self._known: dict[object, Terms] = {}
        self.state: HostState = round_.state
        self.tax = round_.tax
        self.now = Watched(round_.now, clock)
        for name, range_ in self._ranges.items():
            setattr(self, name, Watched(getattr(round_, name), range_))

    def __getattr__(self, name: str) -> object:
        """Return what is no number, and note it; a property asks this round for its parts."""
        worked_out = getattr(Round, name)
        if isinstance(worked_out, property):
            return worked_out.__get__(self)
        self._flags[name] = answer = getattr(self._round, name)
        return answer

    def begin(self) -> None:
        """Forget what was asked."""
        self._flags = {}
        for range_ in self._ranges.values():
            range_.low, range_.high = -inf, inf

    def terms(self) -> Terms:
        """Return what was asked since `begin`; the same object for the same questions."""
        ranges = tuple(
            [
                (name, range_.low, range_.high)
                for name, range_ in self._ranges.items()
                if range_.low != -inf or range_.high != inf
            ]
        )
        key = ranges, tuple(self._flags)
        if key not in self._known:
            self._known[key] = Terms(self.state, self._flags, ranges)
        return self._known[key]


class Decided(Record, frozen=True):
    """The decision that a guest stays as it is, and how long that holds."""

    goal: Goal
    move: Move
    terms: Terms
    span: Span


class Kept(Record, frozen=True):
    """A guest, and what was found about it."""

    reading: GuestReading
    pin: Bytes | None
    case: Case
    span: Span
    decided: Decided | None = None


class Said(Record, frozen=True):
    """What is said about a guest that stays as it is."""

    move: Move
    text: Explanation


class Memo(Record, frozen=True):
    """All that is kept, for rounds with the same settings."""

    config: Config
    guests: Mapping[str, Kept] = {}
    said: Mapping[str, Said] = {}


class Keeper:
    """Judges guests in one round, and takes over what still holds of the round before.

    Args:
        memo: what the round before kept.
        config: what the administrator wants.
        now: the time.
        is_worth: whether anything is to be kept.
    """

    def __init__(self, memo: object, config: Config, now: float, *, is_worth: bool) -> None:
        known = isinstance(memo, Memo) and (memo.config is config or memo.config == config)
        self._old = memo if known and is_worth and isinstance(memo, Memo) else Memo(config=config)
        self._config, self._now, self._is_worth = config, now, is_worth
        self._guests: dict[str, Kept] = {}
        self._said: dict[str, Said] = {}
        self._holding: dict[Terms, bool] = {}
        if is_worth:
            self._clock, self._up, self._share = Range(), Range(), Range()
            self._age = Range(clock=self._clock)
            self._watched_now = cast("float", Watched(now, self._clock))

    def memo(self) -> Memo | None:
        """Return what this round keeps."""
        if not self._is_worth:
            return None
        return Memo(config=self._config, guests=self._guests, said=self._said)

    def assess(self, reading: GuestReading, before: GuestTrend | None, pin: Bytes | None) -> Case:
        """Work out what one guest is, wants and suffers."""
        if not self._is_worth:
            return assess.assess(reading, before, pin, self._config, self._now)
        kept = self._old.guests.get(reading.id)
        if kept is None or kept.case.trend is not before or not self._is_same(kept, reading, pin):
            return self._judge(reading, before, pin)
        self._guests[reading.id] = kept
        return replace(kept.case, reading=reading)

    def _is_same(self, kept: Kept, reading: GuestReading, pin: Bytes | None) -> bool:
        """Tell whether nothing is new about a guest but the time."""
        old, age, up = kept.reading, reading.age, reading.up
        if pin != kept.pin or not _is_within(kept.span, self._now, age or 0.0, up or 0.0, 0.0):
            return False
        if (age is None) != (old.age is None) or (up is None) != (old.up is None):
            return False
        counters = kept.case.trend.counters
        if age is not None and counters is not None:
            is_new = self._now - age - counters.time >= demand.SAME_REPORT
            if is_new:
                return False
        return replace(reading, age=old.age, up=old.up) == old

    def _judge(self, reading: GuestReading, before: GuestTrend | None, pin: Bytes | None) -> Case:
        given = assess.give(reading, before, pin, self._config)
        trend = behaviour.follow(reading, before, given.limits, self._now)
        trend = before if before is not None and trend == before else trend
        self._begin()
        seen, now = self._watch(reading), self._watched_now
        if behaviour.follow(seen, trend, given.limits, now) != trend:
            return assess.judge(reading, trend, given, self._now)
        case = replace(assess.judge(seen, trend, given, now), reading=reading)
        self._guests[reading.id] = Kept(reading=reading, pin=pin, case=case, span=self._span())
        return case

    def begin(self, now: Round) -> None:
        """Begin to decide, by what holds for all guests in this round."""
        self._round = now
        if self._is_worth:
            self._asked = Asked(now, self._clock)

    def goal(self, case: Case) -> Goal:
        """Return where a guest should go by itself."""
        kept = self._guests.get(case.reading.id)
        if kept is None:
            return goals.goal(case, self._round)
        if kept.decided is not None and self._holds(kept.decided, case):
            return kept.decided.goal
        decided = self._decide(case)
        self._guests[case.reading.id] = replace(kept, decided=decided)
        return goals.goal(case, self._round) if decided is None else decided.goal

    def _holds(self, decided: Decided, case: Case) -> bool:
        age, up, terms = case.reading.age or 0.0, case.reading.up or 0.0, decided.terms
        if not _is_within(decided.span, self._now, age, up, case.entitlement):
            return False
        holds = self._holding.get(terms)
        if holds is None:
            holds = self._holding[terms] = terms.hold(self._round)
        return holds

    def _decide(self, case: Case) -> Decided | None:
        """Decide about a guest with watched numbers; None: it moves, or is told to move."""
        self._begin()
        self._asked.begin()
        share = cast("Bytes", Watched(case.entitlement, self._share))
        seen = replace(case, reading=self._watch(case.reading), entitlement=share)
        now = cast("Round", self._asked)
        goal = goals.goal(seen, now)
        if goal.kind != "stay":
            return None
        move = commands.command(seen, goal, now)
        if move.target is not None:
            return None
        return Decided(goal=goal, move=move, terms=self._asked.terms(), span=self._span())

    def move(self, case: Case, goal: Goal) -> Move:
        """Return the command that takes a guest to its goal, where that is worth one."""
        kept = self._guests.get(case.reading.id)
        if kept is not None and kept.decided is not None and kept.decided.goal is goal:
            return kept.decided.move
        return commands.command(case, goal, self._round)

    def said(self, case: Case, move: Move) -> Explanation | None:
        """Return the explanation of a guest that still stays as it is; None: there is none yet."""
        said = self._old.said.get(case.reading.id)
        if said is None or said.move is not move:
            return None
        self._said[case.reading.id] = said
        if said.text.entitlement in (None, case.entitlement):
            return said.text
        return replace(said.text, entitlement=case.entitlement)

    def say(self, move: Move, text: Explanation) -> Explanation:
        """Note the explanation of a guest, and return it."""
        kept = self._guests.get(move.guest)
        if kept is not None and kept.decided is not None and kept.decided.move is move:
            self._said[move.guest] = Said(move=move, text=text)
        return text

    def _begin(self) -> None:
        for range_ in (self._clock, self._age, self._up, self._share):
            range_.clear()

    def _watch(self, reading: GuestReading) -> GuestReading:
        age, up = reading.age, reading.up
        return replace(
            reading,
            age=None if age is None else Watched(age, self._age),
            up=None if up is None else Watched(up, self._up),
        )

    def _span(self) -> Span:
        clock, age, up, share = self._clock, self._age, self._up, self._share
        return (
            *(clock.low, clock.high, age.low, age.high),
            *(up.low, up.high, share.low, share.high),
        )


def _is_within(span: Span, now: float, age: float, up: float, share: float) -> bool:
    low, high, youngest, oldest, least_up, most_up, least, most = span
    return (
        low < now < high
        and youngest < age < oldest
        and least_up < up < most_up
        and least < share < most
    )
