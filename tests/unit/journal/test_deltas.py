"""Rounds as what changed: what is written is read again, and damage is noticed."""

import zlib
from functools import cache

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.journal.compression import pack, unpack
from qmpmem.journal.deltas import Decoder, Encoder, difference, patched
from qmpmem.model.round import Tick
from tests.rig import laws

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.dictionaries(st.text("ab+-~", max_size=2), inner, max_size=3)
        | st.lists(inner, max_size=2)
    ),
    max_leaves=8,
)
FLAT = {
    *("available", "free", "total", "disk_caches", "swap_in", "swap_out"),
    *("major_faults", "oom_kills", "alloc_stalls"),
}
OBJECTS = st.dictionaries(st.text("abc+-~", max_size=2), VALUES, max_size=4)


@given(before=OBJECTS, after=OBJECTS)
def test_a_difference_turns_one_into_the_other(
    before: dict[str, object], after: dict[str, object]
) -> None:
    patch = msgspec.json.decode(msgspec.json.encode(difference(before, after)))
    assert patched(before, patch) == after


@given(only=OBJECTS)
def test_nothing_changed_is_nothing_written(only: dict[str, object]) -> None:
    assert difference(only, dict(only)) == {}


@cache
def recorded() -> tuple[Tick, ...]:
    """Record the rounds of the first host that has many."""
    worlds = (tuple(laws.rounds(laws.world(seed))) for seed in range(100))
    seen = next(run for run in worlds if len(run) > 50)
    return tuple(each.tick for each in seen[:200])


def test_rounds_are_read_as_they_were() -> None:
    first, *others = recorded()
    encoder, decoder = Encoder(), Decoder()
    assert decoder.whole(encoder.whole(first)) == first
    for tick in others:
        assert decoder.change(encoder.change(tick)) == tick


def test_rounds_of_an_older_journal_are_read() -> None:
    """In versions before 0.2 a guest's statistics stood beside its other fields."""
    tick = recorded()[-1]
    plain = msgspec.json.decode(unpack(Encoder().whole(tick)))
    told = 0
    for guest in plain["snapshot"]["guests"].values():
        stats = guest.pop("stats", {})
        guest |= {
            name: value for name, value in stats.items() if name in FLAT and value is not None
        }
        told += len(stats)
    assert told
    assert Decoder().whole(pack(msgspec.json.encode(plain))) == tick


def test_a_change_is_smaller_than_the_whole() -> None:
    first, second, *_ = recorded()
    encoder = Encoder()
    assert len(encoder.whole(first)) > len(encoder.change(second))


def test_a_change_needs_a_round_before() -> None:
    with pytest.raises(ValueError, match="no round before"):
        Encoder().change(recorded()[0])


@pytest.mark.parametrize("cut", [0, 1, 10, -1])
def test_what_is_cut_off_is_damaged(cut: int) -> None:
    content = Encoder().whole(recorded()[0])
    with pytest.raises(ValueError, match=r"cut off|incomplete|error"):
        Decoder().whole(content[:cut])


@given(noise=st.binary(max_size=60))
def test_noise_is_damaged(noise: bytes) -> None:
    for content in (noise, zlib.compress(noise)):
        with pytest.raises((ValueError, msgspec.MsgspecError)):
            Decoder().whole(content)


def test_what_is_nested_too_deep_is_damaged() -> None:
    with pytest.raises(ValueError, match="recursion"):
        Decoder().whole(zlib.compress(b'{"a":' + b"[" * 100_000))


def test_a_change_of_what_is_not_there_is_damaged() -> None:
    first, second, *_ = recorded()
    encoder = Encoder()
    encoder.whole(first)
    change = encoder.change(second)
    with pytest.raises(ValueError):  # noqa: PT011 - zlib's word or ours
        Decoder().change(change)
