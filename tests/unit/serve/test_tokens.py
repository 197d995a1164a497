"""The token of the page, and what a size that a visitor wants means."""

from pathlib import Path

import pytest

from qmpmem.api.records import PinResult
from qmpmem.errors import ConfigError, KernelError
from qmpmem.serve import changes, server
from qmpmem.serve.host_page import overview
from qmpmem.serve.tokens import LASTS, MOST, Tokens, read_token
from qmpmem.units import GIB, MIB, Bytes
from tests.rig import odd
from tests.unit.serve.test_host_page import reading, seen

TOKEN = "0123456789abcdef"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


def test_a_token_is_read(token_file: Path) -> None:
    assert read_token(token_file, {}) == TOKEN


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o610])
def test_a_token_that_others_may_read_is_none(token_file: Path, mode: int) -> None:
    token_file.chmod(mode)
    with pytest.raises(ConfigError, match="others may read it") as refused:
        read_token(token_file, {})
    assert refused.value.hint is not None
    assert "chmod 600" in refused.value.hint
    assert TOKEN not in refused.value.message
    assert read_token(token_file, {"CREDENTIALS_DIRECTORY": str(token_file.parent)}) == TOKEN


@pytest.mark.parametrize(
    "content", [b"", b"short", b"x" * 2000, b"\xff" * 20, b"a\nb" * 9, b"\0" * 20, b"\xc3\xa4" * 20]
)
def test_what_is_no_token_is_refused(token_file: Path, content: bytes) -> None:
    token_file.write_bytes(content)
    with pytest.raises(ConfigError, match="printable"):
        read_token(token_file, {})


@pytest.mark.parametrize("make", [odd.fifo, odd.link, odd.directory])
def test_what_is_no_file_is_no_token(tmp_path: Path, make: odd.Make) -> None:
    place = tmp_path / "token"
    make(place)
    with pytest.raises((ConfigError, KernelError)):
        read_token(place, {})


def test_a_browser_that_has_shown_the_token_may_stay_for_a_while() -> None:
    now = [0.0]
    keys = Tokens(TOKEN, lambda: now[0])
    assert keys.fits(TOKEN)
    assert not keys.fits(TOKEN[:-1])
    assert not keys.fits("")
    assert not keys.fits("\ud800é")
    key = keys.admit()
    assert key != TOKEN
    assert keys.knows(key)
    assert not keys.knows(None)
    assert not keys.knows("")
    now[0] = LASTS
    assert not keys.knows(key)


def test_a_browser_is_forgotten_when_it_signs_out() -> None:
    keys = Tokens(TOKEN, lambda: 0.0)
    one, other = keys.admit(), keys.admit()
    keys.dismiss(one)
    keys.dismiss(None)
    assert (keys.knows(one), keys.knows(other)) == (False, True)


def test_so_many_browsers_are_signed_in_and_no_more() -> None:
    keys = Tokens(TOKEN, lambda: 0.0)
    made = [keys.admit() for _ in range(MOST + 1)]
    assert [keys.knows(each) for each in made] == [False, *[True] * MOST]


def test_without_a_token_none_fits() -> None:
    keys = Tokens(None, lambda: 0.0)
    assert (keys.exist, keys.fits(""), keys.fits("None"), keys.knows(None)) == (False,) * 4


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (400, "from 600 MiB to 400 MiB: the host gets 200 MiB, which then has 2.2 GiB available"),
        (800, "it takes 200 MiB of the host, which then has 1.8 GiB available"),
        (600, "from 600 MiB to 600 MiB, which then has 2 GiB available"),
        (2000, "which then has 648 MiB, less than its reserve"),
    ],
)
def test_what_would_happen_is_one_sentence(size: int, expected: str) -> None:
    found = overview(seen(reading()))
    done = PinResult(guest="web1", size=Bytes(size * MIB), actual=Bytes(600 * MIB), exempt=None)
    assert expected in changes.consequence(done, found.rows["web1"], found)


def test_a_guest_that_is_left_alone_says_so() -> None:
    found = overview(seen(reading()))
    done = PinResult(guest="web1", size=GIB, actual=GIB, exempt="it is paused")
    assert changes.consequence(done, found.rows["web1"], found).endswith(
        "alone, though: it is paused"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9178", ("127.0.0.1", 9178)),
        ("[::1]:1", ("::1", 1)),
        ("localhost:65535", ("localhost", 65535)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
    ],
)
def test_a_place_to_listen_is_read(text: str, expected: tuple[str, int]) -> None:
    assert server.address(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "9178", ":9178", "0.0.0.0:9178", "[::]:9178", "192.0.2.1:80", "127.0.0.1", "127.0.0.1:",
     "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:٣", "vmhost3:80", "::1:x"],
)  # fmt: skip
def test_no_other_place_is(text: str) -> None:
    with pytest.raises(ConfigError, match="--listen"):
        server.address(text)
