"""What guests are called: the name that the owner chose, and the id by which programs know it.

Theory of operation:
    A name is any text, and may belong to several guests. An id is a safe word, and belongs to one
    guest alone in its run directory. It is the name itself where that is safe and free, else a word
    made of it, with a number where that is taken. Wherever a guest is meant, its id or its name
    will do. An id counts before a name, so that every guest can be meant.

    Guests are matched as by `fnmatch.fnmatchcase`: ``*``, ``?``, ``[abc]``, ``[!abc]``.

Rules of this file:
    Pure. The launcher makes ids without this package (launchers/kvm_words.py). A test compares
    both.
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from string import printable
from typing import Final

from qmpmem.errors import ConfigError

LONGEST: Final = 48
"""Most characters of an id: it is part of a socket's path, which has 107 (unix(7))."""
LONGEST_NAME: Final = 1024
"""Most characters of a name that are kept (launchers/kvm_records.py)."""
SAFE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")
WILD: Final = re.compile(r"[*?\[]")
LONGEST_PATTERN: Final = 200

_PART: Final = re.compile(r"\[!?+.[^\]]*\]|.", re.DOTALL)
_ANY, _ONE = "\0", "\1"
"""Stand for whatever ``*`` and ``?`` may match."""

_LETTERS: Final = """
    a àáâãåāăą  ae äæ  c çćĉċč  d ďđð  e èéêëēĕėęě  g ĝğġģ  h ĥħ  i ìíîïĩīĭįı  j ĵ  k ķ  l ĺļľŀł
    n ñńņňŋ  o òóôõøōŏő  oe öœ  r ŕŗř  s śŝşšș  ss ß  t ţťŧț  th þ  u ùúûũūŭůűų  ue ü  w ŵ  y ýÿŷ
    z źżž
    """.split()  # noqa: SIM905 - a table
_BASES: Final = {
    letter: base
    for base, letters in zip(_LETTERS[::2], _LETTERS[1::2], strict=True)
    for letter in letters
}
"""Small letters with accents, and how each is written without."""


def safe_id(name: str) -> str:
    """Return an id for any name: itself where safe, else a word like it, or ``g-`` and a hash."""
    if SAFE_ID.fullmatch(name):
        return name
    word = make_word(name)
    if word:
        return word
    from hashlib import blake2b  # noqa: PLC0415 - 4 ms that few need

    digest = blake2b(name.encode("utf-8", "surrogateescape"), digest_size=6)
    return "g-" + digest.hexdigest()


def make_word(name: str, limit: int = 48) -> str:
    """Return a word of letters, digits, ``.``, ``_`` and ``-`` for any name.

    Returns:
        At most `limit` characters, the first a letter or a digit; "" where most of the name is in
        letters that have no counterpart, as in another alphabet.
    """
    text = "".join(map(_spell, name))
    word = text.strip("-._")
    while "--" in word:
        word = word.replace("--", "-")
    lost = sum(1 for letter in name if letter.isalnum() and not _spell(letter).strip("-"))
    if lost > len(name) // 2:
        return ""
    return word[:limit].rstrip("-._")


def _spell(letter: str) -> str:
    if letter.isascii():
        return letter if letter.isalnum() or letter in "._-" else "-"
    if "\u0300" <= letter <= "\u036f":  # an accent of the letter before
        return ""
    base = _BASES.get(letter.lower(), "-")
    return base.capitalize() if letter.isupper() else base


@lru_cache(maxsize=4096)  # called for each rule and guest in each round
def matches(pattern: str, guest: str, name: str | None) -> bool:
    """Tell whether a pattern, as of the shell, means a guest: by its id or by its name."""
    if fnmatchcase(guest, pattern):
        return True
    return name is not None and name != guest and fnmatchcase(name, pattern)


def unmatchable(pattern: str) -> str | None:
    """Return why no name can match a pattern; None where one can."""
    if not pattern or len(pattern) > LONGEST_PATTERN:
        return "empty" if not pattern else f"more than {LONGEST_PATTERN} characters"
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
        return not WILD.search(narrow) and fnmatchcase(narrow, wide)
    shape = "".join(_stand_in(part) for part in _PART.findall(narrow))
    return fnmatchcase(shape, wide.replace("?", f"[!{_ANY}]"))


def _stand_in(part: str) -> str:
    if part == "*":
        return _ANY
    return _ONE if part == "?" or len(part) > 1 else part


def pick(word: str, guests: Mapping[str, str | None]) -> str | None:
    """Find the guest that is meant by a word.

    Args:
        word: an id, or a name.
        guests: the name of each guest, by its id.

    Returns:
        Its id; None where there is no such guest.

    Raises:
        ConfigError: the word is no id, and the name of several guests.
    """
    if word in guests:
        return word
    named = [guest for guest, name in guests.items() if name == word]
    if len(named) > 1:
        raise ConfigError(
            f"guest {word}: the name of several guests", hint=f"say which: {', '.join(named)}"
        )
    return named[0] if named else None


def label(guest: str, name: str | None) -> str:
    """Return a guest's name, with its id where the name alone may mean another guest as well."""
    if name is None or name == guest:
        return guest
    return name if safe_id(name) == guest else f"{name} ({guest})"
