"""Patterns of ids: which can match anything, and which leave nothing to another. Pure.

Theory of operation:
    Guests are matched as by `fnmatch.fnmatchcase`: ``*``, ``?``, ``[abc]``, ``[!abc]``. A guest's
    id is a letter or a digit and up to 47 of letters, digits, ``.``, ``_`` and ``-``
    (`qmpmem.names.SAFE_ID`; a test holds the two together).
"""

import re
from fnmatch import fnmatchcase
from string import ascii_letters, digits
from typing import Final

LONGEST: Final = 48
"""Characters of an id."""
FIRST: Final = ascii_letters + digits
LATER: Final = FIRST + "._-"

_PART: Final = re.compile(r"\[!?+.[^\]]*\]|.", re.DOTALL)
_LONGEST_PATTERN: Final = 200
_ANY, _ONE = "\0", "\1"
"""Stand for whatever ``*`` and ``?`` may match: no id holds them."""


def flaw(pattern: str) -> str | None:
    """Say why no id can match; None where one can."""
    if not pattern or len(pattern) > _LONGEST_PATTERN:
        return "empty" if not pattern else f"more than {_LONGEST_PATTERN} characters"
    parts = _PART.findall(pattern)
    if "[" in parts:
        return "a [ that is not closed"
    for part in parts:
        if part != "*" and not any(fnmatchcase(each, part) for each in LATER):
            return f"no id holds {part!r}: ids are letters, digits, ._-"
    if len([part for part in parts if part != "*"]) > LONGEST:
        return f"no id has more than {LONGEST} characters"
    if parts[0] != "*" and not any(fnmatchcase(each, parts[0]) for each in FIRST):
        return "an id starts with a letter or a digit"
    return None


def covers(wide: str, narrow: str) -> bool:
    """Whether whatever matches `narrow` matches `wide`, as far as that is easily told."""
    if wide == narrow:
        return True
    if "[" in wide:
        return not re.search(r"[*?\[]", narrow) and fnmatchcase(narrow, wide)
    shape = "".join(_stand_in(part) for part in _PART.findall(narrow))
    return fnmatchcase(shape, wide.replace("?", f"[!{_ANY}]"))


def _stand_in(part: str) -> str:
    if part == "*":
        return _ANY
    return _ONE if part == "?" or len(part) > 1 else part
