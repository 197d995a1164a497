"""Other users beside root's launcher: none of them writes where it writes, or is in its way.

The run directory is as versions before 0.2.0 made it, for the group qmpmem, until the launcher
makes it root's alone.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from launchers.kvm_monitor import monitor_config
from qmpmem.wire import kernel
from tests.rig import attackers
from tests.rig.attackers import attacking
from tests.rig.forger import forged
from tests.rig.launcher import PLAYED, Emulator
from tests.rig.namespace import GROUPS, Namespace, namespace
from tests.rig.qemu import short_directory
from tests.rig.users import needs_root

pytestmark = [pytest.mark.timeout(240), needs_root("may not mount")]

RUN: Final = "/run/qmpmem/guests"
GUEST: Final = ("-m", "256", "-name", "it")
LAUNCHES: Final = 12
OLD: Final = f"""
install -d -m 755 /run/qmpmem
install -d -m 2770 -g {GROUPS["qmpmem"]} {RUN}
chmod 2770 {RUN}
rm -rf {RUN}/it* {RUN}/.x* /run/target
install -d -m 755 /run/target
"""
"""What a launcher of an earlier version has left."""
STALE: Final = f"""
install -d -m 2770 -g {GROUPS["qmpmem"]} {RUN}/it
echo '{{"version":1,"id":"it","pid":4194304,"start_time":1,"socket":"'"$1"'","uid":0,\
"origin":"'"$2"'"}}' >{RUN}/it/record.json
"""
"""The directory of a guest that was killed."""


class Host(NamedTuple):
    inside: Namespace
    emulator: Emulator

    def sh(self, script: str, *words: str) -> str:
        ran = self.inside.run("/bin/sh", "-euc", script, "sh", *words, environ={})
        assert ran.code == 0, ran.err
        return ran.out

    def launch(self, **environ: str) -> tuple[list[bytes], str]:
        """Launch a guest; returns what it got beyond its own arguments, and what was said."""
        before = self.inside.words()
        settings = {"QMPMEM_RUN_DIR": "", "PATH": "/usr/bin:/bin", **environ}
        ran = self.emulator.launch(*GUEST, environ=settings, before=before)
        assert ran.code == PLAYED, ran.err
        words = self.emulator.words()
        assert words[: len(GUEST)] == [os.fsencode(word) for word in GUEST]
        return words[len(GUEST) :], ran.err

    def target(self) -> str:
        return self.sh("stat -c '%a %U' /run/target; ls -A /run/target")


@pytest.fixture
def host() -> Iterator[Host]:
    with short_directory() as directory, namespace(directory) as inside:
        host = Host(inside, Emulator(directory))
        host.sh(OLD)
        yield host


@pytest.mark.parametrize("attack", ["EXCHANGE_GUEST", "EXCHANGE_CONFIG"])
def test_a_member_of_the_group_exchanges_nothing(host: Host, attack: str) -> None:
    with attacking(host.inside, getattr(attackers, attack), RUN, "/run/target"):
        for _ in range(LAUNCHES):
            host.sh(OLD)
            words, said = host.launch()
            assert (words[0], words[2], said) == (b"-readconfig", b"-device", "")
            assert host.emulator.config() == monitor_config("qmpmem0", 500)
            assert host.target() == "755 root\n"
            assert host.sh(f"stat -c '%a %U' {RUN}") == "700 root\n"


def test_a_run_directory_that_others_exchange_costs_at_most_the_balloon(host: Host) -> None:
    """The user has named one inside a directory of the group's."""
    host.sh(f"install -d -m 2775 -g {GROUPS['qmpmem']} /run/g; install -d -m 700 /run/g/run")
    with attacking(host.inside, attackers.EXCHANGE_RUN, "/run/g/run", "/run/target"):
        for _ in range(LAUNCHES):
            words, said = host.launch(QMPMEM_RUN_DIR="/run/g/run")
            if words:
                assert words[1].startswith(b"/proc/self/fd/")
                assert host.emulator.config() == monitor_config("qmpmem0", 500)
            else:
                assert said.count("\n") == 1
            assert host.target() == "755 root\n"


