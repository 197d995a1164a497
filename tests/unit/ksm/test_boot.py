"""KSM at boot: the settings, and the systemd unit that reads them."""

from pathlib import Path

import pytest

from qmpmem import systemd
from qmpmem.errors import ConfigError, LaunchError
from qmpmem.files import defaults, launcher_paths
from qmpmem.ksm import boot
from qmpmem.ksm.systemd_unit import UNIT

PLACE = f"{systemd.DIRECTORY}/{UNIT.name}"
LINK = f"{systemd.WANTS}/{UNIT.name}"


def request(text: str) -> boot.AtBoot:
    return boot.read(defaults.parse(text))


def test_nothing_said_is_nothing_done() -> None:
    assert request("QMPMEM_MODE=static\n").enabled is None
    assert request("KSM_ENABLED=\n").enabled is None


def test_what_an_old_file_said_is_understood() -> None:
    said = request('# qemu-kvm\nKSM_ENABLED=1\nKSM_PRESET="eager"\n')
    assert (said.enabled, said.preset, said.across_domains) == (True, "eager", False)
    assert request("KSM_ENABLED=0").enabled is False
    assert request("KSM_ENABLED=0\nKSM_ENABLED=1").enabled is True
    assert request("KSM_ACROSS_DOMAINS=1").across_domains


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        request("KSM_ENABLED=yes\nnonsense\nKSM_PRESET=fast\nKSM_ACROSS_DOMAINS=2\n")
    for part in ("'yes'", "line 2", "'nonsense'", "'fast'", "'2'", "quiet or balanced or eager"):
        assert part in caught.value.message


def test_defaults_that_cannot_be_read_are_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "etc/default/qmpmem").mkdir(parents=True)
    with pytest.raises(ConfigError, match="expected a file, got a directory"):
        boot.read(defaults.load({}, tmp_path))


def test_the_unit_is_put_in_place_once_and_taken_out_again(tmp_path: Path) -> None:
    assert len(systemd.install(UNIT, tmp_path, "/opt/qmpmem/bin/qmpmem")) == 2
    text = (tmp_path / PLACE).read_text()
    assert "\nExecStart=/opt/qmpmem/bin/qmpmem ksm boot\n" in text
    assert "\nExecStop=/opt/qmpmem/bin/qmpmem ksm restore\n" in text
    assert (tmp_path / LINK).readlink() == Path("/") / PLACE
    assert systemd.install(UNIT, tmp_path, "/opt/qmpmem/bin/qmpmem") == []
    assert len(systemd.install(UNIT, tmp_path, "/usr/bin/qmpmem")) == 1
    assert len(systemd.uninstall(UNIT, tmp_path)) == 2
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
    assert systemd.uninstall(UNIT, tmp_path) == []


def test_a_unit_that_another_program_wrote_stays(tmp_path: Path) -> None:
    (tmp_path / PLACE).parent.mkdir(parents=True)
    (tmp_path / PLACE).write_text("[Service]\n")
    with pytest.raises(LaunchError, match="not written by qmpmem"):
        systemd.install(UNIT, tmp_path, "/q")
    with pytest.raises(LaunchError, match="not written by qmpmem"):
        systemd.uninstall(UNIT, tmp_path)
    assert (tmp_path / PLACE).read_text() == "[Service]\n"


@pytest.mark.parametrize(
    "program", ["qmpmem", "/a b/qmpmem", "/50%/qmpmem", "/a\nExecStart=/b", ""]
)
def test_a_path_that_systemd_would_read_otherwise_is_refused(program: str) -> None:
    with pytest.raises(LaunchError, match="absolute path"):
        systemd.text_of(UNIT, program)


def test_the_unit_ships_with_the_launchers() -> None:
    assert (launcher_paths.launchers_directory() / UNIT.name).is_file()
