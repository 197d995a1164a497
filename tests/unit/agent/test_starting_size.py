"""The size that the agent has a guest start with, by a rule."""

import os
import time
from decimal import Decimal
from typing import Final

import pytest

from qmpmem.agent import starting_size
from qmpmem.model.config import Config, Rule
from qmpmem.model.observation import GuestReading
from qmpmem.records import replace
from qmpmem.units import MIB, Bytes, Share
from tests.rig.agent import record
from tests.rig.agent_scenarios import is_seen, play
from tests.rig.fakeguest import FakeHost
from tests.rig.invariants import Watched
from tests.rig.readings import changed

WHOLE: Final = Bytes(512 * MIB)
QUARTER: Final = Bytes(128 * MIB)
RULE: Final = Rule(match="*", current=Share(percent=Decimal(25)))
CONFIG: Final = Config(rules=(RULE,))
NEW: Final = GuestReading(
    id="a", state="running", maximum=WHOLE, actual=WHOLE, deflates=True, exempt=None
)


def size(
    reading: GuestReading = NEW,
    *,
    config: Config = CONFIG,
    age: float = 1.0,
) -> Bytes | None:
    return starting_size.current(record("a"), reading, config, age)


def test_a_guest_that_has_just_started() -> None:
    assert size() == QUARTER
    assert size(replace(NEW, state="prelaunch"), age=1e6) == QUARTER


@pytest.mark.parametrize(
    "changes",
    [
        {"available": Bytes(400 * MIB)},
        {"actual": Bytes(400 * MIB)},
        {"actual": None},
        {"maximum": None},
        {"deflates": False},
        {"deflates": None},
        {"exempt": "locked"},
        {"beyond": Bytes(MIB)},
        {"state": "inmigrate"},
        {"state": "unreachable"},
    ],
)
def test_any_other_is_the_policys(changes: dict[str, object]) -> None:
    assert size(changed(NEW, **changes)) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"current": WHOLE},  # its launcher was asked for all of it
        {"current": Bytes(MIB)},
        {"arriving": True},
        {"origin": "adopted"},
    ],
)
def test_guests_whose_start_was_anothers(fields: dict[str, object]) -> None:
    assert starting_size.current(record("a", **fields), NEW, CONFIG, 1.0) is None


@pytest.mark.parametrize("age", [starting_size.JUST, 3600.0])
def test_a_guest_that_started_long_ago(age: float) -> None:
    assert size(age=age) is None


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (None, None),
        (Rule(match="*"), None),
        (Rule(match="b", current=Share(percent=Decimal(25))), None),
        (Rule(match="*", current=Share(percent=Decimal(100))), None),
        (Rule(match="*", current=Bytes(8 * WHOLE)), None),
        (Rule(match="*", current=Share(percent=Decimal(25)), managed=False), None),
        (Rule(match="*", current=Share(percent=Decimal(50)), maximum=QUARTER), QUARTER),
    ],
)
def test_what_the_rule_says(rule: Rule | None, expected: Bytes | None) -> None:
    assert size(config=Config(rules=() if rule is None else (rule,))) == expected


def test_the_age_is_that_of_the_process() -> None:
    ticks = time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
    for seconds, expected in ((5, QUARTER), (3600, None)):
        started = int(ticks - seconds * os.sysconf("SC_CLK_TCK"))
        made = record("a", start_time=started)
        assert starting_size.current(made, NEW, CONFIG) == expected


@pytest.mark.parametrize(
    ("dry_run", "hold", "pinned", "told"),
    [
        (False, False, False, [QUARTER]),
        (True, False, False, []),
        (False, True, False, []),
        (False, False, True, []),
    ],
)
def test_the_agent_tells_it_once(
    dry_run: bool,  # noqa: FBT001
    hold: bool,  # noqa: FBT001
    pinned: bool,  # noqa: FBT001
    told: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What an operator asks for comes first."""
    monkeypatch.setattr(starting_size, "up", lambda _: starting_size.JUST / 2)

    async def scene(host: FakeHost, seen: Watched) -> None:
        guest = host.guests["a"]
        guest.reports = False
        seen.agent.requests.hold(on=hold)
        if pinned:
            seen.agent.requests.pin("a", WHOLE)
        await seen.until(lambda: is_seen(seen, "a"))
        await seen.rounds(10)
        assert guest.balloons[: len(told) + 1] == told
        reading = seen.reading("a")
        assert reading is not None
        assert reading.current == (told[0] if told else None)
        seen.agent.requests.hold(on=False)
        await seen.rounds(10)
        # Its driver has not begun: after the hold the policy tells it.
        assert guest.balloons.count(QUARTER) == (0 if dry_run or pinned else 1)

    play(scene, "a", config=CONFIG, dry_run=dry_run)
