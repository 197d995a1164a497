"""Every field of every record can be configured, shown, and read back as the same."""

from collections.abc import Mapping
from decimal import Decimal

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qmpmem.configuration import Source, as_toml, judge, reload
from qmpmem.configuration.keys import (
    ADOPT,
    FAMILIAR,
    GUEST,
    SECTIONS,
    TABLES,
    TOP,
    Setting,
    find,
    words,
)
from qmpmem.model.config import PRESETS, Adoption, Config, JournalConfig, KsmConfig, Rule
from qmpmem.records import Record
from qmpmem.units import GIB, KIB, MIB, PAGE, TIB, Bytes, Share
from tests.rig.manual import default

INNER: Mapping[type[Record], set[str]] = {
    Config: {"rules", "adoptions", *(section.name for section in TABLES)}
}
"""Fields that are sections themselves."""


def share(percent: int) -> Share:
    return Share(percent=Decimal(percent))


VALUES: Mapping[tuple[type[Record], str], list[object]] = {
    (Config, "period"): [0.1, 0.25, 1.0, 2.5, 60.0],
    (Config, "reserve"): [None, 16 * MIB, 512 * MIB, 3 * GIB, TIB, 100 * MIB + PAGE],
    (Config, "budget"): [None, 8 * GIB, "/sys/fs/cgroup/vms", '/odd "path\\ #'],
    (Config, "on_stop"): ["keep", "relax", "release"],
    (Config, "grace"): [0.0, 0.5, 60.0, 3600.0],
    (Config, "idle_tax"): [0.0, 0.1, 0.75, 0.99],
    (Config, "reclaim"): [True, False],
    (KsmConfig, "managed"): [True, False],
    (KsmConfig, "across_domains"): [True, False],
    (KsmConfig, "max_cpu"): [1, 70, 100],
    (JournalConfig, "path"): [None, "/var/lib/qmpmem/journal.db"],
    (JournalConfig, "hours"): [1 / 60, 0.5, 1.0, 24.0, 366 * 24.0],
    (JournalConfig, "days"): [0.0, 1.0, 31.0, 3660.0],
    (JournalConfig, "size"): [MIB, 64 * MIB, TIB],
    (JournalConfig, "learn"): [True, False],
    (Rule, "match"): ["a", "db*", "[ab]?-*"],
    (Rule, "minimum"): [MIB, 300 * MIB, 5 * MIB + 12 * KIB, share(1), share(40), share(100)],
    (Rule, "maximum"): [GIB, TIB, share(1), share(100)],
    (Rule, "current"): [MIB, 300 * MIB, share(1), share(25), share(100)],
    (Rule, "shares"): [1, 1000, 1_000_000],
    (Rule, "managed"): [True, False],
    (Rule, "reclaim"): [None, True, False],
    (Rule, "kind"): list(PRESETS),
    (Rule, "domain"): ["a", "tenant-1.x_y"],
    (Adoption, "socket"): ["/run/a.qmp", "/run/vms/*.qmp", '/odd "path\\ #'],
    (Adoption, "name"): ["a", "tenant-1.x_y"],
}


def configured(record: type[Record], field: str, value: object) -> Config:
    """A Config in which this field has this value."""
    if record is Config:
        return msgspec.convert({field: value}, type=Config)
    if record is Rule:
        return msgspec.convert({"rules": [{"match": "x", field: value}]}, type=Config)
    if record is Adoption:
        return msgspec.convert({"adoptions": [{"socket": "/x"} | {field: value}]}, type=Config)
    [section] = [each for each in TABLES if each.record is record]
    return msgspec.convert({section.name: {field: value}}, type=Config)


def line(setting: Setting, record: Record) -> str:
    return f"{setting.key} = {setting.kind.write(getattr(record, setting.field))}"


