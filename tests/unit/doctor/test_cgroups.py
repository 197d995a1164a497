"""What the doctor says of reclaim from guests' cgroups, on small trees."""

import os
from pathlib import Path

import pytest

from qmpmem.doctor import cgroups
from qmpmem.doctor.finding import Finding, Host
from qmpmem.guests import inventory
from qmpmem.records import replace
from qmpmem.wire import kernel
from qmpmem.wire.kernel import reclaim
from tests.rig.agent import record
from tests.rig.users import IS_ROOT

SWAPS = "Filename\tType\tSize\tUsed\tPriority\n"
PARTITION = "/dev/zram0\tpartition\t1048572\t0\t100\n"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/swaps").write_text(SWAPS + PARTITION)
    return Host(root=tmp_path, run=run, environ={}, uid=os.getuid(), groups=frozenset())


def guest(host: Host, monkeypatch: pytest.MonkeyPatch, **files: str) -> Path:
    """Have a live guest, whose cgroup has these files."""
    group = host.root / "sys/fs/cgroup/vms/qmpmem/web1"
    group.mkdir(parents=True)
    for name, content in files.items():
        (group / name.replace("memory_", "memory.", 1)).write_text(content)
    seen = replace(record("web1"), cgroup="/sys/fs/cgroup/vms/qmpmem\n/gone/qmpmem")
    found = kernel.process(os.getpid())
    assert found is not None
    live = inventory.LiveGuest(record=seen, pid=found.pid)
    taken = inventory.Inventory(guests=(live,), stale=(), unreadable=())
    monkeypatch.setattr(inventory, "take", lambda *_: taken)
    return group


def said(host: Host) -> Finding:
    [line] = cgroups.check_reclaim(host)
    return line


def test_without_swap_there_is_nothing_to_reclaim(host: Host) -> None:
    (host.root / "proc/swaps").write_text(SWAPS)
    assert (said(host).status, said(host).said) == ("ok", cgroups.NO_SWAP)


def test_guests_without_a_group_of_their_own(host: Host) -> None:
    assert (said(host).status, said(host).said) == ("ok", cgroups.NO_GROUPS)


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ({"memory_current": "1\n", "memory_reclaim": ""}, "ok"),
        ({"memory_current": "1\n", "memory_high": "max\n"}, "ok"),
        ({"memory_current": "1\n", "memory_high": "4096\n"}, "warning"),
        ({"memory_current": "1\n"}, "warning"),
        ({"memory_usage_in_bytes": "1\n", "memory_force_empty": ""}, "ok"),
    ],
)
def test_which_files_it_takes(
    host: Host, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], status: str
) -> None:
    guest(host, monkeypatch, **files)
    assert said(host).status == status
    assert "web1" in said(host).said


@pytest.mark.skipif(IS_ROOT, reason="root: may write all")
def test_a_group_that_may_not_be_written(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    group = guest(host, monkeypatch, memory_current="1\n", memory_reclaim="")
    (group / "memory.reclaim").chmod(0o444)
    assert said(host).status == "warning"
    assert "as the owner of that cgroup" in str(said(host).todo)


def test_a_group_that_is_forbidden(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    guest(host, monkeypatch, memory_current="1\n", memory_reclaim="")
    monkeypatch.setattr(reclaim, "_is_writable", lambda _: False)
    assert said(host).status == "warning"
    assert "this user may not write there, so nothing of guest web1 is reclaimed" in said(host).said


MOUNTS = """\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
25 22 0:22 / /sys rw,nosuid - sysfs sysfs rw
29 25 0:26 / /sys/fs/cgroup {options},nosuid - cgroup2 cgroup2 rw
30 22 0:27 / /sys/fs/cgroup2 ro - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(("options", "expected"), [("rw", False), ("ro", True)])
def test_a_mount_that_is_read_only_for_the_agent(options: str, *, expected: bool) -> None:
    """systemd makes it that for a unit with ProtectControlGroups=yes."""
    path = Path("/sys/fs/cgroup/vms/qmpmem/web1")
    assert cgroups.is_read_only(path, MOUNTS.format(options=options)) is expected
    later = MOUNTS.format(options="rw") + f"31 29 0:26 / /sys/fs/cgroup {options} - cgroup2 c rw\n"
    assert cgroups.is_read_only(path, later) is expected
    assert not cgroups.is_read_only(path, "nonsense\n")


def test_an_agent_that_may_not_write_is_named(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    group = guest(host, monkeypatch, memory_current="1\n", memory_reclaim="")
    monkeypatch.setattr(cgroups, "_agent", lambda _: 4711)
    (host.root / "proc/4711").mkdir()
    (host.root / "proc/4711/mountinfo").write_text(f"1 1 0:1 / {group.parent} ro - cgroup2 c rw\n")
    assert "read-only for the agent, pid 4711" in said(host).said
    assert "ProtectControlGroups=no" in str(said(host).todo)
