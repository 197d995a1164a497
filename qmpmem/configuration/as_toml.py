"""A configuration as a file that would give the same again, with where everything is from. Pure."""

from collections.abc import Iterable, Iterator

from qmpmem.configuration.errors import Place
from qmpmem.configuration.file_values import FileRule
from qmpmem.configuration.keys import ADOPT, GUEST, TABLES, TOP, Section, Setting, words
from qmpmem.configuration.merge import Judgement
from qmpmem.model.config import Config
from qmpmem.model.escapes import printable
from qmpmem.records import Record
from qmpmem.units import Share

COMMENT: int = 28
"""The column where comments start, where the value leaves room."""


class KeyInForce(Record, frozen=True):
    """A key with its value in force."""

    key: str
    value: object
    """Sizes in bytes, times in seconds or as the field has it; None: see the key's meaning."""
    file: str | None = None
    """None: the default."""
    line: int | None = None
    meaning: str | None = None
    source: str | None = None
    """Where the default is from."""


class RuleInForce(Record, frozen=True):
    """A rule in force."""

    file: str
    line: int | None
    settings: tuple[KeyInForce, ...]


class ConfigInForce(Record, frozen=True):
    """All that is in force."""

    files: tuple[str, ...]
    settings: tuple[KeyInForce, ...]
    guests: tuple[RuleInForce, ...]
    """In the order in which they are tried; the first that matches counts."""
    adoptions: tuple[RuleInForce, ...] = ()


def listing(judgement: Judgement, config: Config) -> ConfigInForce:
    """List what is in force, for programs."""
    tables = [(TOP, config), *((section, getattr(config, section.name)) for section in TABLES)]
    return ConfigInForce(
        files=judgement.files,
        settings=tuple(
            _key(section, setting, record, judgement.origins.get(section.dotted(setting.key)))
            for section, record in tables
            for setting in section.settings
        ),
        guests=tuple(map(_rule, config.rules, judgement.rules)),
        adoptions=tuple(map(_rule, config.adoptions, judgement.adoptions)),
    )


def lines(judgement: Judgement, config: Config) -> Iterator[str]:
    """Write what is in force as TOML, with where it is from as comments."""
    found = listing(judgement, config)
    files = ", ".join(printable(file) for file in found.files)
    yield f"# read: {files}" if files else "# no file: these are the defaults"
    for section in (TOP, *TABLES):
        if section.name:
            yield from ("", f"[{section.name}]")
        yield from _lines(section, found.settings)
    for section, rules in ((GUEST, found.guests), (ADOPT, found.adoptions)):
        for rule in rules:
            yield from ("", f"[[{section.name}]]")
            yield from _lines(section, rule.settings)


def _lines(section: Section, found: Iterable[KeyInForce]) -> Iterator[str]:
    """Write those that are of one section."""
    values = {each.key: each for each in found}
    for setting in section.settings:
        each = values.get(section.dotted(setting.key))
        if each is None:
            continue
        said = words(section.record, setting.field)
        comment = ": ".join(filter(None, ("default", said.unset, said.source)))
        if each.file is not None:
            comment = str(Place(file=each.file, line=each.line))
        yield f"{setting.key} = {setting.kind.write(each.value)}".ljust(COMMENT) + f"  # {comment}"


def _rule(record: Record, rule: FileRule) -> RuleInForce:
    return RuleInForce(
        file=rule.place.file,
        line=rule.place.line,
        settings=tuple(
            _key(rule.section, setting, record, rule.keys[setting.key].place)
            for setting in rule.section.settings
            if setting.key in rule.keys
        ),
    )


def _key(section: Section, setting: Setting, record: Record, place: Place | None) -> KeyInForce:
    said = words(section.record, setting.field)
    value = getattr(record, setting.field)
    return KeyInForce(
        key=section.dotted(setting.key),
        value=str(value) if isinstance(value, Share) else value,
        file=None if place is None else place.file,
        line=None if place is None else place.line,
        meaning=said.meaning,
        source=said.source if place is None else None,
    )
