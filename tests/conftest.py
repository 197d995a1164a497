"""What every test gets: its lane, no skip that hides a missing tool in CI, no process left behind.

Rules of this file:
    The first folder is the lane, and marks the test; below it are folders as in qmpmem/, beside
    `launchers`, and `rig` and `bench` for what tests and measures:
    unit    no process, no network, no real time
    system  processes; those that start a QEMU are marked `qemu`
    host    what a host has once, such as KSM, dpkg, swap and cgroups: one test at a time; those of
            host("limits") use swap, cgroups and huge pages, and run beside those that use KSM
    soak    long; only `make soak` runs it

    A test that cannot run because something is not installed skips with a reason that starts with
    "missing:". Under CI that is a failure. Other reasons (not root, no KVM here) stay skips.
"""

import gc
import os
import signal
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from blockbuster import BlockBuster

from launchers.guest.build import Artifacts
from tests.rig import chance, guests, qemu, users
from tests.rig.hostlock import HostLock
from tests.rig.patience import patient

IN_CI: Final = os.environ.get("CI", "") not in ("", "0", "false")

MARK: Final = f"QMPMEM_TEST_RUN={os.getpid()}"
"""Stands in the environment of all that a test starts, also of a daemon that left its parent."""

STATE: Final = TemporaryDirectory(prefix="qm-state-")

TESTS: Final = Path(__file__).parent
LANES: Final = ("unit", "system", "host", "soak")

HOST_LOCKS: Final = {"host": HostLock(), "host-limits": HostLock(Path("/sys/fs"))}

LONGEST: Final = (
    *("host", "test_demo", "agent/test_cli_qemu", "host-limits", "rig/test_tinyguest"),
    *("guests/test_guest_qemu", "agent/test_crash", "agent/test_faults_qemu"),
    *("bench/test_bench_qemu", "test_chroot", "launchers/test_failopen"),
    *("wire/test_fuzz", "policy/test_chance"),
    *("agent/test_loop", "policy/test_laws", "wire/kernel/test_trees"),
    "configuration/test_toml_document",
)
"""Groups and files that take longest, in this order."""

GRACE: Final = 3.0
"""Seconds for processes that were told to end; a QEMU takes about 50 ms."""

chance.load_profile(in_ci=IN_CI)


