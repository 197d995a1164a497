"""`qmpmem ksm` in bad worlds: one clear line, the right exit code, nothing half done."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from qmpmem.guests.rundir import GuestRecord, write_record
from qmpmem.ksm.status_records import GuestMerging, Report
from qmpmem.wire import kernel
from qmpmem.wire.kernel import ksm
from tests.rig import mounts, odd
from tests.rig.command import PROGRAM, Ran, called, plain_environment
from tests.rig.ksmmodel import NEW, OLD, Kernel
from tests.rig.patience import patient, within
from tests.rig.users import AS_ORDINARY, NOBODY, needs_root

KERNEL: Final = 4
USAGE: Final = 2

WRITERS: Final = (
    ("on",),
    ("off",),
    ("preset", "eager"),
    ("tune", "sleep_millisecs=50"),
    ("unmerge",),
    ("restore",),
)
READERS: Final = (
    ("status",),
    ("status", "--json"),
    ("on", "--dry-run"),
    ("unmerge", "--dry-run"),
    ("tune", "sleep_millisecs=50", "--dry-run"),
)


@dataclass(frozen=True, slots=True)
class Host:
    """A tree of files, and the program beside it."""

    root: Path

    @property
    def ksm(self) -> Path:
        return self.root / ksm.DIRECTORY

    @property
    def where(self) -> Path:
        return self.root / "ledger"

    @property
    def run(self) -> Path:
        return self.root / "guests"

    def call(self, *words: str) -> Ran:
        own = {"QMPMEM_KSM_DIR": str(self.where)}
        return called("ksm", *words, "--root", str(self.root), run=self.run, environ=own)

    def photograph(self) -> dict[str, str]:
        paths = (path for path in self.ksm.iterdir() if path.is_file())
        return {path.name: path.read_text(errors="surrogateescape").strip() for path in paths}


def make_host(root: Path, kind: Mapping[str, str], **values: str) -> Host:
    Kernel(root, values, kind=kind)
    (root / "guests").mkdir()
    (root / "proc/sys/kernel/random").mkdir(parents=True)
    (root / "proc/sys/kernel/random/boot_id").write_text("one\n")
    (root / "proc/meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n")
    return Host(root)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return make_host(tmp_path, NEW)


@pytest.fixture
def old(tmp_path: Path) -> Host:
    """As 6.1: no advisor."""
    return make_host(tmp_path, OLD)


def expect(ran: Ran, code: int, *parts: str) -> None:
    assert ran.code == code, ran
    [line] = ran.err.splitlines()
    assert line.startswith("qmpmem: ")
    for part in parts:
        assert part in line, ran


# What works.


def test_a_user_that_waits_for_merging_that_is_off_is_told_so_at_once(host: Host) -> None:
    ran = host.call("status", "--until-settled", "--timeout", "50")
    expect(ran, 0, "off: not scanning")
    assert len(ran.out.splitlines()) == 2


def test_there_and_back(old: Host) -> None:
    before = old.photograph()
    assert old.call("on", "--preset", "eager").code == 0
    assert old.call("tune", "max_page_sharing=16", "use_zero_pages=1").code == 0
    now = old.photograph()
    assert (now["run"], now["max_page_sharing"]) == ("1", "16")
    seen = json.loads(old.call("status", "--json").out)
    assert (seen["owner"], seen["foreign"], seen["state"]["run"]) == ("qmpmem", {}, 1)
    assert old.call("unmerge").out == "unmerged 0 B\n"
    assert old.call("restore").code == 0
    assert old.photograph() == before
    assert sorted(path.name for path in old.where.iterdir()) == ["lock"]


def test_what_is_changed_is_json(host: Host) -> None:
    def told(*words: str) -> dict[str, object]:
        ran = host.call(*words, "--json")
        assert ran.code == 0, ran
        document: dict[str, object] = json.loads(ran.out)
        return document

    write = {"name": "run", "before": "0", "after": "1"}
    assert told("on", "--dry-run") == {"dry_run": True, "writes": [write]}
    assert told("on") == {"dry_run": False, "writes": [write]}
    assert told("on") == {"dry_run": False, "writes": []}
    [changed] = json.loads(json.dumps(told("tune", "sleep_millisecs=50")["writes"]))
    assert (changed["name"], changed["after"]) == ("sleep_millisecs", "50")
    assert told("preset", "quiet")["writes"] != []
    assert told("unmerge", "--dry-run")["unmerged"] == 0
    assert told("restore").keys() == {"dry_run", "writes", "left"}
    assert told("boot") == {"dry_run": False, "writes": []}


@pytest.mark.parametrize("words", READERS[2:])
def test_a_dry_run_changes_nothing_and_leaves_no_trace(host: Host, words: tuple[str, ...]) -> None:
    before = host.photograph()
    ran = host.call(*words)
    assert ran.code == 0, ran
    assert ran.out.startswith("would ")
    assert host.photograph() == before
    assert not host.where.exists()


def test_the_keys_of_json(host: Host) -> None:
    start = kernel.process(os.getpid())
    assert start is not None
    record = GuestRecord(
        version=1,
        id="g",
        name="g",
        pid=os.getpid(),
        start_time=start.start_time,
        socket=str(host.run / "g/qmp.sock"),
        uid=os.getuid(),
        created=time.time(),
    )
    (host.run / "g").mkdir()
    write_record(host.run, record)
    # As of a process whose address space is locked: reading it takes for ever.
    (host.root / f"proc/{os.getpid()}").mkdir()
    os.mkfifo(host.root / f"proc/{os.getpid()}/smaps_rollup")
    with within(15):
        ran = host.call("status", "--json")
    assert ran.code == 0, ran
    seen = json.loads(ran.out)
    assert set(seen) == set(Report.__struct_fields__)
    assert set(seen["state"]) == {*NEW, "page_size"}
    [guest] = seen["guests"]
    assert set(guest) == set(GuestMerging.__struct_fields__)
    assert guest["rss"] is None


def test_a_kernel_without_an_advisor_is_no_less_shown(old: Host) -> None:
    ran = old.call("status")
    assert ran.code == 0
    assert "advisor: none" in ran.out
    assert ran.err == ""


# Usage.


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("tune", "pages_to_scan=0"), "expected 1 to"),
        (("tune", "x=1"), "a key of KSM"),
        (("tune", "run=2"), "qmpmem ksm on"),
        (("tune", "advisor_mode=scan-time", "pages_to_scan=200"), "the advisor chooses it"),
        (("tune",), "issing argument"),
        (("preset", "fast"), "'fast'"),
        (("on", "--preset", "fast"), "'fast'"),
        (("status", "--watch", "-1"), "write 500ms, 90s"),
    ],
)
def test_a_wrong_wish_is_two(host: Host, words: tuple[str, ...], part: str) -> None:
    before = host.photograph()
    expect(host.call(*words), USAGE, part)
    assert host.photograph() == before
    assert not host.where.exists() or not (host.where / "ledger.json").exists()


def test_what_only_newer_kernels_have_is_two(old: Host) -> None:
    expect(old.call("tune", "advisor_mode=none"), USAGE, "this kernel does not have it")


def test_a_knob_that_needs_all_unmerged_is_two(tmp_path: Path) -> None:
    merged = make_host(tmp_path, NEW, pages_shared="3")
    expect(merged.call("tune", "merge_across_nodes=0"), USAGE, "`qmpmem ksm unmerge` first")


# The kernel.


@pytest.mark.parametrize("words", WRITERS + READERS)
def test_no_merging_in_the_kernel(host: Host, words: tuple[str, ...]) -> None:
    shutil.rmtree(host.ksm)
    ran = host.call(*words)
    if words[0] == "status":
        assert ran.code == 0
    else:
        expect(ran, KERNEL, "this kernel cannot merge pages")


EACH_KIND: Final = ("run", "sleep_millisecs", "pages_shared", "general_profit", "advisor_mode")


@pytest.mark.parametrize("name", EACH_KIND)
@pytest.mark.parametrize("content", [b"garbage\n", b"\xff\xfe", b"-1\n"])
def test_garbage_in_any_file_is_named(host: Host, name: str, content: bytes) -> None:
    if name == "general_profit" and content == b"-1\n":
        return  # may be negative
    (host.ksm / name).write_bytes(content)
    before = host.photograph()
    for words in (("on",), ("status", "--json")):
        expect(host.call(*words), KERNEL, f"/{ksm.DIRECTORY}/{name}: expected ")
    assert host.photograph() == before


@pytest.mark.parametrize("name", EACH_KIND)
def test_any_file_may_be_missing(host: Host, name: str) -> None:
    (host.ksm / name).unlink()
    ran = host.call("status", "--json")
    assert ran.code == 0
    if name != "run":
        assert json.loads(ran.out)["state"][name] is None
        assert host.call("on").code == 0
    else:
        expect(host.call("on"), KERNEL, "this kernel cannot merge pages")


def test_a_knob_that_is_no_file_is_one_line_and_nothing_is_done(host: Host) -> None:
    (host.ksm / "run").unlink()
    (host.ksm / "run").mkdir()
    for words in (("on",), ("status",)):
        expect(host.call(*words), KERNEL, "/run: cannot be read")


# Not ours to write.


READS_ALL: Final = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
"""An ordinary user that may read everything: the interpreter may be in a home directory."""
NO_RIGHTS: Final = tuple(
    f"--{kind}=-dac_override,-dac_read_search" for kind in ("bounding-set", "inh-caps")
)
"""Root, which permissions bind."""

as_root = needs_root("cannot become another user")


@pytest.fixture
def other() -> Generator[Host]:
    """A host whose files are root's, with places of our own for an ordinary user."""
    with tempfile.TemporaryDirectory(prefix="qm-", dir="/tmp") as root:
        Path(root).chmod(0o755)  # tmp_path is for no other user
        host = make_host(Path(root), NEW)
        for path in (host.where, host.run):
            path.mkdir(exist_ok=True)
            os.chown(path, NOBODY, NOBODY)
        yield host


