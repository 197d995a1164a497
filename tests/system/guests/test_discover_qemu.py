"""One real QEMU of each kind, found without touching any of them."""

import os
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from qmpmem.guests.discover import Discovered, survey
from tests.rig import qemu
from tests.rig.command import called
from tests.rig.foreign_qemu import PAUSED, client, daemon, handed, qmp, started

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]


@pytest.fixture
def here() -> Iterator[Path]:
    with qemu.short_directory() as directory:
        yield directory


def found(here: Path, child: subprocess.Popen[bytes]) -> Discovered:
    return found_pid(here, child.pid)


def found_pid(here: Path, pid: int) -> Discovered:
    [entry] = [entry for entry in survey(here / "run").found if entry.pid == pid]
    return entry


def test_a_free_monitor_is_adoptable(here: Path) -> None:
    with started("-name", "web 1", *qmp(here / "q"), wait_for=here / "q") as child:
        entry = found(here, child)
        assert entry.category == "adoptable"
        assert (entry.name, entry.uid) == ("web 1", os.getuid())
        assert entry.socket == f"{here}/q"
        assert entry.command is not None
        words = shlex.split(entry.command)
        assert words[:2] == ["qmpmem", "adopt"]
        assert words[3] == f"{here}/q"
        assert can_be_attached_to(here / "q")


def test_looking_leaves_the_monitor_alone(here: Path) -> None:
    """The client that was there first goes on, and no client of ours waits behind."""
    with started(*qmp(here / "q"), wait_for=here / "q") as child, client(here / "q") as held:
        assert found(here, child).category == "in-use"
        held.send(b'{"execute":"qmp_capabilities"}')
        assert b"return" in held.recv(1000)


def test_a_monitor_with_a_client_is_in_use_and_that_client_is_named(here: Path) -> None:
    with started(*qmp(here / "q"), wait_for=here / "q") as child, client(here / "q"):
        entry = found(here, child)
        assert entry.category == "in-use"
        assert entry.holder is not None
        assert (entry.holder.pid, entry.holder.uid) == (os.getpid(), os.getuid())
        assert entry.command is None
        assert f"process {os.getpid()} (" in (entry.note or "")
        shown = called("discover", run=here / "run")
        [line] = [line for line in shown.out.splitlines() if line.startswith(f"{child.pid} ")]
        assert "in-use" in line
        assert "holds its monitor: end that, or" in line


def test_the_free_one_of_two_monitors_is_taken(here: Path) -> None:
    with (
        started(*qmp(here / "p"), *qmp(here / "q"), wait_for=here / "q") as child,
        client(here / "p"),
    ):
        entry = found(here, child)
        assert (entry.category, entry.socket) == ("adoptable", f"{here}/q")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("-qmp", "stdio"),
        ("-monitor", "stdio"),
        ("-serial", "unix:{here}/m,server=on,wait=off"),
        ("-serial", "mon:unix:{here}/m,server=on,wait=off"),
    ],
)
def test_other_sockets_are_no_qmp(here: Path, words: tuple[str, ...]) -> None:
    filled = [word.format(here=here) for word in words]
    wait_for = here / "m" if any("{here}" in word for word in words) else None
    with started(*filled, wait_for=wait_for) as child:
        qemu.until(lambda: any(entry.pid == child.pid for entry in survey(here / "run").found))
        entry = found(here, child)
        assert entry.category == "no-qmp"
        assert entry.note
        assert entry.command is None


@pytest.mark.parametrize(
    "words",
    [
        ("-qmp", "unix:q,server,nowait"),
        ("--qmp-pretty", "unix:q,server=on,wait=off"),
        ("-chardev", "socket,id=m,path=q,server=on,wait=off", "-mon", "m,mode=control"),
        ("-chardev", "socket,id=m,path=q,server=on,wait=off", "-qmp", "chardev:m"),
    ],
)
def test_relative_paths_are_found_where_the_process_is(here: Path, words: tuple[str, ...]) -> None:
    with started(*words, cwd=here, wait_for=here / "q") as child:
        entry = found(here, child)
        assert (entry.category, entry.socket) == ("adoptable", f"{here}/q")


