"""The grammar of QEMU's options."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers.kvm_options import (
    ALONE,
    WITH_ARGUMENT,
    Line,
    Options,
    asks_for_help,
    merge,
    read_config,
    read_options,
    read_sections,
    split_parts,
)


def parts(text: str, first: str = "first") -> list[tuple[str, str]]:
    return list(split_parts(text, first))


def test_two_dashes_are_one() -> None:
    assert read_options(["--m", "1G", "-S"]).given == (("m", "1G"), ("S", ""))


def test_an_argument_is_taken_whatever_it_looks_like() -> None:
    options = read_options(["-append", "-M none", "-name", "-S", "-kernel", ""])
    assert options.given == (("append", "-M none"), ("name", "-S"), ("kernel", ""))
    assert options.unknown is None


def test_what_begins_with_no_dash_is_a_disk() -> None:
    options = read_options(["a.img", "", "-S", "b.img"])
    assert options.disks == ("a.img", "", "b.img")


@pytest.mark.parametrize(
    "word", ["-", "--", "-frobnicate", "-M=pc", "--m=1G", "---S", "-s1", "-SS"]
)
def test_an_unknown_option_is_said_to_be_unknown(word: str) -> None:
    assert read_options(["-S", word, "-snapshot"]).unknown == word


def test_a_missing_argument_is_unknown_too() -> None:
    assert read_options(["-S", "-m"]).unknown == "-m"


def test_no_option_is_in_both_tables() -> None:
    assert not ALONE & WITH_ARGUMENT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("pc", [("first", "pc")]),
        ("pc,accel=kvm", [("first", "pc"), ("accel", "kvm")]),
        ("accel=kvm,pc", [("accel", "kvm"), ("pc", "on")]),
        ("a,,b,c=d,,e", [("first", "a,b"), ("c", "d,e")]),
        ("x=1,nousb,usb", [("x", "1"), ("usb", "off"), ("usb", "on")]),
        ("guest=a=b", [("guest", "a=b")]),
        ("a=,b=", [("a", ""), ("b", "")]),
        ("a=,,", [("a", ",")]),
        ("=,=", [("", ""), ("", "")]),
        (",", [("first", "")]),
    ],
)
def test_parts(text: str, expected: list[tuple[str, str]]) -> None:
    assert parts(text) == expected


@given(st.dictionaries(st.sampled_from(["a", "b.c", "d-e"]), st.text(alphabet="a,=x- \n")))
def test_parts_that_were_written_are_read(values: dict[str, str]) -> None:
    text = ",".join(f"{key}={value.replace(',', ',,')}" for key, value in values.items())
    assert dict(split_parts(text, "first")) == values


@pytest.mark.timeout(5)
@pytest.mark.parametrize("character", [",", "=", ",,x", "a=,", "a"])
def test_a_long_argument_takes_no_time(character: str) -> None:
    text = character * (128 * 1024 // len(character))
    assert parts(text)
    assert asks_for_help(text) is False


@pytest.mark.parametrize("value", ["help", "?", "pc,help", "help,x=y", "a,b,?"])
def test_help_is_asked_for(value: str) -> None:
    assert asks_for_help(value)


@pytest.mark.parametrize("value", ["helpful", "a=help", "", "x,,helper"])
def test_help_is_not_asked_for(value: str) -> None:
    assert not asks_for_help(value)


def test_sections_of_a_configuration_file() -> None:
    sections = read_config(
        """# a comment
        stray = "value"
        [machine]
          type = "q35"
          # accel = "kvm"
        [device "b0"]
          driver = "virtio-balloon-pci"
          addr = "0x5"
        [chardev "a b"]
        """
    )
    assert [(section.group, section.values) for section in sections] == [
        ("machine", {"type": "q35"}),
        ("device", {"id": "b0", "driver": "virtio-balloon-pci", "addr": "0x5"}),
        ("chardev", {"id": "a b"}),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[device]# x\n driver = "e1000"', ("device", {"driver": "e1000"})),
        ('[device\t"x"]\n driver = "e1000"', ("device", {"id": "x", "driver": "e1000"})),
        ('[device \v "x"] # c\n', ("device", {"id": "x"})),
        ('[device "a]b"]\n', ("device", {"id": "a]b"})),
        ('[machine]\r\n type = "isapc"\r\n', ("machine", {"type": "isapc"})),
        ('[machine]#\n type = "q35" # the new "one"', ("machine", {"type": "q35"})),
        ('[device]\n\vdriver\v=\v"e1000"', ("device", {"driver": "e1000"})),
        ('[device]\n driver = "a=b"c" # "d"', ("device", {"driver": "a=b"})),
        ('[device]\n driver = "e\x85\u2028\x0c1"', ("device", {"driver": "e\x85\u2028\x0c1"})),
        ('[device]\n driver = ""', ("device", {"driver": ""})),
    ],
)
def test_a_configuration_file_is_read_as_qemu_reads_it(
    text: str, expected: tuple[str, dict[str, str]]
) -> None:
    """QEMU 7.2 takes each of them so, but for what it refuses."""
    assert [(section.group, section.values) for section in read_config(text)] == [expected]


def test_later_options_win() -> None:
    words = ["-M", "pc,usb=on", "-machine", "accel=kvm", "-machine", "type=q35,accel=tcg"]
    sections = list(read_sections(read_options(words)))
    assert merge(sections, "machine") == {"type": "q35", "usb": "on", "accel": "tcg"}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"driver":"e1000"}', {"driver": "e1000"}),
        ("{'driver':'e1000'}", {"driver": "e1000"}),
        ('{ "driver" : "virtio\\u002dnet" , "x" : [{"y":1}] }', {"driver": "virtio-net"}),
        ('{"driver":"e1000","addr":"0x1e","rombar":0}', {"addr": "0x1e", "rombar": "0"}),
        ('{"driver":"e1000","addr":41}', {"addr": "5.1"}),
        (
            '{"prealloc":true,"reserve":false,"x":1.5,"y":null}',
            {"prealloc": "on", "reserve": "off"},
        ),
    ],
)
def test_json_is_read(text: str, values: dict[str, str]) -> None:
    (section,) = read_sections(read_options(["-device", text]))
    assert (section.group, section.text) == ("device", "")
    assert section.values.items() >= values.items()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"a":',
        '{"a":1',
        "{'a':\"b\"}",
        '{"a":"\\x"}',
        '{"a":' + "[" * 9000,
        "{\0}",
        '{"a":nul',
    ],
)
def test_json_that_cannot_be_read_is_kept_as_it_is(text: str) -> None:
    (section,) = read_sections(read_options(["-device", text]))
    assert (section.group, section.values, section.text) == ("device", {}, text)


@given(st.text().map("{".__add__))
def test_any_text_is_json_or_none(text: str) -> None:
    (section,) = read_sections(read_options(["-device", text]))
    assert bool(section.text) != bool(section.values) or (section.text, section.values) == ("", {})


def test_set_changes_what_was_said() -> None:
    words = ("-device", "e1000,id=a.b,addr=3", "-device", "e1000,id=c", "-set", "device.c.addr=5.1")
    line = Line((*words, "-set", "drive.c.file=x", "-set", "nonsense", "-set", "device.z.addr=7"))
    assert [device.get("addr") for device in line.of_group("device")] == ["3", "5.1"]


@given(
    st.lists(st.text(max_size=20) | st.sampled_from(sorted(ALONE | WITH_ARGUMENT)).map("-".__add__))
)
def test_every_word_is_accounted_for(words: list[str]) -> None:
    options = read_options(words)
    assert isinstance(options, Options)
    taken = len(options.disks) + sum(1 if name in ALONE else 2 for name, _ in options.given)
    assert taken == len(words) if options.unknown is None else taken < len(words)
    for section in read_sections(options):
        assert section.group
