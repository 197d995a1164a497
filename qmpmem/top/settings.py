"""The file that keeps what the user chose: ``~/.config/qmpmem/top.toml``."""

import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from qmpmem.errors import ConfigError
from qmpmem.files import directories
from qmpmem.top.columns import BY_NAME, ORDERS
from qmpmem.top.filters import parse
from qmpmem.top.view_state import Settings


def settings_path(environ: Mapping[str, str]) -> Path:
    """Return the path of the file (XDG Base Directory Specification: XDG_CONFIG_HOME)."""
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "/") / ".config")
    return Path(home) / "qmpmem" / "top.toml"


def load(path: Path) -> Settings:
    """Read the settings; the defaults where there is no file.

    Raises:
        ConfigError: it cannot be read, or a value makes no sense; the error names its key.
    """
    try:
        with path.open("rb") as file:
            found = msgspec.convert(tomllib.load(file), _Kept)
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", hint="`W` in `qmpmem top` writes it anew") from error
    return _expect_sense(found, path)


def save(path: Path, settings: Settings) -> None:
    """Write the settings, all of them, or none.

    Raises:
        ConfigError: they cannot be written.
    """
    try:
        _expect_directory(path.parent)
        # A new file of a name that no other user can know, and so put a link in its place.
        descriptor, made = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text(settings))
            Path(made).replace(path)
        finally:
            Path(made).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _expect_directory(path: Path) -> None:
    """Make the directory where it is missing; no other user may lead elsewhere.

    Raises:
        UntrustedError: one may, as where HOME is another user's.
        OSError: it cannot be made.
    """
    if path.is_dir():
        os.close(directories.open_directory(path))
    else:
        os.close(directories.open_or_make(path, directories.PRIVATE, above=directories.PRIVATE)[0])


def text(settings: Settings) -> str:
    """Write settings as TOML. JSON's strings, lists and booleans are TOML's, too (TOML 1.0)."""
    values = msgspec.structs.asdict(settings)
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    return "\n".join(("# What `qmpmem top` shows; `W` in it writes this file.", *lines, ""))


class _Kept(Settings, frozen=True, forbid_unknown_fields=True):
    """The settings, as the file has them."""


def _expect_sense(found: Settings, path: Path) -> Settings:
    unknown = [each for each in found.columns if each not in BY_NAME]
    if unknown:
        raise ConfigError(f"{path}: columns: {unknown[0]!r} is none of {', '.join(BY_NAME)}")
    if found.sort not in ORDERS:
        raise ConfigError(f"{path}: sort: {found.sort!r} is none of {', '.join(ORDERS)}")
    try:
        parse(found.filter)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from None
    return Settings(**msgspec.structs.asdict(found))
