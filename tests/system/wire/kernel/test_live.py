"""The live kernel as the oracle: our numbers beside those of other programs.

Rules of this file:
    The other reading is another program's (free, ps, awk, grep), never Python's of the same file.
    What moves is read by the other one before and after, and ours must lie between.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from qmpmem.model.ksm import KsmState
from qmpmem.wire import kernel
from qmpmem.wire.kernel import cgroup, host, ksm, pressure
from tests.rig.qemu import short_directory, until

KIB: Final = 1 << 10
MIB: Final = 1 << 20

KSM: Final = Path("/") / ksm.DIRECTORY
needs_ksm = pytest.mark.skipif(not KSM.exists(), reason="this kernel cannot merge pages")
needs_pressure = pytest.mark.skipif(
    not Path("/proc/pressure/memory").exists(), reason="this kernel tells no pressure"
)


def says(*words: str) -> str:
    """Run another program and give what it writes."""
    environ = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environ)
    except FileNotFoundError:
        pytest.skip(f"missing: {words[0]}")
    return done.stdout.strip()


def awk(program: str, file: str) -> int:
    """Pick a number from a file; mawk's own print turns large ones into floats."""
    return int(says("awk", f'{program} {{ printf "%.0f", $2; exit }}', file))


def is_between(look: Callable[[], float | None], ask: Callable[[], int], *, slack: int = 0) -> bool:
    """Whether our number lies between two of the other's."""
    before, ours, after = ask(), look(), ask()
    assert ours is not None
    return min(before, after) - slack <= ours <= max(before, after) + slack


@contextmanager
def child(*words: str) -> Generator[int]:
    """Start a process that says a word and then waits for ever; yields its pid."""
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


# The host.


def test_memory_is_what_free_says() -> None:
    lines = [line.split() for line in says("free", "-b").splitlines()]
    memory, swap = lines[1], lines[2]
    seen = host.memory()
    assert (seen.total, seen.swap_total) == (int(memory[1]), int(swap[1]))


def test_available_memory_is_what_free_says() -> None:
    def ask() -> int:
        return int(says("free", "-b").splitlines()[1].split()[6])

    # It moves both ways while others work: look again before calling it wrong.
    until(
        lambda: is_between(lambda: host.memory().available, ask, slack=4 * MIB),
        what="what is available lies between two readings of free",
    )


def test_free_swap_is_what_free_says() -> None:
    def ask() -> int:
        return int(says("free", "-b").splitlines()[2].split()[3])

    until(lambda: is_between(lambda: host.memory().swap_free, ask, slack=4 * MIB))


@pytest.mark.parametrize(
    ("field", "name"), [("swap_in", "pswpin"), ("swap_out", "pswpout"), ("oom_kills", "oom_kill")]
)
def test_counters_are_what_awk_finds(field: str, name: str) -> None:
    size = 1 if name == "oom_kill" else int(says("getconf", "PAGESIZE"))
    assert is_between(
        lambda: getattr(host.counters(), field),
        lambda: awk(f'$1 == "{name}"', "/proc/vmstat") * size,
    )


def test_splits_are_known_where_this_kernel_counts_them() -> None:
    there = says("grep", "-c", "^[a-z]*", "/proc/vmstat") != "0" and "cow_ksm" in says(
        "awk", "{ print $1 }", "/proc/vmstat"
    )
    assert (host.counters().cow_ksm is not None) == there


@needs_pressure
@pytest.mark.parametrize("file", [pressure.MEMORY, pressure.IO])
@pytest.mark.parametrize("kind", ["some", "full"])
def test_pressure_is_what_grep_finds(file: str, kind: str) -> None:
    def ask() -> int:
        return int(says("grep", f"^{kind} ", f"/{file}").rpartition("total=")[2])

    def look() -> int:
        seen = pressure.pressure(file)
        assert seen is not None
        line = seen.some if kind == "some" else seen.full
        assert line is not None
        assert all(0 <= share <= 100 for share in (line.avg10, line.avg60, line.avg300))
        return line.total

    assert is_between(look, ask)


