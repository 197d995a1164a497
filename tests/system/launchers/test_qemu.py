"""The launcher with a real QEMU behind it, in every way that people start one."""

import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from launchers import kvm_emulator
from launchers.kvm_options import ALONE, WITH_ARGUMENT
from qmpmem.guests import inventory, rundir
from qmpmem.guests.rundir import GuestRecord
from qmpmem.model import names
from tests.rig.launcher import SHIM, Monitor, copy_launchers, talking
from tests.rig.patience import patient
from tests.rig.qemu import EMULATOR, SMALL, dropping, knows, listens, short_directory, until
from tests.rig.users import NOBODY, needs_root

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]

QEMU: Final = f"/usr/bin/{EMULATOR}"
PAUSED: Final = ("-S", *SMALL, "-m", "64")
OF_OTHER_VERSIONS: Final = (
    "-balloon virtio",
    "-runas nobody",
    "-chroot /tmp",
    "-run-with chroot=/tmp",
    "-no-hpet",
    "-singlestep",
    "-async-teardown",
    "-one-insn-per-tick",
)
"""Each is gone in some versions of QEMU, or came with one."""


@pytest.fixture
def run() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory / "run"


def settings(run: Path, **chosen: str) -> dict[str, str]:
    """The environment for the launcher, with settings given without QMPMEM_."""
    fixed = {
        "QMPMEM_REAL": QEMU,
        "QMPMEM_RUN_DIR": str(run),
        "QMPMEM_DEFAULTS": "/proc/nonexistent",
    }
    return os.environ | fixed | {f"QMPMEM_{key.upper()}": value for key, value in chosen.items()}