@pytest.hookimpl(tryfirst=True)  # before hypothesis looks for a seed
def pytest_configure(config: pytest.Config) -> None:
    name, _, value = MARK.partition("=")
    os.environ[name] = value
    os.environ.pop("PYTHONUNBUFFERED", None)  # users' programs write through a buffer
    # Where Python may not write its caches, each start of the program, and each worker that
    # collects the tests, compiles all modules anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    number = chance.draw()
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(number)
    os.environ["STATE_DIRECTORY"] = STATE.name  # an agent's journal is none of this machine's
    # A shell starts what it puts in the background deaf to these, and so would be all that the
    # tests start (POSIX, 2.9.3.1 Asynchronous Lists; nohup).
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_unconfigure() -> None:
    STATE.cleanup()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how to try the same cases again."""
    terminalreporter.write_line(f"by chance: {chance.VARIABLE}={chance.draw()}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run more tests at once than there are processors: many wait for guests."""
    return 2 * (os.cpu_count() or 1)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from what stays: it takes a sixth of the unit lane's time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_itemcollected(item: pytest.Item) -> None:
    lane = item.path.relative_to(TESTS).parts[0]
    if lane in LANES:
        item.add_marker(lane)
        _be_patient(item)
    if (group := _host_group(item)) is not None:
        item.add_marker(pytest.mark.xdist_group(group))
    elif lane in LANES and _shares_a_fixture(item):
        item.add_marker(pytest.mark.xdist_group(_file(item)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the unit lane first, then what takes longest, so that the end is not one long test."""
    items.sort(key=_turn)  # stable: the tests of a file stay in order


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """End at once where pytest-xdist would send the tests of a group to several workers."""
    if getattr(session.config.option, "loadgroup", False):
        grouped = (item for item in session.items if item.get_closest_marker("xdist_group"))
        lost = next((item for item in grouped if "@" not in item.nodeid), None)
        if lost is not None:
            pytest.exit(f"{lost.nodeid}: pytest-xdist does not know its group", returncode=3)


def _file(item: pytest.Item) -> str:
    """Return which file of a lane a test is in, as in ``agent/test_loop``."""
    return "/".join(item.path.relative_to(TESTS).with_suffix("").parts[1:])


def _turn(item: pytest.Item) -> tuple[bool, int]:
    is_unit = item.get_closest_marker("unit") is not None
    group = item.get_closest_marker("xdist_group")
    names = (_file(item), *(group.args if group else ()))
    turns = [LONGEST.index(name) for name in names if name in LONGEST]
    return not is_unit, min(turns, default=len(LONGEST))


def _host_group(item: pytest.Item) -> str | None:
    """Name what the test uses that a host has once; None: nothing."""
    marks = [mark.args for mark in item.iter_markers("host")]
    return "-".join(("host", *max(marks))) if marks else None


def _shares_a_fixture(item: pytest.Item) -> bool:
    """Whether a fixture lives for the tests of a whole file: they go to one worker."""
    if not isinstance(item, pytest.Function):
        return False
    known = item._fixtureinfo.name2fixturedefs.values()
    return any(fixture.scope in ("module", "class") for fixtures in known for fixture in fixtures)


def _be_patient(item: pytest.Item) -> None:
    if item.config.getoption("timeout") is not None:  # said by the one that runs the tests
        return
    mark = item.get_closest_marker("timeout")
    seconds = float(mark.args[0] if mark else item.config.getini("timeout"))
    item.add_marker(pytest.mark.timeout(patient(seconds)), append=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around the time limit: waiting does not count
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, bool, bool]:
    group = _host_group(item)
    if group is None:
        return (yield)
    HOST_LOCKS[group].take()
    try:
        return (yield)
    finally:
        if nextitem is None or nextitem.path != item.path:
            HOST_LOCKS[group].give_back()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _show_missing(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _show_missing(report)
    return report


def _show_missing(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not (IN_CI and report.skipped and isinstance(report.longrepr, tuple)):
        return
    reason = report.longrepr[2].removeprefix("Skipped: ")
    if reason.startswith("missing:"):
        report.outcome = "failed"
        report.longrepr = f"CI must not skip this: {reason}"


@pytest.fixture(scope="session")
def artifacts() -> Artifacts:
    """Build the tiny guest once; where that fails the tests fail, they never skip."""
    return guests.ensure_built()


@pytest.fixture(scope="session")
def shared_program() -> Iterator[Path]:
    """Name a qmpmem that an ordinary user may run, wherever the checkout is."""
    with qemu.short_directory() as directory:
        yield users.shared_program(directory)


@pytest.fixture(scope="session")
def blockbuster() -> Iterator[BlockBuster]:
    """Make what `no_blocking_calls` needs once: patching takes longer than most tests."""
    blockbuster = BlockBuster(["qmpmem"])
    yield blockbuster
    blockbuster.deactivate()


@pytest.fixture(autouse=True)
def no_blocking_calls(request: pytest.FixtureRequest, blockbuster: BlockBuster) -> None:
    """Fail a test in which code of this package blocks its event loop.

    Opening a path with O_PATH and connecting a non-blocking unix socket are not among the calls
    that are caught: neither waits for another process. What is patched stays so until a test that
    starts a QEMU comes.
    """
    if request.node.get_closest_marker("qemu") is None:
        blockbuster.activate()
    else:
        blockbuster.deactivate()


@pytest.fixture(autouse=True)
def nothing_left_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a qemu test that leaves a process behind, and end the process."""
    if request.node.get_closest_marker("qemu") is None:
        yield
        return
    before = _descendants()
    yield
    deadline = time.monotonic() + patient(GRACE)
    while (left := _descendants() - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid, _ in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"processes left running (now killed): {sorted(pid for pid, _ in left)}"


def _descendants() -> set[tuple[int, int]]:
    """Find the living processes that came from this one, each with its start time (proc(5))."""
    parents: dict[int, int] = {}
    started: dict[int, int] = {}
    found = {os.getpid()}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            environ = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile, or is another user's
            continue
        if fields[0] == "Z":  # of which only older kernels show the environment
            continue
        pid = int(entry.name)
        parents[pid], started[pid] = int(fields[1]), int(fields[19])
        if MARK.encode() in environ:
            found.add(pid)
    while children := {pid for pid in parents if parents[pid] in found} - found:
        found |= children
    return {(pid, started[pid]) for pid in found & started.keys() - {os.getpid()}}
