"""Rules for guests: which patterns can match, which leave nothing to others, how files combine."""

from fnmatch import fnmatchcase
from string import ascii_letters, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.configuration import Source, judge
from qmpmem.model.config import Config, Rule
from qmpmem.model.names import LONGEST, SAFE_ID, covers, matches, unmatchable
from qmpmem.units import GIB, MIB, Bytes, parse_size

PATTERNS = st.lists(
    st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]", "[!", "]", "-", "[]a]", "1"]), max_size=6
).map("".join)
IDS = st.text("ab1-]", min_size=1, max_size=6)


def test_ids_are_what_the_run_directory_takes() -> None:
    every = [chr(number) for number in range(0x3000)]
    first = digits + ascii_letters
    assert [each for each in every if SAFE_ID.fullmatch(each)] == sorted(first)
    assert [each for each in every if SAFE_ID.fullmatch("a" + each)] == sorted(first + "._-")
    assert SAFE_ID.fullmatch("a" * LONGEST)
    assert not SAFE_ID.fullmatch("a" * (LONGEST + 1))


@given(PATTERNS, PATTERNS, IDS, IDS | PATTERNS)
def test_what_a_pattern_covers_it_matches(wide: str, narrow: str, guest: str, name: str) -> None:
    if covers(wide, narrow) and matches(narrow, guest, name):
        assert matches(wide, guest, name)


@given(PATTERNS, IDS)
def test_a_pattern_that_is_refused_matches_nothing(pattern: str, guest: str) -> None:
    if fnmatchcase(guest, pattern):
        assert unmatchable(pattern) is None or "not closed" in str(unmatchable(pattern))


def test_a_rule_means_names_and_ids() -> None:
    config = config_of(rule("Windows 10", 1) + rule("Windows-1?", 2) + rule("*ü*", 3))
    seen = [
        config.limits(guest, GIB, name).shares
        for guest, name in [
            ("Windows-10", "Windows 10"),
            ("Windows-10-2", "Windows 10"),
            ("Windows-11", "Windows 11"),
            ("Buero", "Büro"),
            ("Buero", None),
        ]
    ]
    assert seen == [1, 1, 2, 3, 1000]
    assert config.domain("Windows-10", "d", "Windows 10") == "d"


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [("*", "a"), ("*", "[ab]"), ("a*", "a"), ("a*", "a?c*"), ("?", "[ab]"), ("a?", "a?"),
     ("*a*", "bab"), ("[ab]", "a"), ("[ab]*", "[ab]*"), ("**", "*"), ("*", "**"), ("a??", "a1?")],
)  # fmt: skip
def test_what_covers(wide: str, narrow: str) -> None:
    assert covers(wide, narrow)


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [("a", "*"), ("a*", "*"), ("?", "*"), ("a?", "a*"), ("*a*", "[abc]x"), ("[!a]", "?"),
     ("[ab]", "[abc]"), ("a", "A"), ("db*", "web*")],
)  # fmt: skip
def test_what_does_not_cover(wide: str, narrow: str) -> None:
    assert not covers(wide, narrow)


def config_of(*texts: str) -> Config:
    judgement = judge([Source(file=str(number), text=text) for number, text in enumerate(texts)])
    assert judgement.config is not None, [str(each) for each in judgement.mistakes]
    return judgement.config


def shares_of(config: Config, guest: str) -> int:
    return config.limits(guest, GIB).shares


def rule(match: str, shares: int) -> str:
    return f'[[guest]]\nmatch = "{match}"\nshares = {shares}\n'


def test_in_one_file_the_first_rule_that_matches_counts() -> None:
    config = config_of(rule("db1", 1) + rule("db*", 2) + rule("*", 3))
    assert [shares_of(config, each) for each in ("db1", "db2", "web")] == [1, 2, 3]


def test_a_catch_all_in_the_main_file_takes_nothing_from_later_ones() -> None:
    config = config_of(rule("*", 1), rule("db*", 2), rule("db7", 3))
    assert [shares_of(config, each) for each in ("web", "db1", "db7")] == [1, 2, 3]


def test_a_later_rule_for_the_same_guests_replaces_the_earlier_one_with_a_warning() -> None:
    first = '[[guest]]\nmatch = "db*"\nminimum = "1G"\n' + rule("web", 5)
    judgement = judge([Source(file="a", text=first), Source(file="b", text=rule("db*", 7))])
    assert judgement.config is not None
    assert judgement.config.rules == (Rule(match="db*", shares=7), Rule(match="web", shares=5))
    assert [each.place.file for each in judgement.rules] == ["b", "a"]
    [warning] = judgement.warnings
    assert str(warning.place) == "a:2"
    assert '"db*" is never reached: "db*" at b:1 comes first, in a later file' in str(warning)


