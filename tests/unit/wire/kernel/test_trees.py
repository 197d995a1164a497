"""Readers of /proc and /sys on the recorded trees of four kernels, whole and damaged.

Rules of this file:
    What is expected of a tree is read from its files in another way than the readers do, or stands
    here as a literal. The trees themselves are never changed; damage is done to copies.
"""

import asyncio
import re
import shutil
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
import pytest
from blockbuster import BlockingError
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.errors import KernelError
from qmpmem.ksm import status_report
from qmpmem.model.ksm import KsmState
from qmpmem.records import Record, replace
from qmpmem.wire import kernel
from qmpmem.wire.kernel import cgroup, files, host, ksm, pressure
from tests.rig import chance
from tests.rig.memory import memory_directory

TREES: Final = Path(__file__).parents[3] / "data/kernels"
MIB: Final = 1 << 20

SINCE_6_8: Final = frozenset(
    {
        *("advisor_max_cpu", "advisor_max_pages_to_scan", "advisor_min_pages_to_scan"),
        *("advisor_mode", "advisor_target_scan_time", "general_profit", "ksm_zero_pages"),
        *("pages_scanned", "pages_skipped", "smart_scan"),
    }
)
LACKS: Final[Mapping[str, frozenset[str]]] = {
    "5.10": SINCE_6_8,
    "6.1": SINCE_6_8,
    "6.12": frozenset(),
    "6.18": frozenset(),
}
"""What each kernel's KSM does not have; literal, so that a bad recording cannot excuse itself."""


@dataclass(frozen=True, slots=True)
class Tree:
    """What one kernel showed in one state."""

    version: str
    state: str
    root: Path

    @property
    def group(self) -> Path:
        above = "sys/fs/cgroup/memory" if self.version == "6.18" else "sys/fs/cgroup"
        return self.root / above / "qmrecord/guest"

    @property
    def pids(self) -> dict[str, int]:
        """Map the names of the two processes to their pids."""
        found = (self.root / "proc").glob("[0-9]*/comm")
        return {path.read_text().strip(): int(path.parent.name) for path in found}

    @property
    def thread(self) -> int:
        return self.pids["ksmd"]

    @property
    def process(self) -> int:
        [pid] = {pid for comm, pid in self.pids.items() if comm != "ksmd"}
        return pid

    def text(self, name: str) -> str:
        return (self.root / name).read_text()


ALL: Final = [
    Tree(version, state, TREES / version / state)
    for version in LACKS
    for state in ("quiet", "merged")
]


def named(tree: Tree) -> str:
    return f"{tree.version}-{tree.state}"


@pytest.fixture(params=ALL, ids=named)
def tree(request: pytest.FixtureRequest) -> Tree:
    found: Tree = request.param
    return found


@pytest.fixture(params=[tree for tree in ALL if tree.state == "merged"], ids=named)
def merged(request: pytest.FixtureRequest) -> Tree:
    found: Tree = request.param
    return found


def state_of(root: Path) -> KsmState:
    state = ksm.state(root)
    assert state is not None
    return state


def known(record: Record) -> set[str]:
    return {name for name in record.__struct_fields__ if getattr(record, name) is not None}


# What each kernel must say.


def test_every_file_of_every_kernel_is_known_to_the_reader(tree: Tree) -> None:
    there = {path.name for path in (tree.root / ksm.DIRECTORY).iterdir()}
    assert there == {"run", "advisor_mode", *ksm.FILES} - LACKS[tree.version]


def test_ksm_is_read_as_it_stands_there(tree: Tree) -> None:
    state = state_of(tree.root)
    assert known(state) == set(KsmState.__struct_fields__) - LACKS[tree.version]
    for name in known(state) - {"page_size", "advisor_mode"}:
        assert str(getattr(state, name)) == tree.text(f"{ksm.DIRECTORY}/{name}").strip()