@needs_pressure
def test_a_trigger_is_granted_or_known_not_to_be() -> None:
    with pressure.trigger(1_900_000) as descriptor:
        # All but the whole of two seconds in which something waited for memory: not on this host.
        assert descriptor is None or pressure.wait(descriptor, 0) is False


def counters() -> Iterator[int]:
    """List all that may only grow."""
    seen = host.counters()
    yield from (seen.swap_in or 0, seen.swap_out or 0, seen.cow_ksm or 0, seen.oom_kills or 0)
    for file in (pressure.MEMORY, pressure.IO):
        stalled = pressure.pressure(file)
        if stalled is not None and stalled.full is not None:
            yield from (stalled.some.total, stalled.full.total)
    state, thread = ksm.state(), ksm.ksmd()
    if state is not None and thread is not None:
        yield from (state.full_scans or 0, state.pages_scanned or 0)
        yield round((ksm.cpu_time(thread) or 0) * 100)


def test_counters_only_grow() -> None:
    looks = [list(counters()) for _ in range(50)]
    for before, after in pairwise(looks):
        assert all(new >= old for old, new in zip(before, after, strict=True))


# Merging.


@needs_ksm
def test_every_file_that_this_kernel_has_is_known() -> None:
    there = set(says("ls", str(KSM)).split())
    new = there - {"run", ksm.MODE, *ksm.FILES}
    assert not new, f"this kernel tells more than KsmState can hold: {sorted(new)}"


@needs_ksm
def test_a_field_is_unknown_where_this_kernel_has_no_file() -> None:
    there = set(says("ls", str(KSM)).split()) | {"page_size"}
    seen = ksm.state()
    assert seen is not None
    assert there == {name for name in KsmState.__struct_fields__ if getattr(seen, name) is not None}


@needs_ksm
def test_what_does_not_move_is_what_grep_finds() -> None:
    def ask() -> dict[str, str]:
        lines = says("grep", "-r", "", str(KSM)).splitlines()
        return dict(line.removeprefix(f"{KSM}/").split(":", 1) for line in lines)

    before, seen, after = ask(), ksm.state(), ask()
    still = {name: word for name, word in before.items() if after[name] == word}
    assert "merge_across_nodes" in still
    for name, word in still.items():
        ours = getattr(seen, name)
        assert f"[{ours}]" in word if name == ksm.MODE else str(ours) == word


@needs_ksm
def test_the_thread_that_merges_is_the_one_that_ps_finds() -> None:
    listed = [line.split() for line in says("ps", "-e", "-o", "pid=,ppid=,comm=").splitlines()]
    # All kernel threads are kthreadd's, which is process 2; a container does not see them.
    found = [int(pid) for pid, parent, *name in listed if parent == "2" and name == ["ksmd"]]
    expected = found[0] if found else None
    assert ksm.ksmd() == expected
    if expected is None:
        return
    assert is_between(
        lambda: ksm.cpu_time(expected),
        lambda: int(says("ps", "-o", "cputimes=", "-p", str(expected))),
        slack=1,
    )


MERGEABLE: Final = """
import mmap, sys
memory = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
if sys.argv[1] == "ask":
    memory.madvise(mmap.MADV_MERGEABLE)
memory.write(b"x" * (1 << 20))
print("ready", flush=True)
sys.stdin.read()
"""


@needs_ksm
@pytest.mark.parametrize("word", ["ask", "nothing"])
def test_merging_of_a_process_is_what_awk_finds(word: str) -> None:
    with child(sys.executable, "-c", MERGEABLE, word) as pid:
        file = Path(f"/proc/{pid}/ksm_stat")
        if not (file.exists() and os.access(file, os.R_OK)):
            pytest.skip("this kernel tells nothing of a process, or only root")
        there = dict(
            line.split() for line in says("awk", "{ print $1, $2 }", str(file)).splitlines()
        )
        seen = ksm.process(pid)
        if "ksm_mergeable:" in there:
            assert seen.mergeable is (word == "ask")
            assert there["ksm_mergeable:"] == ("yes" if seen.mergeable else "no")
        assert is_between(
            lambda: ksm.process(pid).merging_pages,
            lambda: int(says("cat", f"/proc/{pid}/ksm_merging_pages")),
        )


