"""The manual's tables of settings, made again: ``.venv/bin/python -m tests.rig.manual``."""

from collections.abc import Iterator

from msgspec import NODEFAULT
from msgspec.structs import fields

from qmpmem.configuration.keys import SECTIONS, TOP, Section, Setting, Words, words
from qmpmem.model.config import MINIMUM_LEAST, PRESETS
from qmpmem.records import Record
from qmpmem.units import format_size
from tests.rig.readme import path_of

BEGIN = "<!-- made from the records by `.venv/bin/python -m tests.rig.manual` -->"
END = "<!-- made from the records: end -->"


def tables() -> str:
    """Write a table for each section of the file, and one for the classes of guests."""
    return "\n\n".join("\n".join(rows) for rows in (*map(_section, SECTIONS), _classes())) + "\n"


def inserted(chapter: str) -> str:
    """Put the tables where the chapter has, or had, them."""
    before, begin, rest = chapter.partition(BEGIN + "\n")
    _, end, after = rest.partition(END)
    assert begin, BEGIN
    assert end, END
    return f"{before}{begin}\n{tables()}\n{end}{after}"


def default(record: type[Record], field: str) -> object:
    """Find a field's default; None also where it has none."""
    [found] = [each.default for each in fields(record) if each.name == field]
    return None if found is NODEFAULT else found


def _section(section: Section) -> Iterator[str]:
    if section is not TOP:
        yield f"### `{f'[[{section.name}]]' if section.is_array else f'[{section.name}]'}`"
        yield ""
    yield "| key | what | takes | default |"
    yield "|---|---|---|---|"
    for setting in section.settings:
        said = words(section.record, setting.field)
        yield (
            f"| `{setting.key}` | {said.meaning} | {setting.kind.expected} "
            f"| {_default(section, setting, said)} |"
        )


def _default(section: Section, setting: Setting, said: Words) -> str:
    value = default(section.record, setting.field)
    shown = said.unset or "must be given"
    if value is not None:
        shown = f"`{setting.kind.write(value)}`"
    return f"{shown} ({said.source})" if said.source else shown


def _classes() -> Iterator[str]:
    yield "### Classes of guests"
    yield ""
    yield "| `class` | minimum | shares | room beside what it works with |"
    yield "|---|---|---|---|"
    for name, preset in PRESETS.items():
        yield (
            f"| `{name}` | {preset.minimum_percent} % of its maximum, at least "
            f"{format_size(MINIMUM_LEAST)} | {preset.shares} | {preset.headroom_percent} % |"
        )


def main() -> None:
    """Write them into the chapter."""
    path = path_of("config")
    path.write_text(inserted(path.read_text()))


if __name__ == "__main__":
    main()