def test_a_later_catch_all_leaves_nothing_to_earlier_files() -> None:
    judgement = judge(
        [
            Source(file="a", text=rule("db*", 1) + rule("web", 2)),
            Source(file="b", text=rule("*", 3)),
        ]
    )
    assert judgement.config is not None
    assert judgement.config.rules == (Rule(match="*", shares=3),)
    assert [str(each.place) for each in judgement.warnings] == ["a:2", "a:5"]


def test_each_key_is_the_last_files() -> None:
    config = config_of(
        'period = 2\ngrace = 5\n[journal]\nkeep = "1h"\n[ksm]\nmanaged = true\n',
        'reserve = "1G"\ngrace = "1min"\n',
        "grace = 7\n[journal]\nsize = '8M'\n",
    )
    assert (config.period, config.grace, config.reserve) == (2, 7, GIB)
    assert (config.journal.hours, config.journal.size) == (1, 8 * MIB)
    assert config.ksm.managed


def test_a_later_file_can_go_back_to_the_default() -> None:
    config = config_of(
        'reserve = "1G"\nbudget = "/x"\n[journal]\npath = "/y"\n',
        'reserve = "default"\nbudget = "default"\njournal.path = "default"\n',
    )
    assert config == Config()


def test_a_mistake_that_a_later_file_would_replace_is_a_mistake() -> None:
    judgement = judge([Source(file="a", text="period = 0"), Source(file="b", text="period = 1")])
    assert [str(each.place) for each in judgement.mistakes] == ["a:1"]


@pytest.mark.parametrize(
    ("text", "total", "words"),
    [
        ('reserve = "8G"', 8 * GIB, "all of the host's memory, 8 GiB"),
        ('reserve = "9G"', 8 * GIB, "9 GiB is all of the host's memory"),
        ('reserve = "2G"\nbudget = "1G"', None, "all of the budget, 1 GiB"),
    ],
)
def test_a_reserve_that_leaves_nothing_is_a_warning(
    text: str, total: Bytes | None, words: str
) -> None:
    judgement = judge([Source(file="a", text=text)], total)
    assert judgement.config is not None
    [warning] = judgement.warnings
    assert (warning.place.line, warning.key) == (1, "reserve")
    assert words in warning.problem


@pytest.mark.parametrize("text", ["", 'reserve = "default"', 'reserve = "7G"\nbudget = "/x"'])
def test_a_reserve_that_leaves_something_is_none(text: str) -> None:
    assert not judge([Source(file="a", text=text)], Bytes(8 * GIB)).warnings


def test_bounds_in_percent_are_of_the_guests_own_maximum() -> None:
    config = config_of('[[guest]]\nmatch = "*"\nminimum = "40%"\nmaximum = "80 %"\n')
    limits = config.limits("a", Bytes(10 * GIB))
    assert (limits.minimum, limits.maximum) == (4 * GIB, 8 * GIB)


@pytest.mark.parametrize(
    ("rule", "started", "minimum", "current"),
    [
        ("", None, "3584M", None),
        ('current = "25%"', None, "2560M", "2560M"),
        ('current = "8G"', None, "3584M", "8G"),
        ('current = "1G"\nmaximum = "50%"', None, "1G", "1G"),
        ('current = "80%"\nmaximum = "4G"', None, "3584M", "4G"),
        ('current = "50%"\nminimum = "2G"', None, "2G", "5G"),
        ('current = "25%"', "1G", "1G", "1G"),
        ('current = "25%"', "10G", "3584M", "10G"),
        ('minimum = "50%"', "1G", "5G", "5G"),
        ("", "1G", "1G", "1G"),
        ('class = "database"', "4G", "4G", "4G"),
    ],
)
def test_the_size_that_a_guest_starts_with(
    rule: str, started: str | None, minimum: str, current: str | None
) -> None:
    """A minimum that is given is not below it; that of a class is not above it."""
    config = config_of(f'[[guest]]\nmatch = "*"\n{rule}\n')
    asked = None if started is None else parse_size(started)
    limits = config.limits("a", Bytes(10 * GIB), current=asked)
    assert limits.minimum == parse_size(minimum)
    assert limits.current == (None if current is None else parse_size(current))


def test_a_minimum_in_bytes_never_gets_above_a_maximum_in_percent() -> None:
    config = config_of('[[guest]]\nmatch = "*"\nminimum = "1G"\nmaximum = "50%"\n')
    limits = config.limits("a", Bytes(GIB))
    assert limits.minimum == limits.maximum == GIB // 2
