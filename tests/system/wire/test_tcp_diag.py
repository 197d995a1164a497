"""Which user of this host is at the other end of a TCP connection, as the kernel says."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from qmpmem.wire.tcp_diag import parse_user, user_of_client
from tests.rig.users import IS_ROOT, NOBODY, needs_root

WAYS: Final = {
    "IPv4": (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    "IPv6": (socket.AF_INET6, "::1", "::1"),
    "IPv4 to a socket of IPv6": (socket.AF_INET6, "::", "127.0.0.1"),
}


@contextmanager
def connected(way: str, user: int, *, closes: bool = False) -> Iterator[socket.socket]:
    """Yield the server's end of a connection whose client is a socket of a user."""
    family, bound, to = WAYS[way]
    with socket.socket(family) as listening:
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((bound, 0))
        listening.listen()
        before = os.geteuid()
        os.seteuid(user)
        try:
            client = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET)
        finally:
            os.seteuid(before)
        with client:
            client.connect((to, listening.getsockname()[1]))
            if closes:
                client.close()
            with listening.accept()[0] as accepted:
                yield accepted


@pytest.mark.parametrize("way", WAYS)
def test_it_is_the_user_of_the_clients_socket(way: str) -> None:
    for user in (NOBODY, 4711) if IS_ROOT else (os.geteuid(),):
        with connected(way, user) as accepted:
            assert user_of_client(accepted) == user


@needs_root("a server of another user")
def test_it_is_not_the_servers_user() -> None:
    with connected("IPv4", NOBODY) as accepted:
        assert os.fstat(accepted.fileno()).st_uid == 0
        assert user_of_client(accepted) == NOBODY


@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_has_closed_its_socket_is_not_taken_for_root(way: str) -> None:
    with connected(way, NOBODY if IS_ROOT else os.geteuid(), closes=True) as accepted:
        assert user_of_client(accepted) is None


def test_a_connection_that_is_gone_is_an_error() -> None:
    with socket.socket() as alone, pytest.raises(OSError, match="not connected"):
        user_of_client(alone)


@pytest.mark.parametrize(
    "content",
    [b"", b"x" * 16, struct.pack("=IHHIIi", 36, 2, 0, 1, 0, -2) + b"\0" * 100],
    ids=["nothing", "cut off", "an error: no such socket here"],
)
def test_what_the_kernel_does_not_tell_is_not_known(content: bytes) -> None:
    assert parse_user(content) is None
