"""Names and ids: readable, unique, found by either."""

from fnmatch import fnmatchcase
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers import kvm_records, kvm_words
from qmpmem.errors import ConfigError
from qmpmem.model import names

NAMES: Final = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="aZ09._- /", max_size=60),
    st.text(alphabet="äöüÄÖÜßéÉñ\u0308 ab", max_size=20),
    st.binary(max_size=40).map(lambda raw: raw.decode(errors="surrogateescape")),
)


@pytest.mark.parametrize(
    ("name", "guest"),
    [
        ("web1", "web1"),
        ("web-", "web-"),
        ("a--b", "a--b"),
        ("Windows 10", "Windows-10"),
        ("my guest", "my-guest"),
        ("a/b c", "a-b-c"),
        ("a b/../c,d", "a-b-..-c-d"),
        (" web ", "web"),
        ("-dash", "dash"),
        (".hidden", "hidden"),
        ("Büro Köln", "Buero-Koeln"),
        ("Übergröße", "Uebergroesse"),
        ("GRÜN", "GRUeN"),
        ("bu\u0308ro", "buro"),
        ("Ångström café", "Angstroem-cafe"),
        ("web\U0001f600 1", "web-1"),
        ("C++", "C"),
        ("a\nb\x1b[31m", "a-b-31m"),
        ("x" * 60, "x" * 48),
        ("web\udcff", "web"),
        ("дом", names.safe_id("дом")),
    ],
)
def test_an_id_reads_like_the_name(name: str, guest: str) -> None:
    assert names.safe_id(name) == guest


@pytest.mark.parametrize("name", ["", "日本語", "///", "дом 1", "\U0001f600"])
def test_where_nothing_can_be_read_it_is_a_hash(name: str) -> None:
    assert names.safe_id(name).startswith("g-")
    assert names.safe_id(name) != names.safe_id(name + "\n\n\n\n")


@given(NAMES)
def test_an_id_is_always_safe_and_stays_what_it_is(name: str) -> None:
    guest = names.safe_id(name)
    assert names.SAFE_ID.fullmatch(guest)
    assert names.safe_id(guest) == guest


@given(NAMES)
def test_the_launcher_makes_the_same(name: str) -> None:
    assert kvm_records.safe_id(name) == names.safe_id(name)
    assert kvm_words.make_word(name) == names.make_word(name)


def test_the_limits_are_the_launchers() -> None:
    assert (names.LONGEST, names.LONGEST_NAME) == (kvm_records.ID_LIMIT, kvm_records.NAME_LIMIT)


GUESTS: Final = {
    "Windows-10": "Windows 10",
    "web": "web",
    "web-2": "web",
    "my-guest": "my guest",
    "my-guest-2": "my/guest",
    "old": None,
}


@pytest.mark.parametrize(
    ("word", "guest"),
    [
        ("Windows 10", "Windows-10"),
        ("Windows-10", "Windows-10"),
        ("my guest", "my-guest"),
        ("my/guest", "my-guest-2"),
        ("web", "web"),
        ("web-2", "web-2"),
        ("old", "old"),
        ("windows 10", None),
        ("", None),
    ],
)
def test_a_guest_is_found_by_its_id_and_by_its_name(word: str, guest: str | None) -> None:
    assert names.pick(word, GUESTS) == guest


def test_a_name_of_two_guests_is_no_ones() -> None:
    guests = {"Windows-10": "Windows 10", "Windows-10-2": "Windows 10"}
    with pytest.raises(ConfigError, match="the name of several guests") as caught:
        names.pick("Windows 10", guests)
    assert caught.value.hint == "say which: Windows-10, Windows-10-2"


@pytest.mark.parametrize(
    ("guest", "name", "shown"),
    [
        ("web", "web", "web"),
        ("web", None, "web"),
        ("Windows-10", "Windows 10", "Windows 10"),
        ("Windows-10-2", "Windows 10", "Windows 10 (Windows-10-2)"),
        ("web-2", "web", "web (web-2)"),
    ],
)
def test_a_guest_is_called_by_its_name(guest: str, name: str | None, shown: str) -> None:
    assert names.label(guest, name) == shown


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("Windows 10", True),
        ("Windows-10", True),
        ("Windows *", True),
        ("Windows-*", True),
        ("Windows?10", True),
        ("*", True),
        ("windows*", False),
        ("Windows", False),
    ],
)
def test_patterns_mean_ids_and_names(pattern: str, *, matches: bool) -> None:
    assert names.matches(pattern, "Windows-10", "Windows 10") is matches


@given(st.text(max_size=8), NAMES)
def test_without_a_name_only_the_id_counts(pattern: str, guest: str) -> None:
    assert names.matches(pattern, guest, None) == fnmatchcase(guest, pattern)
