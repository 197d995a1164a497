"""Mutated QMP sessions: what a healthy QEMU sends, damaged at random, the same for the same seed.

Theory of operation:
    A session is a list of pieces: the first is sent at once, each other one after one more request.
    A mutation works on a piece or on the list. Blind damage (bits, bytes, cuts) mostly ends in the
    JSON parser; the words of `TOKENS` and the swapping of whole values and lines get past it.
"""

import random
import re
from collections.abc import Callable
from typing import Final

from tests.rig.fakeqmp import GREETING, OLD_GREETING, STAMP

EVENT: Final = (
    f'{{{STAMP}, "event": "BALLOON_CHANGE", "data": {{"actual": 268435456}}}}\r\n'.encode()
)
STOP: Final = f'{{{STAMP}, "event": "STOP"}}\r\n'.encode()

TRANSCRIPTS: Final[tuple[tuple[bytes, ...], ...]] = (
    (
        GREETING,
        b'{"return": {}, "id": "1"}\r\n',
        EVENT + b'{"return": {"status": "running", "running": true}, "id": "2"}\r\n',
        b'{"return": {"actual": 268435456}, "id": "3"}\r\n' + STOP,
        b'{"id": "4", "error": {"class": "DeviceNotActive", "desc": "No balloon device"}}\r\n',
    ),
    (
        EVENT + OLD_GREETING,
        b'{"return": {}, "id": "1"}\r\n' + EVENT,
        b'{"return": {"stats": {"stat-free-memory": 18446744073709551615}}, "id": "2"}\r\n',
        b"",
        b'{"return": [{"name": "a", "type": "child<b>"}], "id": "3"}\r\n',
    ),
    (
        GREETING,
        b'{"return": {}, "id": "1"}\r\n',
        b"",
        b'{"id": "3", "error": {"class": "CommandNotFound", "desc": "x"}}\r\n',
        b'{"return": {}, "id": "2"}\r\n{"return": {}, "id": "4"}\r\n',
    ),
)

NUMBERS: Final = (b"NaN", b"-Infinity", b"1e999", b"-0", b"9" * 21, b"9" * 5000, b"1.5", b"-1")
VALUES: Final = (b"true", b"null", b"{}", b"[]", b'""', b'"x' + b"y" * 5000 + b'"')
MARKS: Final = (b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\n", b"\r\n", b"\0", b" ")
NESTS: Final = (b'{"a":' * 40, b"[" * 40, b"[" * 2000, b"]" * 40)
LETTERS: Final = (b'"\\ud800"', b'"\\u0000"', b"\xef\xbb\xbf", b"\xff", b"\xfe\xff", b"\xc0\x80")
IDS: Final = (b'"id": "1"', b'"id": "2"', b'"id": null', b'"id": []', b'"id": 2', b'"id": {"2": 2}')
KEYS: Final = (b'"id"', b'"return"', b'"error"', b'"event"', b'"QMP"')
MEMBERS: Final = (b'"error": 5, ', b'"return": 1, ', b'"event": [1], ', b'"data": [1], ')
LINES: Final = (
    b'{"error": {"class": "A", "desc": "b"}}\n',
    b'{"return": {}, "id": "2"}\n',
    b'{"event": 5}\n',
)
TOKENS: Final = NUMBERS + VALUES + MARKS + NESTS + LETTERS + IDS + KEYS + MEMBERS + LINES

_VALUE: Final = re.compile(rb'"[^"]*"|-?\d+|true|\{\}|\[[^\[\]]*\]')

Pieces = list[bytes]


def session(seed: int) -> tuple[Pieces, bool]:
    """Make one damaged session.

    Returns:
        What the server sends, and whether it closes the connection in the end.
    """
    dice = random.Random(seed)  # noqa: S311 - it shall be the same again
    pieces = list(dice.choice(TRANSCRIPTS))
    damage(dice, pieces)
    return pieces, dice.random() < 0.5


def damage(dice: random.Random, pieces: Pieces) -> None:
    """Damage a session in one to eight places."""
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        dice.choice(MUTATIONS)(dice, pieces)


def _flip(dice: random.Random, pieces: Pieces) -> None:
    def change(piece: bytes, at: int) -> bytes:
        return piece[:at] + bytes([piece[at] ^ 1 << dice.randrange(8)]) + piece[at + 1 :]

    _at_random(dice, pieces, change)


def _delete(dice: random.Random, pieces: Pieces) -> None:
    _at_random(dice, pieces, lambda piece, at: piece[:at] + piece[at + dice.randint(1, 20) :])


def _double(dice: random.Random, pieces: Pieces) -> None:
    def change(piece: bytes, at: int) -> bytes:
        end = at + dice.randint(1, 40)
        return piece[:end] + piece[at:end] * dice.choice((1, 1, 2, 2, 300)) + piece[end:]

    _at_random(dice, pieces, change)


def _insert(dice: random.Random, pieces: Pieces) -> None:
    _at_random(dice, pieces, lambda piece, at: piece[:at] + dice.choice(TOKENS) + piece[at:])


def _replace_value(dice: random.Random, pieces: Pieces) -> None:
    def change(piece: bytes, _: int) -> bytes:
        found = dice.choice(list(_VALUE.finditer(piece)) or [None])
        if found is None:
            return piece
        return piece[: found.start()] + dice.choice(TOKENS) + piece[found.end() :]

    _at_random(dice, pieces, change)


def _cut(dice: random.Random, pieces: Pieces) -> None:
    at = dice.randrange(len(pieces))
    pieces[at] = pieces[at][: dice.randrange(len(pieces[at]) + 1)]
    if dice.random() < 0.5:
        del pieces[at + 1 :]


def _swap(dice: random.Random, pieces: Pieces) -> None:
    one, other = dice.randrange(len(pieces)), dice.randrange(len(pieces))
    pieces[one], pieces[other] = pieces[other], pieces[one]


def _repeat(dice: random.Random, pieces: Pieces) -> None:
    at = dice.randrange(len(pieces))
    pieces[at] *= dice.choice((2, 2, 2, 3, 3, 100))


def _drop(dice: random.Random, pieces: Pieces) -> None:
    pieces[dice.randrange(len(pieces))] = b""


def _splice(dice: random.Random, pieces: Pieces) -> None:
    pieces[dice.randrange(len(pieces))] += dice.choice(dice.choice(TRANSCRIPTS))


def _other_id(dice: random.Random, pieces: Pieces) -> None:
    at = dice.randrange(len(pieces))
    pieces[at] = re.sub(rb'"id": "\d"', b'"id": "%d"' % dice.randint(0, 5), pieces[at])


def _at_random(dice: random.Random, pieces: Pieces, change: Callable[[bytes, int], bytes]) -> None:
    which = max(dice.randrange(len(pieces)), dice.randrange(len(pieces)))  # rather not the greeting
    if pieces[which]:
        pieces[which] = change(pieces[which], dice.randrange(len(pieces[which])))


MUTATIONS: Final = (
    *(_flip, _delete, _double, _insert, _insert, _replace_value, _replace_value, _replace_value),
    *(_cut, _swap, _repeat, _drop, _splice, _other_id),
)
