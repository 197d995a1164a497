"""What a running agent does with files that changed. Pure."""

from collections.abc import Sequence

from msgspec.structs import asdict

from qmpmem.configuration.errors import Mistake
from qmpmem.configuration.merge import Source, judge
from qmpmem.model.config import Config
from qmpmem.records import Record
from qmpmem.units import Bytes


class Reload(Record, frozen=True):
    """How to go on."""

    config: Config
    """The new one; the old one, unchanged, where there are mistakes."""
    mistakes: tuple[Mistake, ...] = ()
    warnings: tuple[Mistake, ...] = ()
    changed: tuple[str, ...] = ()
    """The fields of `Config` that differ from before."""


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
    before, after = asdict(old), asdict(new)
    changed = tuple(field for field in after if after[field] != before[field])
    return Reload(config=new, warnings=judgement.warnings, changed=changed)