def test_before_the_first_merge_all_counts_are_nothing(tree: Tree) -> None:
    state = state_of(tree.root)
    counts = {
        getattr(state, name)
        for name in known(state)
        if name.startswith("pages_") and name != "pages_to_scan"
    }
    if tree.state == "quiet":
        assert (state.run, state.full_scans, counts) == (0, 0, {0})
        assert state.general_profit in (None, 0)
        assert state.advisor_mode in (None, "none")
    else:
        assert state.run == 1
        assert state.pages_shared is not None
        assert state.pages_sharing is not None
        assert state.pages_sharing > state.pages_shared > 0


def test_the_advisor_and_the_profit_are_seen_where_they_are(merged: Tree) -> None:
    state = state_of(merged.root)
    if merged.version in ("5.10", "6.1"):
        assert state.advisor_mode is None
        assert state.general_profit is None
    else:
        assert state.advisor_mode == "scan-time"
        assert state.general_profit is not None
        assert state.general_profit > 0


def test_memory_is_in_bytes(tree: Tree) -> None:
    def kib(name: str) -> int:
        [found] = re.findall(rf"(?m)^{name}: +(\d+) kB$", tree.text("proc/meminfo"))
        return int(found) * 1024

    seen = host.memory(tree.root)
    assert (seen.total, seen.available) == (kib("MemTotal"), kib("MemAvailable"))
    assert (seen.swap_total, seen.swap_free) == (kib("SwapTotal"), kib("SwapFree"))
    assert seen.total is not None
    assert seen.total > 200 * MIB


def test_splits_are_counted_since_5_19(tree: Tree) -> None:
    seen = host.counters(tree.root)
    assert (seen.swap_in, seen.swap_out, seen.oom_kills) == (0, 0, 0)
    assert seen.cow_ksm == (None if tree.version == "5.10" else 0)


@pytest.mark.parametrize("file", [pressure.MEMORY, pressure.IO])
def test_pressure_is_unknown_where_the_kernel_was_told_to_leave_it(tree: Tree, file: str) -> None:
    seen = pressure.pressure(file, tree.root)
    if tree.version == "5.10":  # booted with psi=0
        assert seen is None
        return
    assert seen is not None
    assert seen.full is not None
    totals = [int(word) for word in re.findall(r"total=(\d+)", tree.text(file))]
    assert [seen.some.total, seen.full.total] == totals


def test_pressure_of_a_group_is_read_alike(tree: Tree) -> None:
    seen = pressure.pressure("memory.pressure", tree.group)
    assert (seen is not None) == (tree.version in ("6.1", "6.12"))


def test_the_thread_that_merges_is_found(tree: Tree) -> None:
    assert ksm.ksmd(tree.root) == tree.thread
    used = ksm.cpu_time(tree.thread, tree.root)
    assert used is not None
    assert (used > 0) == (tree.state == "merged")
    assert ksm.cpu_time(tree.process, tree.root) is None


def test_a_process_that_calls_itself_so_is_not_that_thread(tree: Tree, tmp_path: Path) -> None:
    for pid, comm in ((1, "(ksmd)"), (tree.thread, "(other)")):
        (tmp_path / "proc" / str(pid)).mkdir(parents=True)
        source = tree.process if pid == 1 else tree.thread
        content = re.sub(r"\(.*\)", comm, tree.text(f"proc/{source}/stat"))
        (tmp_path / "proc" / str(pid) / "stat").write_text(content)
    assert ksm.ksmd(tmp_path) is None


def test_merging_of_a_process_is_told_in_more_detail_by_later_kernels(tree: Tree) -> None:
    seen = ksm.process(tree.process, tree.root)
    assert (
        known(seen)
        == {
            "5.10": set(),
            "6.1": {"merging_pages", "rmap_items"},
            "6.12": {"merging_pages", "rmap_items", "zero_pages", "profit"},
            "6.18": {"merging_pages", "rmap_items", "zero_pages", "profit", "mergeable"},
        }[tree.version]
    )
    if tree.version != "5.10":
        assert seen.merging_pages == int(tree.text(f"proc/{tree.process}/ksm_merging_pages"))
        assert bool(seen.merging_pages) == (tree.state == "merged")
    if tree.version == "6.18":
        assert seen.mergeable is True