def test_a_run_directory_below_one_of_the_groups_works_without_an_attack(host: Host) -> None:
    host.sh(f"install -d -m 2775 -g {GROUPS['qmpmem']} /run/g; install -d -m 700 /run/g/run")
    words, said = host.launch(QMPMEM_RUN_DIR="/run/g/run")
    assert (words[0], said) == (b"-readconfig", "")
    assert "socket" in host.sh("stat -c %F /run/g/run/it/qmp.sock")


@pytest.mark.parametrize("who", [["qmpmem"], []])
def test_an_id_is_not_lost_to_a_lock(host: Host, who: list[str]) -> None:
    host.sh(STALE, f"{RUN}/it/qmp.sock", "launcher")
    host.sh(f"install -m {'660' if who else '666'} -g {GROUPS['qmpmem']} /dev/null {RUN}/.lock")
    host.sh(f"chmod {'2770' if who else '2775'} {RUN}")
    with attacking(host.inside, attackers.HOLD_LOCK, RUN, groups=who):
        host.launch()
        assert host.sh(f"ls {RUN}") == "it\n"
        assert host.sh(f"stat -c %a {RUN}/.lock") == "600\n"


def test_an_id_is_not_lost_to_lines_that_a_stranger_forges(host: Host) -> None:
    path = f"{RUN}/it/qmp.sock"
    host.sh(STALE, path, "launcher")
    with forged(host.emulator.path.parent, path, 3):
        host.launch()
    assert host.sh(f"ls {RUN}") == "it\n"


def test_an_id_is_not_lost_to_a_stranger_on_an_adopted_guests_socket(host: Host) -> None:
    host.sh("install -d -m 1777 /run/public")
    host.sh(STALE, "/run/public/s", "adopted")
    with attacking(host.inside, attackers.LISTEN, RUN, "/run/public/s", groups=()):
        host.launch()
    assert host.sh(f"ls {RUN}") == "it\n"


@pytest.mark.parametrize("has_record", [True, False])
def test_an_id_is_not_lost_to_a_member_who_listens_in_its_old_directory(
    host: Host, *, has_record: bool
) -> None:
    """A version before 0.2.0 has left it, with a mode that let the group make files there."""
    path = f"{RUN}/it/qmp.sock"
    host.sh(STALE, path, "launcher")
    if not has_record:
        host.sh(f"rm {RUN}/it/record.json")
    with attacking(host.inside, attackers.LISTEN, RUN, path):
        host.sh(f"touch -d '1 hour ago' {RUN}/it")
        host.launch()
    assert host.sh(f"ls {RUN}") == "it\n"
    assert host.sh(f"stat -c '%a %U' {RUN}/it") == "700 root\n"


def test_an_id_is_not_lost_to_a_link_at_its_socket(host: Host) -> None:
    """It leads to a socket that answers."""
    host.sh("install -d -m 1777 /run/public")
    host.sh(STALE, f"{RUN}/it/qmp.sock", "launcher")
    host.sh(f"ln -s /run/public/s {RUN}/it/qmp.sock")
    with attacking(host.inside, attackers.LISTEN, RUN, "/run/public/s", groups=()):
        host.launch()
    assert host.sh(f"ls {RUN}") == "it\n"


@pytest.mark.parametrize("open_to_others", ["0", "1"])
def test_a_planted_record_gives_no_user_a_machine_of_roots(
    host: Host, shared_program: Path, open_to_others: str
) -> None:
    process = kernel.process(host.inside.pid)
    assert process is not None
    host.sh("install -d -m 755 /run/public")
    claim = (str(process.pid), str(process.start_time), "/run/public/s", open_to_others)
    with attacking(host.inside, attackers.PLANT, RUN, "", *claim):
        environ = {"QMPMEM_DEFAULTS": "/proc/nonexistent"}
        ran = host.inside.run(shared_program, "list", "--json", environ=environ)
    assert (ran.code, ran.out.strip()) == (0, "[]")
    assert "evil/record.json: belongs to uid 4242, and names a process of uid 0" in ran.err
    assert host.sh(f"stat -c '%a %U' {RUN}") == "700 root\n"
