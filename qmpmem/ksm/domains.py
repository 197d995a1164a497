"""Which guests may merge with each other. Pure.

Theory of operation:
    A guest that writes to a merged page waits for a copy, and that wait tells it what is in the
    memory of another guest (Suzaki et al., EuroSec'11; Bosman et al., "Dedup Est Machina", S&P'16;
    Razavi et al., "Flip Feng Shui", USENIX Security'16). The kernel merges pages of any two
    guests, so guests that do not trust each other must not both be mergeable.
"""

from collections.abc import Iterable, Mapping

WHY = "shared pages let one guest find out what another has in them (memory deduplication leaks)"


def strangers(domains: Mapping[str, str | None], mergeable: Iterable[str]) -> list[list[str]]:
    """Group the guests that may merge by domain.

    Args:
        domains: the domain of each guest, by id; None: it has none.
        mergeable: the ids of the guests whose memory may be merged.

    Returns:
        The groups, where there is more than one; else []. Guests without a domain are one group.
    """
    groups: dict[str | None, list[str]] = {}
    for guest in mergeable:
        groups.setdefault(domains.get(guest), []).append(guest)
    return list(groups.values()) if len(groups) > 1 else []


def describe(groups: Iterable[Iterable[str]]) -> str:
    """Return groups as a text such as ``web1 web2 | db1``."""
    return " | ".join(" ".join(group) for group in groups)
