"""What people get wrong: each is found, on its line, with its key and what was expected.

A row is the text, then the line, the key and words of the message. Rows with more than one mistake
stand at the end, in `SEVERAL`.
"""

from typing import Final

import pytest

from qmpmem.configuration import Source, judge

Row = tuple[str, int | None, str | None, str]

FILE: Final = "/etc/qmpmem/qmpmem.toml"
RULE: Final = '[[guest]]\nmatch = "a"\n'

UNKNOWN: Final[list[Row]] = [
    ("perod = 1", 1, "perod", "did you mean period?"),
    ("Period = 1", 1, "Period", "did you mean period?"),
    ("PERIOD = 1", 1, "PERIOD", "did you mean period?"),
    ("on-stop = 'keep'", 1, "on-stop", "did you mean on_stop?"),
    ("onstop = 'keep'", 1, "onstop", "did you mean on_stop?"),
    ("idle-tax = 0.5", 1, "idle-tax", "did you mean idle_tax?"),
    ("tax = 0.5", 1, "tax", "did you mean idle_tax?"),
    ("reserved = '1G'", 1, "reserved", "did you mean reserve?"),
    ("buget = '1G'", 1, "buget", "did you mean budget?"),
    ("interval = 1", 1, "interval", "did you mean period?"),
    ("xyzzy = 1", 1, "xyzzy", "expected period, reserve, budget, on_stop, grace, idle_tax"),
    ('"" = 1', 1, "", "unknown key"),
    ('"two words" = 1', 1, "two words", "unknown key"),
    ('"a\\u001bb" = 1', 1, "a\\x1bb", "unknown key"),
    (f"{'k' * 100} = 1", 1, "k" * 40 + "…", "unknown key"),
    ("a.b.c = 1", 1, "a", "unknown key"),
    ("a." * 1000 + "b = 1", 1, "a", "unknown key"),
    ("[guests]", 1, "guests", "did you mean guest?"),
    ("[[guests]]\nmatch = 'a'", 1, "guests", "did you mean guest?"),
    ("[Ksm]", 1, "Ksm", "did you mean ksm?"),
    ("[journl]", 1, "journl", "did you mean journal?"),
    ("[agent]", 1, "agent", "unknown key"),
    ("[rules]", 1, "rules", "unknown key"),
    ("max_cpu = 5", 1, "max_cpu", "max_cpu stands in [ksm]"),
    ("keep = '1h'", 1, "keep", "keep stands in [journal]"),
    ("minimum = '1G'", 1, "minimum", "minimum stands in [[guest]]"),
    ("min = '1G'", 1, "min", "minimum stands in [[guest]]"),
    ("[ksm]\nmanage = true", 2, "ksm.manage", "did you mean managed?"),
    ("[ksm]\nenabled = true", 2, "ksm.enabled", "did you mean managed?"),
    ("[ksm]\nmax-cpu = 10", 2, "ksm.max-cpu", "did you mean max_cpu?"),
    ("[ksm]\n\nperiod = 1", 3, "ksm.period", "period stands above the first [table]"),
    ("[ksm]\nsize = '64M'", 2, "ksm.size", "size stands in [journal]"),
    ("ksm.cpu = 1", 1, "ksm.cpu", "did you mean max_cpu?"),
    ("[ksm.managed]", 1, "ksm.managed", "expected true or false, got a table"),
    ("[ksm.more]\na = 1", 1, "ksm.more", "unknown key"),
    ("[journal]\nhours = 24", 2, "journal.hours", "did you mean keep?"),
    ("[journal]\nretention = '1h'", 2, "journal.retention", "did you mean keep?"),
    ("[journal]\nfile = '/x'", 2, "journal.file", "did you mean path?"),
    (RULE + "min = '1G'", 3, "guest.min", "did you mean minimum?"),
    (RULE + "max = '1G'", 3, "guest.max", "did you mean maximum?"),
    (RULE + "weight = 1", 3, "guest.weight", "did you mean shares?"),
    (RULE + "kind = 'ci'", 3, "guest.kind", "did you mean class?"),
    (RULE + "preset = 'ci'", 3, "guest.preset", "did you mean class?"),
    (RULE + "minimum_percent = 4", 3, "guest.minimum_percent", "did you mean minimum?"),
    (RULE + "grace = 5", 3, "guest.grace", "grace stands above the first [table]"),
    (RULE + "sahres = 5", 3, "guest.sahres", "did you mean shares?"),
    ("[[guest]]\nname = 'a'\nmatch = 'a'", 2, "guest.name", "did you mean match?"),
]

