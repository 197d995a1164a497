"""Memory limits that hold for a process: both versions of cgroups, containers, odd files."""

from pathlib import Path
from typing import Final

import pytest

from qmpmem.agent.cgroups import OVERHEAD, CgroupFinder
from qmpmem.agent.host_reader import HostReader
from qmpmem.doctor import Host
from qmpmem.doctor.kernel import check_limit
from qmpmem.units import GIB, MIB, Bytes
from qmpmem.wire.kernel import files, process_limits

V1_MOUNT: Final = "35 31 0:32 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
OTHER_MOUNT: Final = "34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
V2_MOUNT: Final = "41 31 0:38 {top} {point} rw - cgroup2 cgroup2 rw,nsdelegate\n"
UNIFIED: Final = "/sys/fs/cgroup/unified"
UNLIMITED: Final = 9223372036854771712


class Tree:
    """A root with cgroups; sizes in MiB."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc").mkdir(parents=True)
        (root / "proc/meminfo").write_text("MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n")

    def process(self, pid: int | str, text: str) -> None:
        (self.root / f"proc/{pid}").mkdir(exist_ok=True)
        (self.root / f"proc/{pid}/cgroup").write_text(text)

    def mounts(self, text: str) -> None:
        (self.root / "proc/self").mkdir(exist_ok=True)
        (self.root / "proc/self/mountinfo").write_text(text)

    def v1(self, path: str, usage: int, limit: int | None = None, *, above: int = 0) -> None:
        group = self._group(f"sys/fs/cgroup/memory/{path}")
        (group / "memory.usage_in_bytes").write_text(f"{usage * MIB}\n")
        size = UNLIMITED if limit is None else limit * MIB
        (group / "memory.limit_in_bytes").write_text(f"{size}\n")
        stat = f"hierarchical_memory_limit {above * MIB}\n" if above else ""
        (group / "memory.stat").write_text(f"total_inactive_file {MIB}\n{stat}")

    def v2(self, path: str, usage: int, limit: int | None = None, high: int | None = None) -> None:
        group = self._group(f"sys/fs/cgroup/{path}")
        (group / "memory.current").write_text(f"{usage * MIB}\n")
        for name, size in (("max", limit), ("high", high)):
            text = "max" if size is None else str(size * MIB)
            (group / f"memory.{name}").write_text(f"{text}\n")
        (group / "memory.stat").write_text("anon 5\n")

    def _group(self, name: str) -> Path:
        group = self.root / name.rstrip("/")
        group.mkdir(parents=True, exist_ok=True)
        return group

    def tightest(self, pid: int | str = "self") -> tuple[str, int, int] | None:
        found = process_limits.tightest(process_limits.groups(pid, self.root))
        if found is None:
            return None
        path = "/" + str(Path(found.path).relative_to(self.root / "sys/fs/cgroup"))
        return path, found.limit // MIB, found.headroom // MIB


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_version_1_beside_a_version_2_without_controllers(tree: Tree) -> None:
    tree.mounts(OTHER_MOUNT + V2_MOUNT.format(top="/", point=UNIFIED) + V1_MOUNT.format(top="/"))
    tree.process("self", "5:devices:/x\n4:memory:/a/b\n1:cpu:/\n0::/elsewhere\n")
    (tree.root / "sys/fs/cgroup/unified/elsewhere").mkdir(parents=True)
    tree.v1("", 900)
    tree.v1("a", 500, 700)
    tree.v1("a/b", 100, 650)
    assert tree.tightest() == ("/memory/a", 700, 201)


@pytest.mark.parametrize(
    ("limit", "high", "expected"),
    [(700, None, (700, 200)), (None, 600, (600, 100)), (700, 600, (600, 100))],
)
def test_version_2_and_its_two_limits(
    tree: Tree, limit: int | None, high: int | None, expected: tuple[int, int]
) -> None:
    tree.mounts(V2_MOUNT.format(top="/", point="/sys/fs/cgroup"))
    tree.process("self", "0::/vms.slice/agent.service\n")
    tree.v2("vms.slice", 500, limit, high)
    tree.v2("vms.slice/agent.service", 10)
    assert tree.tightest() == ("/vms.slice", *expected)


def test_a_group_whose_controller_is_not_on_does_not_end_the_way_up(tree: Tree) -> None:
    tree.mounts(V2_MOUNT.format(top="/", point="/sys/fs/cgroup"))
    tree.process("self", "0::/vms.slice/agent.service/main\n")
    tree.v2("vms.slice", 500, 700)
    (tree.root / "sys/fs/cgroup/vms.slice/agent.service/main").mkdir(parents=True)
    assert tree.tightest() == ("/vms.slice", 700, 200)


def test_in_a_namespace_the_root_is_the_container_s_own_group(tree: Tree) -> None:
    tree.mounts(V2_MOUNT.format(top="/", point="/sys/fs/cgroup"))
    tree.process("self", "0::/\n")
    tree.v2("", 300, 512)
    assert tree.tightest() == ("/.", 512, 212)


def test_without_a_namespace_the_mount_says_which_group_it_shows(tree: Tree) -> None:
    tree.mounts(V1_MOUNT.format(top="/docker/4711"))
    tree.process("self", "4:memory:/docker/4711/inner\n")
    tree.v1("", 300, 512)
    tree.v1("inner", 20)
    assert tree.tightest() == ("/memory", 512, 213)
    tree.process("self", "4:memory:/docker/47110\n")  # elsewhere: what is mounted has to do
    assert tree.tightest() == ("/memory", 512, 213)


def test_a_process_outside_of_our_namespace_is_taken_to_be_at_its_top(tree: Tree) -> None:
    tree.mounts(V2_MOUNT.format(top="/", point="/sys/fs/cgroup"))
    tree.process(7, "0::/../other\n")
    tree.v2("", 300, 512)
    assert tree.tightest(7) == ("/.", 512, 212)


def test_version_1_tells_of_a_limit_that_is_not_to_be_seen(tree: Tree) -> None:
    tree.mounts(V1_MOUNT.format(top="/"))
    tree.process("self", "4:memory:/a\n")
    tree.v1("a", 100, None, above=400)
    assert tree.tightest() == ("/memory/a", 400, 301)


@pytest.mark.parametrize(
    ("processes", "mounts"),
    [
        ("", ""),
        ("4:memory:/a\n", ""),
        ("", V1_MOUNT.format(top="/")),
        ("nonsense\n\n:\n::\n", "1 2\n - \n" + V1_MOUNT.format(top="/")),
        ("4:memory:/a\n", V1_MOUNT.format(top="/")),  # nothing is mounted there
        ("0::/a\n", V2_MOUNT.format(top="/", point=UNIFIED)),
    ],
)
def test_what_cannot_be_read_sets_no_limit(tree: Tree, processes: str, mounts: str) -> None:
    tree.mounts(mounts)
    tree.process("self", processes)
    assert tree.tightest() is None
    assert process_limits.groups(999, tree.root) == ()


@pytest.fixture
def limited(tree: Tree) -> Tree:
    """An agent in a service of its own, in a slice, and a guest in a scope beside it."""
    tree.mounts(V2_MOUNT.format(top="/", point="/sys/fs/cgroup"))
    tree.process("self", "0::/vms.slice/agent.service\n")
    tree.process(7, "0::/vms.slice/web1.scope\n")
    tree.process(8, "0::/vms.slice/web2.scope\n")
    tree.v2("vms.slice", 500, 1024)
    tree.v2("vms.slice/agent.service", 10, 64)
    tree.v2("vms.slice/web1.scope", 300, 400)
    tree.v2("vms.slice/web2.scope", 100)
    return tree


class TestBudget:
    def test_it_is_the_limit_that_holds_for_the_agent_and_all_guests(self, limited: Tree) -> None:
        seen = HostReader(limited.root).read(Bytes(0), (7, 8)).host
        assert (seen.limit, seen.headroom) == (GIB, 524 * MIB)
        assert str(seen.limited_by).endswith("/vms.slice")
        assert seen.total == 8 * GIB

    def test_a_limit_of_the_agent_s_service_is_none_of_the_guests(self, limited: Tree) -> None:
        assert HostReader(limited.root).read(Bytes(0), (7,)).host.limit == GIB
        assert HostReader(limited.root).read(Bytes(0), ()).host.limit == GIB

    def test_a_container_s_limit_holds_before_there_is_a_guest(self, limited: Tree) -> None:
        limited.process("self", "0::/vms.slice/web2.scope\n")
        limited.v2("vms.slice/web2.scope", 100, 64)
        assert HostReader(limited.root).read(Bytes(0), ()).host.limit == 64 * MIB

    def test_a_guest_elsewhere_lifts_it(self, limited: Tree) -> None:
        limited.process(9, "0::/user.slice\n")
        limited.v2("user.slice", 1)
        assert HostReader(limited.root).read(Bytes(0), (7, 9)).host.limit is None

    def test_a_budget_that_was_chosen_is_the_budget(self, limited: Tree) -> None:
        seen = HostReader(limited.root, Bytes(2 * GIB)).read(Bytes(0), (7,)).host
        assert (seen.limit, seen.limited_by) == (2 * GIB, None)

    def test_doctor_says_so(self, limited: Tree, tmp_path: Path) -> None:
        host = Host(root=tmp_path, run=tmp_path, environ={}, uid=0, groups=frozenset())
        (line,) = check_limit(host)
        assert (line.status, "64 MiB, 54 MiB left" in line.said) == ("warning", True)
        limited.v2("vms.slice/agent.service", 10)
        limited.v2("vms.slice", 500)
        (line,) = check_limit(host)
        assert line.status == "ok"


class TestCeilings:
    def test_a_guest_may_have_what_its_own_group_lets_it_have(self, limited: Tree) -> None:
        groups = CgroupFinder(limited.root)
        assert groups.ceilings((7, 8), groups.ours()) == {7: 400 * MIB - OVERHEAD}

    def test_what_changes_is_seen_and_a_process_that_is_gone_is_forgotten(
        self, limited: Tree
    ) -> None:
        groups = CgroupFinder(limited.root)
        groups.ceilings((7, 8), groups.ours())
        limited.v2("vms.slice/web1.scope", 300)
        limited.v2("vms.slice/web2.scope", 300, None, 256)
        assert groups.ceilings((7, 8), groups.ours()) == {8: 256 * MIB - OVERHEAD}
        assert groups.ceilings((7,), groups.ours()) == {}

    def test_many_are_looked_at_in_turn(self, limited: Tree) -> None:
        many = range(100, 200)
        for pid in many:
            limited.process(pid, "0::/vms.slice/web1.scope\n")
        groups = CgroupFinder(limited.root)
        for _ in range(5):
            found = groups.ceilings(tuple(many), groups.ours())
        assert set(found) == set(many)

    def test_the_table_of_mounts_is_read_once_in_a_round(
        self, limited: Tree, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []

        def read(path: Path | str) -> str | None:
            asked.append(str(path))
            return files.read(path)

        monkeypatch.setattr(process_limits, "read", read)
        surveyor = HostReader(limited.root)
        surveyor.read(Bytes(0), (7, 8))
        assert len([path for path in asked if path.endswith("mountinfo")]) == 1
        limited.mounts("")
        assert surveyor.read(Bytes(0), (7, 8)).ceilings == {}