def test_a_merged_process_costs_less_than_its_rss(tree: Tree) -> None:
    seen = ksm.cost(tree.process, tree.root)
    assert seen.rss is not None
    assert seen.proportional is not None
    assert seen.rss > 0
    assert seen.hugetlb == 0
    if tree.state == "merged":
        assert seen.proportional < seen.rss * 0.7
    if tree.version in ("5.10", "6.1"):
        assert seen.ksm is None
        return
    # Zeros that became the zero page are of no process any more, and not in its RSS.
    merging = ksm.process(tree.process, tree.root).merging_pages
    assert merging is not None
    assert seen.ksm == merging * 4096


def test_the_process_itself_is_read(tree: Tree) -> None:
    seen = kernel.process(tree.process, tree.root / "proc")
    assert seen is not None
    assert (seen.pid, seen.state) == (tree.process, "S")
    size = kernel.memory(tree.process, tree.root / "proc")
    assert size.swap == 0
    assert size.rss is not None
    assert size.rss > 8 * MIB
    nothing = kernel.Memory(rss=None, swap=None)
    assert kernel.memory(tree.thread, tree.root / "proc") == nothing


def test_of_the_limits_on_the_way_up_the_tightest_counts(tree: Tree) -> None:
    seen = cgroup.memory(tree.group)
    assert seen.headroom is not None
    assert seen.swap_usage == 0
    if tree.version == "6.18":  # 1 GiB, and 768 MiB above; memory with swap 1.5 GiB
        assert (seen.version, seen.limit, seen.swap_limit) == (1, 768 * MIB, 768 * MIB)
        assert seen.usage == int((tree.group / "memory.usage_in_bytes").read_text())
    else:  # memory.max 96 MiB, and memory.high 128 MiB above
        assert (seen.version, seen.limit, seen.swap_limit) == (2, 96 * MIB, 64 * MIB)
        assert seen.usage == int((tree.group / "memory.current").read_text())
        assert seen.headroom == 96 * MIB - seen.usage


def test_the_group_above_has_its_own_limit(tree: Tree) -> None:
    seen = cgroup.memory(tree.group.parent)
    assert seen.limit == (768 if tree.version == "6.18" else 128) * MIB
    assert seen.swap_limit is None


def test_the_root_group_has_no_limit_or_is_none(tree: Tree) -> None:
    root = tree.group.parents[1]
    if tree.version == "6.18":
        assert cgroup.memory(root).limit is None
        assert cgroup.memory(root).headroom is None
    else:
        with pytest.raises(KernelError, match="not a memory cgroup"):
            cgroup.memory(root)


# Features are known by their files.


@pytest.mark.parametrize("name", sorted(SINCE_6_8))
def test_a_file_that_was_ported_back_is_read(name: str, tmp_path: Path) -> None:
    root = copy_of("6.1", "merged", tmp_path / "root", ksm.DIRECTORY)
    before = state_of(root)
    shutil.copy(TREES / "6.18/merged" / ksm.DIRECTORY / name, root / ksm.DIRECTORY / name)
    value = getattr(state_of(TREES / "6.18/merged"), name)
    assert ksm.state(root) == replace(before, **{name: value})


def test_a_kernel_without_merging_is_no_error(tmp_path: Path) -> None:
    root = copy_of("6.18", "quiet", tmp_path / "root", ksm.DIRECTORY)
    shutil.rmtree(root / ksm.DIRECTORY)
    assert ksm.state(root) is None


def copy_of(version: str, state: str, into: Path, part: str = "") -> Path:
    """Copy a tree, or a directory of it."""
    shutil.copytree(TREES / version / state / part, into / part)
    return into


# Damage.

Look = Callable[[Tree], object]

