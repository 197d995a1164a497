"""The promises that tests/conftest.py makes for the whole suite, tried on small suites."""

import os
import subprocess
import sys
from pathlib import Path

from qmpmem.wire import kernel

CONFTEST = Path(__file__).parent.parent.parent / "conftest.py"


def run_suite(directory: Path, source: str, *, ci: str) -> str:
    conftest = CONFTEST.read_text().replace("GRACE: Final = 3.0", "GRACE: Final = 0.1")
    assert "GRACE: Final = 0.1" in conftest
    (directory / "conftest.py").write_text(conftest)
    (directory / "pytest.ini").write_text("[pytest]\nmarkers = qemu\n")
    (directory / "test_it.py").write_text("import pytest\nimport subprocess\n" + source)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "--continue-on-collection-errors", directory],
        cwd=directory,
        env={**os.environ, "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def is_running(pid: int) -> bool:
    process = kernel.process(pid)
    return process is not None and process.state != "Z"


def test_a_skip_for_a_missing_tool_fails_in_ci_only(tmp_path: Path) -> None:
    (tmp_path / "test_all.py").write_text(
        "import pytest\npytest.skip('missing: a module', allow_module_level=True)"
    )
    source = """
def test_inside(): pytest.skip('missing: a package')
@pytest.mark.skipif(True, reason='missing: a tool')
def test_marked(): ...
"""
    in_ci = run_suite(tmp_path, source, ci="true")
    for what in ("module", "package", "tool"):
        assert f"CI must not skip this: missing: a {what}" in in_ci
    assert "skipped" not in in_ci
    assert "3 skipped" in run_suite(tmp_path, source, ci="")


def test_other_skips_and_expected_failures_stay_what_they_are(tmp_path: Path) -> None:
    source = """
def test_root(): pytest.skip('needs KVM')
@pytest.mark.xfail(reason='missing: a feature')
def test_later(): assert False
"""
    assert "1 skipped, 1 xfailed in" in run_suite(tmp_path, source, ci="true")


def test_what_is_left_running_fails_its_test_and_is_ended(tmp_path: Path) -> None:
    source = """
pytestmark = pytest.mark.qemu

def leave(*command, **how):
    child = subprocess.Popen(command or ["sleep", "600"], **how)
    print(child.pid, file=open("pids", "a"))

def test_child(): leave()
def test_child_with_another_environment(): leave(env={})
def test_child_in_a_session_of_its_own(): leave(start_new_session=True)
def test_daemon():
    daemon = "setsid sleep 600 </dev/null >/dev/null 2>&1 & echo $! >>pids"
    subprocess.run(["sh", "-c", daemon], check=True)
"""
    output = run_suite(tmp_path, source, ci="")
    assert "4 passed, 4 errors" in output
    assert output.count("AssertionError: processes left running") >= 4
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 4
    assert not [pid for pid in pids if is_running(pid)]


def test_what_a_wider_fixture_started_may_go_on(tmp_path: Path) -> None:
    source = """
pytestmark = pytest.mark.qemu

@pytest.fixture(scope="module")
def guest():
    with subprocess.Popen(["sleep", "600"]) as child:
        yield child
        child.kill()

def test_uses(guest): assert guest.poll() is None
def test_uses_again(guest): assert guest.poll() is None
"""
    assert "2 passed in" in run_suite(tmp_path, source, ci="")


def test_an_ended_child_that_the_test_has_not_waited_for_is_no_leftover(tmp_path: Path) -> None:
    source = """
import os
children = []

@pytest.mark.qemu
def test_ends():
    children.append(subprocess.Popen(["true"]))
    os.waitid(os.P_PID, children[0].pid, os.WEXITED | os.WNOWAIT)
"""
    assert "1 passed in" in run_suite(tmp_path, source, ci="")


def test_what_blocks_the_loop_is_caught_but_beside_a_qemu(tmp_path: Path) -> None:
    source = """
import asyncio
from blockbuster import BlockingError
from qmpmem.wire.kernel import host

async def block(): host.memory()

def test_fails(): asyncio.run(block())
@pytest.mark.qemu
def test_may(): asyncio.run(block())
def test_is_caught():
    with pytest.raises(BlockingError):
        asyncio.run(block())
"""
    assert "1 failed, 2 passed in" in run_suite(tmp_path, source, ci="")
