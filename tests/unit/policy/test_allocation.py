"""Which guests give and get: growth out of what is spare, and what is lacking out of others."""

from collections.abc import Mapping
from typing import Final

import pytest

from qmpmem.model.round import STATES, HostState, Kind
from qmpmem.policy import allocation, goals, progress
from qmpmem.policy.cases import Case, Depth, Round
from qmpmem.policy.goals import Goal
from qmpmem.policy.state import Shrinking, Stalls, Told
from qmpmem.records import replace
from qmpmem.units import GIB, MIB, Bytes
from tests.rig.policy import case, limits, play, quiet, reading
from tests.rig.readings import changed

DEPTHS: Final[tuple[Depth, ...]] = ("idle", "modest", "bare", "minimum")


def guest(
    name: str,
    actual: int = 2048,
    used: int = 512,
    *,
    fair: int | None = None,
    trend: Mapping[str, object] | None = None,
    **more: object,
) -> Case:
    """Return a guest of 4 GiB at second 100; `fair`: what it is entitled to, in MiB."""
    seen = changed(reading(actual, used), **({"id": name} | more))
    found = case(seen, replace(play(seen, 100), **(trend or {})))
    return found if fair is None else replace(found, entitlement=Bytes(fair * MIB))


def lacks(idle: int = 0, modest: int = 0, bare: int = 0, minimum: int = 0, **more: object) -> Round:
    """Return a round of a host that has nothing to give, and lacks so much."""
    sizes = dict(zip(DEPTHS, (idle, modest, bare, minimum), strict=True))
    spare: dict[str, object] = {"spare": 0, "state": "SOFT"}
    return quiet(lacks={name: size * MIB for name, size in sizes.items()}, **(spare | more))


