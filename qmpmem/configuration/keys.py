"""Every key: where it stands in the file, which field it sets, and what it takes.

Rules of this file:
    One table for reading, for `qmpmem config show` and for the manual. What a key means, and its
    default, stand with the field (`qmpmem.model.config`).
"""

from typing import Final, get_args, get_type_hints

from msgspec import NODEFAULT, Meta
from msgspec.structs import fields

from qmpmem.configuration import value_types
from qmpmem.configuration.value_types import Kind
from qmpmem.model.config import PRESETS, Adoption, Config, JournalConfig, KsmConfig, OnStop, Rule
from qmpmem.records import Record
from qmpmem.units import MIB, Bytes

GUESTS: Final = "guest"
"""The array of tables that holds the rules."""

ADOPTIONS: Final = "adopt"
"""Likewise, which QEMUs are adopted."""

LEAST_HOST: Final = Bytes(16 * MIB)
"""Of a host or a budget: less is a slip of the pen."""
LEAST_GUEST: Final = Bytes(MIB)

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR


class Setting(Record, frozen=True):
    """A key."""

    key: str
    field: str
    kind: Kind
    percent_field: str | None = None
    """Set in its place where the value is in percent of the guest's maximum."""


class Section(Record, frozen=True):
    """A table of the file."""

    name: str
    """Empty: what stands above the first header."""
    record: type[Record]
    settings: tuple[Setting, ...]

    @property
    def keys(self) -> list[str]:
        """The keys, in order."""
        return [setting.key for setting in self.settings]

    @property
    def where(self) -> str:
        """Say where in a file its keys stand."""
        if not self.name:
            return "above the first [table]"
        return f"in [[{self.name}]]" if self.is_array else f"in [{self.name}]"

    @property
    def is_array(self) -> bool:
        """Whether there can be many of it."""
        return self.name in (GUESTS, ADOPTIONS)

    def setting(self, key: str) -> Setting | None:
        """Find the setting of a key."""
        return next((each for each in self.settings if each.key == key), None)

    def dotted(self, key: str) -> str:
        """Name a key as in ``ksm.max_cpu``."""
        return f"{self.name}.{key}" if self.name else key


def find(section: Section, key: str) -> Setting:
    """Find the setting of a key that is known to be there."""
    return next(each for each in section.settings if each.key == key)


class Words(Record, frozen=True):
    """What is said about a field."""

    meaning: str
    source: str | None
    unset: str | None


def words(record: type[Record], field: str) -> Words:
    """Find what is said about a field."""
    hint = get_type_hints(record, include_extras=True)[field]
    [meta] = [each for each in get_args(hint) if isinstance(each, Meta)]
    extra = meta.extra or {}
    return Words(meaning=meta.description or "", source=extra["source"], unset=extra["unset"])


def default(record: type[Record], field: str) -> object:
    """Find a field's default; None also where it has none."""
    [found] = [each.default for each in fields(record) if each.name == field]
    return None if found is NODEFAULT else found


TOP: Final = Section(
    name="",
    record=Config,
    settings=(
        Setting(key="period", field="period", kind=value_types.duration(0.1, 60)),
        Setting(
            key="reserve",
            field="reserve",
            kind=value_types.or_default(value_types.size(LEAST_HOST)),
        ),
        Setting(
            key="budget",
            field="budget",
            kind=value_types.or_default(value_types.size_or_path(LEAST_HOST)),
        ),
        Setting(key="on_stop", field="on_stop", kind=value_types.choice(get_args(OnStop))),
        Setting(key="grace", field="grace", kind=value_types.duration(0, HOUR)),
        # At a tax of 1 an idle page would cost without end: see `qmpmem.policy.shares`.
        Setting(key="idle_tax", field="idle_tax", kind=value_types.fraction(0.99)),
        Setting(key="reclaim", field="reclaim", kind=value_types.flag()),
    ),
)
KSM: Final = Section(
    name="ksm",
    record=KsmConfig,
    settings=(
        Setting(key="managed", field="managed", kind=value_types.flag()),
        Setting(key="across_domains", field="across_domains", kind=value_types.flag()),
        Setting(key="max_cpu", field="max_cpu", kind=value_types.percent(1, 100)),
    ),
)
JOURNAL: Final = Section(
    name="journal",
    record=JournalConfig,
    settings=(
        Setting(key="path", field="path", kind=value_types.or_default(value_types.path())),
        Setting(key="keep", field="hours", kind=value_types.duration(60, 366 * DAY, unit=HOUR)),
        Setting(key="plots", field="days", kind=value_types.duration(0, 3660 * DAY, unit=DAY)),
        Setting(key="size", field="size", kind=value_types.size(Bytes(MIB))),
        Setting(key="learn", field="learn", kind=value_types.flag()),
    ),
)
GUEST: Final = Section(
    name=GUESTS,
    record=Rule,
    settings=(
        Setting(key="match", field="match", kind=value_types.pattern()),
        Setting(
            key="minimum",
            field="minimum",
            percent_field="minimum_percent",
            kind=value_types.size_or_percent(LEAST_GUEST),
        ),
        Setting(
            key="maximum",
            field="maximum",
            percent_field="maximum_percent",
            kind=value_types.size_or_percent(LEAST_GUEST),
        ),
        Setting(
            key="current",
            field="current",
            percent_field="current_percent",
            kind=value_types.size_or_percent(LEAST_GUEST),
        ),
        Setting(key="shares", field="shares", kind=value_types.whole(1, 1_000_000)),
        Setting(key="managed", field="managed", kind=value_types.flag()),
        Setting(key="reclaim", field="reclaim", kind=value_types.flag()),
        Setting(key="class", field="kind", kind=value_types.choice(list(PRESETS))),
        Setting(key="domain", field="domain", kind=value_types.word()),
    ),
)
ADOPT: Final = Section(
    name=ADOPTIONS,
    record=Adoption,
    settings=(
        Setting(key="socket", field="socket", kind=value_types.socket_pattern()),
        Setting(key="name", field="name", kind=value_types.identity()),
    ),
)

TABLES: Final = (KSM, JOURNAL)
ARRAYS: Final = (GUEST, ADOPT)
SECTIONS: Final = (TOP, *TABLES, *ARRAYS)

FAMILIAR: Final = {
    "name": "match",
    "id": "match",
    "pattern": "match",
    "guest": "match",
    "min": "minimum",
    "max": "maximum",
    "limit": "maximum",
    "memory": "maximum",
    "start": "current",
    "startup": "current",
    "initial": "current",
    "weight": "shares",
    "priority": "shares",
    "kind": "class",
    "preset": "class",
    "type": "class",
    "interval": "period",
    "tick": "period",
    "hours": "keep",
    "retention": "keep",
    "file": "path",
    "enabled": "managed",
    "cpu": "max_cpu",
    "tax": "idle_tax",
    "onstop": "on_stop",
}
"""What people used to other programs may write, and what it is here."""
