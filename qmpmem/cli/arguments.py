"""The words of a call, before they are parsed and after that went wrong. Pure.

Rules of this file:
    Nothing after ``--`` is an option or a command: it is left as it is.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

GROUPS: Final = frozenset({"agent", "config", "ksm", "launcher", "policy", "service"})
"""Commands that have commands."""

WATCH: Final = "--watch"
_INTERVALS: Final = {"agent": "0s"}
"""By command: how often `--watch` looks where no option gives an interval. An agent reports by
itself when a round is over."""
_INTERVAL: Final = "1s"
"""How often `--watch` looks in all other commands where no option gives an interval."""
LISTEN: Final = "--listen"
_LIKE_A_TIME: Final = r"[+-]?\.?\d|nan|inf"


class Parameter(Protocol):
    """An option or an argument, as the parser knows it."""

    @property
    def opts(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def secondary_opts(self) -> Sequence[str]: ...  # noqa: D102


def prepare(words: Sequence[str]) -> list[str]:
    """Rewrite what the parser does not know: help and version as commands, options left bare."""
    options, rest = split(words)
    return [*_give_place(_give_interval(_as_option(options))), *rest]


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell the words before the first ``--`` from the rest, which begins with it."""
    end = words.index("--") if "--" in words else len(words)
    return list(words[:end]), list(words[end:])


def wants_json(words: Sequence[str]) -> bool:
    """Tell whether a call asks for JSON."""
    return "--json" in split(words)[0]


def unknown_option(words: Sequence[str], parameters: Iterable[Parameter]) -> str | None:
    """Name the first option that a command does not know; None: it knows them all."""
    known = {"--help"}.union(*((*each.opts, *each.secondary_opts) for each in parameters))
    given = (word.partition("=")[0] for word in split(words)[0] if word.startswith("--"))
    unknown = next((word for word in given if word not in known), None)
    return None if unknown is None else no_such("option", unknown, known)


def no_such(what: str, given: str, known: Iterable[str]) -> str:
    """Return that there is no such option or command, and which one may have been meant."""
    import difflib

    near = difflib.get_close_matches(given, sorted(known), n=1)
    return f"no such {what}: {given}" + (f". Did you mean {near[0]}?" if near else "")


def nearest(message: str) -> str:
    """Return which one of some values may have been meant, where a message lists them."""
    import difflib

    match = re.search(r"'([^']*)' is not one of (.*)", message, re.DOTALL)
    near = match and difflib.get_close_matches(match[1], re.findall("'([^']*)'", match[2]), n=1)
    return f". Did you mean {near[0]}?" if near else ""


def _as_option(words: Sequence[str]) -> list[str]:
    """Turn ``ksm help on`` and ``help ksm on`` into ``ksm on --help``.

    ``help`` and one word are a command of their own: the word may be a chapter of the manual.
    """
    if list(words) == ["version"]:
        return ["--version"]
    if words[:1] == ["help"] and sum(not word.startswith("-") for word in words) <= 2:  # noqa: PLR2004
        return list(words)
    for index, word in enumerate(words):
        if word == "help":
            return [*words[:index], *words[index + 1 :], "--help"]
        if word not in GROUPS:
            break
    return list(words)


def _give_interval(words: Sequence[str]) -> list[str]:
    """Add the interval that a --watch leaves out."""
    given: list[str] = []
    interval = _INTERVALS.get("".join(words[:1]), _INTERVAL)
    for index, word in enumerate(words):
        following = words[index + 1] if index + 1 < len(words) else ""
        bare = word == WATCH and not re.match(_LIKE_A_TIME, following, re.IGNORECASE)
        given.append(f"{WATCH}={interval}" if bare else word)
    return given


def _give_place(words: Sequence[str]) -> list[str]:
    """Add the value that a --listen leaves out: no path."""
    following = [*words[1:], "-"]
    return [
        f"{word}=" if word == LISTEN and after.startswith("-") else word
        for word, after in zip(words, following, strict=False)
    ]