def as_ordinary(host: Host, *words: str) -> Ran:
    return call_by([*AS_ORDINARY, *READS_ALL], host, *words)


def call_by(prefix: Sequence[str], host: Host, *words: str) -> Ran:
    own = {"QMPMEM_RUN_DIR": str(host.run), "QMPMEM_KSM_DIR": str(host.where)}
    done = subprocess.run(
        [*prefix, PROGRAM, "ksm", *words, "--root", str(host.root)],
        capture_output=True,
        text=True,
        env=plain_environment() | own,
        timeout=patient(60),
        check=False,
    )
    assert "Traceback" not in done.stderr
    return Ran(code=done.returncode, out=done.stdout, err=done.stderr)


@as_root
@pytest.mark.parametrize("words", WRITERS[:3])
def test_files_of_root_are_not_ours_to_write(other: Host, words: tuple[str, ...]) -> None:
    if words == ("off",):
        (other.ksm / "run").write_text("1\n")
    before = other.photograph()
    ran = as_ordinary(other, *words)
    expect(ran, KERNEL, "Permission denied; nothing is changed", "chgrp qmpmem", "run as root")
    assert other.photograph() == before
    assert sorted(path.name for path in other.where.iterdir()) == ["lock"]


@as_root
def test_of_several_files_some_ours_none_is_changed(other: Host) -> None:
    os.chown(other.ksm / "sleep_millisecs", NOBODY, NOBODY)
    before = other.photograph()
    ran = as_ordinary(other, "tune", "sleep_millisecs=50", "smart_scan=0")
    expect(ran, KERNEL, "smart_scan", "nothing is changed")
    assert other.photograph() == before


