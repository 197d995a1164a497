"""A configuration as a file that would give the same again, with where everything is from. Pure."""

from collections.abc import Iterator

from qmpmem.configuration.errors import Place, printable
from qmpmem.configuration.file_values import FileRule
from qmpmem.configuration.keys import TABLES, TOP, Section, Setting, words
from qmpmem.configuration.merge import Judgement
from qmpmem.configuration.value_types import Percent
from qmpmem.model.config import Config
from qmpmem.records import Record

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
    return ConfigInForce(
        files=judgement.files,
        settings=tuple(
            _shown(section, setting, record, judgement.origins.get(section.dotted(setting.key)))
            for section, record in _records(config)
            for setting in section.settings
        ),
        guests=tuple(_shown_rule(rule, given) for rule, given in judgement.sourced_rules()),
        adoptions=tuple(
            _shown_rule(rule, given)
            for rule, given in zip(config.adoptions, judgement.adoptions, strict=True)
        ),
    )


def lines(judgement: Judgement, config: Config) -> Iterator[str]:
    """Write what is in force as TOML, with where it is from as comments."""
    files = ", ".join(printable(file) for file in judgement.files)
    yield f"# read: {files}" if files else "# no file: these are the defaults"
    for section, record in _records(config):
        if section.name:
            yield from ("", f"[{section.name}]")
        for setting in section.settings:
            place = judgement.origins.get(section.dotted(setting.key))
            yield _line(setting, record, _origin(section, setting, place))
    adoptions = zip(config.adoptions, judgement.adoptions, strict=True)
    for rule, given in (*judgement.sourced_rules(), *adoptions):
        yield from ("", f"[[{given.section.name}]]")
        for setting in _given(given):
            yield _line(setting, rule, str(given.keys[setting.key].place))


def write(setting: Setting, record: Record) -> str:
    """Write the value that a record has, as it stands in a file."""
    if setting.percent_field is not None:
        percent = getattr(record, setting.percent_field)
        if percent is not None and getattr(record, setting.field) is None:
            return setting.kind.write(Percent(percent=percent))
    return setting.kind.write(getattr(record, setting.field))


def _records(config: Config) -> Iterator[tuple[Section, Record]]:
    yield TOP, config
    for section in TABLES:
        yield section, getattr(config, section.name)


def _given(rule: FileRule) -> Iterator[Setting]:
    """The keys of a rule that are given, in the order of the table."""
    return (setting for setting in rule.section.settings if setting.key in rule.keys)


def _shown_rule(rule: Record, given: FileRule) -> RuleInForce:
    return RuleInForce(
        file=given.place.file,
        line=given.place.line,
        settings=tuple(
            _shown(given.section, setting, rule, given.keys[setting.key].place)
            for setting in _given(given)
        ),
    )


def _line(setting: Setting, record: Record, comment: str) -> str:
    return f"{setting.key} = {write(setting, record)}".ljust(COMMENT) + f"  # {comment}"


def _origin(section: Section, setting: Setting, place: Place | None) -> str:
    if place is not None:
        return str(place)
    said = words(section.record, setting.field)
    return ": ".join(["default", *(text for text in (said.unset, said.source) if text)])


def _shown(section: Section, setting: Setting, record: Record, place: Place | None) -> KeyInForce:
    said = words(section.record, setting.field)
    value: object = getattr(record, setting.field)
    if setting.percent_field is not None and value is None:
        value = f"{getattr(record, setting.percent_field)}%"
    return KeyInForce(
        key=section.dotted(setting.key),
        value=value,
        file=None if place is None else place.file,
        line=None if place is None else place.line,
        meaning=said.meaning,
        source=said.source if place is None else None,
    )
