"""Rules of the configuration that promise a guest more than it was started with."""

from collections.abc import Callable, Iterator

from qmpmem.model.config import Config
from qmpmem.model.observation import Snapshot
from qmpmem.units import format_size


class UnmetRules:
    """Warn once of each such rule, and again where it comes back.

    Args:
        warn: gets a line for each.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._known: frozenset[str] = frozenset()

    def follow(self, config: Config, snapshot: Snapshot) -> None:
        """Find those of a round, and warn of the new ones."""
        found = frozenset(unmet(config, snapshot))
        for warning in sorted(found - self._known):
            self._warn(warning)
        self._known = found


def unmet(config: Config, snapshot: Snapshot) -> Iterator[str]:
    """Name the guests that a rule promises more than they have. Pure."""
    for each in snapshot.guests:
        if each.maximum is None:
            continue
        least = config.beyond(each.id, each.maximum, each.name)
        if least is not None:
            yield (
                f"guest {each.id}: the minimum of its rule, {format_size(least)}, is more than the "
                f"{format_size(each.maximum)} that it was started with; nothing is taken from it"
            )