LOOKS: Final[Mapping[str, Look]] = {
    "ksm": lambda tree: ksm.state(tree.root),
    "ksmd": lambda tree: ksm.ksmd(tree.root),
    "cpu": lambda tree: ksm.cpu_time(PID_OF_KSMD, tree.root),
    "merging": lambda tree: ksm.process(PID, tree.root),
    "cost": lambda tree: ksm.cost(PID, tree.root),
    "memory": lambda tree: host.memory(tree.root),
    "counters": lambda tree: host.counters(tree.root),
    "pressure": lambda tree: pressure.pressure(pressure.MEMORY, tree.root),
    "io": lambda tree: pressure.pressure(pressure.IO, tree.root),
    "of the group": lambda tree: pressure.pressure("memory.pressure", tree.group),
    "cgroup": lambda tree: cgroup.memory(tree.group),
    "process": lambda tree: kernel.process(PID, tree.root / "proc"),
    "size": lambda tree: kernel.memory(PID, tree.root / "proc"),
    "owner": lambda tree: kernel.owner(PID, tree.root / "proc"),
}
PID: Final = 101
PID_OF_KSMD: Final = 102
DAMAGED: Final = ("6.1", "6.12", "6.18")
"""Between them they have every file: the last has cgroup v1, and only the first needs
ksm_merging_pages, which ksm_stat repeats later."""


@dataclass(frozen=True, slots=True)
class Fragile(Tree):
    """A copy of a tree."""

    readers: Mapping[str, frozenset[str]]
    """Names of the looks that open a file, by its name."""


class Opening:
    """Hears which files are opened (Python's audit events)."""

    def __init__(self) -> None:
        self.paths: set[str] | None = None
        sys.addaudithook(self.hear)  # for good

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and self.paths is not None:
            self.paths.add(str(arguments[0]))

    def of(self, look: Look, tree: Tree) -> set[str]:
        """Name the files that one look at a tree opens."""
        self.paths = set()
        try:
            look(tree)
            return {Path(path).relative_to(tree.root).as_posix() for path in self.paths}
        finally:
            self.paths = None


@pytest.fixture(scope="module")
def opening() -> Opening:
    return Opening()


@pytest.fixture(scope="module", params=DAMAGED)
def fragile(request: pytest.FixtureRequest, opening: Opening) -> Iterator[Fragile]:
    """Copy a tree, with pids that do not change when it is recorded again."""
    version: str = request.param
    with memory_directory() as directory:
        tree = Tree(version, "merged", copy_of(version, "merged", directory / "root"))
        (tree.root / f"proc/{tree.process}").rename(tree.root / f"proc/{PID}")
        (tree.root / f"proc/{tree.thread}").rename(tree.root / f"proc/{PID_OF_KSMD}")
        opened = {name: opening.of(look, tree) for name, look in LOOKS.items()}
        yield Fragile(
            version=version,
            state="merged",
            root=tree.root,
            readers={
                file: frozenset(name for name, files in opened.items() if file in files)
                for file in FILES[version]
            },
        )


def files_of(version: str) -> list[str]:
    root = TREES / version / "merged"
    tree = Tree(version, "merged", root)
    pids = {str(tree.process): str(PID), str(tree.thread): str(PID_OF_KSMD)}
    names = (path.relative_to(root).parts for path in root.rglob("*") if path.is_file())
    return sorted("/".join(pids.get(part, part) for part in parts) for parts in names)


FILES: Final = {version: files_of(version) for version in DAMAGED}


@contextmanager
def damaged(path: Path, content: bytes) -> Generator[None]:
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(whole)


def look_at_everything(tree: Tree, names: Iterable[str] = LOOKS) -> dict[str, object]:
    """Read all; what is odd may only be unknown or a KernelError, and the rest can be shown."""
    seen: dict[str, object] = {}
    for name in names:
        try:
            seen[name] = LOOKS[name](tree)
        except KernelError as error:
            assert_is_one_line(error.message)
            continue
        assert_is_sane(seen[name])
    return seen


def look_at_damage(tree: Fragile, file: str) -> None:
    """Read what is read from a file: what does not open it cannot see what is in it."""
    look_at_everything(tree, tree.readers[file])


def assert_is_one_line(message: str) -> None:
    assert "\n" not in message
    assert len(message) < 300
    message.encode()


def assert_is_sane(value: object) -> None:
    if isinstance(value, kernel.Process):
        value = replace(value, comm="")  # any bytes, as the process likes
    msgspec.json.encode(value)
    if isinstance(value, Record):
        for name in value.__struct_fields__:
            each = getattr(value, name)
            if name not in ("general_profit", "profit"):
                assert_is_sane(each)
    elif isinstance(value, int | float):
        assert value >= 0


