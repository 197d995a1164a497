"""Whose turn it is."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.proxy.turns import Turns

Client = tuple[int, int]


def line(*clients: Client) -> Turns[Client]:
    """Make a line of clients, each a user and a number."""
    turns = Turns[Client](lambda client: client[0])
    for client in clients:
        turns.join(client)
    return turns


def all_of(turns: Turns[Client]) -> list[Client]:
    found = list[Client]()
    while turns:
        found.append(turns.take())
    return found


def test_users_take_turns_and_so_do_their_clients() -> None:
    turns = line((1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1))
    assert all_of(turns) == [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (1, 3)]
    with pytest.raises(LookupError):
        turns.take()


def test_a_client_that_leaves_has_no_turn_and_one_that_comes_again_is_the_last_of_its_user() -> (
    None
):
    turns = line((1, 1), (1, 2), (2, 1))
    turns.leave((2, 1))
    turns.leave((2, 1))
    turns.leave((3, 1))
    assert turns.take() == (1, 1)
    turns.join((1, 1))
    assert all_of(turns) == [(1, 2), (1, 1)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), unique=True))
def test_no_client_waits_for_more_than_one_of_each_other_user_between_its_own(
    clients: list[Client],
) -> None:
    order = all_of(line(*clients))
    assert sorted(order) == sorted(clients)
    for place, (user, _) in enumerate(order):
        before = Counter(each for each, _ in order[:place])
        mine = before.pop(user, 0)
        assert all(count <= mine + 1 for count in before.values())
