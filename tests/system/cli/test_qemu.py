"""The command line against real QEMUs without an operating system in them."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from qmpmem.model.guest import GuestView
from qmpmem.units import MIB
from qmpmem.wire import kernel
from tests.rig.command import PROGRAM, Ran, called, called_each, plain_environment
from tests.rig.patience import patient
from tests.rig.qemu import paused, short_directory, until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]

STABLE_KEYS = {
    "id", "name", "pid", "state", "maximum", "actual", "rss", "stats", "socket", "machine",
    "managed",
}  # fmt: skip


@pytest.fixture(scope="module")
def run() -> Iterator[Path]:
    with (
        short_directory() as directory,
        paused(directory, "web1", "web2", "db1"),
        paused(directory, "bare", extra=()),
    ):
        yield directory


def one_line(ran: Ran, code: int) -> str:
    """Expect an error: its code, one line that starts with our name, and no data."""
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("qmpmem: ")
    assert ran.err.count("\n") == 1
    return ran.err


def test_list_shows_every_guest(run: Path) -> None:
    ran = called("list", run=run)
    assert (ran.code, ran.err) == (0, "")
    header, *lines = ran.out.splitlines()
    assert header.split() == ["ID", "STATE", "MAXIMUM", "ACTUAL", "BALLOON", "RSS", "NOTE"]
    assert [line.split()[0] for line in lines] == ["bare", "db1", "web1", "web2"]
    assert lines[1].split()[1:6] == ["prelaunch", "256", "MiB", "256", "MiB"]
    assert lines[0].endswith("no balloon device")


def test_a_host_wide_run_directory_hides_no_guest(run: Path, tmp_path: Path) -> None:
    defaults = tmp_path / "defaults"
    defaults.write_text(f"QMPMEM_RUN_DIR={run}\n")
    environ = {"QMPMEM_RUN_DIR": "", "QMPMEM_DEFAULTS": str(defaults)}
    assert "web1" in called("list", run=run, environ=environ).out


def test_list_as_json_has_the_stable_keys_and_bytes(run: Path) -> None:
    guests = json.loads(called("list", "--json", run=run).out)
    for guest in guests:
        assert set(guest) >= STABLE_KEYS
    assert guests[2]["maximum"] == 256 * MIB
    assert guests[2]["machine"].startswith("pc-i440fx")
    assert guests[0]["actual"] is None
    assert guests[0]["problem"] == "no balloon device"
    # A program that reads our JSON can read it back as the documented record.
    read = msgspec.json.decode(called("list", "--json", run=run).out, type=list[GuestView])
    assert [guest.id for guest in read] == ["bare", "db1", "web1", "web2"]


def test_info_shows_what_dominfo_showed(run: Path) -> None:
    ran = called("info", "web1", run=run)
    assert ran.code == 0
    shown = dict(line.split(":", 1) for line in ran.out.splitlines())
    assert shown["maximum allocation"].strip() == "256 MiB"
    assert shown["accelerator"].strip() == "tcg"
    assert "deflate-on-oom on, free-page-reporting on" in shown["balloon device"]
    assert shown["guest reports"].strip().startswith("nothing")


def test_stats_of_a_guest_that_reports_nothing_are_missing_not_zero(run: Path) -> None:
    guest = json.loads(called("stats", "web1", "--json", run=run).out)
    assert guest["stats"] is None
    shown = called("stats", "web1", run=run).out
    assert "18446744073709551615" not in shown
    assert "nothing: it is prelaunch, not running" in shown
    assert shown.count("-\n") == 0


def test_the_shell_completes_guests(run: Path) -> None:
    asked = {"_QMPMEM_COMPLETE": "complete_bash", "COMP_WORDS": "qmpmem info w", "COMP_CWORD": "2"}
    assert called(run=run, environ=asked).out.split() == ["web1", "web2"]


def test_set_asks_and_says_so(run: Path) -> None:
    ran = called("set", "web1", "50%", run=run)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("web1: asked to go from 256 MiB to 128 MiB; it is prelaunch")


def test_set_that_cannot_get_there_says_how_far_it_came(run: Path) -> None:
    said = called("set", "web1", "200M", "--wait", "--timeout", "0.2", run=run)
    assert "guest web1: prelaunch, at 256 MiB after 0.2 s, expected 200 MiB" in said.err


def test_a_dry_run_changes_nothing_but_checks_all(run: Path) -> None:
    ran = called("set", "db1", "-56M", "--dry-run", run=run)
    assert (ran.code, ran.out) == (0, "db1: would go from 256 MiB to 200 MiB\n")
    assert "floor 128 MiB" in one_line(called("set", "db1", "1M", "--dry-run", run=run), 2)


BAD_INPUT = (
    ("set web1 257M", 2, "more than its maximum 256 MiB"),
    ("set web1 100M", 2, "less than its floor 128 MiB; --force"),
    ("set web1 128", 2, "a unit is missing"),
    ("set web1 half", 2, "not a size"),
    ("set nobody 128M", 2, "no such guest; `qmpmem list`"),
    ("set bare 128M", 6, "no balloon device; start it through the launcher"),
    ("info nobody", 2, "no such guest"),
    ("script /proc/nonexistent", 2, "No such file"),
    ("script /", 2, "Is a directory"),
    ("set web1", 2, "missing argument: SIZE; `qmpmem set --help`"),
    ("lisst", 2, "no such command: lisst. Did you mean list?"),
    ("list --jsn", 2, "no such option"),
    (
        "set web1 128M --timeout soon",
        2,
        "'--timeout': time 'soon': write 500ms, 90s",
    ),
    ("set web1 128M --timeout nan", 2, "or a number of seconds"),
    ("set web1 128M --timeout -1", 2, "or a number of seconds"),
    ("stats web1 --watch inf", 2, "or a number of seconds"),
)


@pytest.fixture(scope="module")
def refused(run: Path) -> dict[str, Ran]:
    calls = [call for call, *_ in BAD_INPUT]
    ran = called_each([call.split() for call in calls], run=run)
    return dict(zip(calls, ran, strict=True))


@pytest.mark.parametrize(("call", "code", "said"), BAD_INPUT)
def test_bad_input_is_one_line_and_an_exit_code(
    refused: dict[str, Ran], call: str, code: int, said: str
) -> None:
    assert said in one_line(refused[call], code)


def test_force_goes_below_the_floor(run: Path) -> None:
    assert called("set", "web2", "16M", "--force", run=run).code == 0
    assert called("set", "web2", "100%", run=run).code == 0


def test_a_script_does_many_things_in_order(run: Path) -> None:
    text = "set web* 200M  # both\nsleep 10ms\nget db1\n"
    ran = called("script", "-", run=run, text=text)
    assert (ran.code, ran.err) == (0, "")
    results = [json.loads(line) for line in ran.out.splitlines()]
    assert [(result["line"], result["command"], result.get("id")) for result in results] == [
        (1, "set", "web1"),
        (1, "set", "web2"),
        (2, "sleep", None),
        (3, "get", "db1"),
    ]
    assert results[0]["target"] == 200 * MIB
    assert results[3]["guest"]["maximum"] == 256 * MIB


def test_a_script_stops_at_the_first_failure_and_says_the_line(run: Path) -> None:
    text = "get db1\nset bare 200M\nget web1\n"
    ran = called("script", "-", run=run, text=text)
    assert ran.code == 6
    assert "qmpmem: script -: line 2: set bare 200M: guest bare: no balloon device" in ran.err
    results = [json.loads(line) for line in ran.out.splitlines()]
    assert [result["line"] for result in results] == [1, 2]
    assert results[1]["ok"] is False
    going = called("script", "-", "--keep-going", run=run, text=text)
    assert going.code == 6
    assert [json.loads(line)["line"] for line in going.out.splitlines()] == [1, 2, 3]


def test_a_script_with_a_mistake_changes_nothing(run: Path, tmp_path: Path) -> None:
    script = tmp_path / "s"
    script.write_text("set web1 100%\nset web2\n")
    assert "line 2: expected `set PATTERN SIZE`" in one_line(
        called("script", str(script), run=run), 2
    )


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * (5 << 20)], ids=["binary", "large"])
def test_what_is_no_script_is_refused(run: Path, tmp_path: Path, content: bytes) -> None:
    script = tmp_path / "s"
    script.write_bytes(content)
    one_line(called("script", str(script), run=run), 2)


def test_events_come_as_they_happen_and_ctrl_c_ends_them(run: Path) -> None:
    environment = plain_environment() | {"QMPMEM_RUN_DIR": str(run)}
    with subprocess.Popen(
        [PROGRAM, "events", "db1", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        socket = str(run / "db1" / "qmp.sock")
        until(lambda: any(e.path == socket and e.connected for e in kernel.unix_sockets()))
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=patient(10)) == 130
        assert b"Traceback" not in child.stderr.read()


def test_a_guest_that_is_held_by_another_is_said_to_be(run: Path) -> None:
    environment = plain_environment() | {"QMPMEM_RUN_DIR": str(run)}
    with subprocess.Popen([PROGRAM, "events", "db1"], env=environment) as holder:
        try:
            socket = str(run / "db1" / "qmp.sock")
            until(lambda: any(e.path == socket and e.connected for e in kernel.unix_sockets()))
            guests = json.loads(called("list", "--json", run=run).out)
            assert [guest["state"] for guest in guests] == [
                "prelaunch", "in-use", "prelaunch", "prelaunch",
            ]  # fmt: skip
            said = called("set", "db1", "200M", run=run)
            assert said.code == 5
            assert str(holder.pid) in said.err
        finally:
            holder.send_signal(signal.SIGINT)


def test_a_reader_that_has_seen_enough_is_no_error(run: Path) -> None:
    environment = plain_environment() | {"QMPMEM_RUN_DIR": str(run)}
    done = subprocess.run(
        ["sh", "-c", f"{PROGRAM} list | head -n 0"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_on_a_terminal_there_is_colour_and_no_color_is_obeyed(run: Path) -> None:
    coloured = _on_terminal(["list"], run, {})
    plain = _on_terminal(["list"], run, {"NO_COLOR": "1"})
    assert "\x1b[" in coloured
    assert "\x1b[" not in plain
    assert "web1" in coloured


def test_on_a_terminal_set_waits_and_shows_a_bar(run: Path) -> None:
    shown = _on_terminal(["set", "db1", "100%", "--timeout", "5"], run, {})
    assert "db1: has 256 MiB already" in shown


def test_stale_records_are_tidied_up_by_a_list() -> None:
    with short_directory() as run:
        with paused(run, "gone"):
            assert "gone" in called("list", run=run).out
        assert called("list", run=run).out.splitlines()[1:] == []
        assert not (run / "gone").exists()


def test_a_damaged_record_is_a_warning_and_hides_no_guest(run: Path) -> None:
    broken = run / "broken"
    broken.mkdir()
    (broken / "record.json").write_text("{")
    try:
        ran = called("list", run=run)
        assert ran.code == 0
        assert "warning" in ran.err
        assert "broken" in ran.err
        assert "web1" in ran.out
    finally:
        (broken / "record.json").unlink()
        broken.rmdir()


def test_a_stopped_qemu_delays_a_list_by_no_more_than_its_deadline() -> None:
    with short_directory() as run, paused(run, "a", "b") as children:
        children["b"].send_signal(signal.SIGSTOP)
        try:
            guests = json.loads(called("list", "--json", run=run).out)
            assert [guest["state"] for guest in guests] == ["prelaunch", "unreachable"]
            assert called("info", "b", run=run).code == 5
        finally:
            children["b"].send_signal(signal.SIGCONT)


def _on_terminal(words: list[str], run: Path, environ: dict[str, str]) -> str:
    """Run the program on a terminal of its own and return what it wrote there."""
    base = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    environment = base | {"QMPMEM_RUN_DIR": str(run), "TERM": "xterm-256color"} | environ
    master, slave = pty.openpty()
    shown = b""
    with subprocess.Popen(
        [PROGRAM, *words], env=environment, stdin=slave, stdout=slave, stderr=slave
    ) as child:
        os.close(slave)
        with suppress(OSError):  # EIO: the last one closed its end
            while chunk := os.read(master, 65536):
                shown += chunk
        os.close(master)
        child.wait(timeout=patient(20))
    return shown.decode()
