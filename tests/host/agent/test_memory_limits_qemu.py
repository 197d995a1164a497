"""Real limits: an agent and its guests in a cgroup, a guest in one of its own, huge pages."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest

from qmpmem.api.records import Status
from qmpmem.model.guest import GuestView
from qmpmem.units import MIB
from tests.bench.limits import GROUPS
from tests.rig.agent import running, said
from tests.rig.command import PROGRAM, called, plain_environment
from tests.rig.guests import ROOT, boot
from tests.rig.patience import patient
from tests.rig.qemu import paused, short_directory, until
from tests.rig.users import needs_root

pytestmark = [pytest.mark.qemu, pytest.mark.host("limits"), pytest.mark.timeout(120)]

LAUNCHER: Final = str(ROOT / "launchers" / "kvm")
HUGE: Final = Path("/proc/sys/vm/nr_hugepages")
PAGES: Final = 140
"""Of 2 MiB: a guest of 256 MiB, and some room."""

needs_version_1 = pytest.mark.skipif(
    not (GROUPS / "memory.limit_in_bytes").exists(), reason="no memory controller of cgroup v1 here"
)


def inside(group: Path) -> tuple[str, ...]:
    """A program that runs another one in a group."""
    return ("sh", "-c", f'echo $$ >{group}/cgroup.procs; exec "$@"', "sh")


@contextmanager
def group(path: Path, limit: int | None) -> Iterator[Path]:
    path.mkdir()
    if limit is not None:
        (path / "memory.limit_in_bytes").write_text(str(limit))
    try:
        yield path
    finally:
        until(lambda: not (path / "cgroup.procs").read_text(), what="the group is empty")
        path.rmdir()


def enter(path: Path, pid: int) -> None:
    (path / "cgroup.procs").write_text(str(pid))


def ask(run: Path) -> Status:
    ran = called("agent", "status", "--json", run=run)
    assert ran.code == 0, ran
    return msgspec.json.decode(ran.out, type=Status)


@needs_root("may not make cgroups")
@needs_version_1
def test_a_container_s_limit_is_the_budget_and_a_guest_s_own_its_ceiling() -> None:
    with (
        group(GROUPS / f"qmpmem-test-{os.getpid()}", 700 * MIB) as outer,
        group(outer / "own", 150 * MIB) as own,
        group(outer / "agent", None) as mine,
        short_directory() as run,
        paused(run, "web1", "web2", memory="256M") as children,
    ):
        enter(own, children["web1"].pid)
        enter(outer, children["web2"].pid)
        with running(run, before=inside(mine)):
            until(lambda: len(ask(run).guests) == 2, what="both guests are seen")
            status = ask(run)
            assert (status.limit, status.limited_by) == (700 * MIB, str(outer))
            assert status.headroom is not None
            assert status.headroom < 700 * MIB
            shown = called("agent", "status", run=run).out
            assert f"left of 700 MiB (cgroup {outer})" in shown
            until(
                lambda: "no more than 86 MiB" in called("agent", "status", run=run).out,
                what="the guest's own limit is said",
            )
            assert f"the budget is 700 MiB: the memory limit of cgroup {outer}" in said(run)
        assert f"cgroup {outer}: 700 MiB" in doctor_inside(mine, run)


def doctor_inside(place: Path, run: Path) -> str:
    """Run the doctor in a group, and give what it says."""
    done = subprocess.run(
        [*inside(place), str(PROGRAM), "doctor"],
        env=plain_environment() | {"QMPMEM_RUN_DIR": str(run)},
        capture_output=True,
        text=True,
        timeout=patient(60),
        check=False,
    )
    return done.stdout


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """Have the host set huge pages aside, and give back what was there."""
    before = HUGE.read_text()
    try:
        HUGE.write_text(str(int(before) + PAGES))
        if int(HUGE.read_text()) < int(before) + PAGES:
            pytest.skip("the host has no memory for huge pages")
        yield
    finally:
        HUGE.write_text(before)


@needs_root("may not set huge pages aside")
@pytest.mark.usefixtures("huge_pages")
@pytest.mark.parametrize("own", [False, True], ids=["ours", "own"])
def test_nothing_is_claimed_of_huge_pages(*, own: bool) -> None:
    backend = "memory-backend-memfd,id=m,size=256M,hugetlb=on,share=on,prealloc=on"
    extra = ["-name", "hp", "-object", backend, "-machine", "memory-backend=m"]
    extra += ["-device", "virtio-balloon-pci"] if own else []
    with short_directory() as directory:
        run = directory / "run"
        environ = {"QMPMEM_RUN_DIR": str(run), "QMPMEM_DEFAULTS": "/proc/nonexistent"}
        with boot([LAUNCHER], memory="256M", extra=extra, environ=environ) as guest:
            assert "huge pages" in guest.stderr.read_text()
            assert "huge pages" in called("list", run=run).out
            refused = called("set", "hp", "50%", "--wait", run=run)
            assert (refused.code, refused.out) == (6, "")
            assert "huge pages" in refused.err
            seen = msgspec.json.decode(called("info", "hp", "--json", run=run).out, type=GuestView)
            assert "huge pages" in str(seen.problem)
            assert (seen.balloon is not None) == own
            assert "huge pages" in called("doctor", run=run).out
            with running(run):
                until(lambda: ask(run).guests, what="the guest is seen")
                (told,) = ask(run).guests
                assert told.verdict == "exempt"
                assert "huge pages" in told.reason
                refused = called("set", "hp", "50%", run=run)
                assert (refused.code, "huge pages" in refused.err) == (6, True)
