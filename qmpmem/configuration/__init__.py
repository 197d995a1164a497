"""The configuration: files in, one frozen `Config` or every mistake out.

mistakes   what is wrong, and where
scan       which line of a TOML text says what
document   a file's text as values with lines
kinds      how a value is read and written
patterns   patterns of ids and names
settings   the table of all keys
given      what one file gives
rules      which rules are never reached
judge      several files as one Config
reloading  what a running agent does with files that changed
listing    a Config as a file that says where everything is from
files      which files are read, and how (all else is pure)
"""

from collections.abc import Mapping
from pathlib import Path

from qmpmem.config import Config
from qmpmem.configuration.files import MAIN, read
from qmpmem.configuration.judge import Judgement, Source, judge
from qmpmem.configuration.mistakes import Mistake, Place
from qmpmem.configuration.reloading import Reload, reload
from qmpmem.errors import ConfigError
from qmpmem.units import Bytes

__all__ = [
    "Judgement",
    "Mistake",
    "Place",
    "Reload",
    "Source",
    "judge",
    "load",
    "read",
    "reload",
    "settled",
]


def load(
    given: Path | None,
    environ: Mapping[str, str],
    total: Bytes | None = None,
    *,
    default: Path = MAIN,
) -> Judgement:
    """Read and judge the configuration.

    Args:
        given: the path that --config names.
        environ: the environment, which may name another.
        total: the host's memory; None: it is not known.
        default: where it is when nobody names it.
    """
    return judge(read(given, environ, default), total)


def settled(judgement: Judgement) -> Config:
    """Take the configuration that was read.

    Raises:
        ConfigError: there are mistakes in it; the first is named.
    """
    if judgement.config is not None:
        return judgement.config
    number = len(judgement.mistakes)
    more = f" (and {number - 1} more)" if number > 1 else ""
    raise ConfigError(f"{judgement.mistakes[0]}{more}", hint="`qmpmem config check` shows all")