ODD: Final = (
    *(b"", b"-", b"-1", b"-0", b"+1", b"_1", b"1_0", b"0x10", b"1.5", b"1e9", b"nan", b"max"),
    *(b"9" * 19, b"9" * 20, b"9" * 21, b"9" * 5000, b"1 kB", b"kB", b":", b"(", b")", b" ", b"\n"),
    *(b"[]", b"[", b"[\xff]", b"\xff\xfe", b"\0", "²".encode(), "٣".encode()),
)


OF_INTEREST: Final = re.compile(
    rb"(?m)^(Mem(Total|Available)|Swap(Total|Free)|pswp|cow_|oom_kill |VmRSS|VmSwap|Uid|Rss|Pss:"
    rb"|KSM|(total_)?(in)?active_file).*\n"
)
"""Lines that a reader looks at, in files of which the readers skip most."""

EACH_KIND: Final = {
    "6.1": (f"proc/{PID}/ksm_merging_pages",),
    "6.12": (
        *(f"{ksm.DIRECTORY}/{name}" for name in ("run", "pages_shared")),
        *(f"{ksm.DIRECTORY}/{name}" for name in ("general_profit", "advisor_mode")),
        *("proc/meminfo", "proc/vmstat", "proc/pressure/memory", f"proc/{PID_OF_KSMD}/stat"),
        *(f"proc/{PID}/{name}" for name in ("stat", "status", "ksm_stat", "smaps_rollup")),
        *(f"sys/fs/cgroup/qmrecord/{name}" for name in ("guest/memory.current", "memory.max")),
        *(f"sys/fs/cgroup/qmrecord/{name}" for name in ("guest/memory.stat", "memory.high")),
        "sys/fs/cgroup/qmrecord/guest/memory.swap.max",
    ),
    "6.18": (
        "sys/fs/cgroup/memory/qmrecord/guest/memory.memsw.usage_in_bytes",
        "sys/fs/cgroup/memory/qmrecord/memory.limit_in_bytes",
        "sys/fs/cgroup/memory/qmrecord/memory.stat",
    ),
}


@cache
def spoiled(whole: bytes) -> st.SearchStrategy[bytes]:
    """Ways to spoil a file: cut off, one word or byte of it changed, or all of it."""
    lines = [match.span() for match in OF_INTEREST.finditer(whole)] or [(0, len(whole))]
    words = [
        (start + match.start(), start + match.end())
        for start, end in lines
        for match in re.finditer(rb"\d+|\S+", whole[start:end])
    ]
    ends = sorted({at for start, end in lines for at in range(start, end + 1)})
    return st.one_of(
        st.sampled_from(ends).map(lambda at: whole[:at]),
        st.sampled_from(ends).flatmap(lambda at: st.binary(max_size=3).map(_put(whole, (at, at)))),
        st.sampled_from(words or [(0, 0)]).flatmap(
            lambda span: st.sampled_from(ODD).map(_put(whole, span))
        ),
        st.binary(max_size=300),
        st.lists(st.sampled_from(ODD), max_size=30).map(b" ".join),
    )


def _put(whole: bytes, span: tuple[int, int]) -> Callable[[bytes], bytes]:
    return lambda new: whole[: span[0]] + new + whole[span[1] :]


@pytest.mark.parametrize(
    ("fragile", "name"),
    [(version, name) for version, names in EACH_KIND.items() for name in names],
    indirect=["fragile"],
)
@given(data=st.data())
def test_damage_is_unknown_or_an_error_of_the_kernel(
    fragile: Fragile, name: str, data: st.DataObject
) -> None:
    path = fragile.root / name
    with damaged(path, data.draw(spoiled(path.read_bytes()))):
        look_at_damage(fragile, name)


def test_an_undamaged_tree_can_be_read_in_full(fragile: Tree) -> None:
    seen = look_at_everything(fragile)
    unknown = {name for name in LOOKS if seen.get(name) is None}
    assert unknown == ({"of the group"} if fragile.version == "6.18" else set())


