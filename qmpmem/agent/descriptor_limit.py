"""How many descriptors the guests, the clients, their sessions and the agent itself may have.

Theory of operation:
    A round that finds no descriptor leaves guests out. So each of these has a share of its own of
    what the limit allows, which is set once: clients that connect can never take what guests need.
"""

import resource
from typing import Final

EACH: Final = 2
"""Descriptors of a guest: its monitor, and its process's file in /proc."""
OWN: Final = 28
"""Descriptors for everything else: files of /proc that are just being read, the sockets that
listen, the journal, threads, a connection that is just being made. Some 20 are open at rest."""
CLIENTS: Final = 80
"""Most clients of the agent's sockets, where the limit of descriptors is high enough."""
CLIENTS_LEAST: Final = 12
SESSIONS: Final = 256
SESSIONS_LEAST: Final = 2
"""QMP sessions of clients, however low the limit of descriptors is."""
_SMALL: Final = 64
"""The limit of descriptors up to which clients and sessions have the least."""
_PART: Final = 8
"""Descriptors above that limit of which clients have one, and sessions another."""


def make_room() -> int:
    """Raise the soft limit of open files to the hard one (1024 is systemd's for select(2) alone).

    Returns:
        How many guests there are descriptors for, at least 1.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(1, _for_guests() // EACH)


def clients() -> int:
    """Return how many clients may be connected at once."""
    most = _limit()
    return min(CLIENTS, CLIENTS_LEAST + max(0, most - _SMALL) // _PART)


def sessions() -> int:
    """Return how many clients may have a QMP session with a guest at once."""
    return min(SESSIONS, SESSIONS_LEAST + max(0, _limit() - _SMALL) // _PART)


def left_over(guests: int) -> int:
    """Return how many descriptors may stay open beside what so many guests need."""
    return max(0, _for_guests() - EACH * guests)


def _for_guests() -> int:
    return _limit() - OWN - clients() - sessions()


def _limit() -> int:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most if most != resource.RLIM_INFINITY else 1 << 21
