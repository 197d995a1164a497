"""Times as people write them. Pure.

A moment is ``14:03``, ``14:03:22`` (today, or yesterday where that is still to come),
``2026-01-31``, ``2026-01-31T14:03`` (local time where no zone is given), or ``-10m``: so long
ago (`qmpmem.units.parse_duration`).
"""

import re
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from qmpmem.errors import ConfigError
from qmpmem.units import parse_duration

_CLOCK: Final = re.compile(r"\d{1,2}:\d\d(:\d\d)?", re.ASCII)


def parse_moment(text: str, now: datetime) -> float:
    """Read a moment.

    Args:
        text: as in the module's docstring.
        now: the present time, with its time zone.

    Returns:
        Seconds since 1970.

    Raises:
        ConfigError: it is no moment.
    """
    word = text.strip()
    with suppress(ConfigError):
        return now.timestamp() - parse_duration(word.removeprefix("-"))
    try:
        if _CLOCK.fullmatch(word):
            return _today(word, now).timestamp()
        moment = datetime.fromisoformat(word)
        return moment.replace(tzinfo=moment.tzinfo or now.tzinfo).timestamp()
    except (ValueError, OverflowError):
        raise ConfigError(
            f"time {text!r}: expected 14:03, 2026-01-31T14:03, or how long ago: 10m, 1h30m, 2d"
        ) from None


def _today(word: str, now: datetime) -> datetime:
    clock = datetime.strptime(word, "%H:%M:%S" if word.count(":") > 1 else "%H:%M")  # noqa: DTZ007 - only a time of day
    moment = now.replace(hour=clock.hour, minute=clock.minute, second=clock.second, microsecond=0)
    return moment if moment <= now else moment - timedelta(days=1)
