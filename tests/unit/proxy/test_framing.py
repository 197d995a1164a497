"""How what a client sends is cut into messages."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.proxy.framing import Framer, TooLongError

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=4)


def cut(*pieces: bytes, longest: int = 1000) -> list[bytes]:
    framer = Framer(longest)
    found: list[bytes] = []
    for piece in pieces:
        framer.feed(piece)
        while (message := framer.take()) is not None:
            found.append(message)
    return found


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (b"", []),
        (b"\n \r\n", []),
        (b"{}\n", [b"{}"]),
        (b'{"a": 1}\r\n{"b": 2}\r\n', [b'{"a": 1}', b'{"b": 2}']),
        (b'{"a":1}{"b":2}', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":\n  {"b": [\n]}}', [b'{"a":\n  {"b": [\n]}}']),
        (b'{"a": "}{\\"]"}{}', [b'{"a": "}{\\"]"}', b"{}"]),
        (b'{"a": "\\\\"}{}', [b'{"a": "\\\\"}', b"{}"]),
        (b"garbage\n{}", [b"garbage\n", b"{}"]),
        (b"garbage", []),
        (b'"text" {}\n{}', [b'"text" {}\n', b"{}"]),
        (b'{"a": "not closed\n{}', [b'{"a": "not closed\n', b"{}"]),
        (b"}\n{}", [b"}\n", b"{}"]),
        (b"[1]{}", [b"[1]", b"{}"]),
        (b"\x00\xff\n{}", [b"\x00\xff\n", b"{}"]),
    ],
)
def test_messages_end_where_qemu_takes_them_as_complete(
    content: bytes, messages: list[bytes]
) -> None:
    assert cut(content) == messages
    assert cut(*(content[at : at + 1] for at in range(len(content)))) == messages


@given(
    st.lists(st.tuples(OBJECTS, st.sampled_from([b"", b"\n", b"\r\n", b" "]), st.booleans())),
    st.lists(st.integers(0, 500)),
)
def test_every_object_is_found_whole_however_the_bytes_come(
    sent: list[tuple[dict[str, object], bytes, bool]], places: list[int]
) -> None:
    texts = [json.dumps(each, indent=1 if spread else None).encode() for each, _, spread in sent]
    content = b"".join(text + end for text, (_, end, _) in zip(texts, sent, strict=True))
    places = sorted({0, len(content), *(place for place in places if place < len(content))})
    pieces = [content[a:b] for a, b in pairwise(places)]
    assert cut(*pieces, longest=1 << 20) == texts


@given(st.binary(max_size=300), st.lists(st.integers(0, 300)))
def test_any_bytes_are_cut_the_same_way_and_the_next_line_is_heard(
    content: bytes, places: list[int]
) -> None:
    places = sorted({0, len(content), *(place for place in places if place < len(content))})
    pieces = [content[a:b] for a, b in pairwise(places)]
    assert cut(*pieces) == cut(content)
    if content[:1] not in (b"{", b"[", b"") and not content[:1].isspace():
        rest = content.replace(b"\n", b"")
        assert cut(rest + b'\n{"a": 1}\n')[-1] == b'{"a": 1}'


@pytest.mark.parametrize("content", [b"{" * 11, b'{"aaaaaaaaaaaaaa', b"a" * 11, b'{"a": 12345}'])
def test_a_message_is_bounded_whole_or_not(content: bytes) -> None:
    with pytest.raises(TooLongError):
        cut(content, longest=10)
    assert cut(b"{}" * 100, longest=10) == [b"{}"] * 100
