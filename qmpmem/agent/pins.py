"""Guests that are kept at a size: which guest a pin is for, and when it ends."""

from collections.abc import Callable, Mapping
from typing import Final

from qmpmem.agent.requests import RequestStore
from qmpmem.guests.rundir import GuestRecord
from qmpmem.units import Bytes

WAIT: Final = 60.0
"""Seconds after the agent's start in which pinned guests are expected to be found."""


class Pins:
    """Pin guests, and follow whether they are the ones that were pinned.

    Args:
        requests: where the pins in force are.
        say: gets a line for each pin that ended with its guest.
        began: when the agent was started, as `Snapshot.time`.
    """

    def __init__(self, requests: RequestStore, say: Callable[[str], None], began: float) -> None:
        self._requests = requests
        self._say = say
        self._began = began
        self._guests: dict[str, GuestRecord] = {}

    def pin(self, guest: GuestRecord, size: Bytes) -> None:
        """Keep a guest at a size, within its limits."""
        self._guests[guest.id] = guest
        self._requests.pin(guest.id, size)

    def unpin(self, guest: str) -> bool:
        """Let a guest go; whether it was pinned."""
        self._guests.pop(guest, None)
        return self._requests.unpin(guest)

    def follow(self, guests: Mapping[str, GuestRecord], now: float) -> None:
        """Forget the pins of guests that have ended: the next of that id is another guest.

        Args:
            guests: all that run, by id.
            now: as `Snapshot.time`.
        """
        for guest in self._requests.in_force.pins:
            known, present = self._guests.get(guest), guests.get(guest)
            if present is not None and known is None:
                self._guests[guest] = present
            elif present != known or (present is None and now - self._began > WAIT):
                self._say(f"unpin {guest}: that guest has ended")
                self.unpin(guest)
