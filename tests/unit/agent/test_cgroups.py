"""Groups of guests alone, and what they count: version 2, and version 1 beside a bare version 2."""

import asyncio
import os
from pathlib import Path
from typing import Final

import pytest

from qmpmem.agent.cgroup_usage import CgroupUsage, CgroupUse, parse
from qmpmem.agent.cgroups import JUDGED, CgroupFinder, OwnCgroups
from qmpmem.agent.host_reader import HostReader
from qmpmem.units import GIB, MIB, Bytes
from qmpmem.wire.kernel import cgroup

V2_ROOT: Final = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID: Final = (
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
TREES: Final = Path(__file__).parents[2] / "data/kernels"
CALM: Final = "avg10=0.00 avg60=0.00 avg300=0.00 total"
AGENT: Final = "system.slice/agent.service"


class Tree:
    """A root with processes and groups; sizes in MiB."""

    def __init__(self, root: Path, mounts: str) -> None:
        self.root = root
        self.is_hybrid = mounts == HYBRID
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/mountinfo").write_text(mounts)
        (root / "proc/meminfo").write_text("MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n")
        (root / "proc/pressure").mkdir()
        (root / "proc/pressure/memory").write_text(f"some {CALM}=1\nfull {CALM}=1\n")
        self.group(".", pids=())
        self.put("self", AGENT, 40)
        self.group(AGENT, pids=(1,), held=40)

    def put(self, pid: int | str, name: str, rss: int, *, merged: int = 0) -> None:
        """Have a process in a group, of both hierarchies; `merged` pages of it are."""
        place = self.root / f"proc/{pid}"
        place.mkdir(exist_ok=True)
        lines = f"5:devices:/x\n4:memory:/{name}\n" if self.is_hybrid else ""
        (place / "cgroup").write_text(f"{lines}0::/{name}\n")
        size = rss * 1024
        (place / "status").write_text(
            f"State:\tS (x)\nVmRSS:\t{size} kB\nVmSwap:\t0 kB\nRssAnon:\t{size} kB\n"
            "RssFile:\t0 kB\nRssShmem:\t0 kB\n"
        )
        (place / "ksm_merging_pages").write_text(f"{merged}\n")

    def group(
        self,
        name: str,
        pids: tuple[int, ...],
        held: int = 0,
        *,
        swap: int = 0,
        stalled: int = 0,
    ) -> None:
        """Have a group in both hierarchies, with as much file cache again as it holds."""
        members = "".join(f"{pid}\n" for pid in pids)
        cache = f"inactive_file {held * MIB}\nactive_file 0\n"
        waits = self.waits(name)
        waits.mkdir(parents=True, exist_ok=True)
        (waits / "cgroup.procs").write_text(members)
        (waits / "cgroup.type").write_text("domain\n")
        text = f"some {CALM}={stalled}\nfull {CALM}=0\n"
        (waits / "memory.pressure").write_text(text)
        memory = self.memory(name)
        memory.mkdir(parents=True, exist_ok=True)
        if self.is_hybrid:
            (memory / "cgroup.procs").write_text(members)
            (memory / "memory.usage_in_bytes").write_text(f"{2 * held * MIB}\n")
            (memory / "memory.limit_in_bytes").write_text("9223372036854771712\n")
            own = f"cache 5\nrss 7\ntotal_cache {held * MIB}\n{cache}"
            (memory / "memory.stat").write_text(
                f"{own}total_rss {held * MIB}\ntotal_shmem 0\ntotal_swap {swap * MIB}\n"
            )
        elif name != ".":
            (memory / "memory.current").write_text(f"{2 * held * MIB}\n")
            (memory / "memory.swap.current").write_text(f"{swap * MIB}\n")
            (memory / "memory.stat").write_text(
                f"anon {(held - 2) * MIB}\nfile {held * MIB}\nkernel {MIB}\nshmem {MIB}\n{cache}"
            )

    def memory(self, name: str) -> Path:
        return self.root / f"sys/fs/cgroup/{'memory/' if self.is_hybrid else ''}{name}"

    def waits(self, name: str) -> Path:
        return self.root / f"sys/fs/cgroup/{'unified/' if self.is_hybrid else ''}{name}"

    def own(self, name: str) -> OwnCgroups:
        version = 1 if self.is_hybrid else 2
        return OwnCgroups(memory=self.memory(name), version=version, waits=self.waits(name))


@pytest.fixture(params=["version 2", "both"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    made = Tree(tmp_path, V2_ROOT if request.param == "version 2" else HYBRID)
    made.put(7, "vms.slice/web1.scope", 300)
    made.put(8, "vms.slice/web2.scope", 300)
    made.group("vms.slice", pids=())
    made.group("vms.slice/web1.scope", (7,), 310, swap=5, stalled=123)
    made.group("vms.slice/web2.scope", (8,), 310)
    return made


def find(tree: Tree, *pids: int) -> dict[int, OwnCgroups]:
    groups = CgroupFinder(tree.root)
    groups.ceilings(pids, groups.ours())
    return dict(groups.own)


def test_a_group_with_one_guest_is_that_guest_s_own(tree: Tree) -> None:
    assert find(tree, 7, 8) == {
        7: tree.own("vms.slice/web1.scope"),
        8: tree.own("vms.slice/web2.scope"),
    }


def shared(tree: Tree) -> None:
    tree.put(8, "vms.slice/web1.scope", 300)


def above_another(tree: Tree) -> None:
    tree.put(8, "vms.slice/web1.scope/inner", 300)
    tree.group("vms.slice/web1.scope/inner", (8,), 310)


def with_the_agent(tree: Tree) -> None:
    tree.put("self", "vms.slice/web1.scope", 40)


def above_the_agent(tree: Tree) -> None:
    tree.put("self", "vms.slice/web1.scope/agent", 40)
    tree.group("vms.slice/web1.scope/agent", (1,), 40)


def in_the_root(tree: Tree) -> None:
    tree.put(7, "", 300)
    tree.group(".", (7,), 310)


def with_a_large_program(tree: Tree) -> None:
    tree.put(99, "vms.slice/web1.scope", 65)
    tree.group("vms.slice/web1.scope", (7, 99), 310)


def with_one_below(tree: Tree) -> None:
    tree.put(99, "vms.slice/web1.scope/build", 65)
    tree.group("vms.slice/web1.scope/build", (99,), 65)


def with_many(tree: Tree) -> None:
    for pid in range(100, 120):
        tree.put(pid, "vms.slice/web1.scope", 0)
    tree.group("vms.slice/web1.scope", (7, *range(100, 120)), 310)


def with_one_that_cannot_be_seen(tree: Tree) -> None:
    tree.group("vms.slice/web1.scope", (7, 0), 310)


def of_a_process_that_left(tree: Tree) -> None:
    tree.group("vms.slice/web1.scope", (), 310)


def of_an_agent_that_is_nowhere(tree: Tree) -> None:
    (tree.root / "proc/self/cgroup").unlink()


@pytest.mark.parametrize(
    "change",
    [
        shared,
        above_another,
        with_the_agent,
        above_the_agent,
        in_the_root,
        with_a_large_program,
        with_one_below,
        with_many,
        with_one_that_cannot_be_seen,
        of_a_process_that_left,
        of_an_agent_that_is_nowhere,
    ],
)
def test_a_group_with_other_processes_is_no_guests(tree: Tree, change: object) -> None:
    assert callable(change)
    assert 7 in find(tree, 7, 8)
    change(tree)
    assert 7 not in find(tree, 7, 8)


def test_a_shell_beside_the_guest_does_not_matter(tree: Tree) -> None:
    tree.put(99, "vms.slice/web1.scope", 60)
    tree.group("vms.slice/web1.scope", (7, 99), 310)
    assert find(tree, 7, 8)[7] == tree.own("vms.slice/web1.scope")


@pytest.mark.parametrize(
    ("held", "merged", "counts"), [(256, 0, True), (250, 0, False), (100, 50_000, True)]
)
def test_a_guest_that_was_moved_in_is_not_counted_there(
    tree: Tree, held: int, merged: int, *, counts: bool
) -> None:
    tree.put(7, "vms.slice/web1.scope", 300, merged=merged)
    tree.group("vms.slice/web1.scope", (7,), held)
    own = find(tree, 7)[7]
    assert (own.memory is not None, own.waits is not None) == (counts, True)


def test_another_guest_that_comes_is_seen_at_once(tree: Tree) -> None:
    groups = CgroupFinder(tree.root)
    others = tuple(range(100, 200))
    for pid in others:
        tree.put(pid, f"vms.slice/{pid}.scope", 300)
        tree.group(f"vms.slice/{pid}.scope", (pid,), 310)
    for _ in range(5):
        groups.ceilings((7, *others), groups.ours())
    assert 7 in groups.own
    shared(tree)
    groups.ceilings((7, *others, 8), groups.ours())
    assert {7, 8} & set(groups.own) == set()
    groups.ceilings((7, *others), groups.ours())
    assert 7 in groups.own


def test_none_is_a_guest_s_own_until_it_is_known_where_all_are(tree: Tree) -> None:
    groups = CgroupFinder(tree.root)
    others = tuple(range(100, 150))
    for pid in others:
        tree.put(pid, "vms.slice/many.scope", 300)
    groups.ceilings((7, *others), groups.ours())
    assert groups.own == {}
    groups.ceilings((7, *others), groups.ours())
    assert set(groups.own) == {7}


def test_threads_of_a_process_have_groups_but_the_process_s_own_counts(tmp_path: Path) -> None:
    tree = Tree(tmp_path, V2_ROOT)
    tree.put(7, "vm.scope/emulator", 300)
    tree.group("vm.scope", (7,), 310)
    tree.group("vm.scope/emulator", ())
    (tree.waits("vm.scope/emulator") / "cgroup.type").write_text("threaded\n")
    for name in ("memory.current", "memory.stat", "cgroup.procs"):
        (tree.memory("vm.scope/emulator") / name).unlink()
    (tree.waits("vm.scope/emulator") / "cgroup.procs").write_text("")
    assert find(tree, 7) == {7: tree.own("vm.scope")}


def read(usage: CgroupUsage, own: dict[int, OwnCgroups], room: int = 100) -> dict[int, CgroupUse]:
    return dict(asyncio.run(usage.read(own, 1.0, room)))


def count_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a number is all we want


def test_what_groups_count_is_read_from_files_that_stay_open(tree: Tree) -> None:
    usage, own, before = CgroupUsage(), find(tree, 7, 8), count_files()
    assert read(usage, own)[7] == CgroupUse(held=Bytes(310 * MIB), swap=Bytes(5 * MIB), stalled=123)
    assert count_files() - before == (4 if tree.is_hybrid else 6)
    tree.group("vms.slice/web1.scope", (7,), 200, stalled=456)
    assert read(usage, own)[7] == CgroupUse(held=Bytes(200 * MIB), swap=Bytes(0), stalled=456)
    calm = CgroupUse(held=Bytes(310 * MIB), swap=Bytes(0), stalled=0)
    assert read(usage, {8: own[8]}, room=0) == {8: calm}
    assert count_files() == before, "guests need the descriptors"
    assert read(usage, {8: own[8]}, room=3) == {8: calm}
    usage.close()
    assert count_files() == before


def test_a_group_that_is_gone_counts_nothing(tree: Tree) -> None:
    usage, own = CgroupUsage(), find(tree, 7)
    (tree.waits("vms.slice/web1.scope") / "memory.pressure").unlink()
    assert read(usage, own) == {7: CgroupUse()}
    assert read(usage, {}) == {}


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "6.18"])
def test_what_recorded_kernels_say_adds_up(kernel: str) -> None:
    (group,) = (TREES / kernel).glob("merged/sys/fs/cgroup/**/qmrecord/guest")
    version = cgroup.version_of(group)
    stat = (group / cgroup.STAT).read_text()
    held, level = cgroup.held(stat, version), cgroup.level(group)
    assert held is not None
    assert 0 <= level.usage - level.reclaimable - held < 4 * MIB, "what is left is the kernel's"
    files = {cgroup.STAT: stat, cgroup.PRESSURE: f"some {CALM}=5\n"}
    if version.number != 1:
        files[version.swap_usage] = (group / version.swap_usage).read_text()
    assert parse(files, version.number) == CgroupUse(
        held=held, swap=Bytes(0), stalled=5, refaults=Bytes(0)
    )


@pytest.mark.parametrize("told", ["", "anon x\n", "some nonsense\n", "total_swap -1\n"])
@pytest.mark.parametrize("version", [None, 1, 2])
def test_odd_files_count_nothing(told: str, version: int | None) -> None:
    files = dict.fromkeys((cgroup.STAT, cgroup.PRESSURE, cgroup.V2.swap_usage), told)
    assert parse(files, version) == CgroupUse()


@pytest.mark.parametrize("name", [None, "vms.slice/web1.scope"])
def test_a_budget_of_version_2_has_waits_of_its_own(tmp_path: Path, name: str | None) -> None:
    tree = Tree(tmp_path, V2_ROOT)
    tree.group("vms.slice/web1.scope", (7,), 310, stalled=123)
    (tree.memory("vms.slice/web1.scope") / "memory.max").write_text(f"{GIB}\n")
    budget = None if name is None else str(tree.memory(name))
    seen = HostReader(tree.root, budget).read(Bytes(0)).host
    assert (seen.stalled, seen.some) == (1 if name is None else 123, 0.0)


def test_a_budget_of_version_1_has_the_host_s(tmp_path: Path) -> None:
    tree = Tree(tmp_path, HYBRID)
    tree.group("vms", (7,), 310, stalled=123)
    seen = HostReader(tree.root, str(tree.memory("vms"))).read(Bytes(0)).host
    assert (seen.stalled, seen.limited_by) == (1, str(tree.memory("vms")))


def test_a_guest_that_moves_has_other_groups_at_once_and_is_judged_there(tree: Tree) -> None:
    groups = CgroupFinder(tree.root)
    groups.ceilings((7, 8), groups.ours())
    tree.put(7, "vms.slice/new.scope", 300)
    tree.group("vms.slice/new.scope", (7,), 310)
    groups.ceilings((7, 8), groups.ours())
    assert groups.own[7] == tree.own("vms.slice/new.scope")


def test_what_changes_in_a_guest_s_group_is_seen_in_turn(tree: Tree) -> None:
    groups = CgroupFinder(tree.root)
    others = tuple(range(100, 100 + 5 * JUDGED))
    for pid in others:
        tree.put(pid, f"vms.slice/{pid}.scope", 300)
        tree.group(f"vms.slice/{pid}.scope", (pid,), 310)
    groups.ceilings((*others, 7), groups.ours())
    assert 7 in groups.own
    with_a_large_program(tree)
    for _ in range(6):
        groups.ceilings((*others, 7), groups.ours())
    assert 7 not in groups.own
    assert set(others) <= set(groups.own)


def test_controllers_that_are_switched_on_are_seen_in_turn(tmp_path: Path) -> None:
    tree = Tree(tmp_path, V2_ROOT)
    tree.put(7, "vm.scope", 300)
    tree.group("vm.scope", (7,), 310)
    stat = tree.memory("vm.scope") / "memory.current"
    content = stat.read_text()
    stat.unlink()
    groups = CgroupFinder(tree.root)
    groups.ceilings((7,), groups.ours())
    assert groups.own == {7: OwnCgroups(waits=tree.waits("vm.scope"))}
    stat.write_text(content)
    groups.ceilings((7,), groups.ours())
    assert groups.own == {7: tree.own("vm.scope")}