def test_a_comma_in_a_path_is_one(here: Path) -> None:
    with started("-qmp", f"unix:{here}/a,,b,server=on,wait=off", wait_for=here / "a,b") as child:
        assert found(here, child).socket == f"{here}/a,b"


@pytest.mark.parametrize("path", ["{here}/q", "q"])
def test_a_daemon_is_found_also_where_its_path_was_relative(here: Path, path: str) -> None:
    with daemon(here, *qmp(path.format(here=here))) as pid:
        entry = found_pid(here, pid)
        assert (entry.category, entry.socket) == ("adoptable", f"{here}/q")


def test_a_chroot_does_not_hide_a_socket_that_was_bound_before(here: Path) -> None:
    (here / "jail").mkdir()
    jail = qemu.dropping(root=str(here / "jail"))
    with started(*qmp(here / "q"), *jail, wait_for=here / "q") as child:
        entry = found(here, child)
        assert (entry.category, entry.socket) == ("adoptable", f"{here}/q")


def test_a_socket_handed_over_is_found_by_its_descriptor(here: Path) -> None:
    with handed(here / "q") as child:
        qemu.until(lambda: can_be_attached_to(here / "q"))
        qemu.until(lambda: found(here, child).category == "adoptable")
        assert found(here, child).socket == f"{here}/q"