@as_root
def test_files_that_are_mounted_read_only_are_said_to_be_so(host: Host) -> None:
    """Row F68."""
    alone = 'mount --bind $0 $0 && mount -o remount,bind,ro $0 && exec "$@"'
    before = host.photograph()
    ran = call_by([*mounts.apart(), "sh", "-ec", alone, str(host.ksm)], host, "on")
    expect(ran, KERNEL, "Read-only file system; nothing is changed", "as in a container")
    assert host.photograph() == before


@as_root
def test_to_unmerge_is_not_ours_either(other: Host) -> None:
    before = other.photograph()
    expect(as_ordinary(other, "unmerge"), KERNEL, "Permission denied; nothing is changed")
    assert other.photograph() == before


@as_root
def test_what_can_be_read_is_shown_to_any_user(other: Host) -> None:
    assert as_ordinary(other, "status").code == 0
    assert as_ordinary(other, "on", "--dry-run").out == "would set run: 0 → 1\n"


@as_root
def test_a_ledger_directory_of_another_is_one_line(other: Host) -> None:
    os.chown(other.where, 0, 0)
    before = other.photograph()
    expect(as_ordinary(other, "on"), KERNEL, str(other.where), "run as root")
    assert other.photograph() == before


@as_root
def test_files_that_cannot_be_read_are_no_missing_kernel(host: Host) -> None:
    host.ksm.chmod(0o700)
    os.chown(host.ksm, NOBODY, NOBODY)
    for words in (("status",), ("on",)):
        ran = call_by(["setpriv", *NO_RIGHTS], host, *words)
        expect(ran, KERNEL, "Permission denied", "run as root")


# The ledger.


def make_garbage(path: Path) -> None:
    path.write_text("garbage")


def make_other_version(path: Path) -> None:
    path.write_text('{"version": 2}')


