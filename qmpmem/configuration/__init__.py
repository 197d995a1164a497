"""The configuration: files in, one frozen `Config` or every mistake out.

All is pure but `files` and `async_load`, which read.
"""

from collections.abc import Mapping
from pathlib import Path

from qmpmem.configuration.errors import Mistake, Place
from qmpmem.configuration.file_changes import Reload, reload
from qmpmem.configuration.files import MAIN, read
from qmpmem.configuration.merge import Judgement, Source, judge
from qmpmem.errors import ConfigError
from qmpmem.model.config import Config
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