SIZES: Final[list[Row]] = [
    ("reserve = 512", 1, "reserve", "a unit is missing: a bare number is KiB to virsh"),
    ("reserve = 512.5", 1, "reserve", "a unit is missing"),
    ("reserve = '512'", 1, "reserve", "a unit is missing"),
    ("reserve = 0", 1, "reserve", "a unit is missing"),
    ("reserve = '512MB'", 1, "reserve", "unit 'MB' is not one of K, M, G, T"),
    ("reserve = '512 Megs'", 1, "reserve", "unit 'Megs' is not one of"),
    ("reserve = '1E'", 1, "reserve", "unit 'E' is not one of"),
    ("reserve = ''", 1, "reserve", "not a size"),
    ("reserve = 'much'", 1, "reserve", 'got "much" (not a size)'),
    ("reserve = '-1G'", 1, "reserve", "not a size"),
    ("reserve = '1,5G'", 1, "reserve", "not a size"),
    ("reserve = '1e3M'", 1, "reserve", "not a size"),
    ("reserve = '10%'", 1, "reserve", "a share has no meaning here"),
    ("reserve = '0M'", 1, "reserve", "at least 16 MiB"),
    ("reserve = '15M'", 1, "reserve", "at least 16 MiB"),
    ("reserve = '4K'", 1, "reserve", "at least 16 MiB"),
    ("reserve = '99999999T'", 1, "reserve", "larger than any machine"),
    ("reserve = '9999999999999999999G'", 1, "reserve", "not a size"),
    ("reserve = true", 1, "reserve", "got true"),
    ("reserve = false", 1, "reserve", "got false"),
    ("reserve = nan", 1, "reserve", "got nan"),
    ("reserve = inf", 1, "reserve", "got inf"),
    ("reserve = []", 1, "reserve", "got a list"),
    ("reserve = {}", 1, "reserve", "got a table"),
    ("reserve = ['1G']", 1, "reserve", "got a list"),
    ("reserve = 1979-05-27", 1, "reserve", "got a date"),
    ("reserve = 1979-05-27T07:32:00Z", 1, "reserve", "got a date"),
    ("reserve = 07:32:00", 1, "reserve", "got a time"),
    ("reserve = 'Default'", 1, "reserve", "not a size"),
    ("reserve = '\uff11G'", 1, "reserve", "not a size"),
    ("reserve = '1G\\u0000'", 1, "reserve", "not a size"),
    ('reserve = "1\\u001bG"', 1, "reserve", '"1\\x1bG"'),
    ("budget = 8", 1, "budget", "a unit is missing"),
    ("budget = 'sys/fs/cgroup/vms'", 1, "budget", "or an absolute path"),
    ("budget = ''", 1, "budget", "or an absolute path"),
    ('budget = "/a\\u0007b"', 1, "budget", "it holds what cannot be seen"),
    (f"budget = '/{'a' * 5000}'", 1, "budget", "or an absolute path"),
    ("budget = '50%'", 1, "budget", "a share has no meaning here"),
    ("budget = true", 1, "budget", "got true"),
    ("[journal]\nsize = 64", 2, "journal.size", "a unit is missing"),
    ("[journal]\nsize = '1K'", 2, "journal.size", "at least 1 MiB"),
    ("[journal]\nsize = 'default'", 2, "journal.size", "not a size"),
]

