"""How many guests can be watched: each takes two descriptors."""

import resource
from typing import Final

EACH: Final = 2
"""A guest's monitor, and its process's file in /proc."""
OWN: Final = 40
"""Descriptors for everything else: the control socket and its clients' waiting, files of /proc that
are just being read, the journal, threads, a connection that is just being made."""


def make_room() -> int:
    """Raise the soft limit of open files to the hard one (1024 is systemd's for select(2) alone).

    Returns:
        How many guests there are descriptors for; always some.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, (most - OWN) // EACH) if most != resource.RLIM_INFINITY else 1 << 20


def left_over(guests: int) -> int:
    """Return how many descriptors may stay open beside what so many guests need."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(0, most - OWN - EACH * guests) if most != resource.RLIM_INFINITY else 1 << 20
