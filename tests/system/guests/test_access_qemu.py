"""Root's guests, as users see them: with the groups, without them, beside an agent and alone."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.rig.command import Ran
from tests.rig.namespace import Namespace, namespace, started
from tests.rig.qemu import SMALL, short_directory, until
from tests.rig.users import needs_root

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180), needs_root("may not mount")]

ROOT = Path(__file__).resolve().parents[3]
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
        with started(inside, *launcher, environ=ENVIRON):
            host = Host(inside, shared_program)
            until(lambda: ids(host.told(None, "list", "--json")) == ["web1"], seconds=30)
            yield host


def ids(ran: Ran) -> list[str]:
    return [guest["id"] for guest in json.loads(ran.out)] if ran.code == 0 else [ran.err]


def test_a_user_has_roots_guests_by_way_of_roots_agent_alone(host: Host) -> None:
    member, both = ["qmpmem"], ["qmpmem", "qmpmem-admin"]
    for groups in (member, both):
        for words in (("list",), ("info", "web1"), ("set", "web1", "200M")):
            told = host.told(groups, *words)
            assert "web1" not in told.out
            assert "root's guests are asked of root's agent, and none runs" in told.err
        named = host.told(groups, "list", QMPMEM_RUN_DIR="/run/qmpmem/guests")
        assert (named.code, named.out) == (4, "")
        assert "`qmpmem agent service install`" in named.err
        assert no_way_in(host, groups) == {"PermissionError"}
    with started(host.inside, host.program, "agent", environ=ENVIRON):
        until(lambda: host.told(None, "agent", "status").code == 0, seconds=30)
        until(lambda: host.told(None, "info", "web1").code == 0, seconds=30)
        ways: tuple[dict[str, str], ...] = ({}, {"QMPMEM_RUN_DIR": "/run/qmpmem/guests"})
        for environ in ways:
            assert ids(host.told(member, "list", "--json", **environ)) == ["web1"]
            assert host.told(member, "info", "web1", **environ).code == 0
            lines = json.loads(host.told(member, "doctor", "--json", **environ).out)
            about = {"group", "run directory", "leftovers", "balloons"}
            assert {each["status"] for each in lines if each["what"] in about} == {"ok"}
        typed = {"COMP_WORDS": "qmpmem info w", "COMP_CWORD": "2"}
        offered = host.told(member, **typed, _QMPMEM_COMPLETE="complete_bash")
        assert offered.out.split() == ["web1"]
        refused = host.told(member, "set", "web1", "200M")
        assert (refused.code, refused.out) == (4, "")
        assert "only root and the group qmpmem-admin may change something" in refused.err
        assert "usermod -aG qmpmem-admin USER`, then log in again" in refused.err
        done = host.told(both, "set", "web1", "200M")
        assert done.code == 0, done.err
        assert host.told([], "list", "--json").out.strip() == "[]"
        assert host.told([], "info", "web1").code == 2
        refused = host.told([], "list", QMPMEM_RUN_DIR="/run/qmpmem/guests")
        assert "usermod -aG qmpmem USER" in refused.err
        assert no_way_in(host, both) == {"PermissionError"}


def speaks_qmp(host: Host, groups: list[str] | None, *more: str) -> bool:
    """Whether members of groups get a session."""
    return host.told(groups, "qmp", "web1", "query-name", *more).code == 0


Judge = Callable[[Host, list[str] | None], bool]
ROWS: Final[dict[str, Judge]] = {
    "use their QMP sockets": lambda host, groups: "done" in no_way_in(host, groups),
    "see them": lambda host, groups: ids(host.told(groups, "list", "--json")) == ["web1"],
    "change them": lambda host, groups: host.told(groups, "set", "web1", "220M").code == 0,
    "speak QMP with them": speaks_qmp,
    "ask them by QMP": lambda host, groups: speaks_qmp(host, groups, "--read-only"),
}
COLUMNS: Final[dict[str, list[str] | None]] = {
    "root": None,
    "`qmpmem-admin`": ["qmpmem", "qmpmem-admin"],
    "`qmpmem`": ["qmpmem"],
    "other users": [],
}


def table() -> dict[str, dict[str, str]]:
    """Read what the manual says of root's guests: by row and column."""
    text = (ROOT / "qmpmem" / "manual" / "security.md").read_text()
    lines = text[text.index("| of root's guests |") :].partition("\n\n")[0].splitlines()
    head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


@pytest.mark.parametrize("has_agent", [False, True])
def test_the_table_of_rights_of_the_manual_is_true(host: Host, *, has_agent: bool) -> None:
    with ExitStack() as stack:
        if has_agent:
            stack.enter_context(started(host.inside, host.program, "agent", environ=ENVIRON))
            until(lambda: host.told(None, "agent", "status").code == 0, seconds=30)
            until(lambda: host.told(None, "info", "web1").code == 0, seconds=30)
        means = {"yes": True, "no": False, "by root's agent": has_agent}
        read = table()
        assert len(read) == len(ROWS)
        for row, cells in read.items():
            [may] = [judge for name, judge in ROWS.items() if row.startswith(name)]
            assert cells.keys() == COLUMNS.keys()
            for column, cell in cells.items():
                assert may(host, COLUMNS[column]) is means[cell], (row, column)


def test_root_alone_needs_neither_group_nor_agent(host: Host) -> None:
    assert ids(host.told(None, "list", "--json")) == ["web1"]
    assert host.told(None, "set", "web1", "210M").code == 0


ATTEMPTS = """
import os, socket
def connect(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
run = "/run/qmpmem/guests"
for attempt in (
    lambda: os.stat(f"{run}/web1/qmp.sock"),
    lambda: connect(f"{run}/web1/qmp.sock"),
    lambda: os.listdir(run),
    lambda: os.listdir(f"{run}/web1"),
    lambda: open(f"{run}/web1/record.json"),
    lambda: open(f"{run}/.lock", "w"),
    lambda: os.rename(f"{run}/web1", f"{run}/web1"),
    lambda: os.mkdir(f"{run}/web2") or os.rmdir(f"{run}/web2"),
    lambda: os.symlink("/etc", "/run/qmpmem/x") or os.unlink("/run/qmpmem/x"),
):
    try:
        attempt()
        print("done")
    except OSError as error:
        print(type(error).__name__)
"""


def no_way_in(host: Host, groups: list[str] | None) -> set[str]:
    """Try to get at guest web1 past the agent; returns what comes of that."""
    ran = host.inside.run("/usr/bin/python3", "-ISc", ATTEMPTS, groups=groups, environ={})
    assert ran.err == ""
    return set(ran.out.split())
