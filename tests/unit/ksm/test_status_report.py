"""The report: what set KSM up, which guests may merge, and keys that programs rely on."""

import asyncio
import os
from pathlib import Path
from typing import Final

import msgspec
import pytest

from qmpmem.guests.inventory import LiveGuest
from qmpmem.ksm import domains, ledger, status_report
from qmpmem.ksm.ledger import Ledger
from qmpmem.ksm.status_records import GuestMerging, Report
from qmpmem.ksm.status_report import KsmSource
from qmpmem.ksm.verdict import Rates, Verdict
from qmpmem.model.ksm import KsmState
from qmpmem.records import replace
from qmpmem.units import PAGE, Bytes
from qmpmem.wire.kernel import ksm
from tests.rig.ksmmodel import NEW, Kernel

KTHREAD: Final = 0x208040
STATE: Final = KsmState(page_size=PAGE, run=0, pages_to_scan=100, sleep_millisecs=20)


def guest(name: str, domain: str | None, *, mergeable: bool | None = True) -> GuestMerging:
    return GuestMerging(
        id=name,
        name=name,
        pid=None,
        domain=domain,
        mergeable=mergeable,
        reason=None,
        merged=None,
        profit=None,
        rss=None,
        proportional=None,
    )


def make_process(root: Path, pid: int, comm: str, *, flags: int = 0x400000, ticks: int = 5) -> None:
    directory = root / "proc" / str(pid)
    directory.mkdir(parents=True)
    fields = ["S", *["0"] * 5, str(flags), *["0"] * 4, str(ticks), "1", *["0"] * 10]
    (directory / "stat").write_text(f"{pid} ({comm}) {' '.join(fields)}\n")


def place(tmp_path: Path) -> KsmSource:
    return KsmSource(tmp_path / "ledger", tmp_path)


def report_of(tmp_path: Path) -> Report:
    return asyncio.run(status_report.survey([], place(tmp_path), seconds=0.05))


# Keys. To take one away, or to call it otherwise, breaks a user's script.


def test_the_keys_of_a_report() -> None:
    assert set(Report.__struct_fields__) == {
        *("state", "saved", "profit", "rates", "verdict", "owner", "since", "foreign", "rival"),
        "problem",
        *("strangers", "guests"),
    }
    assert set(Rates.__struct_fields__) == {"scanned", "cpu"}
    assert set(Verdict.__struct_fields__) == {"word", "why"}


def test_the_keys_of_a_guest() -> None:
    assert set(GuestMerging.__struct_fields__) == {
        *("id", "name", "pid", "domain", "mergeable", "reason", "merged", "profit", "rss"),
        "proportional",
    }


def test_the_keys_of_the_kernels_state_are_the_names_of_its_files() -> None:
    assert set(KsmState.__struct_fields__) == {*NEW, "page_size"}


def test_unknown_is_null_and_not_left_out(tmp_path: Path) -> None:
    Kernel(tmp_path, kind={"run": "0"})
    seen = msgspec.json.decode(msgspec.json.encode(report_of(tmp_path)))
    assert set(seen) == set(Report.__struct_fields__)
    assert set(seen["state"]) == {*NEW, "page_size"}
    assert seen["state"]["pages_shared"] is None
    assert seen["rates"] is None


# Owners, and guests that are strangers.


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "the kernel"),
        ({"run": 1}, "another program"),
        ({"pages_to_scan": 200}, "another program"),
        ({"sleep_millisecs": 50}, "qmpmem"),
    ],
)
def test_the_program_that_set_it_up_is_named(changes: dict[str, int], expected: str) -> None:
    book = Ledger(before={"sleep_millisecs": "20"}, ours={"sleep_millisecs": "50"})
    assert status_report.owner(replace(STATE, **changes), book, Ledger()) == expected


def test_the_unit_of_an_agent_that_is_not_root_names_its_ledger() -> None:
    unit = Path(__file__).parents[3] / "launchers/qmpmem-agent-separate.service"
    assert f"\nEnvironment=QMPMEM_KSM_DIR=/{ledger.AGENTS}\n" in unit.read_text()


def test_an_agent_that_is_not_root_is_named(tmp_path: Path) -> None:
    Kernel(tmp_path, {"sleep_millisecs": "50"})
    directory = tmp_path / ledger.AGENTS
    directory.mkdir(parents=True)
    told = Ledger(boot=ledger.boot_id(tmp_path), ours={"sleep_millisecs": "50"})
    ledger.save(directory, told)
    assert report_of(tmp_path).owner == "qmpmem's agent"


@pytest.mark.parametrize("content", [None, b"{", b"[" * 9999, b'{"boot": "another"}'])
def test_what_is_no_ledger_of_an_agent_tells_nothing(tmp_path: Path, content: bytes | None) -> None:
    Kernel(tmp_path, {"sleep_millisecs": "50"})
    (path := tmp_path / ledger.AGENTS / "ledger.json").parent.mkdir(parents=True)
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    assert report_of(tmp_path).owner == "another program"


