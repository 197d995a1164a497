"""Guests that the agent adopts by rule, again after each restart."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmpmem.agent.adopter import candidates, owner_of
from qmpmem.model.config import Adoption
from tests.rig import qemu
from tests.rig.agent import running, said
from tests.rig.command import called
from tests.rig.foreign_qemu import client, qmp, started
from tests.rig.users import IS_ROOT

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]


@pytest.fixture
def here() -> Iterator[Path]:
    with qemu.short_directory() as directory:
        (directory / "vms").mkdir(mode=0o755)
        yield directory


def rules(here: Path) -> tuple[str, str]:
    config = here / "qmpmem.toml"
    config.write_text(f'[[adopt]]\nsocket = "{here}/vms/*.qmp"\n')
    return "--config", str(config)


def test_a_guest_that_starts_again_comes_back(here: Path) -> None:
    run, path = here / "run", here / "vms/db1.qmp"

    def actual() -> bool:
        return "db1  prelaunch  64 MiB" in called("list", run=run).out

    with running(run, *rules(here)):
        for _ in range(2):
            with started(*qmp(path), *qemu.BALLOON, wait_for=path) as child:
                qemu.until(actual, seconds=30, what="it is adopted")
                assert f'"pid":{child.pid},' in (run / "db1/record.json").read_text()
                child.kill()
                child.wait()
            qemu.until(lambda: "db1" not in called("list", run=run).out, seconds=30)


def test_what_cannot_be_adopted_is_said_once(here: Path) -> None:
    run, path = here / "run", here / "vms/db1.qmp"
    with started(*qmp(path), wait_for=path), client(path), running(run, *rules(here)):
        wanted = f"not adopted by rule: guest db1: {path}: process {os.getpid()} "
        qemu.until(lambda: wanted in said(run), seconds=30)
        assert said(run).count(wanted) == 1
        assert not (run / "db1").exists()


def test_sockets_that_are_no_guests_yet_are_found(here: Path) -> None:
    (here / "vms/file.qmp").touch()
    with started(*qmp(here / "vms/a.qmp"), wait_for=here / "vms/a.qmp"):
        found = candidates([Adoption(socket=f"{here}/vms/*.qmp")], here / "run")
        assert [(each.socket, each.name) for each in found] == [(f"{here}/vms/a.qmp", "a")]
        assert called("adopt", "x", f"{here}/vms/a.qmp", run=here / "run").code == 0
        assert candidates([Adoption(socket=f"{here}/vms/*.qmp")], here / "run") == []


def test_a_socket_that_any_user_may_have_put_there_is_refused(here: Path) -> None:
    path = here / "vms/a.qmp"
    with started(*qmp(path), wait_for=path):
        assert owner_of(str(path)) == os.getuid()
        (here / "vms").chmod(0o1777)
        with pytest.raises(PermissionError, match="every user"):
            owner_of(str(path))
        (here / "vms").chmod(stat.S_IRWXU)
        if IS_ROOT:
            os.chown(path, 65534, -1)
            with pytest.raises(PermissionError, match="belongs to uid 65534"):
                owner_of(str(path))
            os.chown(here / "vms", 65534, -1)
            assert owner_of(str(path)) == 65534
