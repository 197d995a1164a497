"""Which client may do what, by what the kernel says."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qmpmem.api import permissions
from qmpmem.api.permissions import Peer, Permissions, peer_of
from qmpmem.guests import access
from tests.rig.patience import patient
from tests.rig.qemu import short_directory
from tests.rig.users import needs_root

HOST = Permissions(owner=0, readers=100, writers=200)


def peer(uid: int, *groups: int) -> Peer:
    return Peer(pid=1, uid=uid, groups=frozenset(groups))


@pytest.mark.parametrize(
    ("who", "access"),
    [
        (peer(0), "write"),
        (peer(0, 5), "write"),
        (peer(1000, 200), "write"),
        (peer(1000, 7, 8, 200, 100), "write"),
        (peer(1000, 100), "read"),
        (peer(1000, 7, 100), "read"),
        (peer(1000), "none"),
        (peer(1000, 0), "none"),
        (peer(65534, 65534), "none"),
    ],
)
def test_the_table(who: Peer, access: str) -> None:
    assert HOST.of(who) == access


def test_a_host_without_the_groups_knows_root_alone() -> None:
    alone = Permissions(owner=0)
    assert alone.of(peer(0)) == "write"
    assert alone.of(peer(1000, 100, 200)) == "none"


def test_a_users_own_agent_is_his_and_roots_whatever_groups_there_are() -> None:
    own = permissions.permissions(1000, {"qmpmem": 100, "qmpmem-admin": 200}.get)
    assert own.of(peer(1000)) == "write"
    assert own.of(peer(0)) == "write"
    assert own.of(peer(1001, 100, 200)) == "none"


def test_an_agent_of_the_user_that_root_made_for_it_serves_the_groups() -> None:
    groups, users = {"qmpmem": 100, "qmpmem-admin": 200}.get, {"qmpmem-agent": 990}.get
    served = permissions.permissions(990, groups, users)
    assert served == Permissions(owner=990, readers=100, writers=200)
    assert served.of(peer(1001, 100)) == "read"
    assert served.of(peer(990)) == "write"
    assert permissions.permissions(991, groups, users) == Permissions(owner=991)
    assert access.user_id("root") == 0
    assert access.user_id("no-such-user-here") is None


def test_the_groups_are_found_by_their_names() -> None:
    assert permissions.permissions(0, {"qmpmem": 100, "qmpmem-admin": 200}.get) == HOST
    assert access.group_id("no-such-group-here") is None
    assert access.group_id("root") == 0


def test_the_kernel_names_the_process_at_the_other_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        seen = peer_of(ours)
    assert (seen.pid, seen.uid) == (os.getpid(), os.geteuid())
    assert seen.groups == {os.getegid(), *os.getgroups()}


@contextmanager
def connected(groups: str) -> Iterator[tuple[int, Peer]]:
    """A process of another user and of these groups that has connected: its pid, and what is seen.

    By then it has given up all its rights.
    """
    program = (
        "import os, socket, sys\n"
        f"os.setgroups({groups}); os.setgid(99); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)"
    )
    with short_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        directory.chmod(0o755)
        path = directory / "s"
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        child = subprocess.Popen([sys.executable, "-c", program, path])
        with listener.accept()[0] as connection:
            yield child.pid, peer_of(connection)
            connection.send(b"x")
        child.wait(timeout=patient(10))


@needs_root("may not take other groups")
def test_supplementary_groups_count_and_later_changes_do_not() -> None:
    with connected("[4711, 4712]") as (pid, seen):
        assert (seen.pid, seen.uid) == (pid, 65534)
        assert seen.groups == {99, 4711, 4712}


@needs_root("may not take other groups")
def test_more_groups_than_can_be_read_count_as_the_first_alone() -> None:
    with connected("range(1000, 1400)") as (_, seen):
        assert seen.groups == {99}
