"""What one file gives: a value for a key, a rule, or a mistake. Pure."""

from collections.abc import Iterator, Mapping
from typing import TypeGuard

from qmpmem.configuration import value_types
from qmpmem.configuration.errors import Mistake, Place, shortened, shown
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
from qmpmem.configuration.toml_document import Document
from qmpmem.records import Record


class FileValue(Record, frozen=True):
    """A value that a file gives for a key."""

    key: str
    """As in ``ksm.max_cpu``."""
    place: Place
    values: Mapping[str, object]
    """By field."""


class FileRule(Record, frozen=True):
    """A ``[[guest]]``, or an ``[[adopt]]``."""

    place: Place
    keys: Mapping[str, FileValue]
    section: Section = GUEST

    @property
    def match(self) -> str | None:
        """The pattern; None: there is none that makes sense."""
        given = self.keys.get("match")
        return None if given is None else str(given.values["match"])

    @property
    def fields(self) -> dict[str, object]:
        """What it gives, by field."""
        return {
            field: value for given in self.keys.values() for field, value in given.values.items()
        }


Found = FileValue | FileRule | Mistake


def take(document: Document) -> Iterator[Found]:
    """Say all that a file gives, and all that is wrong with it."""
    if document.mistake is not None:
        yield document.mistake
    tables = {section.name: section for section in TABLES}
    arrays = {section.name: section for section in ARRAYS}
    for key, value in document.values.items():
        if key in arrays:
            yield from _rules(document, arrays[key], value)
        elif key in tables:
            yield from _table(document, tables[key], value)
        else:
            yield _value(TOP, key, value, document.place(key))


def _table(document: Document, section: Section, value: object) -> Iterator[Found]:
    if not _is_table(value):
        problem = f"expected one table [{section.name}], got {shown(value)}"
        yield Mistake(place=document.place(section.name), key=section.name, problem=problem)
        return
    for key, each in value.items():
        yield _value(section, key, each, document.place(section.name, key))


def _rules(document: Document, section: Section, value: object) -> Iterator[Found]:
    expected = f"expected tables [[{section.name}]]"
    if not _is_list(value):
        place = document.place(section.name)
        yield Mistake(place=place, key=section.name, problem=f"{expected}, got {shown(value)}")
        return
    for number, entry in enumerate(value):
        place = document.place(section.name, number)
        if _is_table(entry):
            yield from _rule(document, section, number, entry)
        else:
            yield Mistake(place=place, key=section.name, problem=f"{expected}, got {shown(entry)}")


def _rule(
    document: Document, section: Section, number: int, entry: dict[str, object]
) -> Iterator[Found]:
    place = document.place(section.name, number)
    keys: dict[str, FileValue] = {}
    for key, value in entry.items():
        found = _value(section, key, value, document.place(section.name, number, key))
        if isinstance(found, FileValue):
            keys[key] = found
        else:
            yield found
    first = section.settings[0]  # the one that says what the rule is about
    if first.key not in entry:
        problem = f"missing, expected {first.kind.expected}"
        yield Mistake(place=place, key=section.dotted(first.key), problem=problem)
    yield FileRule(place=place, keys=keys, section=section)


def _value(section: Section, key: str, value: object, place: Place) -> FileValue | Mistake:
    name = section.dotted(shortened(key))
    setting = section.setting(key)
    if setting is None:
        return Mistake(place=place, key=name, problem=f"unknown key{_advice(section, key)}")
    try:
        read = setting.kind.read(value)
    except value_types.UnfitError as error:
        why = f" ({error})" if str(error) else ""
        problem = f"expected {setting.kind.expected}, got {shown(value)}{why}"
        return Mistake(place=place, key=name, problem=problem)
    return FileValue(key=name, place=place, values=_fields(setting, read))


def _fields(setting: Setting, value: object) -> dict[str, object]:
    if isinstance(value, value_types.Percent):
        return {setting.percent_field or setting.field: value.percent}
    return {setting.field: value}


def _advice(section: Section, key: str) -> str:
    """Say what was probably meant: here, elsewhere, or something that looks like it."""
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
    close = value_types.did_you_mean(word, names)
    return f"; {close}" if close else f", expected {', '.join(section.keys)}"


def _is_table(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)
