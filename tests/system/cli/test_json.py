"""--json is in every command, and is JSON whatever comes of it."""

import json
import os
from pathlib import Path
from typing import Any, Final

import pytest
from typer.main import get_command

from qmpmem.cli import app as program
from tests.rig.command import Ran, called, called_each
from tests.rig.fakeguest import register

WITHOUT = {"script", "env", "help", "manual", "agent broker"}
"""Their output is JSON lines anyway, a line for a shell, text to read, a manual page; a broker has
none."""


def leaves(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:  # noqa: ANN401 - typer has no public name for its commands
    inner = getattr(command, "commands", {})
    found = {} if inner else {path: command}
    for name, each in inner.items():
        found |= leaves(each, (*path, name))
    return found


def test_every_command_takes_json() -> None:
    program.load([])
    lacking = {
        " ".join(path)
        for path, command in leaves(get_command(program.app)).items()
        if not any("--json" in each.opts for each in command.params)
    }
    assert lacking == WITHOUT


REFUSED: Final = (
    ("set none 256M", 2, "ConfigError"),
    ("set none", 2, "ConfigError"),
    ("set 256M none", 2, "ConfigError"),
    ("unpin none", 5, "AgentUnreachable"),
    ("agent pin none 256M", 5, "AgentUnreachable"),
    ("agent hold", 5, "AgentUnreachable"),
    ("agent reserve 1G", 5, "AgentUnreachable"),
    ("agent unreserve x", 5, "AgentUnreachable"),
    ("agent status", 5, "AgentUnreachable"),
    ("forget none", 2, "ConfigError"),
    ("adopt none /nowhere", 5, "GuestUnreachable"),
    ("info none", 2, "ConfigError"),
    ("stats none", 2, "ConfigError"),
    ("ksm on --root ROOT", 4, "KernelError"),
    ("ksm off --root ROOT", 4, "KernelError"),
    ("ksm tune run=9 --root ROOT", 2, "ConfigError"),
    ("ksm preset eagre --root ROOT", 2, "ConfigError"),
    ("ksm unmerge --root ROOT", 4, "KernelError"),
    ("launcher install --root ROOT", 3, "LaunchError"),
    ("run --reserve 1G", 5, "AgentUnreachable"),
    ("run --nonsense", 2, "ConfigError"),
    ("simulate none", 2, "ConfigError"),
    ("lst", 2, "ConfigError"),
)


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """What each of these calls ends with on a host where there is nothing."""
    place = tmp_path_factory.mktemp("host")
    root = place / "root"
    root.mkdir()
    words = [call.replace("ROOT", str(root)).split() for call, *_ in REFUSED]
    calls = [[*each, "--json", *(("--", "-m", "1") if "run" in each else ())] for each in words]
    ran = called_each(calls, run=place / "run", environ={"QMPMEM_KSM_DIR": str(place / "ksm")})
    assert not any(root.iterdir())
    return dict(zip((call for call, *_ in REFUSED), ran, strict=True))


@pytest.mark.parametrize(("call", "code", "kind"), REFUSED)
def test_a_refusal_is_json_too(refused: dict[str, Ran], call: str, code: int, kind: str) -> None:
    ran = refused[call]
    error = json.loads(ran.out)["error"]
    assert (ran.code, error["kind"], error["exit_code"]) == (code, kind, code)
    assert ran.err == f"qmpmem: {'; '.join(filter(None, (error['message'], error['hint'])))}\n"


@pytest.mark.parametrize("call", ["replay", "config show", "agent --once"])
def test_mistakes_of_a_configuration_are_json_too(tmp_path: Path, call: str) -> None:
    config = tmp_path / "qmpmem.toml"
    config.write_text("perod = 1\ngrace = nan\n")
    ran = called(*call.split(), "--config", str(config), "--json", run=tmp_path / "run")
    error = json.loads(ran.out)["error"]
    assert (ran.code, error["kind"], error["exit_code"]) == (2, "ConfigError", 2)
    assert error["message"].startswith(f"{config}:1: perod: ")
    assert error["message"].endswith(" (and 1 more)")
    assert [line.split()[1] for line in ran.err.splitlines()] == [f"{config}:1:", f"{config}:2:"]


def test_what_comes_after_the_end_of_options_asks_for_nothing(tmp_path: Path) -> None:
    assert called("set", "none", "256M", "--", "--json", run=tmp_path).out == ""


def test_a_guest_that_cannot_be_read_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    register(tmp_path, "g", os.getpid())
    ran = called("info", "g", "--json", run=tmp_path)
    assert ran.code == 5
    assert json.loads(ran.out)["id"] == "g"


def image(root: Path) -> Path:
    """A root with an emulator."""
    for directory in ("usr/bin", "usr/lib"):
        (root / directory).mkdir(parents=True)
    emulator = root / "usr/bin/kvm"
    emulator.write_bytes(b"\x7fELF and so on")
    emulator.chmod(0o755)
    return root


def test_what_the_launcher_does_is_json(tmp_path: Path) -> None:
    root = str(image(tmp_path / "root"))
    would = called("launcher", "install", "--root", root, "--dry-run", "--json", run=tmp_path)
    document = json.loads(would.out)
    assert (document["changed"], document["dry_run"], document["done"] != []) == (False, True, True)
    assert not (tmp_path / "root/usr/bin/distrib-kvm").exists()
    did = json.loads(called("launcher", "install", "--root", root, "--json", run=tmp_path).out)
    assert (did["changed"], len(did["done"])) == (True, len(document["done"]))
    undone = json.loads(called("launcher", "uninstall", "--root", root, "--json", run=tmp_path).out)
    assert undone["changed"] is True


def test_run_names_its_process_first(tmp_path: Path) -> None:
    fake = tmp_path / "emulator"
    fake.write_text('#!/bin/sh\necho "pid $$"\n')
    fake.chmod(0o755)
    ran = called(
        *("run", "--json", "--name", "web1", "--", "-m", "1"),
        run=tmp_path / "run",
        environ={"QMPMEM_REAL": str(fake)},
    )
    first, *rest = ran.out.splitlines()
    seen = json.loads(first)
    assert seen == {"pid": seen["pid"], "name": "web1", "lease": None}
    assert f"pid {seen['pid']}" in rest
