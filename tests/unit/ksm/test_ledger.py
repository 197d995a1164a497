"""The ledger: what it remembers, which users it trusts, and what it does where it cannot be had."""

import fcntl
import os
import stat
from pathlib import Path
from typing import Final

import pytest

from qmpmem.errors import KernelError
from qmpmem.ksm import ledger, rules
from qmpmem.ksm.ledger import Ledger, RefusedError
from qmpmem.ksm.rules import Write
from qmpmem.records import replace
from tests.rig import odd
from tests.rig.users import NOBODY, needs_root

BOOT_ID = "proc/sys/kernel/random/boot_id"


@pytest.fixture
def where(tmp_path: Path) -> Path:
    directory = tmp_path / "ledger"
    directory.mkdir()
    return directory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root" / BOOT_ID
    path.parent.mkdir(parents=True)
    path.write_text("one\n")
    return tmp_path / "root"


BOOK = Ledger(boot="one", before={"run": "0"}, ours={"run": "1"}, scans=3, since=5.0)


def write(name: str, before: str, after: str) -> Write:
    return Write(name=name, before=before, after=after)


def test_what_is_saved_is_loaded(where: Path, root: Path) -> None:
    book = replace(BOOK, taken={"run": 1}, passing={"run": ["0", "2"]})
    ledger.save(where, book)
    found = ledger.load(where, root)
    assert found == book
    assert [path.name for path in where.iterdir()] == ["ledger.json"]


def test_every_user_may_see_it_whatever_the_umask_is(where: Path) -> None:
    before = os.umask(0o077)
    try:
        ledger.save(where, BOOK)
    finally:
        os.umask(before)
    assert stat.S_IMODE((where / "ledger.json").stat().st_mode) == 0o644


def test_one_without_entries_is_no_file(where: Path, root: Path) -> None:
    ledger.save(where, BOOK)
    ledger.save(where, Ledger(boot="one"))
    ledger.save(where, Ledger(boot="one"))
    assert list(where.iterdir()) == []
    assert ledger.load(where, root) == Ledger(boot="one")


def test_one_of_another_boot_says_nothing_of_this_one(where: Path, root: Path) -> None:
    ledger.save(where, BOOK)
    (root / BOOT_ID).write_text("two\n")
    assert ledger.load(where, root) == Ledger(boot="two")


IMPOSSIBLE: Final = (
    *((b"before", b"sleep_millisecs", value) for value in (b'"-1"', b'""', b'"020"', b'"+1"')),
    (b"before", b"sleep_millisecs", b'"4294967296"'),
    (b"before", b"sleep_millisecs", '"٣"'.encode()),
    (b"before", b"pages_to_scan", b'"1e3"'),
    (b"before", b"run", b'"3"'),
    (b"before", b"smart_scan", b'"2"'),
    (b"before", b"max_page_sharing", b'"1"'),
    (b"before", b"advisor_target_scan_time", b'"0"'),
    (b"before", b"advisor_max_pages_to_scan", b'"18446744073709551616"'),
    (b"before", b"advisor_mode", b'"a b"'),
    (b"before", b"advisor_mode", b'"[none]"'),
    (b"ours", b"sleep_millisecs", b'"x"'),
)
"""Values that no file of KSM shows, and where a ledger has them."""


def test_no_value_on_the_way_is_impossible_either(where: Path, root: Path) -> None:
    """Row F88."""
    ledger.save(where, replace(BOOK, passing={"run": ["0", "-1"]}))
    with pytest.raises(KernelError, match="no kernel shows"):
        ledger.load(where, root)


def test_a_file_that_this_version_does_not_know_is_not_judged(where: Path, root: Path) -> None:
    book = replace(BOOK, before={"run": "0", "later": "any"}, ours={"run": "1", "later": "-1"})
    ledger.save(where, book)
    assert ledger.load(where, root) == book


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a ledger"),
        (b'{"before": 3}', "not a ledger"),
        (b'{"ours": {"run": null}}', "not a ledger"),
        (b"\xff\xfe{}", "not a ledger"),
        (b"[" * 50_000, "not a ledger"),
        (b'{"x":' + b"[" * 60_000, "not a ledger"),
        (b'{"version": 2, "boot": "one"}', "version 2, expected 1"),
        *(
            (b'{"boot": "one", "%s": {"run": "1", "%s": %s}}' % (part, name, value), "no kernel")
            for part, name, value in IMPOSSIBLE
        ),
    ],
)
def test_one_that_cannot_be_read_is_not_guessed_at(
    where: Path, root: Path, content: bytes, message: str
) -> None:
    (where / "ledger.json").write_bytes(content)
    with pytest.raises(KernelError, match=message) as caught:
        ledger.load(where, root)
    assert caught.value.hint
    assert (where / "ledger.json").read_bytes() == content


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", odd.EVERY)
def test_what_another_user_could_have_written_is_not_believed_and_is_set_aside(
    where: Path, root: Path, make: odd.Make
) -> None:
    make(where / "ledger.json")
    with pytest.raises(RefusedError, match="what it says is not done") as caught:
        ledger.load(where, root)
    assert "\n" not in caught.value.message
    ledger.set_aside(where)
    ledger.save(where, BOOK)
    assert ledger.load(where, root) == BOOK


