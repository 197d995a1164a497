"""systemd's units, by command: what is there, what was done, and what comes next."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from qmpmem import systemd
from qmpmem.agent.systemd_units import UNIT as AGENT
from qmpmem.ksm.systemd_unit import UNIT as KSM
from tests.rig.command import PROGRAM, Ran, called_each

UNITS = {"agent": AGENT, "ksm": KSM}
STARTED = {"agent": f"\nExecStart={PROGRAM} agent\n", "ksm": f"\nExecStart={PROGRAM} ksm boot\n"}


def call(root: Path, command: str, *calls: str) -> list[Ran]:
    words = [[command, "service", *each.split(), "--root", str(root)] for each in calls]
    return called_each(words, run=root / "run")


def place_of(root: Path, command: str) -> Path:
    return root / systemd.DIRECTORY / UNITS[command].name


def state(ran: Ran, place: Path) -> tuple[str, bool]:
    assert ran.code == 0, ran.err
    seen = json.loads(ran.out)
    assert seen["path"] == str(place)
    return seen["state"], seen["enabled"]


@pytest.mark.parametrize("command", UNITS)
def test_a_unit_is_installed_seen_and_removed(tmp_path: Path, command: str) -> None:
    place = place_of(tmp_path, command)
    before, words, done, there, again = call(
        *(tmp_path, command, "status --json", "status", "install", "status --json", "install")
    )
    assert state(before, place) == ("absent", False)
    assert f"`qmpmem {command} service install`" in words.out
    assert done.out.splitlines()[0].startswith("wrote ")
    assert done.err == "qmpmem: next: start that system; systemd starts it then\n"
    assert STARTED[command] in place.read_text()
    assert state(there, place) == ("installed", True)
    assert again == Ran(0, "nothing to change\n", "")
    gone, after = call(tmp_path, command, "uninstall --json", "status --json")
    assert json.loads(gone.out)["changed"] is True
    assert state(after, place) == ("absent", False)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize("command", UNITS)
def test_a_unit_of_an_older_program_is_said_to_be_one(tmp_path: Path, command: str) -> None:
    place = place_of(tmp_path, command)
    place.parent.mkdir(parents=True)
    place.write_text(systemd.text_of(UNITS[command], "/old/qmpmem"))
    seen, words = call(tmp_path, command, "status --json", "status")
    assert state(seen, place) == ("outdated", False)
    assert "to do: " in words.out


@pytest.mark.parametrize("command", UNITS)
def test_a_unit_of_another_program_is_said_to_be_one_and_stays(
    tmp_path: Path, command: str
) -> None:
    place = place_of(tmp_path, command)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"[Service]\n# \xff\n")
    seen, words, *changes = call(
        *(tmp_path, command, "status --json", "status", "install", "uninstall")
    )
    assert state(seen, place) == ("foreign", False)
    assert "out of the way" in words.out
    assert [(ran.code, "not written by qmpmem" in ran.err) for ran in changes] == [(3, True)] * 2
    assert place.read_bytes() == b"[Service]\n# \xff\n"


@pytest.mark.parametrize("command", UNITS)
def test_systemd_understands_a_unit(tmp_path: Path, command: str) -> None:
    checker = shutil.which("systemd-analyze")
    if checker is None:
        pytest.skip(
            "no systemd on this host: it is not needed elsewhere, and not installed for this"
        )
    unit = tmp_path / UNITS[command].name
    unit.write_text(systemd.text_of(UNITS[command], "/bin/true"))
    words = [checker, "verify", "--man=no", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, said) == (0, [])


@pytest.mark.parametrize("command", UNITS)
def test_a_file_in_the_place_of_the_link_is_named_and_nothing_is_written(
    tmp_path: Path, command: str
) -> None:
    """Row F87."""
    link = tmp_path / systemd.WANTS / f"qmpmem-{command}.service"
    link.parent.mkdir(parents=True)
    link.touch()
    [done] = call(tmp_path, command, "install")
    assert done.code == 3
    assert f"{link}: expected a link, got a file" in done.err
    assert not place_of(tmp_path, command).exists()
