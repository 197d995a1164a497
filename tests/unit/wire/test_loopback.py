"""The kernel's table of TCP sockets, and which addresses are this host's loopback."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.errors import ConfigError
from qmpmem.wire import loopback

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid inode\n"
ROWS = (
    "   0: 0100007F:115C 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 77 1 0 0\n"
    "   1: 0100007F:115C 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0 0 78 1 0 0\n"
)
SIX = (
    "   0: 00000000000000000000000001000000:115C 00000000000000000000000000000000:0000 0A "
    "00000000:00000000 00:00000000 00000000     0        0 79 1 0 0\n"
    "   1: 0000000000000000FFFF00000100007F:115C 0000000000000000FFFF00000100007F:9C40 01 "
    "00000000:00000000 00:00000000 00000000     0        0 80 1 0 0\n"
)


def test_listeners_and_connections_are_read() -> None:
    first, second = loopback.parse(HEAD + ROWS)
    assert (first.local, first.is_listening, first.uid, first.inode) == (
        ("127.0.0.1", 4444),
        True,
        1000,
        77,
    )
    assert (second.remote, second.is_listening) == (("127.0.0.1", 40000), False)
    first, second = loopback.parse(HEAD + SIX)
    assert (first.local, loopback.near(first)) == (("::1", 4444), "tcp:[::1]:4444")
    assert second.local == ("127.0.0.1", 4444)


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    assert isinstance(list(loopback.parse(text)), list)


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("tcp:127.0.0.1:4444", "tcp:127.0.0.1:4444"),
        ("tcp:127.1.2.3:1", "tcp:127.1.2.3:1"),
        ("tcp:[::1]:65535", "tcp:[::1]:65535"),
    ],
)
def test_loopback_addresses(written: str, normal: str) -> None:
    assert loopback.normal(written) == normal
    assert loopback.write(*loopback.end(normal)) == normal


@pytest.mark.parametrize(
    "written",
    [
        *("tcp:", "tcp:4444", "tcp:127.0.0.1", "tcp:127.0.0.1:", "tcp:127.0.0.1:0"),
        *("tcp:127.0.0.1:65536", "tcp:127.0.0.1:-1", "tcp:127.0.0.1:4444,server=on"),
        *("tcp:10.0.0.1:4444", "tcp:0.0.0.0:4444", "tcp:[::]:4444", "tcp::4444"),
        *("tcp:example.org:4444", "tcp:[fe80::1]:4444", "tcp:127.0.0.1:٤٤٤٤"),
    ],
)
def test_others_are_refused(written: str) -> None:
    with pytest.raises(ConfigError):
        loopback.normal(written)
