"""The promises of tests/unit/conftest.py, tried on a small suite: nothing impure passes there."""

import os
import subprocess
import sys
from pathlib import Path

UNIT = Path(__file__).parents[1] / "unit"

IMPURE = """
import asyncio, contextlib, multiprocessing, os, socket, subprocess, time

def test_runs_a_program(): subprocess.run(["true"])
def test_hides_that_it_runs_one():
    with contextlib.suppress(BaseException):
        subprocess.run(["true"])
def test_forks():
    if not os.fork():
        os._exit(0)
def test_spawns(): os.posix_spawn("/bin/true", ["true"], {})
def test_spawns_a_copy(): multiprocessing.get_context("spawn").Process(target=print).start()
def test_asks_for_a_copy(): multiprocessing.get_context("forkserver").Process(target=print).start()
def test_forks_a_copy(): multiprocessing.get_context("fork").Process(target=print).start()
def test_asks_a_shell(): os.system("true")
async def test_runs_a_program_in_a_loop(): await asyncio.create_subprocess_exec("true")
def test_sleeps(): time.sleep(0.001)
def test_connects(): socket.create_connection(("192.0.2.1", 9), timeout=0.01)
def test_asks_for_an_address(): socket.getaddrinfo("example.invalid", 9)
def test_sends():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"", ("192.0.2.1", 9))
"""

PURE = """
import asyncio, socket, time

async def waits_for_a_day():
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(86400)
    return asyncio.get_running_loop().time() - began

async def test_waits(): assert await waits_for_a_day() >= 86400
def test_waits_in_a_loop_of_its_own(): assert asyncio.run(waits_for_a_day()) >= 86400
def test_talks_to_itself(tmp_path):
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        one.bind(str(tmp_path / "s"))
        one.listen()
        other.connect(str(tmp_path / "s"))
def test_gives_way(): time.sleep(0)
"""


def run_suite(directory: Path, source: str) -> str:
    (directory / "conftest.py").write_bytes((UNIT / "conftest.py").read_bytes())
    (directory / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    (directory / "test_it.py").write_text(source)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "pytest_asyncio.plugin", "-q", directory],
        cwd=directory,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    ).stdout


def test_what_is_not_pure_fails(tmp_path: Path) -> None:
    said = run_suite(tmp_path, IMPURE)
    count = IMPURE.count("def test_")
    assert f" {count} error" in said, said
    assert said.count("this test belongs to tests/system") >= count


def test_waiting_takes_no_time_and_what_is_local_is_allowed(tmp_path: Path) -> None:
    assert "4 passed" in run_suite(tmp_path, PURE)
