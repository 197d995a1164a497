"""Whose turn it is: users take turns, and each user's clients. Pure.

Rules of this file:
    A client stands in line once. However many clients of a user stand there, another user's client
    waits for one of them alone.
"""

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """The line.

    Args:
        user_of: tells whose client it is.
    """

    def __init__(self, user_of: Callable[[T], Hashable]) -> None:
        self._user_of = user_of
        self._lines: dict[Hashable, deque[T]] = {}  # the next user is the first

    def __bool__(self) -> bool:
        """Tell whether there is a client in it."""
        return bool(self._lines)

    def join(self, client: T) -> None:
        """Have a client stand at the end of its user's line."""
        self._lines.setdefault(self._user_of(client), deque()).append(client)

    def leave(self, client: T) -> None:
        """Have a client leave, where it stands there."""
        user = self._user_of(client)
        line = self._lines.get(user, deque())
        if client in line:
            line.remove(client)
            if not line:
                del self._lines[user]

    def take(self) -> T:
        """Return the client whose turn it is, which leaves; its user is the last of all then.

        Raises:
            LookupError: there is none in it.
        """
        user, line = next(iter(self._lines.items()), (None, deque[T]()))
        client = line.popleft()
        del self._lines[user]
        if line:
            self._lines[user] = line
        return client
