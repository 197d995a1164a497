"""The user that has to give a place where all are taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.api.fair_places import FairPlaces, Place, for_others, giver


class Session:
    """What uses a place."""

    def __init__(self, *, is_idle: bool = True) -> None:
        self.is_idle = is_idle
        self.heard: list[str] = []

    def dismiss(self, words: str) -> None:
        self.heard.append(words)


@pytest.mark.parametrize(
    ("newcomer", "holders", "gives"),
    [
        (1, [], None),
        (1, [1, 1, 1], None),
        (1, [2], None),
        (1, [2, 2], 2),
        (1, [1, 2, 2], None),
        (1, [1, 2, 2, 2], 2),
        (1, [2, 2, 3, 3, 3], 3),
    ],
)
def test_the_largest_holder_gives_where_that_is_fair(
    newcomer: int, holders: list[int], gives: int | None
) -> None:
    assert giver(newcomer, holders) == gives


@given(st.integers(0, 4), st.lists(st.integers(0, 4)))
def test_a_newcomer_has_no_more_afterwards_than_the_user_that_gave(
    newcomer: int, holders: list[int]
) -> None:
    gives = giver(newcomer, holders)
    if gives is not None:
        assert gives != newcomer
        assert holders.count(newcomer) + 1 <= holders.count(gives) - 1


@pytest.mark.parametrize(("places", "others"), [(2, 1), (6, 5), (8, 7), (256, 224)])
def test_places_are_kept(places: int, others: int) -> None:
    assert for_others(places) == others


def filled(*uids: int, most: int, others: int) -> tuple[FairPlaces, list[Place], list[Session]]:
    places = FairPlaces(most, others)
    taken, sessions = list[Place](), list[Session]()
    for uid in uids:
        place = places.take(uid, is_owner=uid == 0)
        assert place is not None
        sessions.append(Session())
        place.hold(sessions[-1])
        taken.append(place)
    return places, taken, sessions


def test_one_user_does_not_take_the_places_that_are_kept() -> None:
    places, _, sessions = filled(7, 7, 7, most=4, others=3)
    assert places.take(7, is_owner=False) is None
    assert places.take(0, is_owner=True) is not None
    assert not any(session.heard for session in sessions)


def test_root_has_a_place_whatever_others_hold() -> None:
    """Row F96."""
    places, _, sessions = filled(7, 7, 8, 0, most=4, others=3)
    assert places.take(0, is_owner=True) is not None
    assert [bool(session.heard) for session in sessions] == [True, False, False, False]
    assert places.take(0, is_owner=True) is not None
    assert places.take(0, is_owner=True) is not None
    assert places.take(0, is_owner=True) is None, "root itself holds them all"
    assert len(places) == 4


def test_root_and_the_agents_user_share_as_others_do() -> None:
    places = FairPlaces(3, 2)
    for _ in range(3):
        place = places.take(990, is_owner=True)
        assert place is not None
        place.hold(Session())
    assert places.take(0, is_owner=True) is not None
    assert places.take(0, is_owner=True) is None


def test_a_user_with_fewer_gets_the_oldest_of_the_largest_holder() -> None:
    places, taken, sessions = filled(7, 7, 7, 8, 8, most=7, others=5)
    assert places.take(8, is_owner=False) is None
    assert places.take(9, is_owner=False) is not None
    assert [len(session.heard) for session in sessions] == [1, 0, 0, 0, 0]
    assert "uid 9" in sessions[0].heard[0]
    places.leave(taken[0])
    assert len(places) == 5


def test_none_of_roots_is_given_to_others() -> None:
    places, _, sessions = filled(0, 0, 0, 0, most=4, others=3)
    assert places.take(7, is_owner=False) is None
    assert not any(session.heard for session in sessions)


def test_one_that_is_idle_goes_before_one_that_is_at_work() -> None:
    places, _, sessions = filled(7, 7, 7, most=4, others=3)
    sessions[0].is_idle = False
    assert places.take(8, is_owner=False) is not None
    assert [len(session.heard) for session in sessions] == [0, 1, 0]


def test_one_that_is_being_opened_is_not_ended() -> None:
    places = FairPlaces(3, 2)
    opening = places.take(7, is_owner=False)
    assert opening is not None
    assert places.take(7, is_owner=False) is not None
    assert places.take(8, is_owner=False) is None
    said: list[str] = []
    opening.hold(Session(), said.append)
    assert places.take(8, is_owner=False) is not None
    assert said == ["all places are taken: the session is ended for one of uid 8"]
