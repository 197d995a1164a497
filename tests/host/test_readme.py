"""README.md and the manual tell the truth: every command runs, every example does what it says."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import demo
from tests.rig import ksm, readme
from tests.rig.agent import running
from tests.rig.guests import RunningGuest, boot
from tests.rig.patience import patient
from tests.rig.qemu import short_directory, until
from tests.rig.users import needs_root

pytestmark = [pytest.mark.qemu, pytest.mark.host, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]

AGENT = "qmpmem agent &"

ELSEWHERE = {
    # Commands that are run by something else than this file.
    "make demo": "tests/system/test_demo.py plays it; CI and `make` set it up",
    "make test": "is what runs this",
    "make help": "tests/system/test_make.py",
    "make check": "CI",
    "make fmt": "tests/system/test_make.py",
    "make test-unit": "tests/system/test_make.py",
    "make pictures": "tests/unit/rig/test_pictures.py",
    "make man": "tests/system/rig/test_pages.py",
    "make bench": "tests/unit/bench/test_bench.py",
    "make chroot": "makes whole systems, in longer than all of CI",
    "make boot": "makes and boots whole systems, in longer than most of CI",
    "make lock": "tests/system/test_make.py; it needs a network",
    "make soak": "tests/system/test_make.py; it takes longer than all of CI",
    "make mutants": "tests/unit/rig/test_mutants.py; all of it takes an hour",
    "apt install qemu-system-x86 python3-venv": "tests/setup.sh installs the same",
    "qmpmem doctor": "tests/system/doctor/test_doctor.py",
    "python3 -m venv /opt/qmpmem": "tests/system/files/test_launcher_paths.py, elsewhere",
    "/opt/qmpmem/bin/pip install .": "tests/system/files/test_launcher_paths.py",
    "ln -s /opt/qmpmem/bin/qmpmem /usr/local/bin/": "only makes it be found",
    (
        "kvm … -loadvm NAME -device "
        """'{"driver":"virtio-balloon-pci","id":"qmpmem0","bus":"pci.0","""
        """"deflate-on-oom":true,"free-page-reporting":true}'"""
    ): "tests/system/launchers/test_arriving.py",
    "qmpmem launcher install": "tests/system/launcher_install/test_qemu.py, with --root",
    "qmpmem run --name web1 --current 25% -- -m 4G -drive file=web1.qcow2": (
        "tests/system/launchers/test_current_qemu.py, with smaller guests"
    ),
    "QMPMEM_CURRENT=1G kvm -name web1 -m 4G -drive file=web1.qcow2": (
        "tests/system/launchers/test_current_qemu.py, with smaller guests"
    ),
    "qmpmem env -- quickemu --vm x.conf": "tests/system/cli/test_env.py, with such programs",
    'eval "$(qmpmem env)"': "tests/system/cli/test_env.py",
    "qmpmem serve": "tests/system/serve/test_serve.py",
    "qmpmem serve --unix page.sock": "tests/system/serve/test_serve.py",
    "(umask 077; openssl rand -hex 32 >page.token)": "makes a file",
    "qmpmem serve --token-file page.token": "tests/system/serve/test_page_chromium.py",
    "ssh -L 9178:127.0.0.1:9178 vmhost3": "needs another host",
    "curl --unix-socket /run/qmpmem/agent/agent.sock http://qmpmem/v1/status": (
        "below, with the socket of the agent that is running there"
    ),
}

ACTS = (demo.play, demo.play_merging, demo.play_sharing)
"""Shown in this order by the chapter `demo`; the first of them by README.md, too."""