def test_libvirts_guests_are_libvirts_by_shape_or_by_place(here: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as stack:
        listener.bind(str(here / "monitor.sock"))
        listener.listen()
        number = listener.fileno()
        shape = ("-chardev", f"socket,id=charmonitor,fd={number},server=on,wait=off")
        mon = ("-mon", "chardev=charmonitor,id=monitor,mode=control")
        one = stack.enter_context(started(*shape, *mon, pass_fds=(number,)))
        place = here / "libvirt/qemu/domain-1-a"
        place.mkdir(parents=True)
        two = stack.enter_context(started(*qmp(place / "q"), wait_for=place / "q"))
        for child in (one, two):
            entry = found(here, child)
            assert entry.category == "libvirt"
            assert entry.command is None


@pytest.mark.parametrize(
    ("place", "manager"),
    [
        ("run/qemu-server/100.qmp", "Proxmox VE"),
        ("run/vc/vm/0a1b/qmp.sock", "Kata Containers"),
        (".lima/default/qmp.sock", "Lima"),
        ("run/ganeti/kvm-hypervisor/ctrl/a.qmp", "Ganeti"),
        ("run/incus/a/qemu.monitor", "Incus"),
    ],
)
def test_a_guest_of_another_manager_is_left_alone_though_its_monitor_is_free(
    here: Path, place: str, manager: str
) -> None:
    path = here / place
    path.parent.mkdir(parents=True)
    with started(*qmp(path), wait_for=path) as child:
        entry = found(here, child)
        assert (entry.category, entry.manager, entry.command) == ("managed", manager, None)
        refused = called("adopt", "a", str(path), run=here / "ours")
        assert (refused.code, f"{manager} manages it" in refused.err) == (6, True)
        assert not (here / "ours").exists()
        forced = called("adopt", "a", str(path), "--force", run=here / "ours")
        assert (forced.code, "a: adopted" in forced.out) == (0, True)
        # What was adopted once is a guest like any other.
        assert called("adopt", "a", str(path), run=here / "ours").code == 0


def test_a_manager_is_known_as_the_parent_of_its_guests(here: Path) -> None:
    manager = here / "limactl"
    shutil.copy("/bin/sh", manager)
    words = (qemu.EMULATOR, *PAUSED, *qmp(here / "q"))
    script = f"{shlex.join(words)} & echo $!; wait"
    with subprocess.Popen([manager, "-c", script], stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout
            pid = int(parent.stdout.readline())
            qemu.until(lambda: can_be_attached_to(here / "q"), seconds=30)
            entry = found_pid(here, pid)
            assert (entry.category, entry.manager) == ("managed", "Lima")
        finally:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "name",
    [
        *(".qemu-system-x86_64-wrapped", "kvm", "qemu-kvm", "qemu-system-x86_64-spice"),
        *("emulator", "vm.bin"),
    ],
)
def test_a_qemu_is_one_by_whatever_name_its_file_has(here: Path, name: str) -> None:
    emulator = here / name
    shutil.copy(shutil.which(qemu.EMULATOR) or "", emulator)
    modules = next(Path("/usr/lib").glob("*/qemu/accel-*.so"), here).parent
    where = {**os.environ, "QEMU_MODULE_DIR": str(modules)}  # it looks beside itself
    words = ("-L", "/usr/share/seabios", *qmp(here / "q"))
    with started(*words, wait_for=here / "q", env=where, executable=emulator) as child:
        emulator.unlink()  # as after an upgrade
        assert found(here, child).category == "adoptable"


def test_another_program_of_that_name_is_none(here: Path) -> None:
    shutil.copy("/bin/sleep", here / "qemu-system-x86_64")
    words = ("qemu-system-x86_64", "60")
    with subprocess.Popen(words, executable=here / words[0], stdin=subprocess.DEVNULL) as child:
        try:
            assert not [entry for entry in survey(here / "run").found if entry.pid == child.pid]
        finally:
            child.kill()


@pytest.mark.parametrize("more", ["", ",tight=off"])
def test_an_abstract_socket_is_seen_and_adopted(here: Path, more: str) -> None:
    name = f"qm-{os.getpid()}-{here.name}"
    chardev = f"socket,id=m,path={name},abstract=on,server=on,wait=off{more}"
    with started("-chardev", chardev, "-mon", "m,mode=control", *qemu.BALLOON) as child:
        qemu.until(lambda: found(here, child).category == "adoptable", seconds=30)
        entry = found(here, child)
        assert entry.socket == f"@{name}"
        assert entry.command is not None
        run = here / "run"
        done = called(*shlex.split(entry.command)[1:], run=run)
        assert (done.code, "adopted, prelaunch" in done.out) == (0, True)
        assert not [each for each in survey(run).found if each.pid == child.pid]
        identity = shlex.split(entry.command)[2]
        assert called("set", identity, "50%", "--force", "--no-wait", run=run).code == 0
        assert "64 MiB" in called("list", run=run).out
        child.kill()
        child.wait()
        assert identity not in called("list", run=run).out
    if not more:
        with started("-chardev", chardev, "-mon", "m,mode=control") as child:
            qemu.until(lambda: found(here, child).category == "adoptable", seconds=30)
            with client(f"@{name}"):
                assert found(here, child).category == "in-use"


@pytest.mark.parametrize("by", ["path", "descriptor"])
def test_a_monitor_that_a_configuration_file_brings_is_seen(here: Path, by: str) -> None:
    config = here / "config"
    config.write_text(
        f'[chardev "m"]\nbackend = "socket"\npath = "{here}/q"\nserver = "on"\nwait = "off"\n'
        '[mon "m"]\nchardev = "m"\nmode = "control"\n'
    )
    with config.open("rb") as file:
        number = file.fileno()
        name = f"/dev/fd/{number}" if by == "descriptor" else str(config)
        words = ("-readconfig", name)
        with started(*words, wait_for=here / "q", pass_fds=(number,)) as child:
            assert found(here, child).category == "adoptable"


def test_a_guest_of_ours_whose_files_are_gone_is_said_to_be_one(here: Path) -> None:
    with qemu.paused(here / "run", "a") as children:
        shutil.rmtree(here / "run")
        entry = found(here, children["a"])
        assert entry.category == "no-qmp"
        assert f"run directory {here}/run, whose files are gone: restart it" in (entry.note or "")


def test_a_replaced_socket_belongs_to_the_qemu_that_replaced_it(here: Path) -> None:
    """A second QEMU that binds the same path takes it over silently; the first is out of reach."""
    with started(*qmp(here / "q"), wait_for=here / "q") as first:
        (here / "q").unlink()
        with started(*qmp(here / "q"), wait_for=here / "q") as second:
            assert found(here, first).category == "no-qmp"
            assert found(here, second).category == "adoptable"


def test_a_guest_of_ours_is_not_listed_here_but_shown_from_elsewhere(here: Path) -> None:
    with qemu.paused(here / "run", "a") as children:
        pid = children["a"].pid
        assert not [entry for entry in survey(here / "run").found if entry.pid == pid]
        [entry] = [entry for entry in survey(here / "other").found if entry.pid == pid]
        assert entry.category == "elsewhere"
        assert entry.command == f"QMPMEM_RUN_DIR={here}/run qmpmem list"


def test_a_guest_in_another_network_namespace_is_reached_all_the_same(here: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: no network namespace of our own")
    words = ("unshare", "--net", qemu.EMULATOR, "-S", *qemu.SMALL, *qmp(here / "q"))
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            qemu.until(lambda: can_be_attached_to(here / "q"))
            qemu.until(lambda: found(here, child).category == "adoptable")
            with client(here / "q"):
                assert found(here, child).category == "in-use"
            with client_beside(child.pid, here / "q"):
                assert found(here, child).category == "in-use"
        finally:
            child.kill()


def test_a_liar_is_never_listed(here: Path) -> None:
    """A process of another user that calls itself QEMU, in name and arguments."""
    if os.geteuid() != 0:
        pytest.skip("not root: no process of another user")
    liar = here / "qemu-system-x86_64"
    liar.symlink_to("/bin/sleep")
    here.chmod(0o755)
    with subprocess.Popen(
        [qemu.EMULATOR, "60"], executable=liar, user="nobody", stdin=subprocess.DEVNULL
    ) as child:
        try:
            assert Path(f"/proc/{child.pid}/comm").read_text() == "qemu-system-x86\n"
            assert not [entry for entry in survey(here / "run").found if entry.pid == child.pid]
        finally:
            child.kill()


def test_ten_strangers_take_little_time(here: Path) -> None:
    with ExitStack() as stack:
        for number in range(10):
            path = here / str(number)
            stack.enter_context(started(*qmp(path), wait_for=path))
        began = time.process_time()
        found = [entry for entry in survey(here / "run").found if entry.category == "adoptable"]
        assert len(found) >= 10
        assert time.process_time() - began < 1.0


def test_what_others_hold_is_asked_of_the_kernel_once_for_all(here: Path) -> None:
    """Each guest in use beside 3000 other sockets cost two dumps of them, and a walk of /proc."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, limits[1]), limits[1]))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        for number in range(3000):
            idle = stack.enter_context(socket.socket(socket.AF_UNIX))
            idle.bind(str(here / f"s{number}"))
            idle.listen()
        children = set()
        for number in range(20):
            path = here / f"q{number}"
            children.add(stack.enter_context(started(*qmp(path), wait_for=path)).pid)
            stack.enter_context(client(path))
        began = time.process_time()
        found = [entry for entry in survey(here / "run").found if entry.pid in children]
        assert time.process_time() - began < 1.0  # 0.2 s; 3 s the other way
        assert [entry.category for entry in found] == ["in-use"] * 20
        assert {entry.holder.pid for entry in found if entry.holder} == {os.getpid()}


@contextmanager
def client_beside(pid: int, path: Path) -> Iterator[None]:
    """Attach from within another process's network namespace."""
    hold = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
    hold += "print(s.recv(9), flush=True); sys.stdin.read()"
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", hold, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert b"QMP" in child.stdout.readline()
        yield
        assert child.stdin
        child.stdin.close()


def can_be_attached_to(path: Path) -> bool:
    try:
        with client(path):
            return True
    except OSError:
        return False
