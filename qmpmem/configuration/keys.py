"""Every key: where it stands in the file, which field it sets, and what it takes. Pure.

Rules of this file:
    One table for reading, for `qmpmem config show` and for the manual. What a key means, and its
    default, stand with the field (`qmpmem.model.config`).
"""

from collections.abc import Mapping
from typing import Final, get_args, get_type_hints

from msgspec import Meta

from qmpmem.configuration import value_types
from qmpmem.configuration.value_types import Kind
from qmpmem.model.config import PRESETS, Adoption, Config, JournalConfig, KsmConfig, OnStop, Rule
from qmpmem.records import Record
from qmpmem.units import MIB, Bytes

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


class Section(Record, frozen=True):
    """A table of the file."""

    name: str
    """Empty: what stands above the first header."""
    record: type[Record]
    settings: tuple[Setting, ...]
    is_array: bool
    """Whether a file can have many of this section."""

    @property
    def expected(self) -> str:
        """Return how the section is written."""
        return f"tables [[{self.name}]]" if self.is_array else f"one table [{self.name}]"

    @property
    def keys(self) -> list[str]:
        """Return the keys, in order."""
        return [setting.key for setting in self.settings]

    @property
    def where(self) -> str:
        """Return where in a file the section's keys stand."""
        if not self.name:
            return "above the first [table]"
        return f"in [[{self.name}]]" if self.is_array else f"in [{self.name}]"

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


FIELDS: Final = {"keep": "hours", "plots": "days", "class": "kind"}
"""The fields of keys that are named otherwise."""


def _section(
    name: str, record: type[Record], kinds: Mapping[str, Kind], *, is_array: bool = False
) -> Section:
    """Build a section of keys and their kinds; each sets the field that is named as it."""
    settings = tuple(
        Setting(key=key, field=FIELDS.get(key, key), kind=kind) for key, kind in kinds.items()
    )
    return Section(name=name, record=record, settings=settings, is_array=is_array)


TOP: Final = _section(
    "",
    Config,
    {
        "period": value_types.duration(0.1, 60),
        "reserve": value_types.or_default(value_types.size(LEAST_HOST)),
        "budget": value_types.or_default(value_types.size_or_path(LEAST_HOST)),
        "on_stop": value_types.choice(get_args(OnStop)),
        "grace": value_types.duration(0, HOUR),
        # At a tax of 1 an idle page would cost without end: see `qmpmem.policy.shares`.
        "idle_tax": value_types.fraction(0.99),
        "reclaim": value_types.FLAG,
    },
)
KSM: Final = _section(
    "ksm",
    KsmConfig,
    {
        "managed": value_types.FLAG,
        "across_domains": value_types.FLAG,
        "max_cpu": value_types.percent(1, 100),
    },
)
JOURNAL: Final = _section(
    "journal",
    JournalConfig,
    {
        "path": value_types.or_default(value_types.PATH),
        "keep": value_types.duration(60, 366 * DAY, unit=HOUR),
        "plots": value_types.duration(0, 3660 * DAY, unit=DAY),
        "size": value_types.size(Bytes(MIB)),
        "learn": value_types.FLAG,
    },
)
GUEST: Final = _section(
    "guest",
    Rule,
    {
        "match": value_types.PATTERN,
        "minimum": value_types.size_or_percent(LEAST_GUEST),
        "maximum": value_types.size_or_percent(LEAST_GUEST),
        "current": value_types.size_or_percent(LEAST_GUEST),
        "shares": value_types.whole(1, 1_000_000),
        "managed": value_types.FLAG,
        "reclaim": value_types.FLAG,
        "class": value_types.choice(list(PRESETS)),
        "domain": value_types.WORD,
    },
    is_array=True,
)
ADOPT: Final = _section(
    "adopt",
    Adoption,
    {"socket": value_types.SOCKETS, "name": value_types.IDENTITY},
    is_array=True,
)

TABLES: Final = (KSM, JOURNAL)
ARRAYS: Final = (GUEST, ADOPT)
SECTIONS: Final = (TOP, *TABLES, *ARRAYS)

FAMILIAR: Final = {
    familiar: key
    for key, others in {
        "match": "name id pattern guest",
        "minimum": "min",
        "maximum": "max limit memory",
        "current": "start startup initial",
        "shares": "weight priority",
        "class": "kind preset type",
        "period": "interval tick",
        "keep": "hours retention",
        "path": "file",
        "managed": "enabled",
        "max_cpu": "cpu",
        "idle_tax": "tax",
        "on_stop": "onstop",
    }.items()
    for familiar in others.split()
}
"""What people used to other programs may write, and what it is here."""
