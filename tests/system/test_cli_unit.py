"""systemd's units, by command: what is there, what was done, and what comes next."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from qmpmem import service
from qmpmem.agent.service import UNIT as AGENT
from qmpmem.ksm.service import UNIT as KSM
from tests.rig.command import PROGRAM, Ran, qmpmem

UNITS = {"agent": AGENT, "ksm": KSM}
STARTED = {"agent": f"\nExecStart={PROGRAM} agent\n", "ksm": f"\nExecStart={PROGRAM} ksm boot\n"}


def call(root: Path, command: str, *words: str) -> Ran:
    words = (command, "service", *words, "--root", str(root))
    return qmpmem(*words, run=root / "run")


def state(root: Path, command: str) -> tuple[str, bool]:
    ran = call(root, command, "status", "--json")
    assert ran.code == 0, ran.err
    seen = json.loads(ran.out)
    assert seen["path"] == str(root / service.DIRECTORY / UNITS[command].name)
    return seen["state"], seen["enabled"]


@pytest.mark.parametrize("command", UNITS)
def test_a_unit_is_installed_seen_and_removed(tmp_path: Path, command: str) -> None:
    assert state(tmp_path, command) == ("absent", False)
    assert f"`qmpmem {command} service install`" in call(tmp_path, command, "status").out
    ran = call(tmp_path, command, "install")
    assert ran.out.splitlines()[0].startswith("wrote ")
    assert ran.err == "qmpmem: next: start that system; systemd starts it then\n"
    assert STARTED[command] in (tmp_path / service.DIRECTORY / UNITS[command].name).read_text()
    assert state(tmp_path, command) == ("installed", True)
    assert call(tmp_path, command, "install") == Ran(0, "nothing to change\n", "")
    assert json.loads(call(tmp_path, command, "uninstall", "--json").out)["changed"] is True
    assert state(tmp_path, command) == ("absent", False)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize("command", UNITS)
@pytest.mark.parametrize("change", ["older", "other"])
def test_a_unit_that_is_not_this_programs_is_said_to_be(
    tmp_path: Path, command: str, change: str
) -> None:
    unit = UNITS[command]
    place = tmp_path / service.DIRECTORY / unit.name
    place.parent.mkdir(parents=True)
    if change == "older":
        place.write_text(service.text_of(unit, "/old/qmpmem"))
        assert state(tmp_path, command) == ("outdated", False)
        assert "to do: " in call(tmp_path, command, "status").out
    else:
        place.write_bytes(b"[Service]\n# \xff\n")
        assert state(tmp_path, command) == ("foreign", False)
        assert "out of the way" in call(tmp_path, command, "status").out
        for word in ("install", "uninstall"):
            ran = call(tmp_path, command, word)
            assert (ran.code, "not written by qmpmem" in ran.err) == (3, True)
        assert place.read_bytes() == b"[Service]\n# \xff\n"


@pytest.mark.parametrize("command", UNITS)
def test_systemd_understands_a_unit(tmp_path: Path, command: str) -> None:
    checker = shutil.which("systemd-analyze")
    if checker is None:
        pytest.skip(
            "no systemd on this host: it is not needed elsewhere, and not installed for this"
        )
    unit = tmp_path / UNITS[command].name
    unit.write_text(service.text_of(UNITS[command], "/bin/true"))
    words = [checker, "verify", "--man=no", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, said) == (0, [])
