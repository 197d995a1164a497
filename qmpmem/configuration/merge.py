"""Several files' texts as one `Config`, or all that is wrong with them. Pure.

Theory of operation:
    The main file comes first, then those of conf.d in the order of their names, and for each key
    the last one counts. Of the rules for guests the first that matches counts; a later file's rules
    are tried before an earlier file's, so that also there the later file has the last word: a
    catch-all at the end of the main file takes nothing from conf.d. Rules are never mixed.

    Nothing is half configured: one mistake anywhere, and there is no `Config`. A running agent then
    keeps the one that it has.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from qmpmem.configuration import rules
from qmpmem.configuration.errors import Mistake, Place, summary
from qmpmem.configuration.file_values import FileRule, FileValue, Found, take
from qmpmem.configuration.keys import ADOPT, GUEST, TABLES
from qmpmem.configuration.toml_document import parse
from qmpmem.errors import ConfigError
from qmpmem.model.config import Config
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
    """Where each of the config's adoptions is from."""


class Reload(Record, frozen=True):
    """How a running agent goes on."""

    config: Config
    """The new one; the old one, unchanged, where there are mistakes."""
    mistakes: tuple[Mistake, ...] = ()
    warnings: tuple[Mistake, ...] = ()
    changed: tuple[str, ...] = ()
    """The fields of `Config` that differ from before."""


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
    warnings = _ordered([*overridden.values(), *_doubts(given, total)], files)
    if mistakes:
        ordered = _ordered(mistakes, files)
        return Judgement(config=None, files=files, mistakes=ordered, warnings=warnings)
    reached = [rule for number, rule in enumerate(tried) if number not in overridden]
    return Judgement(
        config=_config(given, reached, adopted),
        files=files,
        warnings=warnings,
        origins={key: each.place for key, each in given.items()},
        rules=tuple(reached),
        adoptions=tuple(adopted),
    )


def settled(judgement: Judgement) -> Config:
    """Take the configuration that was read.

    Raises:
        ConfigError: there are mistakes in it; the first is named.
    """
    if judgement.config is not None:
        return judgement.config
    raise ConfigError(summary(judgement.mistakes), hint="`qmpmem config check` shows all")


def reload(old: Config, sources: Sequence[Source], total: Bytes | None = None) -> Reload:
    """Take the files as they are now, all of them or none.

    Args:
        old: what holds.
        sources: the files, as `qmpmem.configuration.read` gives them.
        total: the host's memory; None: it is not known.
    """
    judgement = judge(sources, total)
    new = judgement.config
    if new is None:
        return Reload(config=old, mistakes=judgement.mistakes, warnings=judgement.warnings)
    before, after = msgspec.structs.asdict(old), msgspec.structs.asdict(new)
    changed = tuple(field for field in after if after[field] != before[field])
    return Reload(config=new, warnings=judgement.warnings, changed=changed)


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
        (tables[section] if section else fields)[each.setting.field] = each.value
    return msgspec.convert(fields, type=Config)


def _doubts(given: Mapping[str, FileValue], total: Bytes | None) -> Iterator[Mistake]:
    """Warn of what can be, and hardly is meant."""
    reserve, budget = given.get("reserve"), given.get("budget")
    if reserve is None or not isinstance(reserve.value, int):
        return
    limits = (("the host's memory", total), ("the budget", budget and budget.value))
    for name, most in limits:
        if isinstance(most, int) and reserve.value >= most:
            problem = (
                f"{format_size(Bytes(reserve.value))} is all of {name}, "
                f"{format_size(Bytes(most))}: the guests will be left with little"
            )
            yield Mistake(place=reserve.place, key=reserve.key, problem=problem)


def _ordered(mistakes: Iterable[Mistake], files: Sequence[str]) -> tuple[Mistake, ...]:
    """Sort mistakes as the administrator corrects them: by file, from top to bottom."""
    return tuple(
        sorted(mistakes, key=lambda each: (files.index(each.place.file), each.place.line or 0))
    )
