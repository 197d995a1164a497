"""Several files' texts as one `Config`, or all that is wrong with them. Pure.

Theory of operation:
    The main file comes first, then those of conf.d in the order of their names, and for each key
    the last one counts. Of the rules for guests the first that matches counts; a later file's rules
    are tried before an earlier file's, so that also there the later file has the last word: a
    catch-all at the end of the main file takes nothing from conf.d. Rules are never mixed.

    Nothing is half configured: one mistake anywhere, and there is no `Config`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from qmpmem.configuration import rules
from qmpmem.configuration.errors import Mistake, Place
from qmpmem.configuration.file_values import FileRule, FileValue, Found, take
from qmpmem.configuration.keys import ADOPT, GUEST, TABLES
from qmpmem.configuration.toml_document import parse
from qmpmem.model.config import Config, Rule
from qmpmem.records import Record
from qmpmem.units import Bytes, format_size


class Source(Record, frozen=True):
    """A file, as far as it could be read."""

    file: str
    text: str = ""
    problem: str | None = None
    """Why it is not read; then there is no text."""
    line: int | None = None
    """Where the problem is."""


class Judgement(Record, frozen=True):
    """What came of the files."""

    config: Config | None
    """None: there are mistakes."""
    files: tuple[str, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    warnings: tuple[Mistake, ...] = ()
    origins: Mapping[str, Place] = {}
    """Where each key that is given is from, as in ``ksm.max_cpu``. What is not here is default."""
    rules: tuple[FileRule, ...] = ()
    """Where each of the config's rules is from."""
    adoptions: tuple[FileRule, ...] = ()
    """Likewise each of its adoptions."""

    def sourced_rules(self) -> Iterable[tuple[Rule, FileRule]]:
        """Pair each rule with where it is from."""
        found = () if self.config is None else self.config.rules
        return zip(found, self.rules, strict=True)


def judge(sources: Sequence[Source], total: Bytes | None = None) -> Judgement:
    """Combine files, in the order in which they are read.

    Args:
        sources: the files.
        total: the host's memory; None: it is not known.
    """
    files = tuple(source.file for source in sources)
    given: dict[str, FileValue] = {}
    tried: list[FileRule] = []
    adopted: list[FileRule] = []
    mistakes: list[Mistake] = []
    for source in sources:
        found = list(_read(source))
        mistakes += [each for each in found if isinstance(each, Mistake)]
        given |= {each.key: each for each in found if isinstance(each, FileValue)}
        here = [each for each in found if isinstance(each, FileRule)]
        tried = [each for each in here if each.section is GUEST] + tried
        adopted += [each for each in here if each.section is ADOPT]
    mistakes += rules.mistakes(tried)
    mistakes += rules.adoption_mistakes(adopted)
    overridden = rules.overridden(tried)
    warnings = [*overridden.values(), *_doubts(given, total)]
    reached = [rule for number, rule in enumerate(tried) if number not in overridden]
    return Judgement(
        config=None if mistakes else _config(given, reached, adopted),
        files=files,
        mistakes=_ordered(mistakes, files),
        warnings=_ordered(warnings, files),
        origins={} if mistakes else {key: each.place for key, each in given.items()},
        rules=() if mistakes else tuple(reached),
        adoptions=() if mistakes else tuple(adopted),
    )


def _read(source: Source) -> Iterator[Found]:
    if source.problem is None:
        return take(parse(source.file, source.text))
    place = Place(file=source.file, line=source.line)
    return iter([Mistake(place=place, key=None, problem=source.problem)])


def _config(
    given: Mapping[str, FileValue], reached: Sequence[FileRule], adopted: Sequence[FileRule]
) -> Config:
    tables: dict[str, dict[str, object]] = {section.name: {} for section in TABLES}
    fields: dict[str, object] = {
        "rules": [rule.fields for rule in reached],
        "adoptions": [rule.fields for rule in adopted],
        **tables,
    }
    for key, each in given.items():
        section = key.rpartition(".")[0]
        (tables[section] if section else fields).update(each.values)
    return msgspec.convert(fields, type=Config)


def _doubts(given: Mapping[str, FileValue], total: Bytes | None) -> Iterator[Mistake]:
    """Warn of what can be, and hardly is meant."""
    values = {field: value for each in given.values() for field, value in each.values.items()}
    reserve = values.get("reserve")
    for name, most in (("the host's memory", total), ("the budget", values.get("budget"))):
        if isinstance(reserve, int) and isinstance(most, int) and reserve >= most:
            problem = (
                f"{format_size(Bytes(reserve))} is all of {name}, {format_size(Bytes(most))}: "
                "the guests will be left with little"
            )
            yield Mistake(place=given["reserve"].place, key="reserve", problem=problem)


def _ordered(mistakes: Iterable[Mistake], files: Sequence[str]) -> tuple[Mistake, ...]:
    """Sort as somebody corrects them: by file, from top to bottom."""
    return tuple(
        sorted(mistakes, key=lambda each: (files.index(each.place.file), each.place.line or 0))
    )
