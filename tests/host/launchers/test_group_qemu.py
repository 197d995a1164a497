"""Guests in cgroups that the launcher makes, for real."""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from qmpmem.guests import inventory, rundir
from qmpmem.guests.rundir import GuestRecord
from tests.bench.limits import GROUPS
from tests.rig.command import called
from tests.rig.guests import ROOT, end
from tests.rig.patience import patient
from tests.rig.qemu import SMALL, short_directory, until
from tests.rig.users import needs_root

UNIFIED: Final = Path("/sys/fs/cgroup/unified")
LAUNCHER: Final = str(ROOT / "launchers" / "kvm")
PARENT: Final = f"/qmpmem-test-{os.getpid()}"

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.host("limits"),
    pytest.mark.timeout(120),
    needs_root("may not make cgroups"),
    pytest.mark.skipif(
        not (GROUPS / "cgroup.procs").exists() or not (UNIFIED / "cgroup.procs").exists(),
        reason="expected the memory controller of cgroup v1 beside a cgroup v2",
    ),
]


@contextmanager
def started(run: Path, *before: str, **environ: str) -> Generator[tuple[GuestRecord, Path]]:
    """Start a paused guest; yields its record, and the file that it writes to stderr."""
    said = run / "said"
    settings = {"QMPMEM_RUN_DIR": str(run), "QMPMEM_DEFAULTS": "/dev/null"} | environ
    words = [*before, LAUNCHER, "-name", "g", "-S", *SMALL, "-m", "64"]
    with said.open("wb") as file:
        child = subprocess.Popen(words, env=os.environ | settings, stderr=file)
    try:
        until((run / "g" / "record.json").exists, what="the guest is registered")
        until(lambda: Path(f"/proc/{child.pid}/comm").read_text() != "python3\n")
        record = rundir.read_record(run / "g")
        assert isinstance(record, GuestRecord)
        yield record, said
    finally:
        end(child)


@contextmanager
def parent() -> Generator[list[Path]]:
    """Have a group to go below in each hierarchy; nothing may be left in it."""
    made = [top / PARENT[1:] for top in (GROUPS, UNIFIED)]
    for path in made:
        path.mkdir()
    try:
        yield [path / "qmpmem/g" for path in made]
    finally:
        for path in made:
            for left in sorted(path.rglob("*/"), reverse=True):
                left.rmdir()
            path.rmdir()


def groups_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {name: path for _, name, path in (line.split(":", 2) for line in lines)}


def test_a_guest_is_in_groups_of_its_own_that_go_when_its_directory_does() -> None:
    with parent() as groups, short_directory() as run:
        with started(run, QMPMEM_CGROUP=PARENT) as (record, said):
            found = groups_of(record.pid)
            assert found["memory"] == found[""] == f"{PARENT}/qmpmem/g"
            usage = groups[0] / "memory.usage_in_bytes"
            until(lambda: int(usage.read_text()) > 8 << 20, what="what QEMU takes is counted")
            assert said.read_text() == ""
            assert record.cgroup == "\n".join(str(group.parent) for group in groups)
            inventory.take(run)
            assert groups[0].is_dir(), "it is in use"
        assert groups[0].is_dir()
        assert called("list", run=run).code == 0
        assert not any(group.parent.exists() for group in groups)


def test_below_the_launcher_s_own_group_all_limits_go_on_to_hold() -> None:
    own = groups_of(os.getpid())
    with short_directory() as run:
        with started(run, QMPMEM_CGROUP="on") as (record, _):
            found = groups_of(record.pid)
            for name in ("memory", ""):
                assert found[name] == f"{own[name].rstrip('/')}/qmpmem/g"
        assert called("list", run=run).code == 0


def test_the_next_launch_removes_what_another_guest_left_and_takes_an_empty_group() -> None:
    with parent() as groups, short_directory() as run:
        for group in groups:
            group.mkdir(parents=True)
            (group.parent / "gone").mkdir()
        with started(run, QMPMEM_CGROUP=PARENT) as (record, _):
            assert groups_of(record.pid)["memory"] == f"{PARENT}/qmpmem/g"
            assert [path.name for path in groups[0].parent.glob("*/")] == ["g"]


def test_a_group_with_another_process_in_it_is_not_shared() -> None:
    with parent() as groups, short_directory() as run:
        for group in groups:
            group.mkdir(parents=True)
        other = subprocess.Popen(["sleep", "100"])
        try:
            for group in groups:
                (group / "cgroup.procs").write_text(str(other.pid))
            with started(run, QMPMEM_CGROUP=PARENT) as (record, said):
                assert groups_of(record.pid) == groups_of(os.getpid())
                expected = f"no cgroup of its own: {groups[1]}: a process is in it"
                assert said.read_text() == f"qmpmem: {expected}\n"
        finally:
            end(other)


@pytest.mark.parametrize("where", ["environment", "defaults"])
def test_a_guest_that_may_have_no_group_starts_and_a_line_says_so_where_it_was_asked_for(
    where: str,
) -> None:
    with short_directory() as run:
        (run / "defaults").write_text("QMPMEM_CGROUP=on\n")
        given = (
            {"QMPMEM_CGROUP": "on"}
            if where == "environment"
            else {"QMPMEM_DEFAULTS": str(run / "defaults")}
        )
        # Cgroups that cannot be written, as in a container.
        hidden = 'mount -t tmpfs none /sys/fs/cgroup; exec "$@"'
        before = ("unshare", "--mount", "sh", "-c", hidden, "sh")
        with started(run, *before, **given) as (record, said):
            assert groups_of(record.pid) == groups_of(os.getpid())
            assert ("no cgroup of its own" in said.read_text()) == (where == "environment")
            assert len(said.read_text().splitlines()) <= 1


STEPS: Final = """
import os, sys
from launchers import kvm_group
undo = []
places, why = kvm_group.find_places(sys.argv[1])
assert not why, why
before = open("/proc/self/cgroup").read()
assert kvm_group.enter(places, "g", undo) == ""
assert open("/proc/self/cgroup").read() != before
for step in reversed(undo):
    step()
assert open("/proc/self/cgroup").read() == before
"""


def test_what_was_done_is_taken_back_where_the_guest_starts_unchanged() -> None:
    with parent() as groups:
        subprocess.run([sys.executable, "-c", STEPS, PARENT], cwd=ROOT, check=True)
        assert not any(group.parent.exists() for group in groups)


def test_many_launches_at_once_all_get_their_groups() -> None:
    """Each sweeps away what is empty, also what another one has just made."""
    script = STEPS.split("for step in")[0].replace('"g"', "str(os.getpid())")
    with parent():
        children = [
            subprocess.Popen([sys.executable, "-c", script, PARENT], cwd=ROOT) for _ in range(8)
        ]
        assert [child.wait(patient(60)) for child in children] == [0] * 8


def test_without_the_setting_a_guest_stays_where_its_launcher_is() -> None:
    with short_directory() as run, started(run) as (record, said):
        assert groups_of(record.pid) == groups_of(os.getpid())
        assert record.cgroup is None
        assert said.read_text() == ""
