"""How many clients there may be, and how often one user may ask."""

import resource

import pytest

from qmpmem.agent import descriptor_limit
from qmpmem.api import client_limits
from qmpmem.api.client_limits import SocketLimits, Taken, UserRates, change_seats, look_seats

SMALL = SocketLimits(places=4, streams=2, places_each=2, streams_each=1)


@pytest.mark.parametrize("clients", range(5, 81))
def test_the_places_are_divided_and_no_socket_is_left_without(clients: int) -> None:
    look, change = look_seats(clients), change_seats(clients)
    assert look.places + change.places == clients
    for each in (look, change):
        assert 1 <= each.streams_each <= each.places_each <= each.places
        assert 1 <= each.streams < max(each.places, 2)


def test_all_of_them() -> None:
    assert look_seats(80) == SocketLimits(places=48, streams=24, places_each=16, streams_each=8)
    assert change_seats(80) == SocketLimits(places=32, streams=16, places_each=32, streams_each=16)


def test_one_reader_has_a_part_of_the_places() -> None:
    taken = Taken(SMALL)
    assert [taken.sit(1) for _ in range(3)] == [None, None, "uid 1 has 2 connections already"]
    assert [taken.sit(2) for _ in range(2)] == [None, None]
    assert taken.sit(3) == "4 others are asking already"
    assert taken.sit(None) == "4 others are asking already"
    taken.leave(1, streams=False)
    assert taken.sit(1) is None


def test_a_client_that_may_change_has_all_of_them() -> None:
    taken = Taken(SMALL)
    assert [taken.sit(None) for _ in range(5)] == [None] * 4 + ["4 others are asking already"]


def test_streams_leave_places_for_questions() -> None:
    taken = Taken(SMALL)
    for uid in (1, 1, 2, 3):
        assert taken.sit(uid) is None
    assert taken.follow(1) is None
    assert taken.follow(1) == "uid 1 follows the agent 1 times already"
    assert taken.follow(2) is None
    assert taken.follow(3) == "2 clients follow the agent already"
    taken.leave(1, streams=True)
    assert taken.follow(3) is None


def test_places_are_kept_for_the_agents_own_user() -> None:
    taken = Taken(change_seats(80))
    others = [taken.sit(None, is_owner=False) for _ in range(29)]
    assert others == [None] * 28 + ["28 others are asking already"]
    assert [taken.sit(None) for _ in range(5)] == [None] * 4 + ["32 others are asking already"]
    taken.leave(None, streams=False, is_owner=False)
    assert taken.sit(None) is None
    taken.leave(None, streams=False)
    assert taken.sit(None, is_owner=False) is None


def test_streams_are_kept_for_the_agents_own_user() -> None:
    taken = Taken(change_seats(80))
    for _ in range(18):
        assert taken.sit(None, is_owner=False) is None
    others = [taken.follow(None, is_owner=False) for _ in range(15)]
    assert others == [None] * 14 + ["14 clients follow the agent already"]
    for _ in range(3):
        assert taken.sit(None) is None
    assert [taken.follow(None) for _ in range(3)] == [None] * 2 + [
        "16 clients follow the agent already"
    ]
    taken.leave(None, streams=True, is_owner=False)
    assert taken.follow(None, is_owner=False) is None


def test_places_are_kept_from_what_waits() -> None:
    taken = Taken(change_seats(80))
    for _ in range(32):
        assert taken.sit(None) is None
    assert [taken.follow(None) for _ in range(16)] == [None] * 16
    assert [taken.wait() for _ in range(13)] == [None] * 12 + ["28 others wait already"]
    taken.leave(None, streams=True)
    taken.leave(None, streams=False, waits=True)
    assert [taken.wait() for _ in range(3)] == [None, None, "28 others wait already"]


def test_what_waits_leaves_places_for_others_and_for_the_agents_own_user() -> None:
    taken = Taken(change_seats(80))
    for _ in range(28):
        assert taken.sit(None, is_owner=False) is None
    waits = [taken.wait(is_owner=False) for _ in range(25)]
    assert waits == [None] * 24 + ["24 others wait already"]
    assert taken.sit(None) is None
    assert [taken.wait() for _ in range(5)] == [None] * 4 + ["28 others wait already"]
    taken.leave(None, streams=False, waits=True, is_owner=False)
    assert taken.wait(is_owner=False) is None


def test_a_user_has_so_many_questions_at_once_and_so_many_a_second() -> None:
    rates = UserRates()
    burst, rate = int(client_limits.BURST), int(client_limits.RATE)
    assert sum(rates.take(1, 0.0) for _ in range(burst + 100)) == burst
    assert rates.take(2, 0.0), "another user is another measure"
    assert sum(rates.take(1, 1.0) for _ in range(burst)) == rate
    assert sum(rates.take(1, 1000.0) for _ in range(burst + 100)) == burst


def test_a_monitor_and_a_person_never_meet_the_limit() -> None:
    """Three questions each second, and now and then one about each of 100 guests."""
    rates = UserRates()
    for second in range(3600):
        asked = 3 + (100 if second % 60 == 0 else 0)
        assert all(rates.take(1, float(second)) for _ in range(asked))


def test_users_are_forgotten_and_never_so_many_that_it_matters() -> None:
    rates = UserRates()
    for uid in range(3 * client_limits.USERS):
        rates.take(uid, 0.0)
    assert len(rates._gauges) <= client_limits.USERS + 1
    assert not rates.take(3 * client_limits.USERS, 0.0), (
        "all the others are one user, who has asked"
    )
    assert rates.take(3 * client_limits.USERS, 60.0)
    assert len(rates._gauges) <= client_limits.USERS + 1


@pytest.mark.parametrize(
    ("limit", "clients", "guests"), [(32, 12, 1), (64, 12, 11), (1024, 80, 397)]
)
def test_guests_and_clients_have_descriptors_of_their_own(
    monkeypatch: pytest.MonkeyPatch, limit: int, clients: int, guests: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert descriptor_limit.clients() == clients
    assert descriptor_limit.make_room() == guests
    assert descriptor_limit.left_over(guests) in (0, 1)
    taken = (
        descriptor_limit.EACH * guests
        + descriptor_limit.clients()
        + descriptor_limit.sessions()
        + descriptor_limit.OWN
    )
    assert taken <= max(limit, 44)
