"""What is written, whatever the terminal or the file can take.

Rules of this file:
    A character that the locale has no code for is written another way, and never ends a command.
    JSON stays JSON: what cannot be written as it is becomes one of its own escapes. So does what a
    terminal could obey, as it may come from a guest.
"""

import codecs
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TextIO

HANDLER: Final = "qmpmem-replace"
"""The name of our way to write what an encoding lacks."""
_ALIKE: Final = {"→": "->", "…": "...", "÷": "/", "·": ".", "×": "x", "–": "-", "≤": "<="}  # noqa: RUF001 - what they look like is the point
"""Our own signs, as they were written before there was Unicode."""

_JOURNAL_LEVELS: Final = ((50, 2), (40, 3), (30, 4), (20, 6), (0, 7))
"""From which level of `logging` on which of syslog's: critical, error, warning, info, debug."""


def prepare_streams() -> None:
    """Have each line leave when it is written, in a form that the stream can take."""
    sys.stdout = _prepare(sys.stdout)
    sys.stderr = _prepare(sys.stderr)


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether what is written there goes to systemd's journal (systemd.exec(5): JOURNAL_STREAM).

    The variable is inherited also by programs whose output goes elsewhere, so it says which file.
    """
    known = environ.get("JOURNAL_STREAM")
    if not known:
        return False
    try:
        seen = os.fstat(stream.fileno())
    except (OSError, ValueError):  # ValueError: it is closed, or no file
        return False
    return known == f"{seen.st_dev}:{seen.st_ino}"


def journal_prefix(level: int) -> str:
    """Write a level of `logging` as the journal reads it at the begin of a line (sd-daemon(3))."""
    return next(f"<{number}>" for least, number in _JOURNAL_LEVELS if level >= least)


def as_json(value: object, encoding: str = "utf-8") -> str:
    """Write a value as JSON, in characters that a stream of this encoding can take."""
    import msgspec

    try:
        text = msgspec.json.encode(value).decode()
        # JSON is UTF-8 (RFC 8259, 8.1), or ASCII, which means the same to every reader.
        if text.isascii() or codecs.lookup(encoding).name == "utf-8":
            return with_json_escapes(text)
    except UnicodeEncodeError:  # half a character: a name that is bytes and no text
        pass
    import json

    return json.dumps(msgspec.to_builtins(value), separators=(",", ":"))


def with_json_escapes(text: str) -> str:
    """Write JSON with its own escapes for what is no sign to be seen.

    JSON itself demands that of ASCII's control characters alone (RFC 8259, 7). Others are obeyed by
    terminals all the same: U+009B begins a command, U+202E turns the direction of writing around.
    """
    if text.isascii():
        return text
    import json

    return "".join(
        char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text
    )


def _prepare(stream: TextIO | None) -> TextIO:
    if stream is None:  # closed by the process that started this one
        return Path(os.devnull).open("w", encoding="utf-8", errors=HANDLER)
    wrapper: object = stream  # what isinstance makes of a TextIO is known in part only
    if isinstance(wrapper, io.TextIOWrapper):
        wrapper.reconfigure(line_buffering=True, errors=HANDLER)
    return stream


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start : error.end]
    return "".join(_ALIKE.get(char) or _escape(char) for char in bad), error.end


def _escape(char: str) -> str:
    return char.encode("ascii", "backslashreplace").decode()


codecs.register_error(HANDLER, _replace)