TIMES: Final[list[Row]] = [
    ("period = 0", 1, "period", "expected a time from 0.1s to 1min, got 0"),
    ("period = 0.01", 1, "period", "got 0.01"),
    ("period = -1", 1, "period", "got -1"),
    ("period = 61", 1, "period", "got 61"),
    ("period = 1e400", 1, "period", "got inf"),
    ("period = inf", 1, "period", "got inf"),
    ("period = -inf", 1, "period", "got -inf"),
    ("period = nan", 1, "period", "got nan"),
    ("period = true", 1, "period", "got true"),
    ("period = '1e5'", 1, "period", "expected a time from 0.1s to 1min"),
    ("period = '5m'", 1, "period", 'got "5m"'),
    ("period = '1 minute'", 1, "period", "write 500ms, 90s, 5min, 1h30m or 2d"),
    ("period = '2min'", 1, "period", 'got "2min"'),
    ("period = 'fast'", 1, "period", "write 500ms, 90s, 5min, 1h30m or 2d, or a number of seconds"),
    ("period = ''", 1, "period", "write 500ms, 90s, 5min, 1h30m or 2d, or a number of seconds"),
    ("period = '1h 30min'", 1, "period", 'got "1h 30min"'),
    ("period = '30m1h'", 1, "period", "write 500ms"),
    ("period = '\u0661s'", 1, "period", "write 500ms"),
    ("period = 99999999999999999999999999999999999999999999", 1, "period", "a number of 147 bits"),
    (f"period = 0x{'f' * 9000}", 1, "period", "a number of 36000 bits"),
    ("period = [1]", 1, "period", "got a list"),
    ("period = 'default'", 1, "period", "write 500ms"),
    ("grace = -0.1", 1, "grace", "expected a time from 0s to 1h"),
    ("grace = '2h'", 1, "grace", 'got "2h"'),
    ("grace = '-1s'", 1, "grace", "write 500ms"),
    ("grace = false", 1, "grace", "got false"),
    ("[journal]\nkeep = 24", 2, "journal.keep", "expected a time from 1min"),
    ("[journal]\nkeep = '10000d'", 2, "journal.keep", "expected a time from 1min"),
    ("[journal]\nkeep = nan", 2, "journal.keep", "got nan"),
]

NUMBERS: Final[list[Row]] = [
    ("idle_tax = 1", 1, "idle_tax", "expected a number from 0 to 0.99"),
    ("idle_tax = 1.0", 1, "idle_tax", "got 1.0"),
    ("idle_tax = 75", 1, "idle_tax", "got 75"),
    ("idle_tax = -0.1", 1, "idle_tax", "got -0.1"),
    ("idle_tax = '100%'", 1, "idle_tax", '"100%"'),
    ("idle_tax = '0.75'", 1, "idle_tax", "without quotes"),
    ("idle_tax = nan", 1, "idle_tax", "got nan"),
    ("idle_tax = true", 1, "idle_tax", "got true"),
    ("idle_tax = 'high'", 1, "idle_tax", 'got "high"'),
    ("[ksm]\nmax_cpu = 0", 2, "ksm.max_cpu", "expected 1 to 100 percent, got 0"),
    ("[ksm]\nmax_cpu = 101", 2, "ksm.max_cpu", "got 101"),
    ("[ksm]\nmax_cpu = '101%'", 2, "ksm.max_cpu", '"101%"'),
    ("[ksm]\nmax_cpu = 7.5", 2, "ksm.max_cpu", "a whole number"),
    ("[ksm]\nmax_cpu = '7.5%'", 2, "ksm.max_cpu", "a whole number"),
    ("[ksm]\nmax_cpu = '70'", 2, "ksm.max_cpu", "without quotes"),
    ("[ksm]\nmax_cpu = true", 2, "ksm.max_cpu", "got true"),
    ("[ksm]\nmax_cpu = nan", 2, "ksm.max_cpu", "got nan"),
    (RULE + "shares = 0", 3, "guest.shares", "expected a whole number from 1 to 1000000"),
    (RULE + "shares = -5", 3, "guest.shares", "got -5"),
    (RULE + "shares = 1000001", 3, "guest.shares", "got 1000001"),
    (RULE + "shares = 1e3", 3, "guest.shares", "a whole number"),
    (RULE + "shares = true", 3, "guest.shares", "got true"),
    (RULE + "shares = '1000'", 3, "guest.shares", "without quotes"),
    (RULE + "shares = '10%'", 3, "guest.shares", '"10%"'),
    (RULE + f"shares = {2**63}", 3, "guest.shares", str(2**63)),
]

