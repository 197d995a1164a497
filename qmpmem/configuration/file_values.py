"""What one file gives: values for keys, rules, and mistakes. Pure."""

from collections.abc import Iterator, Mapping

from qmpmem.configuration.errors import Mistake, Place, shown
from qmpmem.configuration.keys import (
    ARRAYS,
    FAMILIAR,
    GUEST,
    SECTIONS,
    TABLES,
    TOP,
    Section,
    Setting,
)
from qmpmem.configuration.toml_document import Address, Document, is_list, is_table
from qmpmem.configuration.value_types import UnfitError, did_you_mean
from qmpmem.model.escapes import shortened
from qmpmem.records import Record


class FileValue(Record, frozen=True):
    """A value that a file gives for a key."""

    key: str
    """As in ``ksm.max_cpu``."""
    place: Place
    setting: Setting
    value: object


class FileRule(Record, frozen=True):
    """A ``[[guest]]``, or an ``[[adopt]]``."""

    place: Place
    keys: Mapping[str, FileValue]
    section: Section = GUEST

    @property
    def match(self) -> str | None:
        """The pattern; None: there is none that makes sense."""
        given = self.keys.get("match")
        return None if given is None else str(given.value)

    @property
    def fields(self) -> dict[str, object]:
        """What it gives, by field."""
        return {given.setting.field: given.value for given in self.keys.values()}


Found = FileValue | FileRule | Mistake


def take(document: Document) -> Iterator[Found]:
    """Yield all that a file gives, and all that is wrong with it."""
    if document.mistake is not None:
        yield document.mistake
    sections = {section.name: section for section in (*TABLES, *ARRAYS)}
    for key, value in document.values.items():
        if key in sections:
            yield from _section(document, sections[key], value)
        else:
            yield _value(TOP, key, value, document.place(key))


def _section(document: Document, section: Section, value: object) -> Iterator[Found]:
    """Read a table, or an array of tables."""
    entries: list[tuple[Address, object]] = [((section.name,), value)]
    is_fit = not section.is_array
    if section.is_array and is_list(value):
        entries = [((section.name, number), entry) for number, entry in enumerate(value)]
        is_fit = True
    for address, entry in entries:
        place = document.place(*address)
        if not is_fit or not is_table(entry):
            expected = f"expected {section.expected}, got {shown(entry)}"
            yield Mistake(place=place, key=section.name, problem=expected)
            continue
        found = [
            _value(section, key, each, document.place(*address, key)) for key, each in entry.items()
        ]
        if section.is_array:
            yield from _rule(section, place, found, entry)
        else:
            yield from found


def _rule(
    section: Section, place: Place, found: list[FileValue | Mistake], entry: Mapping[str, object]
) -> Iterator[Found]:
    yield from (each for each in found if isinstance(each, Mistake))
    first = section.settings[0]  # the one that says what the rule is about
    if first.key not in entry:
        problem = f"missing, expected {first.kind.expected}"
        yield Mistake(place=place, key=section.dotted(first.key), problem=problem)
    keys = {each.setting.key: each for each in found if isinstance(each, FileValue)}
    yield FileRule(place=place, keys=keys, section=section)


def _value(section: Section, key: str, value: object, place: Place) -> FileValue | Mistake:
    name = section.dotted(shortened(key))
    setting = section.setting(key)
    if setting is None:
        return Mistake(place=place, key=name, problem=f"unknown key{_advice(section, key)}")
    try:
        return FileValue(key=name, place=place, setting=setting, value=setting.kind.read(value))
    except UnfitError as error:
        return Mistake(place=place, key=name, problem=setting.kind.refuse(value, error))


def _advice(section: Section, key: str) -> str:
    """Return what was probably meant: a key here, one elsewhere, or one that looks like it."""
    word = key[:64].lower().replace("-", "_").strip()
    meant = (word, FAMILIAR.get(word, ""))
    for name in meant:
        if section.setting(name) is not None:
            return f"; did you mean {name}?"
    for name in meant:
        for home in SECTIONS:
            if home.setting(name) is not None:
                return f"; {name} stands {home.where}"
    names = [*section.keys, *(each.name for each in SECTIONS[1:] if section is TOP)]
    close = did_you_mean(word, names)
    return f"; {close}" if close else f", expected {', '.join(section.keys)}"
