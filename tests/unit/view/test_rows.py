"""What people are shown: missing is missing, and a name cannot command a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.model.guest import BalloonDevice, GuestStats, GuestView
from qmpmem.records import replace
from qmpmem.units import MIB, Bytes
from qmpmem.view import rows

FULL = GuestView(
    id="web1",
    name="web1",
    pid=4711,
    state="running",
    maximum=Bytes(512 * MIB),
    actual=Bytes(256 * MIB),
    rss=Bytes(300 * MIB),
    stats=GuestStats(
        swap_in=Bytes(0),
        swap_out=Bytes(0),
        major_faults=7,
        minor_faults=9000,
        free=Bytes(100 * MIB),
        total=Bytes(240 * MIB),
        available=Bytes(140 * MIB),
        disk_caches=Bytes(40 * MIB),
        last_update=1_700_000_000,
        age=1.0,
    ),
    socket="/run/qmpmem/guests/web1/qmp.sock",
    machine="pc-i440fx-7.2",
    managed=True,
    used=Bytes(116 * MIB),
    accelerator="tcg",
    balloon=BalloonDevice(
        driver="virtio-balloon-pci",
        path="/machine/peripheral/qmpmem0",
        deflate_on_oom=True,
        free_page_reporting=True,
    ),
)
BARE = replace(
    FULL,
    pid=None,
    state="unreachable",
    maximum=None,
    actual=None,
    rss=None,
    stats=None,
    used=None,
    machine=None,
    accelerator=None,
    balloon=None,
    problem="guest web1: no answer in 5 s",
)


def test_a_list_row_shows_sizes_and_what_the_balloon_holds() -> None:
    assert rows.list_row(FULL) == (
        "web1", "running", "512 MiB", "256 MiB", "256 MiB", "300 MiB", "",
    )  # fmt: skip


def test_what_is_not_known_is_a_dash() -> None:
    assert rows.list_row(BARE)[2:6] == ("-", "-", "-", "-")
    shown = dict(rows.info_rows(BARE))
    assert shown["current allocation"] == "-"
    assert shown["pid"] == "-"
    assert shown["balloon device"] == "-"
    assert shown["note"] == "guest web1: no answer in 5 s"
    assert dict(rows.stats_rows(BARE)) == {
        "actual": "-",
        "guest reports": "nothing: no answer in 5 s",
        "rss": "-",
    }


@pytest.mark.parametrize(
    ("guest", "reason"),
    [
        (FULL, None),
        (replace(FULL, stats=GuestStats(consistent=False)), "numbers that contradict each other"),
        (replace(FULL, stats=None, state="paused"), "nothing: it is paused, not running"),
        (replace(FULL, stats=None, state="prelaunch"), "nothing: it is prelaunch, not running"),
        (replace(FULL, stats=None, balloon=None), "nothing: it has no balloon device"),
        (replace(FULL, stats=None, mode="static"), "nothing: it was started in mode static"),
        (replace(FULL, stats=None, problem="no balloon device"), "nothing: no balloon device"),
        (replace(FULL, stats=None), "nothing: its virtio_balloon driver is not loaded, or"),
    ],
)
def test_a_guest_that_reports_nothing_has_a_reason(guest: GuestView, reason: str | None) -> None:
    said = rows.silence(guest)
    assert (said or "").startswith(reason or "")
    assert (said is None) == (reason is None)
    if said is not None:
        assert dict(rows.stats_rows(guest))["guest reports"] == said
        assert dict(rows.info_rows(guest))["guest reports"] == said
        assert list(dict(rows.stats_rows(guest)).values()).count("-") == 0


SOCKET = FULL.socket


@pytest.mark.parametrize(
    ("problem", "note"),
    [
        (None, ""),
        ("no balloon device", "no balloon device"),
        (f"guest web1: {SOCKET}: process 4110 (qmpmem, uid 0) holds the monitor",
         "held by process 4110 (qmpmem)"),
        (f"guest web1: {SOCKET}: process 7 (a (b) c, uid 1000) holds the monitor",
         "held by process 7 (a (b) c)"),
        (f"guest web1: {SOCKET}: another process holds the monitor", "held by another process"),
        (f"guest web1: {SOCKET}: no process listens", "no process listens"),
        ("guest web1: no answer in 5 s", "no answer in 5 s"),
        ("guest web10: no answer", "guest web10: no answer"),
    ],
)  # fmt: skip
def test_a_note_does_not_repeat_what_its_row_says(problem: str | None, note: str) -> None:
    assert rows.list_row(replace(FULL, problem=problem))[-1] == note


def test_info_has_what_dominfo_had_and_more() -> None:
    shown = dict(rows.info_rows(FULL))
    assert shown["maximum allocation"] == "512 MiB"
    assert shown["current allocation"] == "256 MiB"
    assert shown["balloon"] == "256 MiB"
    assert shown["guest used"] == "116 MiB"
    assert shown["guest faults"] == "7 major, 9000 minor"
    assert shown["balloon device"] == (
        "virtio-balloon-pci, deflate-on-oom on, free-page-reporting on"
    )


def test_a_guest_that_was_asked_and_has_no_balloon_is_said_to_have_none() -> None:
    assert dict(rows.info_rows(replace(FULL, balloon=None)))["balloon device"] == "none"


def test_a_time_is_one_that_people_read_whatever_a_guest_says() -> None:
    assert dict(rows.stats_rows(FULL))["last_update"].startswith("2023-11-1")
    for claimed in (2**63, -(2**63), 10**30):
        assert rows.moment(claimed) == str(claimed)


def test_a_zero_is_a_zero_and_not_missing() -> None:
    shown = dict(rows.stats_rows(FULL))
    assert shown["swap_in"] == "0 B"
    assert shown["hugetlb_failures"] == "-"


def test_a_report_that_contradicts_itself_is_said_so() -> None:
    shown = dict(rows.info_rows(replace(FULL, stats=GuestStats(consistent=False))))
    assert "contradict" in shown["guest reports"]


@given(st.text())
def test_nothing_a_name_holds_reaches_the_terminal(name: str) -> None:
    shown = dict(rows.info_rows(replace(FULL, name=name)))["name"]
    assert shown.isprintable()


def test_nothing_a_hostile_qemu_says_reaches_the_terminal() -> None:
    evil = "\x1b]0;x\x07\x1b[31mEVIL"
    device = BalloonDevice(driver=evil, path="/machine/peripheral/b")
    guest = replace(FULL, state=evil, machine=evil, problem=evil, socket=evil, balloon=device)
    shown = [*rows.list_row(guest), *(value for _, value in rows.info_rows(guest))]
    assert all(cell.isprintable() for cell in shown)


def test_columns_line_up() -> None:
    lines = list(rows.columns(("A", "BB"), [("long", "x"), ("s", "y")]))
    assert lines == ["A     BB", "long  x", "s     y"]


@pytest.mark.parametrize("width", [40, 60, 80, 96, 120])
def test_a_sample_shows_the_columns_that_fit(width: int) -> None:
    lines = list(rows.watch_lines(FULL, header=True, width=width))
    assert all(len(line) <= width for line in lines)
    assert len(lines[0].split()) == min(len(rows.WATCH_HEADERS), width // 12)


def test_samples_printed_apart_line_up() -> None:
    first = list(rows.watch_lines(FULL, header=True))
    second = list(rows.watch_lines(BARE, header=False))
    assert len({len(line) for line in first + second}) == 1