class Recorder(demo.Stage):
    """A stage where nothing is played: it keeps the script."""

    def __init__(self) -> None:
        self.script: list[str] = []

    def run(self, command: str) -> None:
        self.script.append(command)

    def start(self, command: str) -> None:
        self.script.append(f"{command} &")

    def expect_powered_off(self) -> None:
        pass

    def end_guests(self) -> None:
        pass

    def wait(self, guest: str, holds: object) -> None:
        pass

    def wait_for_page(self, guests: object) -> None:
        pass

    def wait_until_settled(self) -> None:
        pass

    def wait_until_calm(self, guest: str) -> None:
        pass

    def write_settings(self) -> None:
        pass


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with short_directory() as directory:
        environ = os.environ | {
            "QMPMEM_RUN_DIR": str(directory / "guests"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        with boot(
            [str(ROOT / "launchers" / "kvm")],
            memory="512M",
            extra=["-name", "web1"],
            environ=environ,
        ) as guest:
            assert isinstance(guest, RunningGuest)
            yield environ


def test_the_demo_that_is_shown_is_the_one_that_is_played() -> None:
    """Cut, so not each command that is played is shown; but each that is shown, in its order."""
    shown_in_readme, *_ = readme.blocks("console", readme.README)
    shown_acts = [shown_in_readme, *readme.blocks("console", readme.path_of("demo"))]
    for act, shown in zip([demo.play, *ACTS], shown_acts, strict=True):
        recorder = Recorder()
        act(recorder, " -accel tcg,tb-size=32")
        played = iter(recorder.script)
        assert [command for command in shown.commands if command not in played] == []
        assert len(shown.commands) >= 4


@needs_root("may not steer KSM")
def test_every_command_of_the_second_screen_works(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "examples.qm").write_text(readme.blocks("qmpmem")[0].text)
    with ksm.held():
        run_all(environment | {"QMPMEM_KSM_DIR": str(tmp_path / "ksm")}, tmp_path)


def run_all(environment: dict[str, str], directory: Path) -> None:
    blocks = [
        block.commands
        for block in (
            *readme.blocks("console", readme.README)[1:],
            *readme.blocks("console", *(each for each in readme.CHAPTERS if each.stem != "demo")),
        )
    ]
    assert sum(len(commands) for commands in blocks) >= 10
    for commands in blocks:
        run_block(commands, environment, directory)


def run_block(commands: list[str], environment: dict[str, str], directory: Path) -> None:
    """Run the commands of a block, with an agent beside them where the block starts one."""
    if commands[0] != AGENT:
        for command in commands:
            run_one(command, environment, directory)
        return
    run = Path(environment["QMPMEM_RUN_DIR"])
    with running(run, environ={"QMPMEM_CONFIG": str(settings(directory))}):
        until(lambda: says_normal(environment), seconds=60, what="the agent knows web1")
        for command in commands[1:]:
            run_one(command, environment, directory)
        answer = run_one(
            f"curl -sf --unix-socket {run}/.agent/agent.sock http://qmpmem/v1/status",
            environment,
            directory,
        )
        assert json.loads(answer)["run"] == str(run)


def settings(directory: Path) -> Path:
    """Have the agent judge web1 by now: a reader does not type all of it in the first minute."""
    path = directory / "qmpmem.toml"
    path.write_text('grace = "1s"\n')
    return path


def says_normal(environment: dict[str, str]) -> bool:
    asked = ["qmpmem", "agent", "why", "web1"]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
    return re.search(r"^verdict: +normal", done.stdout, re.MULTILINE) is not None


def run_one(command: str, environment: dict[str, str], directory: Path) -> str:
    done = subprocess.run(
        ["sh", "-c", command],
        env=environment,
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(60),
    )
    # doctor exits 1 where the host itself has something to mend, which is no fault of the manual's
    allowed = (0, 1) if command == "qmpmem doctor" else (0,)
    assert done.returncode in allowed, f"{command}: {done.stderr}"
    assert done.stdout or done.stderr, command
    return done.stdout


def test_the_examples_in_python_work(environment: dict[str, str], tmp_path: Path) -> None:
    guest, agent = readme.blocks("python")
    assert run_python(guest.text, environment).startswith("web1 ")
    settled = {"QMPMEM_CONFIG": str(settings(tmp_path))}
    with running(Path(environment["QMPMEM_RUN_DIR"]), environ=settled):
        assert run_python(guest.text, environment).startswith("web1 ")
        said = run_python(agent.text, environment)
    assert "\nweb1 " in said
    assert "67108864 bytes are kept for new1" in said


def run_python(text: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(90),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_not_run_here_is_run_elsewhere() -> None:
    lines = [
        line.partition("#")[0].strip()
        for block in readme.blocks("sh")
        for line in block.text.splitlines()
    ]
    assert {line for line in lines if line} == set(ELSEWHERE)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()