@pytest.mark.parametrize("fragile", ["6.18"], indirect=True)
@pytest.mark.parametrize("name", ["advisor_mode", *ksm.FILES])
def test_a_file_less_is_a_field_less_and_nothing_else(fragile: Fragile, name: str) -> None:
    before = state_of(fragile.root)
    aside = (fragile.root / ksm.DIRECTORY / name).rename(fragile.root / "aside")
    try:
        assert ksm.state(fragile.root) == replace(before, **{name: None})
    finally:
        aside.rename(fragile.root / ksm.DIRECTORY / name)


def test_every_kind_of_file_is_read(fragile: Fragile) -> None:
    assert all(fragile.readers[name] for name in EACH_KIND[fragile.version])


HUGE: Final = files.LIMIT + (1 << 20)


@pytest.mark.parametrize("fragile", DAMAGED, indirect=True)
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"9" * 5000, id="one huge number"),
        pytest.param(bytes(range(256)) * 40, id="binary"),
        pytest.param(b"-1\n", id="negative"),
        pytest.param(b"18446744073709551616\n", id="over 64 bits"),
    ],
)
def test_every_file_may_hold_garbage(fragile: Fragile, content: bytes) -> None:
    for name in FILES[fragile.version]:
        with damaged(fragile.root / name, content):
            look_at_damage(fragile, name)