WORDS: Final[list[Row]] = [
    ("on_stop = 'rleax'", 1, "on_stop", "did you mean relax?"),
    ("on_stop = 'Keep'", 1, "on_stop", "did you mean keep?"),
    ("on_stop = ''", 1, "on_stop", 'expected one of "keep", "relax", "release"'),
    ("on_stop = true", 1, "on_stop", "got true"),
    ("on_stop = ['keep']", 1, "on_stop", "got a list"),
    ("on_stop = {}", 1, "on_stop", "got a table"),
    ("on_stop = 0", 1, "on_stop", "got 0"),
    ("[ksm]\nmanaged = 'true'", 2, "ksm.managed", "without quotes"),
    ("[ksm]\nmanaged = 'yes'", 2, "ksm.managed", "expected true or false"),
    ("[ksm]\nmanaged = 1", 2, "ksm.managed", "expected true or false, got 1"),
    ("[ksm]\nmanaged = 0", 2, "ksm.managed", "expected true or false, got 0"),
    ("[ksm]\nmanaged = 0.0", 2, "ksm.managed", "expected true or false, got 0.0"),
    ("[ksm]\nacross_domains = 'on'", 2, "ksm.across_domains", "expected true or false"),
    (RULE + "managed = 'off'", 3, "guest.managed", "expected true or false"),
    (RULE + "class = 'databse'", 3, "guest.class", "did you mean database?"),
    (RULE + "class = 'db'", 3, "guest.class", '"database"'),
    (RULE + "class = 'CI'", 3, "guest.class", "did you mean ci?"),
    (RULE + "class = 1", 3, "guest.class", "got 1"),
    (RULE + "class = true", 3, "guest.class", "got true"),
    (RULE + "domain = ''", 3, "guest.domain", "1 to 64 letters, digits, ._-"),
    (RULE + "domain = 'a b'", 3, "guest.domain", '"a b"'),
    (RULE + "domain = '...'", 3, "guest.domain", '"..."'),
    (RULE + "domain = 'ä'", 3, "guest.domain", '"ä"'),
    (RULE + f"domain = '{'a' * 65}'", 3, "guest.domain", "…"),
    (RULE + "domain = 7", 3, "guest.domain", "got 7"),
    ("[journal]\npath = 'journal.db'", 2, "journal.path", "absolute path"),
    ("[journal]\npath = '~/journal.db'", 2, "journal.path", "absolute path"),
    ("[journal]\npath = '/var/lib/'", 2, "journal.path", "a directory"),
    ("[journal]\npath = ''", 2, "journal.path", "absolute path"),
    ("[journal]\npath = 5", 2, "journal.path", "got 5"),
    ('[journal]\npath = "/a\\nb"', 2, "journal.path", "cannot be seen"),
]

