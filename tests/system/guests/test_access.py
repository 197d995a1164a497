"""Which users' guests a user sees, and which users may change them."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmpmem.guests import access, rundir
from qmpmem.guests.access import View
from qmpmem.records import replace
from tests.rig.agent import record
from tests.rig.fakeguest import register
from tests.rig.namespace import namespace
from tests.rig.qemu import short_directory

USER = 4242
ENVIRON = {"QMPMEM_DEFAULTS": "/proc/nonexistent"}


@pytest.fixture
def here() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture
def roots(here: Path) -> Path:
    made = here / "guests"
    made.mkdir()
    return made


@pytest.fixture
def own(here: Path) -> Path:
    return here / "qmpmem"


def seen(here: Path, roots: Path, uid: int = USER, **environ: str) -> View:
    return access.view(ENVIRON | {"XDG_RUNTIME_DIR": str(here)} | environ, uid, roots)


def add(run: Path, guest: str) -> None:
    """Register a guest that lives: it is this process."""
    (run / guest).mkdir(parents=True)
    register(run, guest, os.getpid())


def test_a_user_without_guests_sees_roots(here: Path, roots: Path, own: Path) -> None:
    assert seen(here, roots) == View(run=roots)
    own.mkdir()
    assert seen(here, roots) == View(run=roots)
    (own / "gone").mkdir()
    gone = replace(record("gone"), socket=str(own / "gone/qmp.sock"), uid=os.getuid())
    rundir.write_record(own, gone)  # of another start time
    assert seen(here, roots) == View(run=roots)


def test_a_user_with_guests_sees_them_and_may_see_roots(here: Path, roots: Path, own: Path) -> None:
    add(own, "mine")
    assert seen(here, roots) == View(run=own, roots=roots)


def test_a_record_that_cannot_be_read_is_a_guest(here: Path, roots: Path, own: Path) -> None:
    (own / "odd").mkdir(parents=True)
    (own / "odd" / "record.json").write_text("{")
    assert seen(here, roots).run == own


def test_where_root_has_none_a_user_sees_his_own(here: Path, own: Path) -> None:
    assert seen(here, here / "none") == View(run=own)


def test_the_directory_that_is_named_is_the_one(here: Path, roots: Path) -> None:
    assert seen(here, roots, QMPMEM_RUN_DIR="/x") == View(run=Path("/x"))
    (here / "defaults").write_text("QMPMEM_RUN_DIR=/y\n")
    assert seen(here, roots, QMPMEM_DEFAULTS=str(here / "defaults")) == View(run=Path("/y"))


def test_root_sees_his_own(here: Path, roots: Path) -> None:
    assert seen(here, roots, uid=0) == View(run=Path("/run/qmpmem/guests"))


def test_a_user_that_may_ask_roots_agent_sees_roots_guests_by_way_of_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = here / "guests"
    monkeypatch.setattr(rundir, "ROOTS", roots)
    assert not access.may_see(roots)
    (here / "agent").mkdir()
    for name in ("agent.sock", "agent-admin.sock"):
        with socket.socket(socket.AF_UNIX) as agent:
            agent.bind(str(here / "agent" / name))
        assert access.may_see(roots)
        (here / "agent" / name).unlink()
        assert not access.may_see(roots)


@pytest.mark.parametrize(
    ("uid", "group", "told"),
    [
        (USER, 1, "none runs: as root, `qmpmem agent service install`"),
        (USER, 3, "to see root's, as root: `usermod -aG qmpmem USER`, then log in again"),
        (0, 3, None),
    ],
)
def test_a_user_who_misses_a_guest_of_roots_is_told_how_to_see_it(
    roots: Path, monkeypatch: pytest.MonkeyPatch, uid: int, group: int, told: str | None
) -> None:
    monkeypatch.setattr(access, "group_id", {access.READERS: 1, access.WRITERS: 2}.get)
    monkeypatch.setattr(access, "_groups", lambda: {group})
    monkeypatch.setattr(access, "may_see", lambda _: False)
    said = access.hidden_roots(uid, roots)
    assert (said is None) if told is None else (told in str(said))
    assert access.hidden_roots(uid, roots / "none") is None
    monkeypatch.setattr(access, "may_see", lambda _: True)
    assert access.hidden_roots(uid, roots) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: has no other users")
@pytest.mark.parametrize("words", [("list",), ("info", "web1"), ("set", "web1", "200M")])
@pytest.mark.parametrize("groups", [[], ["qmpmem"], ["qmpmem", "qmpmem-admin"]])
def test_a_user_without_the_right_gets_one_line_where_no_agent_runs(
    here: Path, shared_program: Path, groups: list[str], words: tuple[str, ...]
) -> None:
    """It says what cannot be done, where, and what to do; nothing about a guest is given away."""
    with namespace(here) as inside:
        guests = "/run/qmpmem/guests"
        made = f"install -d -m755 /run/qmpmem; install -d -m700 {guests} {guests}/web1"
        assert inside.run("sh", "-c", made, environ={}).code == 0
        environ = ENVIRON | {"XDG_RUNTIME_DIR": "/run/own"}
        ran = inside.run(shared_program, *words, groups=groups, environ=environ)
        if words == ("list",) and not groups:
            assert (ran.code, ran.out.count("\n"), ran.err) == (0, 1, "")
        else:
            assert "usermod -aG qmpmem USER" in ran.err or "`qmpmem agent service" in ran.err
        named = {"QMPMEM_RUN_DIR": guests}
        ran = inside.run(shared_program, *words, groups=groups, environ=environ | named)
        assert (ran.code, ran.out) == (4, "")
        assert "run directory /run/qmpmem/guests: Permission denied" in ran.err
        assert "usermod -aG qmpmem USER" in ran.err


@pytest.mark.parametrize(
    ("uid", "group", "told"), [(USER, 1, True), (USER, 2, True), (USER, 3, False), (0, 1, False)]
)
def test_a_member_is_told_where_no_agent_runs(
    roots: Path, monkeypatch: pytest.MonkeyPatch, uid: int, group: int, *, told: bool
) -> None:
    monkeypatch.setattr(access, "group_id", {access.READERS: 1, access.WRITERS: 2}.get)
    monkeypatch.setattr(access, "_groups", lambda: {group})
    monkeypatch.setattr(access, "may_see", lambda _: False)
    said = access.unseen_roots(uid, roots)
    assert (said is not None) is told
    assert said is None or "none runs: as root, `qmpmem agent service install`" in said
    assert access.unseen_roots(uid, roots / "none") is None
    monkeypatch.setattr(access, "may_see", lambda _: True)
    assert access.unseen_roots(uid, roots) is None
