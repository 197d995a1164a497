"""How many clients there may be at once, and how often one user may ask.

Rules of this file:
    Pure: no sockets, no clock of its own. What is kept of a user is forgotten when it is no more
    than what a new one has, so the table is as small as the users that ask just now.

Theory of operation:
    A user that may only look has some of the places, some of the streams, and so many questions a
    second, so that neither another user nor the agent's rounds wait for long. Users that may change
    something could do worse than ask, so only the places are counted for them. But the agent's own
    user, and root, must get in to stop it whatever these do: some places and streams are kept from
    all others, and some places from questions that wait for something. Who has to give a place that
    is taken, is `fair_places`' to say.
"""

from collections import Counter
from typing import Final

from qmpmem.records import Record
from qmpmem.wire.limits import TokenBucket

RATE: Final = 25.0
BURST: Final = 200.0
"""Questions of one user in a second, and at once. Each of 200 guests asked for once is a burst; a
question takes the agent some 1 ms, and 5 ms where it is about 200 guests."""
KEPT: Final = 8
"""Of each so many places where something can be changed, and of each so many streams there, one is
only for the agent's own user and root; of the places, one only for questions that are answered at
once."""
USERS: Final = 1024
"""Users whose questions are counted; where more ask at once, all the others count as one."""


class SocketLimits(Record, frozen=True):
    """Places at one socket."""

    places: int
    streams: int
    """Those of the places that streams can take, which last for as long as their clients want."""
    places_each: int
    """Of one user that may only look."""
    streams_each: int


def look_seats(clients: int) -> SocketLimits:
    """Divide the places: three of five are at the socket to look.

    Args:
        clients: how many there may be at both sockets.
    """
    places = max(1, clients * 3 // 5)
    return SocketLimits(
        places=places,
        streams=max(1, places // 2),
        places_each=max(1, places // 3),
        streams_each=max(1, places // 6),
    )


def change_seats(clients: int) -> SocketLimits:
    """Return the other places, which users who may only look cannot take."""
    places = max(2, clients - look_seats(clients).places)
    return SocketLimits(
        places=places, streams=places // 2, places_each=places, streams_each=places // 2
    )


class Taken:
    """The places that are taken at one socket.

    Args:
        limits: how many there are.
    """

    def __init__(self, limits: SocketLimits) -> None:
        self.limits = limits
        self._places: Counter[int | None] = Counter()
        self._streams: Counter[int | None] = Counter()
        self._others = 0
        self._other_streams = 0
        self._waiting = 0
        self._other_waits = 0
        self._open = limits.places - limits.places // KEPT
        self._open_streams = limits.streams - limits.streams // KEPT

    def sit(self, uid: int | None, *, is_owner: bool = True) -> str | None:
        """Take a place.

        Args:
            uid: of a user that may only look; None: one that may change something.
            is_owner: whether the places that are kept for the agent's own user are open to it.

        Returns:
            Why there is none; None: it is taken, until `leave`.
        """
        total = self._places.total()
        if self.has_its_part(uid):
            return f"uid {uid} has {self.limits.places_each} connections already"
        if total >= self.limits.places:
            return f"{total} others are asking already"
        if not is_owner and self._others >= self._open:
            return f"{self._others} others are asking already"
        self._places[uid] += 1
        self._others += not is_owner
        return None

    def has_its_part(self, uid: int | None) -> bool:
        """Tell whether a user that may only look has as many places as one may have."""
        return uid is not None and self._places[uid] >= self.limits.places_each

    def leave(
        self, uid: int | None, *, streams: bool, waits: bool = False, is_owner: bool = True
    ) -> None:
        """Free a place, and the stream or the wait on it."""
        self._places[uid] -= 1
        self._others -= not is_owner
        self._waiting -= waits
        self._other_waits -= waits and not is_owner
        self._places += Counter()  # drops what is 0
        if streams:
            self._streams[uid] -= 1
            self._other_streams -= not is_owner
            self._streams += Counter()

    def follow(self, uid: int | None, *, is_owner: bool = True) -> str | None:
        """Make a place that of a stream; why not, or None."""
        total = self._streams.total()
        if self.has_its_streams(uid):
            return f"uid {uid} follows the agent {self.limits.streams_each} times already"
        if total >= self.limits.streams:
            return f"{total} clients follow the agent already"
        if not is_owner and self._other_streams >= self._open_streams:
            return f"{self._other_streams} clients follow the agent already"
        self._streams[uid] += 1
        self._other_streams += not is_owner
        return None

    def has_its_streams(self, uid: int | None) -> bool:
        """Tell whether a user that may only look has as many streams as one may have."""
        return uid is not None and self._streams[uid] >= self.limits.streams_each

    def wait(self, *, is_owner: bool = True) -> str | None:
        """Make a place that of a question that waits for something; why not, or None."""
        lasting = self._waiting + self._streams.total()
        others = self._other_waits + self._other_streams
        if lasting >= self._open:
            return f"{lasting} others wait already"
        if not is_owner and others >= self._open - self.limits.places // KEPT:
            return f"{others} others wait already"
        self._waiting += 1
        self._other_waits += not is_owner
        return None


class UserRates:
    """Counts the questions of each user that may only look."""

    def __init__(self) -> None:
        self._gauges: dict[int | None, TokenBucket] = {}
        self._seen: dict[int | None, float] = {}

    def take(self, uid: int, now: float) -> bool:
        """Count a question; False, and not counted, where it is one too many.

        Args:
            uid: of the user that asks.
            now: a monotonic clock, in seconds.
        """
        if uid not in self._gauges and len(self._gauges) >= USERS:
            self._forget(now)
        key = uid if uid in self._gauges or len(self._gauges) < USERS else None
        self._seen[key] = now
        if key not in self._gauges:
            self._gauges[key] = TokenBucket(now, burst=BURST, rate=RATE)
        return self._gauges[key].take(1.0, now)

    def _forget(self, now: float) -> None:
        """Forget the users that may ask as often as new ones again."""
        full = [uid for uid, seen in self._seen.items() if now - seen >= BURST / RATE]
        for uid in full:
            del self._seen[uid], self._gauges[uid]