RULES: Final[list[Row]] = [
    ("[[guest]]", 1, "guest.match", "missing, expected a pattern of ids"),
    ("[[guest]]\nshares = 5", 1, "guest.match", "missing"),
    ("guest = [{}]", 1, "guest.match", "missing"),
    ("guest = [\n  {match = 'a'},\n  {shares = 5},\n]", 3, "guest.match", "missing"),
    ("[[guest]]\nmatch = ''", 2, "guest.match", "empty"),
    ("[[guest]]\nmatch = 5", 2, "guest.match", "got 5"),
    ("[[guest]]\nmatch = true", 2, "guest.match", "got true"),
    ("[[guest]]\nmatch = ['a', 'b']", 2, "guest.match", "one pattern for each [[guest]]"),
    ("[[guest]]\nmatch = 'db[12'", 2, "guest.match", "not closed"),
    ("[[guest]]\nmatch = 'db[]'", 2, "guest.match", "not closed"),
    ("[[guest]]\nmatch = 'db[!]'", 2, "guest.match", "not closed"),
    ("[[guest]]\nmatch = 'db[9-1]'", 2, "guest.match", "no character is in '[9-1]'"),
    (f"[[guest]]\nmatch = '{'*' * 300}'", 2, "guest.match", "more than 200"),
    ("[guest]\nmatch = 'a'", 1, "guest", "expected tables [[guest]], got a table"),
    ("[guest.a]\nminimum = '1G'", 1, "guest", "expected tables [[guest]], got a table"),
    ("guest = 5", 1, "guest", "expected tables [[guest]], got 5"),
    ("guest = 'a'", 1, "guest", "expected tables [[guest]]"),
    ("guest = [\n1\n]", 2, "guest", "expected tables [[guest]], got 1"),
    ("guest = [[]]", 1, "guest", "expected tables [[guest]], got a list"),
    ("[[ksm]]\nmanaged = true", 1, "ksm", "expected one table [ksm], got a list"),
    ("ksm = true", 1, "ksm", "expected one table [ksm], got true"),
    ("journal = '/x'", 1, "journal", "expected one table [journal]"),
    (RULE + "minimum = '2G'\nmaximum = '1G'", 3, "guest.minimum", "the maximum, 1 GiB on line 4"),
    (RULE + "maximum = '1G'\nminimum = '2G'", 4, "guest.minimum", "on line 3, got 2 GiB"),
    (RULE + "minimum = '60%'\nmaximum = '40%'", 3, "guest.minimum", "40% on line 4, got 60%"),
    (RULE + "minimum = '2G'\ncurrent = '1G'", 3, "guest.minimum", "the current, 1 GiB on line 4"),
    (RULE + "current = '50%'\nminimum = '60%'", 4, "guest.minimum", "50% on line 3, got 60%"),
    (RULE + "current = '2G'\nmaximum = '1G'", 3, "guest.current", "the maximum, 1 GiB on line 4"),
    (RULE + "current = 256", 3, "guest.current", "a unit is missing"),
    (RULE + "current = '101%'", 3, "guest.current", "or 1% to 100%"),
    (RULE + "startup = '1G'", 3, "guest.startup", "did you mean current?"),
    (RULE + "minimum = '0%'", 3, "guest.minimum", "or 1% to 100%"),
    (RULE + "minimum = '101%'", 3, "guest.minimum", '"101%"'),
    (RULE + "minimum = '12.5%'", 3, "guest.minimum", "a whole number"),
    (RULE + "minimum = '-5%'", 3, "guest.minimum", '"-5%"'),
    (RULE + "minimum = 0.4", 3, "guest.minimum", "a unit is missing"),
    (RULE + "minimum = '+128M'", 3, "guest.minimum", "not a size"),
    (RULE + "minimum = 'default'", 3, "guest.minimum", "not a size"),
    (RULE + "maximum = 1024", 3, "guest.maximum", "a unit is missing"),
    (RULE + "maximum = '512K'", 3, "guest.maximum", "at least 1 MiB"),
    (RULE + "maximum = '0%'", 3, "guest.maximum", "1% to 100%"),
    (RULE + RULE, 4, "guest.match", f'"a" is never reached: "a" at {FILE}:1 comes first'),
    ("[[guest]]\nmatch='*'\n" + RULE, 4, "guest.match", f'"*" at {FILE}:1 comes first'),
    ("[[guest]]\nmatch='**'\n" + RULE, 4, "guest.match", '"**"'),
    ("[[guest]]\nmatch='d*'\n[[guest]]\nmatch='db?'", 4, "guest.match", '"d*"'),
    ("[[guest]]\nmatch='d[ab]'\n[[guest]]\nmatch='db'", 4, "guest.match", '"d[ab]"'),
]