@contextmanager
def started(
    run: Path, *words: str, base: Sequence[str] = PAUSED, **chosen: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a guest through the launcher, and end it."""
    command = [str(SHIM), *base, *words]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=settings(run, **chosen), **streams) as child:  # type: ignore[call-overload]
        try:
            yield child
        finally:
            child.kill()


def run_to_end(run: Path, *words: str, **chosen: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SHIM, *words],
        env=settings(run, **chosen),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=patient(30),
        check=False,
    )


def record_of(run: Path, guest: str) -> GuestRecord:
    record = rundir.read_record(run / guest)
    assert isinstance(record, GuestRecord), record
    return record


def listener(path: Path) -> int:
    """The process that the kernel names as the one that listens (unix(7): SO_PEERCRED)."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
        peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", peer)[0]
    return pid


def has_balloon(monitor: Monitor) -> bool:
    return "dev: virtio-balloon" in monitor.say("info qtree")


class TestOptions:
    """The tables of options, held against QEMU, which checks a line before it does anything."""

    @staticmethod
    def arity(option: str) -> str:
        done = subprocess.run(
            [QEMU, "-version", f"-{option}"], capture_output=True, text=True, check=False
        )
        if "requires an argument" in done.stderr:
            return "argument"
        return "alone" if done.returncode == 0 else done.stderr

    @pytest.mark.parametrize("option", sorted(ALONE))
    def test_alone(self, option: str) -> None:
        assert self.arity(option) == "alone" or "invalid option" in self.arity(option)

    @pytest.mark.parametrize("option", sorted(WITH_ARGUMENT))
    def test_with_an_argument(self, option: str) -> None:
        assert self.arity(option) == "argument" or "invalid option" in self.arity(option)

    def test_all_that_this_qemu_tells_of_are_known(self) -> None:
        text = subprocess.run([QEMU, "-help"], capture_output=True, text=True, check=True).stdout
        told = set(re.findall(r"^--?([A-Za-z][\w-]*)", text, flags=re.MULTILINE))
        told |= set(re.findall(r"^-\w+(?:/| or )-([\w-]+)", text, flags=re.MULTILINE))
        assert len(told) > 100
        assert told <= ALONE | WITH_ARGUMENT


def test_a_guest_is_found_by_the_others(run: Path) -> None:
    with started(run, "-name", "it") as child:
        socket_path = run / "it" / "qmp.sock"
        with talking(socket_path) as monitor:
            assert has_balloon(monitor)
            assert monitor.ask("query-balloon") == {"actual": 64 << 20}
            assert monitor.ask("qom-get", path="/machine/peripheral/qmpmem0", property="type") == (
                "virtio-balloon-pci"
            )
            found = inventory.take(run)
            assert [guest.pid for guest in found.guests] == [child.pid]
            assert found.guests[0].record == record_of(run, "it")
            assert found.guests[0].record.balloon == "qmpmem0"
        assert listener(socket_path) == found.guests[0].listener == child.pid
        assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
    assert inventory.take(run).guests == ()


def test_an_empty_balloon_of_the_known_kind(run: Path) -> None:
    with started(run, "-name", "it"), talking(run / "it/qmp.sock") as monitor:
        device = "/machine/peripheral/qmpmem0"
        for name in ("deflate-on-oom", "free-page-reporting"):
            assert monitor.ask("qom-get", path=device, property=name) is True


WITHOUT: Final = """#!/bin/sh
until [ -f "$1" ]; do shift; done # Python's own options
exec /usr/bin/python3 -I -S -c '
import os, sys
del os.memfd_create
sys.argv = sys.argv[1:]
known = {"__name__": "__main__", "__file__": sys.argv[0]}
with open(sys.argv[0]) as file:
    exec(compile(file.read(), sys.argv[0], "exec"), known)
' "$@"
"""
"""A Python that makes no files in memory."""


def test_qemu_is_told_by_a_file_where_there_are_none_in_memory(run: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(WITHOUT)
    python.chmod(0o755)
    words = ("-name", "it")
    with started(run, *words, python=str(python)), talking(run / "it/qmp.sock") as monitor:
        assert has_balloon(monitor)
        assert stat.S_IMODE((run / "it/monitor.conf").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_run_directory_that_others_could_exchange_is_used_below_its_descriptor(
    run: Path, mode: int
) -> None:
    """QEMU removes its socket at its end only where the name is no other process's to give."""
    above = run.parent / "above"
    (above / "run").mkdir(parents=True, mode=0o700)
    above.chmod(mode)
    path = above / "run/it/qmp.sock"
    with started(above / "run", "-name", "it") as child:
        with talking(path) as monitor:
            assert has_balloon(monitor)
            assert [guest.pid for guest in inventory.take(above / "run").guests] == [child.pid]
            monitor.quit()
        _, said = child.communicate(timeout=patient(20))
        assert (child.returncode, said) == (0, b"")
    assert path.exists() is (mode == 0o777)
    with started(above / "run", "-name", "it"), talking(path):
        assert [entry.name for entry in (above / "run").glob("it*")] == ["it"]


class TestWaysToStart:
    """Each option that could get in the way, alone."""

    @pytest.mark.parametrize(
        "words",
        [
            ["-monitor", "none"],
            ["-M", "q35"],
            ["-M", "microvm"],
            ["-sandbox", "on"],
            ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
            ["-no-user-config"],
            ["-snapshot"],
            ["-msg", "timestamp=on"],
            ["-nographic"],
            ["-serial", "null", "-no-reboot", "-no-shutdown"],
            ["-device", '{"driver":"virtio-rng-pci","id":"rng"}'],
            ["-name", "it,debug-threads=on"],
            ["-overcommit", "cpu-pm=off"],
            ["-global", "kvm-pit.lost_tick_policy=discard"],
            ["-object", "memory-backend-ram,id=ram,size=64M", "-machine", "memory-backend=ram"],
            ["-only-migratable"],
            ["-icount", "shift=auto"],
        ],
    )
    def test_with_a_balloon(self, run: Path, words: list[str]) -> None:
        with started(run, *words, "-name", "it"), talking(run / "it/qmp.sock") as monitor:
            assert has_balloon(monitor)

    @needs_root("QEMU can change neither its user nor its root")
    @pytest.mark.parametrize(
        ("user", "root", "words"),
        [
            (None, "/tmp", []),
            ("nobody", None, []),
            ("nobody", "/tmp", ["-sandbox", "on"]),
        ],
    )
    def test_a_guest_that_gives_up_rights(
        self, run: Path, user: str | None, root: str | None, words: list[str]
    ) -> None:
        given = [*dropping(user=user, root=root), *words]
        with started(run, *given, "-name", "it"), talking(run / "it/qmp.sock") as monitor:
            assert has_balloon(monitor)

    @pytest.mark.parametrize("option", OF_OTHER_VERSIONS)
    def test_an_option_of_another_version_ends_as_without_the_launcher(
        self, run: Path, option: str
    ) -> None:
        if knows(option.split(maxsplit=1)[0]):
            pytest.skip(f"this QEMU has {option}")
        words = [*PAUSED, "-name", "it", *option.split()]
        bare = subprocess.run([QEMU, *words], capture_output=True, text=True, check=False)
        ran = run_to_end(run, *words)
        assert ran.returncode == bare.returncode == 1
        assert ran.stderr.endswith(bare.stderr.partition(": ")[2])

    @pytest.mark.parametrize(
        "words",
        [
            ["-M", "isapc"],
            ["-device", "virtio-balloon-pci"],
            ["-device", '{"driver":"virtio-balloon-pci","id":"mine"}'],
            ["-overcommit", "mem-lock=off", "-machine", "none", "-machine", "isapc"],
        ],
    )
    def test_with_only_a_monitor(self, run: Path, words: list[str]) -> None:
        with started(run, *words, "-name", "it"), talking(run / "it/qmp.sock") as monitor:
            devices = monitor.ask("qom-list", path="/machine/peripheral")
            assert "qmpmem0" not in [entry["name"] for entry in devices]
            assert record_of(run, "it").balloon is None

    @pytest.mark.parametrize("choice", ["", "on", "off"])
    def test_incoming(self, run: Path, choice: str) -> None:
        words = ("-name", "it", "-incoming", "defer")
        with (
            started(run, *words, incoming_balloon=choice),
            talking(run / "it/qmp.sock") as monitor,
        ):
            assert has_balloon(monitor) == (choice != "off")

    def test_preconfig(self, run: Path) -> None:
        with started(run, "-name", "it", "--preconfig"), talking(run / "it/qmp.sock") as monitor:
            assert monitor.ask("query-status")["status"] == "prelaunch"
            monitor.ask("x-exit-preconfig")
            assert has_balloon(monitor)

    def test_a_monitor_of_the_users_on_stdio(self, run: Path) -> None:
        with (
            started(run, "-name", "it", "-qmp", "stdio") as child,
            talking(run / "it/qmp.sock") as monitor,
        ):
            assert child.stdin is not None
            assert child.stdout is not None
            assert b'"QMP"' in child.stdout.readline()
            child.stdin.write(b'{"execute":"qmp_capabilities"}{"execute":"query-balloon"}')
            child.stdin.flush()
            answers = [json.loads(child.stdout.readline())["return"] for _ in range(2)]
            assert answers == [{}, {"actual": 64 << 20}]
            labels = {entry["label"] for entry in monitor.ask("query-chardev")}
            assert labels >= {"qmpmem0", "compat_monitor0"}

    def test_a_monitor_of_the_users_on_a_socket(self, run: Path) -> None:
        path = run.parent / "mine.sock"
        words = ("-chardev", f"socket,id=c,path={path},server=on,wait=off")
        with (
            started(run, "-name", "it", *words, "-mon", "chardev=c,mode=control"),
            talking(path) as mine,
            talking(run / "it/qmp.sock") as ours,
        ):
            assert mine.ask("query-balloon") == ours.ask("query-balloon")

    def test_a_configuration_file_of_the_users(self, run: Path) -> None:
        config = run.parent / "user.conf"
        config.write_text('[machine]\n  type = "q35"\n[device "n"]\n  driver = "e1000"\n')
        words = ("-readconfig", str(config))
        with started(run, "-name", "it", *words), talking(run / "it/qmp.sock") as monitor:
            machine = monitor.ask("qom-get", path="/machine", property="type")
            assert machine == "pc-q35-7.2-machine" or "q35" in machine
            assert has_balloon(monitor)
            assert 'id "n"' in monitor.say("info qtree")

    def test_a_configuration_file_that_brings_a_balloon(self, run: Path) -> None:
        config = run.parent / "user.conf"
        config.write_text('[device "mine"]\n  driver = "virtio-balloon-pci"\n')
        words = ("-readconfig", str(config))
        with started(run, "-name", "it", *words), talking(run / "it/qmp.sock") as monitor:
            assert monitor.say("info qtree").count("dev: virtio-balloon-pci") == 1

    def test_a_daemon(self, run: Path) -> None:
        """The process that was started is gone; the guest is found by its socket."""
        pidfile = run.parent / "pid"
        words = (*PAUSED, "-name", "it", "-daemonize", "-pidfile", str(pidfile))
        # No pipes: the daemon would hold their other ends.
        child = subprocess.Popen([SHIM, *words], env=settings(run), stdin=subprocess.DEVNULL)
        assert child.wait(timeout=patient(30)) == 0
        daemon = int(pidfile.read_text())
        try:
            record = record_of(run, "it")
            assert (record.daemonize, record.pid) == (True, child.pid)
            (found,) = inventory.take(run).guests
            assert found.pid == daemon != child.pid
            with talking(run / "it/qmp.sock") as monitor:
                assert has_balloon(monitor)
            assert listener(run / "it/qmp.sock") == found.listener
            again = run_to_end(run, *PAUSED, "-name", "it", "-machine", "nonsense")
            assert again.returncode == 1
            assert (run / "it-2").is_dir()
        finally:
            os.kill(daemon, signal.SIGKILL)

    def test_many_devices_fill_the_bus_without_us(self, run: Path) -> None:
        """One more would be one too many: QEMU would refuse to start."""
        words = ("-device", "e1000") * 30
        with started(run, "-name", "it", *words) as child:
            with talking(run / "it/qmp.sock") as monitor:
                assert not has_balloon(monitor)
            child.terminate()
            assert child.stderr is not None
            assert b"no balloon: its devices may leave no PCI slot" in child.stderr.read()

    @pytest.mark.parametrize("machine", ["pc", "q35"])
    def test_as_many_devices_as_get_a_balloon_do_start(self, run: Path, machine: str) -> None:
        """With everything that a machine brings by itself."""
        base = ("-S", "-display", "none", "-accel", "tcg,tb-size=32", "-m", "64", "-usb")
        words = ("-M", machine, *("-device", "e1000") * (27 if machine == "pc" else 26))
        with (
            started(run, "-name", "it", *words, base=base),
            talking(run / "it/qmp.sock") as monitor,
        ):
            assert has_balloon(monitor)


class TestMemory:
    def test_static(self, run: Path) -> None:
        with (
            started(run, "-name", "it", mode="static") as child,
            talking(run / "it/qmp.sock") as monitor,
        ):
            (memory,) = monitor.ask("query-memdev")
            assert (memory["prealloc"], memory["merge"]) == (True, False)
            assert not has_balloon(monitor)
            resident = (Path("/proc") / str(child.pid) / "status").read_text()
            found = re.search(r"RssAnon:\s+(\d+) kB", resident)
            assert found
            assert int(found[1]) >= 64 << 10
        record = record_of(run, "it")
        assert (record.mode, record.managed, record.ksm) == ("static", False, False)

    @pytest.mark.parametrize("words", [[], ["-M", "q35"], ["-machine", "type=q35,vmport=off"]])
    @pytest.mark.parametrize("choice", ["on", "off"])
    def test_merging(self, run: Path, words: list[str], choice: str) -> None:
        with (
            started(run, "-name", "it", *words, ksm=choice),
            talking(run / "it/qmp.sock") as monitor,
        ):
            (memory,) = monitor.ask("query-memdev")
            assert memory["merge"] == (choice == "on")
            machine = monitor.ask("qom-get", path="/machine", property="type")
            assert ("q35" in machine) == bool(words)

    def test_static_with_memory_of_the_users_own(self, run: Path) -> None:
        words = ("-object", "memory-backend-ram,id=ram,size=64M", "-machine", "memory-backend=ram")
        with (
            started(run, "-name", "it", *words, mode="static"),
            talking(run / "it/qmp.sock") as monitor,
        ):
            (memory,) = monitor.ask("query-memdev")
            assert (memory["prealloc"], memory["merge"]) == (True, False)


class TestKeys:
    def test_ctrl_a_c_still_opens_the_monitor(self, run: Path) -> None:
        """-nographic puts serial line and monitor on the terminal; -qmp would take the monitor."""
        main, child_side = pty.openpty()
        base = ("-S", "-nographic", "-vga", "none", "-accel", "tcg,tb-size=32", "-m", "64")
        command = [str(SHIM), *base, "-name", "it"]
        child = subprocess.Popen(
            command, env=settings(run), stdin=child_side, stdout=child_side, stderr=child_side
        )
        os.close(child_side)
        try:
            until(lambda: listens(run / "it/qmp.sock"))
            os.write(main, b"\x01c")
            assert b"(qemu)" in read_until(main, b"(qemu)")
            os.write(main, b"info balloon\r")
            assert b"balloon: actual=64" in read_until(main, b"actual=64")
            os.write(main, b"\x01x")
            assert child.wait(timeout=patient(20)) == 0
        finally:
            child.kill()
            child.wait()
            os.close(main)


def read_until(descriptor: int, wanted: bytes) -> bytes:
    """Read a terminal until something appears there."""
    seen = b""
    deadline = time.monotonic() + patient(20)
    while wanted not in seen and time.monotonic() < deadline:
        if select.select([descriptor], [], [], 0.1)[0]:
            seen += os.read(descriptor, 4096)
    return seen


class TestAccelerator:
    """QEMU may not open /dev/kvm here, so it says on stderr whether it preferred KVM."""

    @needs_root("cannot become a user who may not open /dev/kvm")
    @pytest.mark.parametrize(("name", "prefers"), [("kvm", True), ("qemu-system-x86_64", False)])
    @pytest.mark.parametrize("python", ["/usr/bin/python3", "/bin/false"])
    def test_is_chosen_by_the_name_that_was_called(
        self, run: Path, name: str, python: str, *, prefers: bool
    ) -> None:
        link = run.parent / name
        link.symlink_to(copy_launchers(run.parent))
        run.mkdir()
        os.chown(run, NOBODY, NOBODY)
        words = ("-S", *SMALL[: SMALL.index("-accel")], "-m", "64", "-loadvm", "nothing")
        done = subprocess.run(
            [link, *words],
            env=settings(run, python=python),
            capture_output=True,
            text=True,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            check=False,
        )
        assert done.returncode == 1
        assert "loadvm" in done.stderr or "snapshot" in done.stderr, done.stderr
        assert ("Could not access KVM" in done.stderr) == prefers
        assert f"{name}: " in done.stderr or python == "/bin/false"


class TestProcess:
    def test_sigterm_ends_the_guest(self, run: Path) -> None:
        with started(run, "-name", "it") as child:
            with talking(run / "it/qmp.sock"):
                pass  # it listens from the first moment; now QEMU runs, too
            executable = (Path("/proc") / str(child.pid) / "exe").readlink()
            assert executable == Path(QEMU)
            child.terminate()
            assert child.wait(timeout=patient(20)) == 0
        assert not (run / "it/qmp.sock").exists()

    def test_the_exit_code_is_qemus(self, run: Path) -> None:
        done = run_to_end(run, "-device", "nonsense", "-display", "none", "-accel", "tcg")
        assert done.returncode == 1
        assert "'nonsense' is not a valid device model name" in done.stderr

    @pytest.mark.parametrize("words", [["-version"], ["-M", "help"], ["-device", "help"], ["-h"]])
    def test_help_is_the_same(self, run: Path, words: list[str]) -> None:
        plain = subprocess.run([QEMU, *words], capture_output=True, text=True, check=False)
        done = run_to_end(run, *words)
        assert done.returncode == plain.returncode
        assert done.stdout.replace("usage: kvm", f"usage: {EMULATOR}") == plain.stdout
        assert done.stderr == plain.stderr
        assert not run.exists()

    def test_a_capability_probe(self, run: Path) -> None:
        """What libvirt starts to find out what an emulator can do."""
        words = ("-S", "-no-user-config", "-nodefaults", "-nographic", "-machine", "none,accel=tcg")
        done = subprocess.run(
            [SHIM, *words, "-qmp", "stdio"],
            env=settings(run),
            input='{"execute":"qmp_capabilities"}{"execute":"quit"}',
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert not run.exists()

    def test_kvm_on_the_host_is_not_asked_for(self, run: Path) -> None:
        """What we start to learn what an emulator can do says nothing on stderr."""
        done = run_to_end(run, *PAUSED, "-loadvm", "nothing")
        assert done.returncode == 1
        assert "KVM" not in done.stderr
        assert len(list(run.glob(".emulator-*"))) == 1


class TestSeveral:
    def test_twenty_at_once(self, run: Path) -> None:
        """All of one name, none in another's way."""
        shutil.rmtree(run, ignore_errors=True)
        command = [str(SHIM), *PAUSED, "-name", "web"]
        children = [
            subprocess.Popen(command, env=settings(run), stdin=subprocess.DEVNULL)
            for _ in range(20)
        ]
        try:
            ids = ["web", *(f"web-{number}" for number in range(2, 21))]
            until(lambda: all(listens(run / guest / "qmp.sock") for guest in ids), seconds=40)
            found = inventory.take(run)
            assert sorted(guest.record.id for guest in found.guests) == sorted(ids)
            assert {guest.pid for guest in found.guests} == {child.pid for child in children}
            for guest in found.guests:
                assert guest.record.name == "web"
                with talking(Path(guest.record.socket)) as monitor:
                    assert has_balloon(monitor)
        finally:
            for child in children:
                child.kill()
            for child in children:
                child.wait()

    def test_a_name_is_used_again(self, run: Path) -> None:
        """After a kill, which leaves everything behind, and after a clean end."""
        for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            with started(run, "-name", "it") as child:
                with talking(run / "it/qmp.sock") as monitor:
                    assert monitor.ask("query-name") == {"name": "it"}
                assert record_of(run, "it").pid == child.pid
                child.send_signal(how)
                child.wait(timeout=patient(20))
        assert [path.name for path in run.iterdir() if not path.name.startswith(".")] == ["it"]

    def test_a_live_guest_keeps_its_directory(self, run: Path) -> None:
        with started(run, "-name", "it"), talking(run / "it/qmp.sock") as one:
            before = {path.name: path.stat().st_ino for path in (run / "it").iterdir()}
            with started(run, "-name", "it"), talking(run / "it-2/qmp.sock") as two:
                assert one.ask("query-status") == two.ask("query-status")
            assert {path.name: path.stat().st_ino for path in (run / "it").iterdir()} == before

    def test_an_odd_name_is_shown_as_it_is(self, run: Path) -> None:
        with started(run, "-name", "a b/../c,,d"):
            guest = names.safe_id("a b/../c,d")
            with talking(run / guest / "qmp.sock") as monitor:
                assert monitor.ask("query-name") == {"name": "a b/../c,d"}
            assert record_of(run, guest).name == "a b/../c,d"


def test_what_an_emulator_can_do_is_asked_once(run: Path) -> None:
    copy = run.parent / "my-kvm"
    copy.symlink_to(QEMU)
    for _ in range(2):
        with started(run, "-name", "it", real=str(copy)) as child:
            with talking(run / "it/qmp.sock") as monitor:
                assert has_balloon(monitor)
            (memory,) = run.glob(".emulator-*")
            inode = memory.stat().st_ino
            child.kill()
    assert memory.stat().st_ino == inode
    memory.write_text(memory.read_text().replace("json yes", "json no"))
    with started(run, "-name", "it", real=str(copy)), talking(run / "it/qmp.sock") as monitor:
        assert "addr = 1e.0" in monitor.say("info qtree")


READ_SLOWLY: Final = """
import os, time
while part := os.read(0, 4096):
    time.sleep(0.002)
    os.write(1, part)
"""


def test_an_emulator_is_heard_out_by_a_slow_listener(tmp_path: Path) -> None:
    """QEMU answers with 200 kB; told to quit, it would not wait until they are read."""
    slow = tmp_path / "kvm"
    slow.write_text(f"#!/bin/sh\n{QEMU} \"$@\" | {sys.executable} -c '{READ_SLOWLY}'\n")
    slow.chmod(0o755)
    text = kvm_emulator.ask(str(slow), dict(os.environ))
    assert text is not None
    able = kvm_emulator.decode(text)
    assert able is not None
    assert able.json
    assert (able.machine or "").startswith("pc")
    assert set(able.properties) == {"virtio-balloon-pci", "virtio-balloon-device"}


ASK: Final = (
    "import os, sys; from launchers import kvm_emulator as e; e.ask(sys.argv[1], os.environ)"
)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_launcher_that_is_killed_while_it_asks_leaves_no_emulator(
    tmp_path: Path, end: signal.Signals
) -> None:
    silent = tmp_path / "kvm"
    silent.write_text('#!/bin/sh\necho $$ >"$0.new" && mv "$0.new" "$0.pid"\nexec sleep 60\n')
    silent.chmod(0o755)
    known = tmp_path / "kvm.pid"
    words = [sys.executable, "-c", ASK, str(silent)]
    with subprocess.Popen(words, cwd=SHIM.parents[1]) as asker:
        until(known.exists, what="it asks")
        asker.send_signal(end)
    until(lambda: not Path("/proc", known.read_text().strip()).exists(), what="emulator gone")


@pytest.mark.parametrize(
    "doubt",
    [
        pytest.param("owner", marks=needs_root("cannot give a file away")),
        *("mode", "link", "cut"),
    ],
)
def test_what_others_may_have_written_is_not_believed(run: Path, doubt: str) -> None:
    run_to_end(run, *PAUSED, "-name", "it", "-pflash", "/proc/nonexistent")
    (memory,) = run.glob(".emulator-*")
    false = memory.read_text().replace("json yes", "json no")
    if doubt == "link":
        elsewhere = run / "elsewhere"
        elsewhere.write_text(false)
        memory.unlink()
        memory.symlink_to(elsewhere)
    else:
        memory.write_text(false if doubt != "cut" else false.removesuffix("end\n"))
    if doubt == "owner":
        os.chown(memory, NOBODY, NOBODY)
    if doubt == "mode":
        memory.chmod(0o664)
    with started(run, "-name", "it"), talking(run / "it/qmp.sock") as monitor:
        tree = monitor.say("info qtree")
        assert 'id "qmpmem0"' in tree
        assert "addr = 1e.0" not in tree