@pytest.mark.parametrize("make", [make_garbage, make_other_version])
@pytest.mark.parametrize("words", [("on",), ("restore",)])
def test_a_ledger_that_cannot_be_read_stops_every_change(
    host: Host, make: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    host.where.mkdir()
    make(host.where / "ledger.json")
    before = host.photograph()
    expect(host.call(*words), KERNEL, str(host.where / "ledger.json"))
    assert host.photograph() == before


@as_root
@pytest.mark.parametrize("words", [("on",), ("restore",), ("restore", "--agents")])
def test_a_ledger_that_a_group_could_have_written_is_not_done(
    host: Host, words: tuple[str, ...]
) -> None:
    host.where.mkdir()
    book = {
        "version": 1,
        "boot": "one",
        "agent": [1, 1],
        "ours": host.photograph(),
        "before": {"run": "1", "pages_to_scan": "1000000", "sleep_millisecs": "0"},
    }
    (host.where / "ledger.json").write_text(json.dumps(book))
    (host.where / "ledger.json").chmod(0o664)
    os.chown(host.where / "ledger.json", NOBODY, NOBODY)
    before = host.photograph()
    ran = host.call(*words)
    [line] = [each for each in ran.err.splitlines() if "ledger.json" in each]
    assert line.endswith("what it says is not done")
    assert host.photograph() == {**before, "run": "1" if words == ("on",) else "0"}


@contextmanager
def two_domains(host: Host) -> Iterator[None]:
    with ExitStack() as stack:
        for name in ("blue", "red"):
            child = stack.enter_context(subprocess.Popen(["sleep", "1000"]))
            stack.callback(child.kill)
            process = kernel.process(child.pid)
            assert process is not None
            (host.run / name).mkdir()
            record = GuestRecord(
                version=1,
                id=name,
                name=name,
                pid=child.pid,
                start_time=process.start_time,
                socket=str(host.run / name / "qmp.sock"),
                uid=0,
                created=0.0,
                domain=name,
            )
            write_record(host.run, record)
        yield


def test_merging_does_not_come_back_across_domains_unless_told(host: Host) -> None:
    (host.ksm / "run").write_text("1\n")
    assert host.call("off").code == 0
    with two_domains(host):
        before = host.photograph()
        expect(host.call("restore"), USAGE, "different domains would merge", "--across-domains")
        assert host.photograph() == before
        assert host.call("restore", "--across-domains").out == "run: 0 → 1\n"


def test_an_agents_changes_are_put_back_and_a_commands_are_not(host: Host) -> None:
    assert host.call("tune", "sleep_millisecs=50").code == 0
    assert host.call("restore", "--agents").out == "nothing to change\n"
    path = host.where / "ledger.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"agent": [1, 1]}))
    assert host.call("restore", "--agents").out == "sleep_millisecs: 50 → 20\n"


@pytest.mark.parametrize("make", [make_garbage, odd.fifo])
def test_all_else_is_shown_without_the_ledger(host: Host, make: Callable[[Path], None]) -> None:
    host.where.mkdir()
    make(host.where / "ledger.json")
    ran = host.call("status")
    assert ran.code == 0
    assert "set up by unknown" in ran.out
    assert f"warning: who set KSM up is not known: {host.where}/ledger.json: " in ran.err


def test_a_ledger_of_another_boot_is_none(host: Host) -> None:
    assert host.call("on").code == 0
    (host.root / "proc/sys/kernel/random/boot_id").write_text("two\n")
    (host.ksm / "run").write_text("0\n")
    assert host.call("restore").out == "nothing to change\n"
    assert host.photograph()["run"] == "0"


def test_a_ledger_whose_place_is_a_file_stops_all(host: Host) -> None:
    host.where.write_text("")
    before = host.photograph()
    expect(host.call("on"), KERNEL, str(host.where))
    assert host.photograph() == before


# Others.


def test_what_another_program_changed_after_us_is_left_alone_and_told_of(host: Host) -> None:
    assert host.call("tune", "sleep_millisecs=50", "smart_scan=0").code == 0
    (host.ksm / "sleep_millisecs").write_text("60\n")
    assert "sleep_millisecs is 60: another program" in host.call("status").err
    ran = host.call("restore")
    assert ran.code == 0
    assert "sleep_millisecs is 60" in ran.err
    assert ran.out == "smart_scan: 0 → 1\n"
    assert host.photograph()["sleep_millisecs"] == "60"


def test_what_another_program_changed_twice_is_left_to_it(host: Host) -> None:
    for code in (0, 0, KERNEL):
        assert host.call("tune", "sleep_millisecs=50").code == code
        (host.ksm / "sleep_millisecs").write_text("60\n")
    expect(host.call("tune", "sleep_millisecs=50"), KERNEL, "2 times after us", "ksmtuned")


def test_no_room_is_said_with_what_is_missing(tmp_path: Path) -> None:
    merged = make_host(tmp_path, NEW, pages_sharing="2097152", run="1")
    before = merged.photograph()
    for words in (("unmerge",), ("unmerge", "--dry-run")):
        expect(merged.call(*words), KERNEL, "needs 8 GiB", "are missing", "qmpmem set")
    assert merged.photograph() == before