WRITING: Final[list[Row]] = [
    (text, line, None, f"not TOML, none of it is used: {words}")
    for text, line, words in [
        ("period", 1, "Expected '='"),
        ("period =", 1, "Invalid value"),
        ("period: 1", 1, "Expected '='"),
        ("period = 1s", 1, "Expected newline"),
        ("period = 1 grace = 5", 1, "Expected newline"),
        ("period = relax", 1, "Invalid value"),
        ("period = True", 1, "Invalid value"),
        ("period = .5", 1, "Invalid value"),
        ("period = 05", 1, "Expected newline"),
        ("on_stop = 'keep", 1, "Expected"),
        ('on_stop = "keep', 1, "Unterminated string"),
        ('on_stop = "keep\n', 1, "Illegal character"),
        ('on_stop = "ke\\ep"', 1, "Unescaped"),
        ('period = 1\non_stop = """keep\n\n\n', 2, "Unterminated string"),
        ("period = 1\nguest = [\n  1,\n\n", 3, "Invalid value"),
        ("ksm = {managed = true", 1, "Unclosed inline table"),
        ("period = 1\nperiod = 2", 2, "Cannot overwrite a value"),
        ("period = 1\n\n# x\nperiod = 2\n", 4, "Cannot overwrite a value"),
        ("[ksm]\nmanaged = true\n[ksm]\n", 3, "Cannot declare ('ksm',) twice"),
        ("[ksm]\nmanaged = true\nmanaged = true\n", 3, "Cannot overwrite a value"),
        (RULE + "shares = 1\nshares = 2\n", 4, "Cannot overwrite a value"),
        ("ksm = {managed = true, managed = false}", 1, "Duplicate"),
        ("journal.size = '1G'\njournal = {}", 2, "Cannot overwrite a value"),
        ("[[guest]]\nmatch='a'\n[guest]\n", 3, "Cannot declare ('guest',) twice"),
        ("[ksm", 1, "Expected ']'"),
        ("[]", 1, "Invalid initial character"),
        ("[ksm]]", 1, "Expected newline"),
        ("[[guest]", 1, "Expected ']]'"),
        ("= 1", 1, "Invalid statement"),
        ("; a comment\n", 1, "Invalid"),
        ("// a comment\n", 1, "Invalid"),
        ("# a \x01 comment\n", 1, "Found invalid character"),
        ("period = 1\rgrace = 1", 1, "Expected newline"),
        ("{\n  'period': 1\n}", 1, "Invalid statement"),
        ("<config/>", 1, "Invalid statement"),
        ("reserve = 1979-13-45", 1, "Expected newline"),
        (f"[{'k' * 500}]\n" * 2, 2, "Cannot declare ('kkk"),
    ]
]
"""What is said after the colon is tomllib's."""

UNBOUNDED: Final[list[Row]] = [
    ("period = " + "9" * 5000, None, None, "Exceeds the limit (4300 digits)"),
    ("grace = " + "[" * 5000, None, None, "nested too deep"),
    ("x=" + "{a=" * 5000, None, None, "nested too deep"),
]
"""Of these, tomllib does not say where they are."""

ALL: Final = UNKNOWN + SIZES + TIMES + NUMBERS + WORDS + RULES + WRITING


def test_there_are_enough_of_them() -> None:
    assert len({row[0] for row in ALL}) == len(ALL) >= 150


@pytest.mark.parametrize(("text", "line", "key", "words"), ALL + UNBOUNDED)
def test_it_is_found_where_it_stands(
    text: str, line: int | None, key: str | None, words: str
) -> None:
    """Row F56."""
    judgement = judge([Source(file=FILE, text=text)])
    assert judgement.config is None
    assert len(judgement.mistakes) == 1, [str(each) for each in judgement.mistakes]
    [mistake] = judgement.mistakes
    assert (mistake.place.file, mistake.place.line, mistake.key) == (FILE, line, key), str(mistake)
    assert words in mistake.problem
    shown = str(mistake)
    assert shown.isprintable()
    assert len(shown) < 400