def share(
    now: Round, *cases: Case, requests: Mapping[str, Goal] | None = None
) -> dict[str, tuple[Kind, int]]:
    """Return what each guest is to do, and how far it goes in MiB."""
    aims = {found.id: goals.goal(found, now) for found in cases} | dict(requests or {})
    found = allocation.allocate(cases, aims, now)
    return {
        each.id: (found[each.id].kind, (found[each.id].size - each.actual) // MIB) for each in cases
    }


def aim(found: Case, more: int, kind: Kind = "need", due: int | None = None) -> Goal:
    """Return the goal of a guest that is to grow."""
    return Goal(
        size=found.actual + more * MIB,
        kind=kind,
        bound="demand",
        reason="for a test",
        due=(more if due is None else due) * MIB,
    )


class TestGive:
    def give(self, now: Round, *requests: tuple[Case, Goal]) -> dict[str, int]:
        cases = [found for found, _ in requests]
        found = share(now, *cases, requests={each.id: goal for each, goal in requests})
        return {name: more for name, (_, more) in found.items()}

    def test_growth_comes_out_of_what_is_spare(self) -> None:
        one, two = guest("a", fair=4096), guest("b", fair=4096)
        given = self.give(quiet(spare=300 * MIB), (one, aim(one, 200)), (two, aim(two, 200)))
        assert given == {"a": 200, "b": 100}

    def test_entitlements_come_first(self) -> None:
        one, two = guest("a", fair=2048), guest("b", fair=4096)
        given = self.give(quiet(spare=300 * MIB), (one, aim(one, 200)), (two, aim(two, 200)))
        assert given == {"a": 100, "b": 200}

    def test_a_guest_that_suffers_comes_first_and_may_have_half_the_reserve(self) -> None:
        calm, full = guest("a", fair=4096), guest("b", 2048, 2040, fair=4096)
        now = quiet(spare=100 * MIB, margin=50 * MIB, base=400 * MIB)
        given = self.give(now, (calm, aim(calm, 500)), (full, aim(full, 500)))
        assert given == {"a": 0, "b": 100 + 50 + 200}
        assert self.give(now, (calm, aim(calm, 500))) == {"a": 100}

    @pytest.mark.parametrize(("thrashes", "more"), [(False, 100 + 250), (True, 100)])
    def test_one_that_suffers_may_cost_the_host_a_quarter_of_its_swap(
        self, more: int, *, thrashes: bool
    ) -> None:
        full = guest("a", 2048, 2040, fair=4096)
        now = quiet(spare=100 * MIB, base=0, swap=1000 * MIB, thrashes=thrashes)
        assert self.give(now, (full, aim(full, 900))) == {"a": more}

    def test_one_that_suffers_may_cost_the_host_half_of_compressed_swap(self) -> None:
        full = guest("a", 2048, 2040, fair=4096)
        now = quiet(spare=0, base=0, swap=1000 * MIB, cheap=500 * MIB)
        assert self.give(now, (full, aim(full, 900))) == {"a": 500}

    def test_a_release_is_absolute(self) -> None:
        reset = guest("a")
        assert self.give(lacks(100), (reset, aim(reset, 2048, "release"))) == {"a": 2048}

    def test_what_is_not_needed_is_handed_out_little_by_little(self) -> None:
        one = guest("a", fair=4096)
        now = quiet(plenty=GIB)
        percent = allocation.HANDED_PERCENT
        assert self.give(now, (one, aim(one, 500, "plenty"))) == {"a": 1024 * percent // 100}
        assert self.give(now, (one, aim(one, 500, "need"))) == {"a": 500}

    def test_page_cache_is_tried_out_beside_what_there_is_plenty_of(self) -> None:
        """A host with a little less than plenty would give as much."""
        one = guest("a", fair=4096)
        for state, plenty in (("SLACK", 10 * MIB), ("BALANCED", -MIB)):
            now = quiet(state=state, plenty=plenty)
            assert self.give(now, (one, aim(one, 256, "cache"))) == {"a": 256}

    def test_nothing_beyond_entitlements_while_another_suffers_below_its_own(self) -> None:
        rich, poor = guest("a", 2048, 1990, fair=1024), guest("b", 1024, 1020, fair=3000)
        now = quiet(state="SOFT", spare=4 * GIB)
        given = self.give(now, (rich, aim(rich, 200)), (poor, aim(poor, 200)))
        assert given == {"a": 0, "b": 200}
        assert self.give(replace(now, state="BALANCED"), (rich, aim(rich, 200)))["a"] == 200


class TestTake:
    def test_what_is_lacking_is_taken_from_the_cheapest(self) -> None:
        now = lacks(150)
        found = share(now, guest("idle"), guest("busy", 2048, 1200))
        assert found["busy"] == ("stay", 0)
        kind, moved = found["idle"]
        assert kind == "take"
        assert -170 <= moved <= -150  # in pieces, the last of them is worth a command

    def test_a_guest_gives_a_step_and_the_next_one_the_rest(self) -> None:
        found = share(lacks(300), guest("idle"), guest("busy", 2048, 1200))
        assert found["idle"] == ("take", -205)
        kind, moved = found["busy"]
        assert kind == "take"
        assert -120 <= moved <= -95

    def test_equal_guests_give_equally(self) -> None:
        """The last page cache of one is worth more than the first of another."""
        found = share(lacks(360), guest("a"), guest("b"), guest("c"), guest("d"))
        given = [-moved for _, moved in found.values()]
        assert sum(given) >= 360
        assert max(given) - min(given) <= 40

    def test_a_small_lack_is_given_by_one_and_is_worth_a_command(self) -> None:
        found = share(lacks(3), guest("idle"), guest("busy", 2048, 1200))
        assert (found["idle"][1], found["busy"]) == (-21, ("stay", 0))

    def test_what_is_on_its_way_is_not_taken_again(self) -> None:
        on_its_way = {
            "phase": Shrinking(start=Bytes(2 * GIB), since=99.0, cost=None),
            "told": Told(target=Bytes(1900 * MIB), at=99.0),
        }
        found = share(lacks(140), guest("going", trend=on_its_way), guest("idle"))
        assert found == {"going": ("stay", 0), "idle": ("stay", 0)}

    @pytest.mark.parametrize("state", STATES)
    def test_no_guest_is_taken_deeper_than_the_state_allows(self, state: HostState) -> None:
        """A host that lacks all there is takes what guests do not use, then what they need less."""
        busy = guest("busy", 2048, 1600, trend={"slow": 1700.0 * MIB})
        now = lacks(9999, 9999, 9999, 9999, state=state)
        size = busy.actual
        for _ in range(60):
            kind, moved = share(now, replace(busy, reading=replace(busy.reading, actual=size)))[
                "busy"
            ]
            assert kind in ("take", "stay", "need")
            size = Bytes(size + min(0, moved) * MIB)
        wants = busy.demand
        floors = {"SOFT": wants.modest, "HARD": wants.bare, "CRITICAL": busy.limits.minimum}
        least = floors.get(state, wants.wanted)
        assert -2 * MIB <= size - least < progress.band(busy.limits)  # less is not worth a command

    def test_page_cache_that_pays_goes_before_the_last_need(self) -> None:
        pays = guest("pays", 2048, 512)
        found = replace(
            pays, trend=replace(pays.trend, cache=replace(pays.trend.cache, kept=Bytes(GIB)))
        )
        assert share(lacks(idle=300), found)["pays"][0] == "take"

    @pytest.mark.parametrize(
        "more",
        [
            {"exempt": "vfio"},
            {"implausible": True},
            {"age": 31.0},
            {"trend": {"rest_until": 101.0}},
            {"trend": {"raised": 60.0}},
            {"trend": {"foreign_at": 99.0}},
        ],
    )
    def test_hands_off(self, more: dict[str, object]) -> None:
        odd = guest("odd", **more)  # type: ignore[arg-type]
        assert share(lacks(300, 300), odd, guest("plain"))["odd"] == ("stay", 0)

    def test_a_pinned_guest_gives_in_the_last_need_only(self) -> None:
        pinned = replace(guest("a", 3000), pin=Bytes(3000 * MIB))
        for state in STATES:
            kind, _ = share(lacks(300, 300, 300, 300, state=state), pinned)["a"]
            assert kind == ("take" if state == "CRITICAL" else "pin")

    def test_a_guest_that_has_less_than_its_share_gives_last_in_need(self) -> None:
        poor, rich = guest("poor", 2048, 100, fair=3000), guest("rich", 2048, 1200, fair=1500)
        found = share(lacks(100, state="HARD"), poor, rich)
        assert (found["poor"], found["rich"]) == (("stay", 0), ("take", -100))


class TestDues:
    def test_others_give_what_they_do_not_use_for_what_a_guest_needs(self) -> None:
        grows = guest("a", 2048, 2010, fair=3000)
        found = share(quiet(state="BALANCED", spare=0, base=0), grows, guest("idle"))
        assert found["idle"][0] == "take"

    def test_not_for_what_is_given_anyway(self) -> None:
        grows = guest("a", 2048, 2010, fair=3000)
        found = share(quiet(state="BALANCED", spare=2 * GIB), grows, guest("idle"))
        assert found["a"][1] > 0
        assert found["idle"] == ("stay", 0)

    def test_what_is_handed_out_little_by_little_is_owed_by_no_guest(self) -> None:
        reads = guest("a", fair=4096)
        request = {"a": aim(reads, 500, "cache")}
        now = quiet(plenty=GIB)
        assert share(now, reads, guest("idle"), requests=request)["idle"] == ("stay", 0)
        tight = replace(now, state="BALANCED", plenty=0, spare=0)
        assert share(tight, reads, guest("idle"), requests=request)["idle"][0] == "take"

    def test_a_guest_that_reads_much_gives_nothing_for_itself(self) -> None:
        reads = guest("a", fair=4096)
        request = {"a": aim(reads, 500, "cache")}
        now = quiet(state="BALANCED", spare=0)
        assert share(now, reads, requests=request)["a"] == ("cache", 0)
        assert share(lacks(500), reads, requests=request)["a"][0] == "take"

    def test_for_cache_no_guest_gives_what_it_used_minutes_ago(self) -> None:
        reads = guest("a", fair=4096)
        was = guest("was", 2048, 500, trend={"slow": 2000.0 * MIB})
        now = quiet(state="SOFT", spare=0)
        cache = {"a": aim(reads, 500, "cache")}
        assert share(now, reads, was, requests=cache)["was"] == ("stay", 0)
        need = {"a": aim(reads, 500, "need")}
        assert share(now, reads, was, requests=need)["was"][0] == "take"


class TestRevoke:
    """A guest suffers with less than its share: others give what they have beyond their own."""

    POOR: Final = guest("poor", 1024, 1020, fair=2048)
    FULL: Final = guest("rich", 3000, 2990, fair=1500)

    def revoked(self, *cases: Case, **more: object) -> dict[str, int]:
        now = quiet(**({"state": "HARD", "spare": 0, "base": 0} | more))
        found = share(now, *cases)
        return {name: moved for name, (kind, moved) in found.items() if kind == "revoke"}

    def test_however_full_they_say_they_are(self) -> None:
        assert self.revoked(self.POOR, self.FULL) == {"rich": -82}  # 2 % of its maximum
        hurt = guest("rich", 3000, 2990, fair=1500, trend={"hurt": 99.0})
        assert self.revoked(self.POOR, hurt) == {"rich": -82}

    @pytest.mark.parametrize(
        ("state", "reports", "takes"),
        [("SOFT", 100, False), ("HARD", 100, True), ("HARD", 1, False)],
    )
    def test_from_one_that_has_just_started_in_need_only(
        self, state: HostState, reports: int, *, takes: bool
    ) -> None:
        young = {"hurt": 99.0, "born": 80.0, "reports": reports}
        hurt = guest("rich", 3000, 2990, fair=1500, trend=young)
        assert (self.revoked(self.POOR, hurt, state=state, grace=60.0) != {}) is takes

    def test_not_below_their_share(self) -> None:
        near = guest("rich", 3000, 2990, fair=2950)
        assert self.revoked(self.POOR, near) == {"rich": -50}
        below = guest("rich", 3000, 2990, fair=3000)
        assert self.revoked(self.POOR, below) == {}

    @pytest.mark.parametrize(
        ("poor", "suffers"),
        [
            (guest("poor", 2048, 2040, fair=3000), True),
            (guest("poor", 2048, 1700, fair=3000), False),  # it has room
            (guest("poor", 2048, 2040, fair=2048), False),  # it has its share
            (guest("poor", 2048, 2040, fair=2300), False),  # nearly
            (guest("poor", 2048, 2040, fair=3000, exempt="vfio"), False),  # it is not helped
        ],
    )
    def test_only_where_one_suffers_below_its_own(self, poor: Case, *, suffers: bool) -> None:
        assert (self.revoked(poor, self.FULL) != {}) is suffers

    def test_not_for_what_is_there(self) -> None:
        assert self.revoked(self.POOR, self.FULL, spare=4 * GIB) == {}

    @pytest.mark.parametrize(
        "more",
        [
            {"deflates": False},  # its programs would be killed
            {"exempt": "vfio"},
            {"implausible": True},
            {"age": 31.0},
            {"available": None, "free": None},
            {"trend": {"reports": 1}},
            {"trend": {"foreign_at": 99.0}},
            {"trend": {"rest_until": 101.0}},
        ],
    )
    def test_hands_off(self, more: dict[str, object]) -> None:
        assert self.revoked(self.POOR, guest("rich", 3000, 2990, fair=1500, **more)) == {}  # type: ignore[arg-type]

    def test_not_while_all_is_held_nor_from_a_pinned_guest(self) -> None:
        assert self.revoked(self.POOR, self.FULL, hold=True) == {}
        pinned = replace(self.FULL, pin=Bytes(3000 * MIB))
        assert self.revoked(self.POOR, pinned) == {}

    def test_from_the_guest_that_has_most_beyond_its_share(self) -> None:
        more = guest("more", 3000, 2990, fair=1433)
        assert set(self.revoked(self.POOR, self.FULL, more)) == {"more", "rich"}
        need = replace(self.POOR, entitlement=Bytes(1224 * MIB))
        found = share(
            quiet(state="HARD", spare=0, base=0),
            *(need, self.FULL, more),
            requests={"poor": aim(need, 60)},
        )
        assert [name for name, (kind, _) in found.items() if kind == "revoke"] == ["more"]

    @pytest.mark.parametrize(
        ("more", "takes"),
        [
            ({"thrashes": True, "swap": GIB}, True),
            ({"swap": 0}, True),
            ({"swap": GIB}, False),  # the host can still swap out what is cold
            ({"thrashes": True, "last": 0}, False),
        ],
    )
    def test_in_the_hosts_last_need(self, more: dict[str, object], *, takes: bool) -> None:
        """It is taken even from a guest that was given memory just now."""
        now = quiet(**({"state": "CRITICAL", "spare": 0, "last": 200 * MIB} | more))
        found = share(now, guest("rich", 3000, 2990, fair=1500, trend={"raised": 99.0}))
        assert (found["rich"][0] == "revoke") is takes

    def tried(self, now: Round, *cases: Case) -> dict[str, int]:
        """Return what is revoked for the host alone, which has swap left."""
        found = allocation.allocate(cases, {each.id: goals.goal(each, now) for each in cases}, now)
        return {
            each.id: (found[each.id].size - each.actual) // MIB
            for each in cases
            if (found[each.id].kind, found[each.id].bound) == ("revoke", "demand")
        }

    @pytest.mark.parametrize("state", STATES)
    def test_for_the_host_alone_in_critical(self, state: HostState) -> None:
        now = lacks(200, state=state, swap=GIB)
        found = self.tried(now, guest("rich", 3000, 2990, fair=1500))
        assert found == ({"rich": -82} if state == "CRITICAL" else {})

    @pytest.mark.parametrize(
        "more",
        [
            {"fair": 2999},
            {"trend": {"hurt": 60.0}},
            {"trend": {"raised": 60.0}},  # it was given that of late
            {"trend": {"fast": 2000.0 * MIB}},  # it grows
            {"trend": {"tried": -300.0, "hurt": -299.0}},  # it suffered for it
            {"trend": {"waiting": Stalls(time=99.0, total=0, percent=20.0)}},
            {"trend": {"rest_until": 50.0}},  # it had nothing to give once
            {"cost": Bytes(1500 * MIB), "rss": Bytes(1500 * MIB)},  # nothing is freed
            {"deflates": False},
        ],
    )
    def test_not_where_a_guest_is_seen_to_need_it(self, more: dict[str, object]) -> None:
        now = lacks(200, state="CRITICAL", swap=GIB)
        assert self.tried(now, guest("rich", 3000, 2990, **({"fair": 1500} | more))) == {}  # type: ignore[arg-type]

    def test_not_page_cache_that_pays(self) -> None:
        """As far as a quarter of its entitlement: how large it is, is the guest's own word."""
        now = lacks(200, state="CRITICAL", swap=GIB)
        for has, kept, found in (
            (2100, 350, {"rich": -82}),
            (1990, 350, {}),
            (1990, 200, {"rich": -82}),
            (2100, 1400, {"rich": -82}),
        ):
            rich = guest("rich", has, has - 10, fair=1500)
            pays = replace(rich, demand=replace(rich.demand, cache=Bytes(kept * MIB)))
            assert self.tried(now, pays) == found

    def test_what_a_trial_took_is_given_back_to_one_that_suffers_for_it(self) -> None:
        now = quiet(state="BALANCED", spare=GIB)
        for hurt, grows in ((None, False), (96.0, True)):
            rich = guest("rich", 3000, 2990, fair=1500, trend={"tried": 95.0, "hurt": hurt})
            assert (share(now, rich)["rich"][1] > 0) is grows

    def test_half_of_compressed_swap_comes_before_any_trial(self) -> None:
        rich = guest("rich", 3000, 2990, fair=1500)
        for cheap, found in ((100, {"rich": -82}), (300, {})):
            now = lacks(200, state="CRITICAL", swap=600 * MIB, cheap=cheap * MIB)
            assert self.tried(now, rich) == found

    def test_for_one_that_waits_for_the_host_below_its_entitlement(self) -> None:
        """A larger target gives it nothing: a host that is less short does."""
        now = lacks(0, 300, state="HARD", swap=GIB)
        full = guest("rich", 3000, 2990, fair=1500, trend={"raised": 99.0})
        for swap, percent, revokes in ((800, 50.0, True), (800, 5.0, False), (100, 50.0, False)):
            cost = Bytes((2048 - swap) * MIB)
            waits = guest(
                "waits",
                2048,
                1900,
                fair=2048,
                cost=cost,
                rss=cost,
                swap=Bytes(swap * MIB),
                trend={"waiting": Stalls(time=99.0, total=0, percent=percent)},
            )
            assert (share(now, waits, full)["rich"][0] == "revoke") is revokes

    def test_then_not_from_one_that_suffered_of_late(self) -> None:
        now = quiet(state="CRITICAL", spare=0, last=200 * MIB)
        hurt = guest("rich", 3000, 2990, fair=1500, trend={"hurt": 60.0})
        assert share(now, hurt)["rich"][0] != "revoke"

    def test_what_was_revoked_is_not_given_back_for_half_a_minute(self) -> None:
        now = quiet(state="BALANCED", spare=GIB)
        for ago, grows in ((29.0, False), (31.0, True)):
            rich = guest("rich", 3000, 2990, fair=1500, trend={"revoked": 100 - ago})
            assert (share(now, rich)["rich"][1] > 0) is grows

    def test_one_that_suffers_has_its_entitlement_meanwhile_and_no_more(self) -> None:
        now = quiet(state="HARD", spare=GIB)
        full = guest("full", 2048, 2040, fair=2100, trend={"revoked": 90.0})
        request = {"full": aim(full, 500)}
        assert share(now, full, requests=request)["full"] == ("need", 2100 - 2048)
        idle = guest("idle")
        assert share(replace(now, spare=0, base=0), full, idle, requests=request)["idle"] == (
            "take",
            -52,
        )


def test_the_order_of_guests_does_not_matter_for_what_they_are_given() -> None:
    cases = [guest(name, 2048, 1990, fair=2500) for name in ("a", "b", "c")]
    now = quiet(spare=300 * MIB)
    assert share(now, *cases) == share(now, *reversed(cases))


@pytest.mark.parametrize("size", [256, 1024, 65536])
def test_a_guest_of_any_size_gives_and_gets(size: int) -> None:
    def made(name: str, used: int) -> Case:
        seen = replace(reading(size * 3 // 4, used, size), id=name)
        return replace(
            case(seen, play(seen, 100)), entitlement=Bytes(size * MIB), limits=limits(size)
        )

    full, idle = made("a", size * 3 // 4 - 1), made("b", 1)
    found = share(quiet(state="BALANCED", spare=0, base=0), full, idle)
    assert found["b"][0] == "take"
    found = share(quiet(spare=64 * GIB), full, idle)
    assert found["a"][0] == "need"
    assert found["a"][1] >= size // 10
