"""Root's guests, as users see them: with the groups, without them, beside an agent and alone."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.rig.command import Ran, plain_environment
from tests.rig.namespace import Namespace, namespace
from tests.rig.patience import patient
from tests.rig.qemu import SMALL, short_directory, until
from tests.rig.users import needs_root

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180), needs_root("may not mount")]

ROOT = Path(__file__).resolve().parents[2]
ENVIRON = {"QMPMEM_DEFAULTS": "/proc/nonexistent", "XDG_RUNTIME_DIR": "/run/own"}


class Host(NamedTuple):
    inside: Namespace
    program: Path
    """A qmpmem that every user may run."""

    def told(self, groups: list[str] | None, *words: str, **environ: str) -> Ran:
        ran = self.inside.run(self.program, *words, groups=groups, environ=ENVIRON | environ)
        assert "Traceback" not in ran.err
        return ran


@pytest.fixture(scope="module")
def host(shared_program: Path) -> Iterator[Host]:
    """Have a host where root has guest web1, started through the launcher."""
    with short_directory() as directory, namespace(directory) as inside:
        assert inside.run("install", "-d", "-m755", "/run/qmpmem", environ={}).code == 0
        launcher = [ROOT / "launchers" / "kvm", "-S", *SMALL, "-m", "256", "-name", "web1"]
        with started(inside, *launcher):
            host = Host(inside, shared_program)
            until(lambda: ids(host.told(None, "list", "--json")) == ["web1"], seconds=30)
            yield host


@contextmanager
def started(inside: Namespace, *words: object) -> Iterator["subprocess.Popen[bytes]"]:
    environment = plain_environment() | ENVIRON
    child = subprocess.Popen(inside.words(*words), env=environment, stdin=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(timeout=patient(20))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def ids(ran: Ran) -> list[str]:
    return [guest["id"] for guest in json.loads(ran.out)] if ran.code == 0 else [ran.err]


def judge(host: Host) -> None:
    """See what each kind of user may do; the same with and without an agent."""
    member, both = ["qmpmem"], ["qmpmem", "qmpmem-admin"]
    assert ids(host.told(member, "list", "--json")) == ["web1"]
    assert host.told(member, "info", "web1").code == 0
    refused = host.told(member, "set", "web1", "200M")
    assert (refused.code, refused.out) == (4, "")
    assert "only root and the group qmpmem-admin may change something" in refused.err
    assert "usermod -aG qmpmem-admin USER`, then log in again" in refused.err
    done = host.told(both, "set", "web1", "200M")
    assert done.code == 0, done.err
    assert host.told([], "list", "--json").out.strip() == "[]"
    assert host.told([], "info", "web1").code == 2


def test_rights_are_the_same_with_and_without_an_agent(host: Host) -> None:
    judge(host)
    with started(host.inside, host.program, "agent"):
        until(lambda: host.told(None, "agent", "status").code == 0, seconds=30)
        until(lambda: host.told(None, "info", "web1").code == 0, seconds=30)
        judge(host)
        # By way of the agent alone: the group's members need not reach any guest's own files.
        host.inside.run("chmod", "700", "/run/qmpmem/guests", environ={})
        try:
            assert ids(host.told(["qmpmem"], "list", "--json")) == ["web1"]
            assert ids(host.told(["qmpmem-admin"], "list", "--json")) == ["web1"]
            assert host.told(["qmpmem-admin"], "set", "web1", "220M").code == 0
        finally:
            host.inside.run("chmod", "2770", "/run/qmpmem/guests", environ={})
        refused = host.told([], "list", QMPMEM_RUN_DIR="/run/qmpmem/guests")
        assert "usermod -aG qmpmem USER" in refused.err
