"""Patterns of names and ids: which can match anything, and which leave nothing to another. Pure.

Theory of operation:
    Guests are matched as by `fnmatch.fnmatchcase`: ``*``, ``?``, ``[abc]``, ``[!abc]``. A guest is
    meant if its id or its name matches (`qmpmem.model.names.matches`), and a name is any text.
"""

import re
from fnmatch import fnmatchcase
from string import printable
from typing import Final

_PART: Final = re.compile(r"\[!?+.[^\]]*\]|.", re.DOTALL)
_LONGEST_PATTERN: Final = 200
_ANY, _ONE = "\0", "\1"
"""Stand for whatever ``*`` and ``?`` may match."""


def flaw(pattern: str) -> str | None:
    """Say why no name can match; None where one can."""
    if not pattern or len(pattern) > _LONGEST_PATTERN:
        return "empty" if not pattern else f"more than {_LONGEST_PATTERN} characters"
    parts = _PART.findall(pattern)
    if "[" in parts:
        return "a [ that is not closed (a [ itself is written [[])"
    for part in parts:
        if len(part) > 1 and not any(fnmatchcase(each, part) for each in {*part, *printable}):
            return f"no character is in {part!r}"
    return None


def covers(wide: str, narrow: str) -> bool:
    """Whether whatever matches `narrow` matches `wide`, as far as that is easily told."""
    if wide == narrow:
        return True
    if _ANY in wide or _ONE in wide:
        return False
    if "[" in wide:
        return not re.search(r"[*?\[]", narrow) and fnmatchcase(narrow, wide)
    shape = "".join(_stand_in(part) for part in _PART.findall(narrow))
    return fnmatchcase(shape, wide.replace("?", f"[!{_ANY}]"))


def _stand_in(part: str) -> str:
    if part == "*":
        return _ANY
    return _ONE if part == "?" or len(part) > 1 else part