@pytest.mark.parametrize(("text", "line", "key", "words"), ALL)
def test_it_is_found_also_below_other_things(
    text: str, line: int | None, key: str | None, words: str
) -> None:
    """Comments and blank lines move it, and Windows' ends of lines change nothing."""
    assert line is not None
    moved = "# a comment\n\n   # period = 5\n\t\n" + text
    for each in (moved, moved.replace("\n", "\r\n"), "\ufeff" + moved):
        [mistake] = judge([Source(file=FILE, text=each)]).mistakes
        assert (mistake.place.line, mistake.key) == (line + 4, key)
        assert words.replace(f"{FILE}:1", f"{FILE}:5") in mistake.problem or "line" in words


def test_a_truth_is_not_taken_for_a_number_without_a_unit() -> None:
    [mistake] = judge([Source(file=FILE, text="reserve = true")]).mistakes
    assert mistake.problem.endswith("got true")


SEVERAL: Final = [
    ("perod = 1\ngrace = 'x'\n[ksm]\nmanaged = 1\n", [1, 2, 4]),
    ("[[guest]]\nmatch = 5\n[[guest]]\nshares = 0\n", [2, 3, 4]),
    ("[[guest]]\nminimum='9G'\nmaximum='1G'\nshares=0\nmatch='['\n", [2, 4, 5]),
    ("\n".join(f"k{number} = 1" for number in range(50)), list(range(1, 51))),
]


@pytest.mark.parametrize(("text", "lines"), SEVERAL)
def test_every_mistake_is_reported_at_once(text: str, lines: list[int]) -> None:
    mistakes = judge([Source(file=FILE, text=text)]).mistakes
    assert [mistake.place.line for mistake in mistakes] == lines, [str(each) for each in mistakes]


@pytest.mark.parametrize("bad", ["x y = 1", "period = ", "q = 'a", "[ksm", "a = [1, 2"])
@pytest.mark.parametrize("last", [False, True])
def test_of_a_file_that_is_not_toml_nothing_is_used(bad: str, *, last: bool) -> None:
    """One line says so, whatever else is wrong in that file; all of the others is still judged."""
    lines = ["perod = 1", "grace = 'x'", '[[guest]]\nmatch = "a"']
    text = "\n".join([*lines, bad] if last else [bad, *lines])
    judgement = judge(
        [
            Source(file="a", text=f"grace = 5\n{RULE}"),
            Source(file="b", text=text),
            Source(file="c", text="grace = -1"),
        ]
    )
    assert judgement.config is None
    assert [each.place.file for each in judgement.mistakes] == ["b", "c"]
    assert judgement.mistakes[0].place.line is not None
    assert not judgement.warnings  # of the rules in it, none is taken


def test_the_mistakes_of_all_files_are_reported_at_once_in_order() -> None:
    judgement = judge(
        [
            Source(file="b", text="\nperiod = 0\n"),
            Source(file="a", text="x = 1\ny = 2\n"),
            Source(file="c", problem="permission denied"),
        ]
    )
    assert [str(each.place) for each in judgement.mistakes] == ["b:2", "a:1", "a:2", "c"]
    assert judgement.config is None
    assert not judgement.origins
    assert not judgement.rules


def test_more_rules_than_can_be_tried_in_each_round_are_refused() -> None:
    text = "".join(f"[[guest]]\nmatch = 'a{number}'\n" for number in range(251))
    [mistake] = judge([Source(file=FILE, text=text)]).mistakes
    assert (mistake.place.line, mistake.key) == (501, "guest")
    assert "251 rules, expected at most 250" in mistake.problem
    allowed = text.rpartition("[[guest]]")[0]
    assert judge([Source(file=FILE, text=allowed)]).config is not None