def test_what_another_program_changed_after_us_is_in_the_report(tmp_path: Path) -> None:
    Kernel(tmp_path, {"sleep_millisecs": "60"})
    (tmp_path / "ledger").mkdir()
    ledger.save(tmp_path / "ledger", Ledger(ours={"sleep_millisecs": "50"}))
    assert report_of(tmp_path).foreign == {"sleep_millisecs": "60"}


def test_the_thread_is_known_by_what_it_is_and_not_by_its_name(tmp_path: Path) -> None:
    make_process(tmp_path, 7, "ksmd")
    assert ksm.ksmd(tmp_path) is None
    make_process(tmp_path, 9, "ksmd", flags=KTHREAD, ticks=300)
    assert ksm.ksmd(tmp_path) == 9
    Kernel(tmp_path)
    seen = status_report.sample(tmp_path)
    assert seen is not None
    assert seen.cpu == 3.01


def test_a_program_that_steers_as_well_is_named(tmp_path: Path) -> None:
    make_process(tmp_path, 7, "bash")
    assert status_report.rival(tmp_path) is None
    make_process(tmp_path, 8, "ksmtuned")
    assert status_report.rival(tmp_path) == "ksmtuned (pid 8)"


# Domains.


def test_guests_of_one_domain_are_no_strangers() -> None:
    assert status_report.strangers([guest("a", "blue"), guest("b", "blue")]) == []
    assert status_report.strangers([guest("a", None), guest("b", None)]) == []
    assert status_report.strangers([guest("a", "blue")]) == []
    assert status_report.strangers([]) == []


def test_guests_of_two_domains_are() -> None:
    seen = [guest("a", "blue"), guest("b", "red"), guest("c", "blue")]
    assert status_report.strangers(seen) == [["a", "c"], ["b"]]
    assert domains.describe(status_report.strangers(seen)) == "a c | b"


def test_one_without_a_domain_is_a_stranger_to_one_with() -> None:
    assert status_report.strangers([guest("a", "blue"), guest("b", None)]) == [["a"], ["b"]]


def test_a_guest_that_cannot_merge_is_no_stranger() -> None:
    assert status_report.strangers([guest("a", "blue"), guest("b", "red", mergeable=False)]) == []


def test_a_guest_that_might_merge_is_one() -> None:
    seen = [guest("a", "blue"), guest("b", "red", mergeable=None)]
    assert status_report.strangers(seen) == [["a"], ["b"]]


def test_a_guest_that_has_merged_pages_is_one_whatever_is_said() -> None:
    adopted = replace(guest("b", "red", mergeable=False), merged=Bytes(PAGE))
    assert status_report.strangers([guest("a", "blue"), adopted]) == [["a"], ["b"]]


# Looking.


def test_there_are_rates_only_while_it_scans(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, {"pages_scanned": "7"})
    make_process(tmp_path, 9, "ksmd", flags=KTHREAD)
    assert report_of(tmp_path).rates is None
    kernel.store("run", "1")
    assert report_of(tmp_path).rates == Rates(scanned=Bytes(0), cpu=0.0)


def test_without_merging_in_the_kernel_guests_are_shown_all_the_same(tmp_path: Path) -> None:
    seen = report_of(tmp_path)
    assert (seen.state, seen.saved, seen.verdict) == (None, None, None)


def test_a_ledger_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    Kernel(tmp_path)
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger/ledger.json").write_text("garbage")
    seen = report_of(tmp_path)
    assert seen.owner == "unknown"
    assert "not a ledger" in (seen.problem or "")


async def test_guests_that_come_later_are_watched_too(tmp_path: Path) -> None:
    Kernel(tmp_path)
    looks: list[int] = []

    def find() -> list[LiveGuest]:
        looks.append(1)
        return []

    reports = status_report.watch(find, place(tmp_path), 0)
    clock = asyncio.get_running_loop().time
    started = clock()
    for _ in range(3):
        await anext(reports)
    assert len(looks) == 3
    assert clock() - started >= 3 * status_report.LEAST_PAUSE


async def test_a_kernel_that_loses_its_files_meanwhile_ends_the_watch(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    reports = status_report.watch(list, place(tmp_path), 0.01)
    assert (await anext(reports)).state is not None
    (tmp_path / ksm.DIRECTORY / "run").unlink()
    with pytest.raises(StopAsyncIteration):
        await anext(reports)
    assert kernel.values["run"] == "0"


async def test_each_report_of_a_watch_is_about_the_time_since_the_last(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, {"run": "1", "pages_scanned": "1000"})
    reports = status_report.watch(list, place(tmp_path), 0.01)
    assert (first := (await anext(reports)).rates)
    assert first.scanned == 0
    kernel.put({"pages_scanned": "2000"})
    assert (second := (await anext(reports)).rates)
    assert second.scanned
    kernel.put({"pages_scanned": "10"})
    assert (third := (await anext(reports)).rates)
    assert third.scanned is None
