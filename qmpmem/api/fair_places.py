"""Places that users share: who has to give one where all are taken. Pure.

Theory of operation:
    No user may hold all places. When they are taken, a user that has fewer than another is let in
    all the same, and that other loses one (max-min fairness: the largest holder gives).

    Places of QMP sessions last for as long as their clients want. Root and the agent's own user
    have to get in to see what goes on, whatever others hold: some places are kept for them, and
    none of theirs is given to others.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol, TypeVar

H = TypeVar("H", str, int)

KEPT: Final = 8
"""Of each so many places, one is kept for root and the agent's own user; one at the least."""


def giver(newcomer: H, holders: Iterable[H]) -> H | None:
    """Return the holder that has to give one of its places; None: that would not be fair.

    It is fair where the newcomer has fewer afterwards, or as many.

    Args:
        newcomer: the user that wants one more.
        holders: whose each place is.
    """
    counts = Counter(holders)
    most = largest(counts)
    return most if most is not None and counts[newcomer] + 1 < counts[most] else None


def largest(counts: Mapping[H, int]) -> H | None:
    """Return the user that has most; None: there is none."""
    return max(counts, key=counts.__getitem__, default=None)


def for_others(places: int) -> int:
    """Return how many of so many places are not kept."""
    return places - max(1, places // KEPT)


def _ignore(words: str) -> None:
    """Ignore the words."""


class Session(Protocol):
    """What uses a place, as `qmpmem.proxy.client_connection.Connection` does."""

    @property
    def is_idle(self) -> bool:
        """Tell whether it has nothing to do."""
        ...

    def dismiss(self, words: str) -> None:
        """End at once, and tell the client why where that can be written."""
        ...


class Place:
    """A place that is taken.

    Args:
        uid: whose it is.
        is_owner: whether it is of root or the agent's own user.
    """

    def __init__(self, uid: int, *, is_owner: bool) -> None:
        self.uid = uid
        self.is_owner = is_owner
        self._session: Session | None = None
        self._log: Callable[[str], None] = _ignore

    @property
    def is_open(self) -> bool:
        """Tell whether there is a session that can be ended."""
        return self._session is not None

    @property
    def is_idle(self) -> bool:
        """Tell whether that has nothing to do."""
        return self._session is not None and self._session.is_idle

    def hold(self, session: Session, log: Callable[[str], None] = _ignore) -> None:
        """Take note of what uses the place.

        Args:
            session: that.
            log: told why it is ended.
        """
        self._session, self._log = session, log

    def give(self, uid: int) -> None:
        """End the session for one of another user."""
        words = f"all places are taken: the session is ended for one of uid {uid}"
        self._log(words)
        if self._session is not None:
            self._session.dismiss(words)


class FairPlaces:
    """Places of sessions.

    Args:
        most: how many there are.
        others: how many of them there are for others than root and the agent's own user.
    """

    def __init__(self, most: int, others: int) -> None:
        self._most = most
        self._others = others
        self._taken: dict[Place, None] = {}  # a set in the order of arrival

    def __len__(self) -> int:
        """Count those that are taken."""
        return len(self._taken)

    def take(self, uid: int, *, is_owner: bool) -> Place | None:
        """Take a place until `leave`; None: there is none.

        Args:
            uid: the user that wants it.
            is_owner: whether that is root or the agent's own user.
        """
        theirs = [place for place in self._taken if not place.is_owner]
        is_full = len(self._taken) >= self._most
        if not is_owner:
            is_full = is_full or len(theirs) >= self._others
        if is_full and not self._make_room(uid, theirs, is_owner=is_owner):
            return None
        taken = Place(uid, is_owner=is_owner)
        self._taken[taken] = None
        return taken

    def leave(self, place: Place) -> None:
        """Free a place, where it is not free already."""
        self._taken.pop(place, None)

    def _make_room(self, uid: int, theirs: list[Place], *, is_owner: bool) -> bool:
        rivals = theirs if theirs or not is_owner else list(self._taken)
        counts = Counter(place.uid for place in rivals)
        most = largest(counts) if theirs and is_owner else giver(uid, counts.elements())
        can_give = [place for place in rivals if place.uid == most and place.is_open]
        idle = [place for place in can_give if place.is_idle]
        chosen = next(iter(idle or can_give), None)
        if chosen is None:
            return False
        self.leave(chosen)
        chosen.give(uid)
        return True