def written(config: Config) -> str:
    """A file with every key of a Config, as `config show` writes them."""
    lines = [line(each, config) for each in TOP.settings]
    for section in TABLES:
        record: Record = getattr(config, section.name)
        lines.append(f"[{section.name}]")
        lines += [line(each, record) for each in section.settings]
    for rule in config.rules:
        lines.append("[[guest]]")
        for each in GUEST.settings:
            if getattr(rule, each.field) is not None:
                lines.append(line(each, rule))
    for adoption in config.adoptions:
        lines.append("[[adopt]]")
        for each in ADOPT.settings:
            if getattr(adoption, each.field) is not None:
                lines.append(line(each, adoption))
    return "\n".join(lines)


def test_every_field_has_a_key() -> None:
    for section in SECTIONS:
        fields = {each.name for each in msgspec.structs.fields(section.record)}
        set_by = {each.field for each in section.settings}
        assert fields - INNER.get(section.record, set()) == set_by, section.name


def test_every_table_of_the_records_is_a_table_of_the_file() -> None:
    assert {each.name for each in msgspec.structs.fields(Config)} >= INNER[Config]
    assert {section.record for section in SECTIONS} == {
        *(Config, KsmConfig, JournalConfig, Rule, Adoption)
    }


def test_every_field_is_tried_here() -> None:
    assert set(VALUES) == {
        (section.record, each.name)
        for section in SECTIONS
        for each in msgspec.structs.fields(section.record)
        if each.name not in INNER.get(section.record, set())
    }


@pytest.mark.parametrize(
    ("record", "field", "value"),
    [(record, field, value) for (record, field), values in VALUES.items() for value in values],
)
def test_every_field_is_read_back_as_it_was(
    record: type[Record], field: str, value: object
) -> None:
    config = configured(record, field, value)
    judgement = judge([Source(file="f", text=written(config))])
    assert judgement.config == config, [str(each) for each in judgement.mistakes]


@pytest.mark.parametrize(
    ("record", "field", "value"),
    [(record, field, value) for (record, field), values in VALUES.items() for value in values],
)
def test_what_is_shown_gives_the_same_again(
    record: type[Record], field: str, value: object
) -> None:
    first = judge([Source(file='/odd\n"name', text=written(configured(record, field, value)))])
    assert first.config is not None
    shown = "\n".join(as_toml.lines(first, first.config))
    again = judge([Source(file="again", text=shown)])
    assert again.config == first.config, [str(each) for each in again.mistakes]


@given(
    st.builds(
        Config,
        period=st.floats(0.1, 60),
        grace=st.floats(0, 3600),
        idle_tax=st.floats(0, 0.99),
        reserve=st.none() | st.integers(4096, 1 << 33).map(lambda pages: Bytes(pages * PAGE)),
    )
)
@example(Config(grace=0.009714254890015145))
@example(Config(grace=0.00012345678901234567))
def test_numbers_are_read_back_to_the_last_digit(config: Config) -> None:
    assert judge([Source(file="f", text=written(config))]).config == config


@given(st.integers(60_000, 10**10))
def test_how_long_to_keep_is_read_back_from_what_is_shown(milliseconds: int) -> None:
    first = judge([Source(file="f", text=f"journal.keep = {milliseconds / 1000!r}")])
    assert first.config is not None
    shown = "\n".join(as_toml.lines(first, first.config))
    assert judge([Source(file="f", text=shown)]).config == first.config


def test_how_long_to_keep_is_shown_as_it_was_written() -> None:
    judgement = judge([Source(file="f", text="journal.keep = 60.035")])
    assert judgement.config is not None
    assert any('keep = "60.035s"' in each for each in as_toml.lines(judgement, judgement.config))


def test_every_field_says_what_it_is() -> None:
    for section in SECTIONS:
        for each in section.settings:
            said = words(section.record, each.field)
            assert said.meaning
            if each.key not in ("match", "socket") and default(section.record, each.field) is None:
                assert said.unset, f"{each.key}: what does None mean?"


def test_what_other_programs_call_a_key_is_none_of_ours_and_leads_to_one() -> None:
    keys = {key for section in SECTIONS for key in section.keys if section is not ADOPT}
    assert not keys & set(FAMILIAR)
    assert set(FAMILIAR.values()) <= keys