@pytest.mark.parametrize("fragile", DAMAGED, indirect=True)
@pytest.mark.parametrize("digits", [False, True])
def test_every_kind_of_file_may_be_huge(fragile: Fragile, *, digits: bool) -> None:
    for name in chance.drawn(4, EACH_KIND[fragile.version], f"huge {digits}"):
        path = fragile.root / name
        piece = b"9" if digits else path.read_bytes()
        with damaged(path, piece * (HUGE // len(piece))):
            look_at_damage(fragile, name)


@pytest.mark.parametrize("rest", ["", "\t", "\tmax", "\t-1 kB", "\t² kB", "\t7", "\t7 MB"])
def test_a_size_is_digits_and_its_unit(rest: str) -> None:
    assert host.parse_meminfo(f"MemTotal:{rest}\n").total is None
    assert kernel.parse_memory(f"VmRSS:{rest}\n").rss is None
    assert ksm.parse_cost(f"Rss:{rest}\n").rss is None


@pytest.mark.parametrize("rest", ["", "\t0", "\t0\t0", "\t0\tmax\t0\t0", "\t0\t-1\t0\t0"])
def test_an_owner_is_the_second_of_four_numbers(rest: str) -> None:
    assert kernel.parse_owner(f"Uid:{rest}\n") is None
    assert kernel.parse_owner("Uid:\t1\t2\t3\t4\n") == 2


@pytest.mark.parametrize(
    ("state", "start"),
    [("SS", "22"), ("\udc80", "22"), ("S", "max"), ("S", "-1"), ("S", "9" * 5000)],
)
def test_a_process_has_a_letter_for_its_state_and_a_start(state: str, start: str) -> None:
    line = f"7 (a) {state} {'0 ' * 18}{start} 0 0\n"
    assert kernel.parse_stat(line) is None
    assert kernel.parse_stat(line.replace(f" {state} ", " S ").replace(f" {start} ", " 22 "))


def test_a_name_stays_on_its_line_where_the_true_lines_are_missing() -> None:
    zombie = "Name:\t\vVmRSS:\t7 kB\nState:\tZ (zombie)\n"
    assert kernel.parse_memory(zombie).rss is None
    assert kernel.parse_owner(zombie.replace("VmRSS:\t7 kB", "Uid:\t7\t7\t7\t7")) is None


LINE: Final = "avg10={} avg60=0.00 avg300=0.00 total=5"


@pytest.mark.parametrize(
    "content",
    [
        "full " + LINE.format("1.00"),
        "some " + LINE.format("100.01"),
        "some " + LINE.format("-1.00"),
        "some " + LINE.format("nan"),
        "some " + LINE.format("1.00") + "0" * 20,
    ],
)
def test_pressure_is_a_share_of_some_time(content: str) -> None:
    assert pressure.parse_pressure(content + "\n") is None
    assert pressure.parse_pressure("some " + LINE.format("100.00")) is not None


def test_ksm_does_three_things(tmp_path: Path) -> None:
    root = copy_of("6.18", "quiet", tmp_path / "root", ksm.DIRECTORY)
    (root / ksm.DIRECTORY / "run").write_text("2\n")
    assert state_of(root).run == 2
    (root / ksm.DIRECTORY / "run").write_text("3\n")
    with pytest.raises(KernelError, match="expected 0, 1 or 2, got '3'"):
        ksm.state(root)


@pytest.mark.parametrize("name", ["memory.current", "memory.max", "memory.swap.max"])
def test_a_group_that_opens_and_does_not_read_is_gone(name: str, tmp_path: Path) -> None:
    tree = Tree("6.12", "quiet", copy_of("6.12", "quiet", tmp_path / "root", "sys/fs"))
    (tree.group / name).unlink()
    (tree.group / name).symlink_to("/proc/self/mem")  # EIO: nothing is mapped at 0
    with pytest.raises(KernelError, match=f"{name}: cannot be read"):
        cgroup.memory(tree.group)


def test_no_more_is_read_than_such_a_file_can_hold(tmp_path: Path) -> None:
    with (tmp_path / "vmstat").open("wb") as file:
        file.truncate(64 * MIB)
    content = files.read(tmp_path / "vmstat")
    assert content is not None
    assert len(content) == files.LIMIT


@pytest.mark.parametrize("remains", ["directory", "nothing", "link to nowhere"])
def test_every_file_may_be_gone_or_no_file(fragile: Tree, remains: str) -> None:
    for name in FILES[fragile.version]:
        path = fragile.root / name
        aside = path.rename(fragile.root / "aside")
        try:
            if remains == "directory":
                path.mkdir()
            elif remains == "link to nowhere":
                path.symlink_to("nowhere")
            look_at_everything(fragile)
        finally:
            if path.is_dir():
                path.rmdir()
            path.unlink(missing_ok=True)
            aside.rename(path)


@pytest.mark.parametrize("name", ["proc", "sys", ksm.DIRECTORY, f"proc/{PID}", "proc/pressure"])
@pytest.mark.parametrize("remains", ["file", "nothing"])
def test_every_directory_may_be_gone_or_a_file(fragile: Tree, name: str, remains: str) -> None:
    path = fragile.root / name
    aside = path.rename(fragile.root / "aside")
    try:
        if remains == "file":
            path.touch()
        look_at_everything(fragile)
    finally:
        path.unlink(missing_ok=True)
        aside.rename(path)


def test_a_negative_count_is_never_taken_for_one(tree: Tree, tmp_path: Path) -> None:
    root = copy_of(tree.version, tree.state, tmp_path / "root", ksm.DIRECTORY)
    for path in (root / ksm.DIRECTORY).iterdir():
        if path.name in ("general_profit", "advisor_mode"):
            continue
        whole = path.read_bytes()
        path.write_bytes(b"-" + whole)
        with pytest.raises(KernelError, match=path.name):
            ksm.state(root)
        path.write_bytes(whole)


def test_a_loss_is_a_negative_profit(tmp_path: Path) -> None:
    root = copy_of("6.18", "merged", tmp_path / "root", ksm.DIRECTORY)
    (root / ksm.DIRECTORY / "general_profit").write_text("-4096\n")
    assert state_of(root).general_profit == -4096


# Reading blocks, and not the loop.


async def test_all_of_ksm_is_surveyed_beside_the_loop(merged: Tree, tmp_path: Path) -> None:
    place = status_report.KsmSource(tmp_path, merged.root)
    report = await status_report.survey([], place, seconds=0)
    assert report.state == await asyncio.to_thread(ksm.state, merged.root)


@pytest.mark.parametrize("name", LOOKS)
@pytest.mark.parametrize("fragile", ["6.12"], indirect=True)
async def test_a_reader_inside_a_coroutine_is_caught(fragile: Tree, name: str) -> None:
    with pytest.raises(BlockingError):
        LOOKS[name](fragile)
    await asyncio.to_thread(LOOKS[name], fragile)
