"""KSM as text: every figure is named, what is not known is a dash, and nothing escapes."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.ksm import verdict
from qmpmem.ksm.status_records import GuestMerging, Report
from qmpmem.ksm.verdict import Rates
from qmpmem.model.ksm import KsmState
from qmpmem.records import replace
from qmpmem.units import MIB, PAGE, Bytes
from qmpmem.view import ksm as view
from qmpmem.view.rows import UNKNOWN

STATE: Final = KsmState(
    page_size=PAGE,
    run=1,
    pages_to_scan=100,
    sleep_millisecs=20,
    pages_shared=100,
    pages_sharing=400,
    pages_unshared=5,
    pages_volatile=6,
    full_scans=7,
)
EVIL: Final = "\x1b[31mred\n\u202e"

COUNT: Final = st.one_of(st.none(), st.integers(0, 1 << 64))


def report(state: KsmState | None = STATE, rates: Rates | None = None, **changes: object) -> Report:
    plain = Report(
        state=state,
        saved=None if state is None else verdict.saved(state),
        profit=None if state is None else verdict.profit(state),
        rates=rates,
        verdict=None if state is None else verdict.judge(state),
        owner="qmpmem",
        since=None,
        foreign={},
        rival=None,
        strangers=(),
        guests=(),
    )
    return replace(plain, **changes)


def rows(seen: Report) -> dict[str, str]:
    return dict(view.status_rows(seen))


GUEST: Final = GuestMerging(
    id="g",
    name="g",
    pid=1,
    domain=None,
    mergeable=True,
    reason=None,
    merged=Bytes(MIB),
    profit=Bytes(-64),
    rss=None,
    proportional=None,
)


def test_both_ratios_are_shown_each_under_its_name() -> None:
    shown = rows(report())
    assert shown["sharing : shared"].startswith("4,")
    assert "high is good" in shown["sharing : shared"]
    assert shown["shared ÷ sharing"].startswith("0.25,")
    assert "low is good" in shown["shared ÷ sharing"]


def test_a_ratio_with_nothing_is_a_dash() -> None:
    empty = rows(report(replace(STATE, pages_shared=0, pages_sharing=0)))
    assert empty["sharing : shared"].startswith(UNKNOWN)
    assert empty["shared ÷ sharing"].startswith(UNKNOWN)


@given(
    counts=st.fixed_dictionaries(
        dict.fromkeys(("pages_shared", "pages_sharing", "pages_to_scan", "full_scans"), COUNT)
    ),
    mode=st.sampled_from([None, "none", "scan-time"]),
    run=st.integers(0, 2),
)
def test_any_state_can_be_shown(counts: dict[str, int | None], mode: str | None, run: int) -> None:
    seen = report(replace(STATE, run=run, advisor_mode=mode, **counts), Rates())
    assert all(label and value for label, value in view.status_rows(seen))
    assert list(view.warnings(seen)) == []
    assert view.watch_line(seen)


def test_without_merging_in_the_kernel_that_is_all_there_is_to_say() -> None:
    assert rows(report(None)) == {"state": "this kernel cannot merge pages (no CONFIG_KSM)"}
    assert UNKNOWN in view.watch_line(report(None))


def test_the_state_names_the_program_that_set_it_up_and_what_it_does() -> None:
    assert rows(report())["state"] == "running, set up by qmpmem"
    assert rows(report(replace(STATE, run=2)))["state"].startswith("off, unmerged")


def test_the_speed_in_words() -> None:
    assert rows(report())["speed"] == "100 pages (400 KiB) each 20 ms; advisor: none"
    off = rows(report(replace(STATE, advisor_mode="none")))
    assert off["speed"].endswith("advisor: off")
    advised = replace(STATE, advisor_mode="scan-time", advisor_max_cpu=40)
    assert rows(report(replace(advised, advisor_target_scan_time=60)))["speed"] == (
        "the kernel's advisor (scan-time): a scan in 60 s, at most 40 % of a core"
    )


def test_rates_are_shown_where_there_are_some() -> None:
    assert "ksmd" not in rows(report())
    shown = rows(report(rates=Rates(scanned=Bytes(MIB), cpu=12.34)))
    assert (shown["scanned"], shown["ksmd"]) == ("1 MiB/s, 7 full scans", "12.3 % of a core")
    assert rows(report(rates=Rates()))["ksmd"] == f"{UNKNOWN} of a core"


def test_what_the_administrator_should_know() -> None:
    seen = report(foreign={"run": "0"}, rival="ksmtuned (pid 7)", strangers=(("a", "b"), ("c",)))
    one, two, three = view.warnings(seen)
    assert one == "run is 0: another program changed it after qmpmem did"
    assert two == "ksmtuned (pid 7) steers KSM as well"
    assert three.endswith("may merge with each other: a b | c")


def test_strangers_are_no_matter_while_nothing_merges() -> None:
    seen = report(replace(STATE, run=0), strangers=(("a",), ("b",)))
    assert list(view.warnings(seen)) == []


@pytest.mark.parametrize(
    ("mergeable", "reason", "shown"),
    [
        (True, None, "yes"),
        (False, "mem-merge=off", "no: mem-merge=off"),
        (None, "busy", "busy"),
        (None, None, UNKNOWN),
    ],
)
def test_whether_a_guest_merges(*, mergeable: bool | None, reason: str | None, shown: str) -> None:
    row = view.guest_row(replace(GUEST, mergeable=mergeable, reason=reason))
    assert row == ("g", UNKNOWN, shown, "1 MiB", "-64 B", UNKNOWN, UNKNOWN)
    assert len(row) == len(view.GUEST_HEADERS)


def test_what_others_chose_cannot_write_on_the_terminal() -> None:
    row = view.guest_row(replace(GUEST, domain=EVIL, mergeable=None, reason=EVIL))
    lines = [*row, *view.warnings(report(rival=EVIL))]
    assert not set("".join(lines)) & set("\x1b\n\u202e")


def test_the_columns_of_a_watch_stand_below_their_names() -> None:
    header, line = view.watch_header(), view.watch_line(report(rates=Rates()))
    assert header.index("VERDICT") == line.index("wasted effort")
