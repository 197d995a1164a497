"""The program itself: every command is found, helped and completed; errors are one line."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from qmpmem.cli import app as program
from qmpmem.errors import (
    ConfigError,
    GuestRefused,
    GuestUnreachable,
    KernelError,
    LaunchError,
    NotReached,
    QmpmemError,
)
from tests.rig.command import PROGRAM, Ran, called_each, plain_environment, qmpmem


def test_every_registered_command_is_found_when_it_is_called() -> None:
    program.load([])
    names = {command.name or "" for command in program.app.registered_commands} | {
        group.name or "" for group in program.app.registered_groups
    }
    functions = {
        command.callback.__name__.rstrip("_")
        for command in program.app.registered_commands
        if command.callback and not command.name
    }
    assert (names | functions) - {""} == set(program.MODULES)


COMMANDS = sorted(program.MODULES)
GROUPS = ("", "agent", "agent policy", "config", "ksm", "launcher")


@pytest.fixture(scope="module")
def helped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """The help of each command, on a screen of 80 columns."""
    calls = dict.fromkeys((*COMMANDS, *GROUPS))
    words = [[*call.split(), "--help"] for call in calls]
    run = tmp_path_factory.mktemp("run")
    ran = called_each(words, run=run, environ={"COLUMNS": "80"})
    return dict(zip(calls, ran, strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_tells_its_exit_codes(helped: dict[str, Ran], command: str) -> None:
    ran = helped[command]
    assert ran.code == 0
    assert "5 guest unreachable" in " ".join(ran.out.split())


def test_without_arguments_it_helps(tmp_path: Path) -> None:
    ran = qmpmem(run=tmp_path)
    assert ran.code == 0
    assert all(f"  {command} " in ran.out for command in COMMANDS)


@pytest.mark.parametrize(
    ("begun", "completed"),
    [("sc", ["script"]), ("help arch", ["architecture"]), ("help scr", ["script"])],
)
def test_the_shell_completes_commands_and_topics(
    tmp_path: Path, begun: str, completed: list[str]
) -> None:
    environ = {
        "_QMPMEM_COMPLETE": "complete_bash",
        "COMP_WORDS": f"qmpmem {begun}",
        "COMP_CWORD": str(len(begun.split())),
    }
    assert qmpmem(run=tmp_path, environ=environ).out.split() == completed


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotReached("a"), 1),
        (ConfigError("a"), 2),
        (LaunchError("a"), 3),
        (KernelError("a"), 4),
        (GuestUnreachable("a", reason="gone"), 5),
        (GuestRefused("a", error_class="X"), 6),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: QmpmemError, code: int) -> None:
    with pytest.raises(SystemExit) as left:
        program.leave(error)
    assert left.value.code == code


def test_an_error_is_one_line_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.leave(ConfigError("first\nsecond", hint="do\nthis"))
    assert capsys.readouterr().err == "qmpmem: first second; do this\n"


def test_no_place_for_guests_is_said_with_what_to_do() -> None:
    ran = qmpmem("list", run=Path("relative"))
    assert ran.code == 2
    assert "QMPMEM_RUN_DIR='relative': expected an absolute path" in ran.err


def test_a_mistake_of_ours_is_one_line_too(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import qmpmem.guests.overview\n"
        "def broken(guests, **_): raise ZeroDivisionError('oops')\n"
        "qmpmem.guests.overview.overview = broken\n"
    )
    ran = qmpmem("list", run=tmp_path, environ={"PYTHONPATH": str(tmp_path / "site")})
    assert ran.code == 70
    assert ran.err == (
        "qmpmem: internal error: ZeroDivisionError: oops; QMPMEM_DEBUG=1 shows where\n"
    )


@pytest.mark.parametrize(
    ("line", "code"), [("list >/dev/full", 74), ("list >&-", 0), ("list | true", 0)]
)
def test_output_that_no_process_reads_is_no_mistake_of_ours(
    tmp_path: Path, line: str, code: int
) -> None:
    environ = plain_environment() | {"QMPMEM_RUN_DIR": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {PROGRAM} {line}"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    said = "qmpmem: output: No space left on device\n" if code else ""
    assert done.stderr == said


def test_a_person_is_told_where_no_guests_were_found(tmp_path: Path) -> None:
    environ = plain_environment() | {"QMPMEM_RUN_DIR": str(tmp_path)}
    words = ["script", "-qec", f"{PROGRAM} list", "/dev/null"]
    done = subprocess.run(
        words, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True
    )
    assert f"no guests in {tmp_path} (QMPMEM_RUN_DIR)" in done.stdout


@pytest.mark.parametrize("mistake", ["set web1\n", "set none 256M\n"])
def test_a_script_with_a_mistake_is_named(tmp_path: Path, mistake: str) -> None:
    (tmp_path / "changes").write_text(mistake)
    ran = qmpmem("script", str(tmp_path / "changes"), run=tmp_path / "run")
    assert ran.code == 2
    assert ran.err.startswith(f"qmpmem: script {tmp_path}/changes: line 1: ")


def test_a_root_may_be_named_from_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "image/usr/bin").mkdir(parents=True)
    emulator = tmp_path / "image/usr/bin/kvm"
    emulator.write_text("#!/bin/sh\n")
    emulator.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    ran = qmpmem("launcher", "status", "--root", "image", run=tmp_path / "run")
    assert ran == qmpmem("launcher", "status", "--root", str(tmp_path / "image"), run=tmp_path)
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("group", GROUPS)
def test_no_command_is_cut_short_in_the_help(helped: dict[str, Ran], group: str) -> None:
    commands = helped[group].out.partition("Commands:")[2]
    assert "  " in commands
    assert "..." not in commands


HELP = "from qmpmem.cli import app; app.load([])"
CHAPTERS = "from qmpmem.cli.help_topics import _chapter, _listed; _listed(); _chapter('agent')"


@cache
def loaded(code: str) -> set[str]:
    """Which packages are loaded after this."""
    words = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        *((HELP, heavy) for heavy in ("asyncio", "qemu", "rich", "sqlite3")),
        ("import qmpmem.guests.overview, qmpmem.cli.show_guests", "asyncio"),
        *((CHAPTERS, heavy) for heavy in ("asyncio", "qemu", "rich", "sqlite3")),
    ],
)
def test_nothing_is_loaded_that_only_other_commands_need(code: str, heavy: str) -> None:
    assert heavy not in loaded(code)