@needs_root("gives a directory to a group")
def test_a_ledger_in_a_directory_of_a_group_is_not_believed(where: Path, root: Path) -> None:
    ledger.save(where, BOOK)
    os.chown(where, -1, NOBODY)
    where.chmod(0o2775)
    with pytest.raises(RefusedError, match=f"group {NOBODY} may write it"):
        ledger.load(where, root)
    with pytest.raises(KernelError, match=f"group {NOBODY} may write it"), ledger.locked(where):
        pass


@needs_root("gives a directory to a group")
def test_what_an_earlier_version_shared_with_a_group_is_taken_back(
    where: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "DIRECTORY", where)
    (where / "lock").touch()
    for path, mode in ((where / "lock", 0o660), (where, ledger.ONCE)):
        os.chown(path, -1, NOBODY)
        path.chmod(mode)
    held = os.open(where / "lock", os.O_RDWR)  # by a member of that group
    fcntl.flock(held, fcntl.LOCK_EX)
    with ledger.locked(where):
        ledger.save(where, BOOK)
    os.close(held)
    assert ledger.load(where, root) == BOOK
    assert stat.S_IMODE(where.stat().st_mode) == ledger.MODE


def test_no_file_of_another_is_written_through_a_link(where: Path, root: Path) -> None:
    victim = root / BOOT_ID
    (where / f".ledger.{os.getpid()}").symlink_to(victim)
    ledger.save(where, BOOK)
    assert victim.read_text() == "one\n"
    assert ledger.load(where, root).scans == 3


def test_the_lock_is_no_link(where: Path, root: Path) -> None:
    (where / "lock").symlink_to(root / BOOT_ID)
    with ledger.locked(where):
        assert (where / "lock").is_file()
        assert not (where / "lock").is_symlink()


def test_the_lock_is_for_its_owner_only(where: Path) -> None:
    # A user that can open it can hold it for ever.
    before = os.umask(0)
    try:
        with ledger.locked(where):
            assert stat.S_IMODE((where / "lock").stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_one_at_a_time(where: Path) -> None:
    with (
        ledger.locked(where),
        pytest.raises(KernelError, match="by another qmpmem right now"),
        ledger.locked(where),
    ):
        pass
    with ledger.locked(where):
        pass


def test_the_lock_is_let_go_after_a_failure(where: Path) -> None:
    with pytest.raises(ZeroDivisionError), ledger.locked(where):
        raise ZeroDivisionError
    descriptor = os.open(where / "lock", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_the_directory_is_made_where_it_is_missing(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with ledger.locked(tmp_path / "run/ksm"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755
    wanted = ledger.MODE if os.geteuid() == 0 else 0o700
    assert stat.S_IMODE((tmp_path / "run/ksm").stat().st_mode) == wanted


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KernelError) as caught, ledger.locked(tmp_path / "file/ksm"):
        pass
    assert "\n" not in caught.value.message
    assert "run as root" in str(caught.value.hint)


def test_where_it_is_can_be_chosen() -> None:
    assert ledger.directory({"QMPMEM_KSM_DIR": "/x"}) == Path("/x")
    assert ledger.directory({"QMPMEM_KSM_DIR": ""}) == ledger.DIRECTORY


def test_what_was_there_is_remembered_once() -> None:
    now = {"run": "0", "sleep_millisecs": "20"}
    one = ledger.note(Ledger(), (write("sleep_millisecs", "20", "50"),), now, 7.0)
    then = {**now, "sleep_millisecs": "50"}
    two = ledger.note(one, (write("sleep_millisecs", "50", "70"),), then, 9.0)
    assert (two.before, two.ours) == ({"sleep_millisecs": "20"}, {"sleep_millisecs": "70"})
    assert two.since == 7.0


def test_a_value_on_the_way_is_ours_until_it_is_settled() -> None:
    noted = ledger.note(
        Ledger(), (write("sleep_millisecs", "20", "50"),), {"sleep_millisecs": "20"}, 7.0
    )
    for value, mine in (("20", True), ("50", True), ("60", False)):
        assert (ledger.own(noted, {"sleep_millisecs": value}) != frozenset()) == mine
        assert (ledger.foreign(noted, {"sleep_millisecs": value}) == {}) == mine
    settled = ledger.settle(noted)
    assert ledger.foreign(settled, {"sleep_millisecs": "20"}) == {"sleep_millisecs": "20"}


def test_unmerging_that_was_cut_off_is_ours() -> None:
    noted = ledger.note(Ledger(), (write("run", "1", "2"),), {"run": "1"}, 7.0)
    assert ledger.own(noted, {"run": "0"}) == {"run"}


def test_the_advisor_takes_the_speed_along() -> None:
    now = {rules.MODE: "none", rules.PAGES: "777"}
    noted = ledger.note(Ledger(), (write(rules.MODE, "none", "scan-time"),), now, 7.0)
    assert noted.before == now
    off = ledger.note(
        noted, (write(rules.MODE, "scan-time", "none"),), {rules.MODE: "scan-time"}, 8
    )
    assert off.ours[rules.PAGES] == rules.DEFAULT_PAGES


def test_what_is_ours_already_was_not_there_before() -> None:
    book = Ledger(before={rules.MODE: "scan-time"}, ours={rules.MODE: "none", rules.PAGES: "300"})
    now = {rules.MODE: "none", rules.PAGES: "300"}
    assert ledger.note(book, (write(rules.PAGES, "300", "400"),), now, 7.0).before == book.before


def test_what_this_kernel_does_not_show_is_neither_ours_nor_foreign() -> None:
    assert ledger.foreign(BOOK, {}) == {}
    assert ledger.own(BOOK, {}) == frozenset()