GOOD = [
    ("period = 2", "period", 2.0),
    ("period = '2'", "period", 2.0),
    ("period = '500ms'", "period", 0.5),
    ("period = ' 1.5 s '", "period", 1.5),
    ("period = '1min'", "period", 60.0),
    ("grace = '1h'", "grace", 3600.0),
    ("grace = 0", "grace", 0.0),
    ("idle_tax = 0", "idle_tax", 0.0),
    ("idle_tax = '75%'", "idle_tax", 0.75),
    ("idle_tax = '12.5 %'", "idle_tax", 0.125),
    ("reserve = '1.5GiB'", "reserve", 3 * GIB // 2),
    ("reserve = '262144K'", "reserve", 256 * MIB),
    ("reserve = '1.0001G'", "reserve", 1073848320 - 1073848320 % PAGE),
    ("reserve = 'default'", "reserve", None),
    ("budget = '8g'", "budget", 8 * GIB),
]


@pytest.mark.parametrize(("text", "field", "value"), GOOD)
def test_what_people_write(text: str, field: str, value: object) -> None:
    judgement = judge([Source(file="f", text=text)])
    assert judgement.config is not None, [str(each) for each in judgement.mistakes]
    assert getattr(judgement.config, field) == value


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("ksm.max_cpu = '50%'", "max_cpu", 50),
        ("ksm = {max_cpu = 5, managed = true}", "managed", True),
        ("[ksm]\nmanaged = true", "managed", True),
    ],
)
def test_tables_may_be_written_in_any_way(text: str, field: str, value: object) -> None:
    judgement = judge([Source(file="f", text=text)])
    assert judgement.config is not None
    assert getattr(judgement.config.ksm, field) == value


def test_rules_may_be_written_inline() -> None:
    judgement = judge([Source(file="f", text="guest = [\n {match='a'},\n {match='b'}\n]")])
    assert judgement.config == Config(rules=(Rule(match="a"), Rule(match="b")))
    assert [each.place.line for each in judgement.rules] == [2, 3]


def test_no_file_is_all_defaults() -> None:
    judgement = judge([])
    assert judgement.config == Config()
    assert not judgement.origins
    assert not judgement.warnings


def test_where_a_value_is_from_is_known() -> None:
    text = 'period = 2\n[ksm]\n\nmanaged = true\n[[guest]]\nmatch = "a"\nshares = 5\n'
    judgement = judge([Source(file="f", text=text)])
    assert {key: place.line for key, place in judgement.origins.items()} == {
        "period": 1,
        "ksm.managed": 4,
    }
    [rule] = judgement.rules
    assert {key: given.place.line for key, given in rule.keys.items()} == {"match": 6, "shares": 7}


@pytest.mark.parametrize("bad", ["grace = nan", "grace = ", "grace = [[[" + "[" * 5000])
def test_reloading_keeps_the_old_on_a_mistake(bad: str) -> None:
    """Row F56."""
    old = Config(period=2.0)
    sources = [Source(file="f", text=f"period = 3\n{bad}\n"), Source(file="g", text="grace = 3\n")]
    after = reload(old, sources)
    assert after.config is old
    [mistake] = after.mistakes
    assert str(mistake.place) in ("f:2", "f")
    assert not after.changed


def test_reloading_keeps_the_old_when_a_file_cannot_be_read() -> None:
    old = Config(period=2.0)
    sources = [Source(file="f", text="period = 3"), Source(file="g", problem="permission denied")]
    after = reload(old, sources)
    assert after.config is old
    assert after.mistakes


def test_reloading_says_what_changed() -> None:
    after = reload(
        Config(period=2.0, grace=5.0), [Source(file="f", text="period = 2\nksm.max_cpu = 5")]
    )
    assert after.config == Config(period=2.0, ksm=KsmConfig(max_cpu=5))
    assert after.changed == ("grace", "ksm")


def test_reloading_the_same_changes_nothing() -> None:
    after = reload(Config(), [])
    assert (after.config, after.changed, after.mistakes) == (Config(), (), ())


def test_classes_are_offered_as_they_are() -> None:
    assert all(f'"{name}"' in find(GUEST, "class").kind.expected for name in PRESETS)