# Processes.


def test_what_a_process_costs_is_what_ps_and_the_sum_of_its_parts_say() -> None:
    with child(sys.executable, "-c", MERGEABLE, "nothing") as pid:

        def total(name: str) -> int:
            program = f'$1 == "{name}:" {{ all += $2 }} END {{ print all }}'
            return int(says("awk", program, f"/proc/{pid}/smaps")) * KIB

        assert is_between(lambda: ksm.cost(pid).rss, lambda: total("Rss"), slack=MIB)
        # Of each part Pss is rounded down to a KiB, and shares change as processes start and end.
        assert is_between(lambda: ksm.cost(pid).proportional, lambda: total("Pss"), slack=MIB)
        resident = int(says("ps", "-o", "rss=", "-p", str(pid))) * KIB
        ours = kernel.memory(pid).rss
        assert ours is not None
        assert abs(ours - resident) <= MIB


@pytest.mark.parametrize("name", [r"\vUid:\t7\t7", r"\rUid:\t7\t7", r"\034Uid:\t7\t7", r"a) R 1 2"])
def test_a_process_cannot_call_itself_another_user(name: str) -> None:
    with child("sh", "-c", f"printf '{name}' >/proc/$$/comm; echo; read -r _") as pid:
        assert kernel.owner(pid) == os.geteuid()
        seen = kernel.process(pid)
        assert seen is not None
        assert seen.pid == pid
        assert seen.start_time > 1000


@pytest.mark.parametrize("tail", ["\na b c d e f g h", "\n0: 0 0 z 0 0 0 x", "\v1", "\r1", " @"])
def test_a_socket_with_an_odd_path_harms_no_other(tail: str) -> None:
    with short_directory() as directory, socket.socket(socket.AF_UNIX) as odd:
        odd.bind(f"{directory}/x{tail}")
        with socket.socket(socket.AF_UNIX) as other:
            path = f"{directory}/ other"
            other.bind(path)
            other.listen()
            seen = {entry.path: entry.listening for entry in kernel.unix_sockets()}
        assert seen[path] is True
        assert seen[f"{directory}/x{tail}".partition("\n")[0]] is False


# Groups.


@contextmanager
def own_group() -> Generator[Path]:
    """Make a memory cgroup of 64 MiB, of the version that this host has."""
    v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    above, limit = (v1, "memory.limit_in_bytes") if v1.exists() else (v2, "memory.max")
    group = above / f"qmtest{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error.strerror}")
    try:
        if not (group / limit).exists():
            pytest.skip(f"{group.parent}: the memory controller is not on")
        (group / limit).write_text(str(64 * MIB))
        yield group
    finally:
        group.rmdir()


def test_the_budget_of_a_group_is_what_cat_says() -> None:
    with own_group() as group:
        usage = group / ("memory.current" if (group / "memory.current").exists() else V1_USAGE)
        join = f'echo 0 >{group}/cgroup.procs && exec "$@"'
        words = ("sh", "-c", join, "sh", sys.executable, "-c", MERGEABLE, "nothing")
        with child(*words):
            seen = cgroup.memory(group)
            assert seen.limit == 64 * MIB
            assert seen.usage >= MIB
            assert seen.headroom is not None
            assert 0 < seen.headroom <= 64 * MIB
            assert is_between(
                lambda: cgroup.memory(group).usage, lambda: int(says("cat", str(usage)))
            )


V1_USAGE: Final = "memory.usage_in_bytes"


def test_a_pid_used_again_would_have_another_start_time() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            me, other = kernel.process(os.getpid()), kernel.process(child.pid)
            assert me is not None
            assert other is not None
            assert other.start_time > me.start_time
        finally:
            child.terminate()
