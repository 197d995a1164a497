"""Adopting real QEMUs that another program started, and plugging balloons into them."""

import asyncio
import json
import os
import resource
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qmpmem import Guest
from qmpmem.errors import ConfigError, GuestRefused, GuestUnreachable
from qmpmem.guests import inventory, read_guest, rundir
from qmpmem.guests.adopt import adopt, forget
from qmpmem.guests.discover import survey
from qmpmem.guests.rundir import GuestRecord
from qmpmem.model import obstacles
from qmpmem.model.guest import GuestView
from qmpmem.records import replace
from qmpmem.units import MIB, Bytes
from qmpmem.wire import kernel, sock_diag
from qmpmem.wire.qmp import Deadlines
from tests.rig import qemu
from tests.rig.agent import running
from tests.rig.command import Ran, called
from tests.rig.foreign_qemu import client, daemon, handed, qmp, started
from tests.rig.launcher import SHIM
from tests.rig.patience import patient
from tests.rig.users import IS_ROOT

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]

PORT = ("-device", "pcie-root-port,id=rp1,slot=1")


@pytest.fixture
def here() -> Iterator[Path]:
    with qemu.short_directory() as directory:
        yield directory


async def listed(run: Path) -> dict[str, GuestView]:
    """See what `qmpmem list` would."""
    return {guest.id: guest for guest in await read_guest.observe_all(inventory.take(run).guests)}


async def test_an_empty_directory_of_an_earlier_version_is_taken_over(here: Path) -> None:
    run = here / "run"
    rundir.make_run_directory(run)
    (run / "db1").mkdir()
    (run / "db1").chmod(0o2770)
    with started(*qmp(here / "q"), *qemu.BALLOON, wait_for=here / "q"):
        with pytest.raises(ConfigError, match="the id is taken"):
            await adopt(run, "db1", str(here / "q"))
        os.utime(run / "db1", (0, 0))
        await adopt(run, "db1", str(here / "q"))
        assert stat.S_IMODE((run / "db1").stat().st_mode) == 0o700
        assert set(await listed(run)) == {"db1"}


@contextmanager
def launched(run: Path, guest: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a paused QEMU through the launcher; its record is there when this yields."""
    environ = os.environ | {
        "QMPMEM_REAL": f"/usr/bin/{qemu.EMULATOR}",
        "QMPMEM_RUN_DIR": str(run),
        "QMPMEM_DEFAULTS": "/dev/null",
    }
    words = (*qemu.WITH_US, str(SHIM), "-name", guest, "-S", *qemu.SMALL)
    with subprocess.Popen(words, env=environ) as child:
        try:
            qemu.until((run / guest / "record.json").exists)
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize("answers", [False, True])
async def test_a_launcher_keeps_the_id_that_it_took_meanwhile(here: Path, *, answers: bool) -> None:
    """A QEMU that is slow to answer makes an adoption longer than launchers wait for a record."""
    run = here / "run"
    patience = Deadlines(handshake=patient(30.0 if answers else 5.0))
    with started(*qmp(here / "q"), *qemu.BALLOON, wait_for=here / "q") as child:
        os.kill(child.pid, signal.SIGSTOP)
        adopting = asyncio.create_task(adopt(run, "a", str(here / "q"), deadlines=patience))
        await asyncio.to_thread(qemu.until, (run / "a").exists)
        os.utime(run / "a", (0, 0))
        starting = launched(run, "a")
        guest = await asyncio.to_thread(starting.__enter__)
        try:
            if answers:
                os.kill(child.pid, signal.SIGCONT)
            with pytest.raises(ConfigError if answers else GuestUnreachable) as caught:
                await adopting
            assert answers == ("the id is taken" in caught.value.message)
            assert (await listed(run))["a"].pid == guest.pid
        finally:
            os.kill(child.pid, signal.SIGCONT)
            starting.__exit__(None, None, None)


def nothing_left(run: Path) -> bool:
    return not run.exists() or not [path for path in run.iterdir() if path.name != ".lock"]


async def test_an_adopted_guest_is_seen_and_set_like_any_other(here: Path) -> None:
    run = here / "run"
    with started(*qmp(here / "q"), *qemu.BALLOON, wait_for=here / "q") as child:
        done = await adopt(run, "db1", str(here / "q"))
        assert not done.plugged
        guest = (await listed(run))["db1"]
        assert (guest.pid, guest.socket, guest.managed) == (child.pid, f"{here}/q", True)
        assert guest.actual == guest.maximum == 64 * MIB
        async with Guest("db1", run=run) as held:
            await held.set(Bytes(32 * MIB), force=True)
        assert child.pid not in {entry.pid for entry in survey(run).found}
        record = inventory.take(run).guests[0].record
        assert (record.origin, record.listener, record.balloon) == ("adopted", None, None)
        assert record.emulator == kernel.executable(child.pid)


async def test_the_run_directory_is_made_with_the_right_modes(here: Path) -> None:
    run = here / "new/run"
    before = os.umask(0)
    try:
        with started(*qmp(here / "q"), wait_for=here / "q"):
            await adopt(run, "a", str(here / "q"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    assert stat.S_IMODE((run / "a").stat().st_mode) == 0o700


@pytest.mark.parametrize("path", ["{here}/q", "q"])
async def test_a_daemon_is_adopted(here: Path, path: str) -> None:
    with daemon(here, *qmp(path.format(here=here)), *qemu.BALLOON) as pid:
        await adopt(here / "run", "d", str(here / "q"))
        assert (await listed(here / "run"))["d"].pid == pid
        assert (await listed(here / "run"))["d"].actual == 64 * MIB


async def test_a_socket_that_qemu_was_handed_becomes_its_own(here: Path) -> None:
    """SO_PEERCRED names us until QEMU is up and calls listen() itself."""
    with handed(here / "q") as child:
        await adopt(here / "run", "a", str(here / "q"))
        [found] = inventory.take(here / "run").guests
        assert (found.record.pid, found.record.listener) == (child.pid, None)
        assert (await listed(here / "run"))["a"].state == "prelaunch"


async def test_an_adopted_guest_that_ends_is_gone(here: Path) -> None:
    with started(*qmp(here / "q"), wait_for=here / "q") as child:
        await adopt(here / "run", "a", str(here / "q"))
        child.kill()
        child.wait()
        taken = inventory.take(here / "run")
        assert [record.id for record in taken.stale] == ["a"]


async def test_a_socket_in_use_is_said_to_be_and_its_client_is_named(here: Path) -> None:
    run = here / "run"
    with started(*qmp(here / "q"), wait_for=here / "q"):
        with client(here / "q"):
            with pytest.raises(GuestUnreachable) as caught:
                await adopt(run, "a", str(here / "q"))
            assert caught.value.reason == "taken"
            assert f"process {os.getpid()} " in caught.value.message
        assert not run.exists()
        await adopt(run, "a", str(here / "q"))


async def test_adopt_does_not_queue_on_a_socket_in_use(here: Path) -> None:
    """A client that connects and leaves again stays in the listener's queue: none may come."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(here / "q"))
        listener.listen()
        listener.setblocking(False)  # noqa: FBT003 - the socket module's own
        first.connect(str(here / "q"))
        accepted, _ = listener.accept()
        with accepted, pytest.raises(GuestUnreachable, match="holds the monitor"):
            await adopt(here / "run", "a", str(here / "q"))
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_a_guest_needs_a_name(here: Path) -> None:
    with pytest.raises(ConfigError, match="an empty name"):
        await adopt(here / "run", "", str(here / "q"))
    assert nothing_left(here / "run")


@pytest.mark.parametrize(
    ("name", "guest"),
    [("Windows 10", "Windows-10"), ("../a", "a"), ("Büro", "Buero"), ("x" * 49, "x" * 48)],
)
async def test_any_name_will_do(here: Path, name: str, guest: str) -> None:
    run = here / "run"
    with started(*qmp(here / "q"), wait_for=here / "q"):
        adopted = (await adopt(run, name, str(here / "q"))).guest
        assert (adopted.id, adopted.name) == (guest, name)
        assert (await adopt(run, name, str(here / "q"))).known
        assert forget(run, name).id == guest


async def test_ids_and_guests_are_registered_once(here: Path) -> None:
    run = here / "run"
    both = (*qmp(here / "p"), *qmp(here / "q"))
    with started(*both, wait_for=here / "q"), started(*qmp(here / "r"), wait_for=here / "r"):
        await adopt(run, "a", str(here / "p"))
        with pytest.raises(ConfigError, match="is guest a already"):
            await adopt(run, "b", str(here / "p"))
        with pytest.raises(ConfigError, match="is guest a already"):
            await adopt(run, "b", str(here / "q"))
        with pytest.raises(ConfigError, match="the id is taken"):
            await adopt(run, "a", str(here / "r"))
        assert [path.name for path in run.iterdir()] == ["a"]


async def test_two_guests_that_want_one_id_do_not_share_it(here: Path) -> None:
    run = here / "run"
    with (
        started(*qmp(here / "p"), wait_for=here / "p"),
        started(*qmp(here / "q"), wait_for=here / "q"),
    ):
        outcomes = await asyncio.gather(
            adopt(run, "a", str(here / "p")),
            adopt(run, "a", str(here / "q")),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes].count(ConfigError) == 1
        assert list(await listed(run)) == ["a"]


async def test_a_stale_record_does_not_keep_its_id(here: Path) -> None:
    run = here / "run"
    with started(*qmp(here / "q"), wait_for=here / "q") as child:
        await adopt(run, "a", str(here / "q"))
        child.kill()
        child.wait()
    with started(*qmp(here / "r"), wait_for=here / "r") as child:
        await adopt(run, "a", str(here / "r"))
        assert (await listed(run))["a"].pid == child.pid


async def test_libvirts_guests_are_left_alone(here: Path) -> None:
    place = here / "libvirt/qemu/domain-1-a"
    place.mkdir(parents=True)
    link = here / "link"
    with started(*qmp(place / "q"), wait_for=place / "q"):
        os.link(place / "q", link)  # the same socket by an innocent name
        # The third is not even there: where the process is not ours to see, its place tells.
        for path in (place / "q", link, place / "none"):
            with pytest.raises(GuestRefused, match="libvirt manages it"):
                await adopt(here / "run", "a", str(path))
    assert not (here / "run").exists()


async def test_what_is_no_qmp_leaves_nothing_behind(here: Path) -> None:
    quick = Deadlines(handshake=0.5)
    path = here / "q"
    with pytest.raises(GuestUnreachable):
        await adopt(here / "run", "a", str(here / "missing"))
    with (
        started("-serial", f"unix:{path},server=on,wait=off", wait_for=path),
        pytest.raises(GuestUnreachable),
    ):
        await adopt(here / "run", "a", str(path), deadlines=quick)
    with started(*qmp(here / "r"), wait_for=here / "r") as child:
        child.send_signal(signal.SIGSTOP)
        with pytest.raises(GuestUnreachable):
            await adopt(here / "run", "a", str(here / "r"), deadlines=quick)
    assert not (here / "run").exists()


async def test_an_interrupted_adoption_leaves_nothing_behind(here: Path) -> None:
    with started(*qmp(here / "q"), wait_for=here / "q") as child:
        child.send_signal(signal.SIGSTOP)
        work = asyncio.create_task(adopt(here / "run", "a", str(here / "q")))
        await asyncio.to_thread(qemu.until, (here / "run/a").exists)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert not (here / "run").exists()


async def test_a_run_directory_that_cannot_be_made_is_said(here: Path) -> None:
    (here / "file").touch()
    with (
        started(*qmp(here / "q"), wait_for=here / "q"),
        pytest.raises(ConfigError, match="run directory"),
    ):
        await adopt(here / "file/run", "a", str(here / "q"))


# Balloons.


@pytest.mark.parametrize(
    "machine",
    [
        ("-M", "pc"),
        ("-M", "q35", *PORT),
        ("-M", "q35", "-device", "pcie-root-port,id=rp0,slot=2,hotplug=off", *PORT),
    ],
)
async def test_a_balloon_is_plugged_where_the_machine_takes_one(
    here: Path, machine: tuple[str, ...]
) -> None:
    run = here / "run"
    with started(*machine, *qmp(here / "q"), wait_for=here / "q"):
        before = await adopt(run, "a", str(here / "q"))
        assert before.guest.actual is None
        assert "--add-balloon" in (before.note or "")
        done = await adopt(run, "a", str(here / "q"), add_balloon=True)
        assert done.plugged
        assert done.guest.balloon is not None
        assert done.guest.balloon.path == "/machine/peripheral/qmpmem0"
        assert done.guest.balloon.deflate_on_oom
        assert (await listed(run))["a"].actual == 64 * MIB
        assert inventory.take(run).guests[0].record.balloon == "qmpmem0"


async def test_a_balloon_is_plugged_while_adopting(here: Path) -> None:
    with started(*qmp(here / "q"), wait_for=here / "q"):
        done = await adopt(here / "run", "a", str(here / "q"), add_balloon=True)
        assert done.plugged
        assert inventory.take(here / "run").guests[0].record.balloon == "qmpmem0"
        again = await adopt(here / "run", "a", str(here / "q"), add_balloon=True)
        assert not again.plugged
        assert again.note == "it has a balloon device already"
        assert again.known


def held_by(path: str, agent: subprocess.Popen[str]) -> bool:
    held = sock_diag.holder(path)
    return held is not None and held.pid == agent.pid


def test_a_guest_without_a_balloon_is_not_held_and_the_advice_works(here: Path) -> None:
    run, path = here / "run", str(here / "q")
    with started(*qmp(path), wait_for=here / "q"), running(run) as agent:
        first = called("adopt", "a", path, run=run)
        assert f"for one, `qmpmem adopt a {path} --add-balloon`" in first.err
        qemu.until(lambda: "no balloon device" in called("agent", "why", "a", run=run).out)
        with client(here / "q"):  # a person's tool is served at once, as often as it comes
            holder = f"process {os.getpid()} "
            qemu.until(lambda: holder in called("list", run=run).out, what="it is named")
        with client(here / "q"):
            pass
        qemu.until(lambda: "prelaunch" in called("info", "a", run=run).out)
        # The agent may be looking at it just now.
        tried: list[Ran] = []

        def is_adopted() -> bool:
            tried.append(called("adopt", "a", path, "--add-balloon", run=run))
            return tried[-1].code == 0

        qemu.until(is_adopted, what="it has a balloon")
        assert "a guest already" in tried[-1].out
        # A client that asks has the agent look again; from then on it is of use to hold it.
        assert called("list", run=run).code == 0
        qemu.until(lambda: "no balloon" not in called("agent", "why", "a", run=run).out)
        qemu.until(lambda: held_by(path, agent), what="the agent takes it")
        again = called("adopt", "a", path, run=run)
        assert again == (0, "a: a guest already, and held by the agent\n", "")
        shown = json.loads(called("adopt", "a", path, "--json", run=run).out)
        assert (shown["state"], f"process {agent.pid} " in shown["problem"]) == ("in-use", True)
        refused = called("adopt", "a", path, "--add-balloon", run=run)
        assert refused.code == 5
        assert "end the other client" not in refused.err
        assert "`qmpmem forget a` has it let go, then this once more" in refused.err
        assert called("forget", "a", run=run).code == 0
        qemu.until(lambda: not held_by(path, agent), what="the agent lets go")


def test_a_guest_that_is_not_managed_is_not_held_until_it_is(here: Path) -> None:
    run, path, config = here / "run", str(here / "q"), here / "qmpmem.toml"
    config.write_text('[[guest]]\nmatch = "a"\nmanaged = false\n')
    words = (*qmp(path), *qemu.BALLOON)
    with (
        started(*words, wait_for=here / "q"),
        running(run, "--config", str(config)) as agent,
    ):
        assert called("adopt", "a", path, run=run).code == 0
        qemu.until(lambda: "by configuration" in called("agent", "why", "a", run=run).out)
        qemu.until(lambda: not held_by(path, agent), what="the agent lets go")
        with client(here / "q"):
            pass
        assert "64 MiB" in called("list", run=run).out
        config.write_text("")
        agent.send_signal(signal.SIGHUP)
        qemu.until(lambda: held_by(path, agent), what="the agent takes it")


def test_the_agent_queues_behind_no_client(here: Path) -> None:
    """A client that connects and leaves again stays in QEMU's queue, before the next one."""
    run, path = here / "run", str(here / "q")
    with started(*qmp(path), *qemu.BALLOON, wait_for=here / "q"):
        assert called("adopt", "a", path, run=run).code == 0
        with client(path), running(run):
            qemu.until(lambda: "in-use" in called("list", run=run).out)
            with socket.socket(socket.AF_UNIX) as second:  # is the next one in the queue
                second.connect(path)
                assert f"process {os.getpid()} " in called("list", run=run).out
        qemu.until(lambda: "prelaunch" in called("list", run=run).out, seconds=40)


async def test_a_device_of_our_name_makes_us_take_the_next(here: Path) -> None:
    words = ("-device", "virtio-rng-pci,id=qmpmem0")
    with started(*qmp(here / "q"), *words, wait_for=here / "q"):
        done = await adopt(here / "run", "a", str(here / "q"), add_balloon=True)
        assert done.guest.balloon is not None
        assert done.guest.balloon.path == "/machine/peripheral/qmpmem1"


@pytest.mark.parametrize(
    ("machine", "word"),
    [
        (("-M", "q35"), "does not support hotplugging"),
        (("-M", "q35", *PORT, "-device", "virtio-rng-pci,bus=rp1"), "hotplugging"),
        (("-M", "microvm"), "No 'PCI' bus"),
        (("-M", "microvm,pcie=on"), "hotplugging"),
        (("-M", "isapc"), "No 'PCI' bus"),
    ],
)
async def test_a_machine_that_takes_none_says_why_and_is_listed_all_the_same(
    here: Path, machine: tuple[str, ...], word: str
) -> None:
    with started(*machine, *qmp(here / "q"), wait_for=here / "q"):
        for _ in range(2):  # a guest that is new, and one that is known
            with pytest.raises(GuestRefused) as caught:
                await adopt(here / "run", "a", str(here / "q"), add_balloon=True)
            assert word in caught.value.message
            assert caught.value.message.startswith("guest a: adopted without a balloon: machine ")
            assert caught.value.hint
            assert (await listed(here / "run"))["a"].maximum == 64 * MIB
        done = await adopt(here / "run", "a", str(here / "q"))
        assert done.guest.balloon is None


@pytest.mark.parametrize(
    "words",
    [
        ("-device", "virtio-balloon-pci-non-transitional,id=b"),
        ("-device", "virtio-balloon-pci-transitional,id=b"),
        ("-device", "virtio-balloon-pci"),
        ("-device", "virtio-balloon"),
        ("-device", '{"driver":"virtio-balloon-pci-non-transitional"}'),
        ("-M", "microvm", "-device", "virtio-balloon-device"),
        ("-M", "q35", *PORT, "-device", "virtio-balloon-pci-non-transitional,bus=rp1"),
    ],
)
async def test_a_balloon_is_seen_by_whatever_name_it_was_asked_for(
    here: Path, words: tuple[str, ...]
) -> None:
    run = here / "run"
    with started(*words, *qmp(here / "q"), wait_for=here / "q"):
        done = await adopt(run, "a", str(here / "q"), add_balloon=True)
        lacking = f"it has a balloon device already; {obstacles.NO_DEFLATE}"
        assert (done.plugged, done.note) == (False, lacking)
        shown = called("info", "a", run=run)
        assert "virtio-balloon-" in shown.out
        assert "deflate-on-oom off" in shown.out
        assert called("stats", "a", run=run).code == 0


@pytest.mark.skipif(
    not IS_ROOT and resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY,
    reason="not root: may not lock that much memory",
)
async def test_locked_memory_is_never_ballooned(here: Path) -> None:
    words = ("-overcommit", "mem-lock=on")
    with started(*qmp(here / "q"), *words, wait_for=here / "q"):
        with pytest.raises(GuestRefused, match="adopted without a balloon: its memory is locked"):
            await adopt(here / "run", "a", str(here / "q"), add_balloon=True)
        done = await adopt(here / "run", "a", str(here / "q"))
        assert not done.guest.managed
        assert "locked" in (done.note or "")


# Letting go.


async def test_a_forgotten_guest_goes_on(here: Path) -> None:
    run = here / "run"
    with started(*qmp(here / "q"), wait_for=here / "q") as child:
        await adopt(run, "a", str(here / "q"))
        assert forget(run, "a").alive
        assert nothing_left(run)
        assert child.poll() is None
        assert (here / "q").exists()
        with pytest.raises(ConfigError, match="no such guest"):
            forget(run, "a")
        await adopt(run, "a", str(here / "q"))


def test_a_launched_guest_is_not_forgotten_before_it_ends(here: Path) -> None:
    run = here / "run"
    with qemu.paused(run, "a") as children:
        with pytest.raises(ConfigError, match="started by the launcher"):
            forget(run, "a")
        children["a"].kill()
        children["a"].wait()
        assert not forget(run, "a").alive
        assert nothing_left(run)


def test_to_adopt_a_launched_guest_changes_nothing(here: Path) -> None:
    run = here / "run"
    with qemu.paused(run, "a"):
        record = (run / "a/record.json").read_bytes()
        ran = called("adopt", "a", f"{run}/a/qmp.sock", run=run)
        assert (ran.code, ran.out) == (0, "a: a guest already, prelaunch, 256 MiB of 256 MiB\n")
        assert (run / "a/record.json").read_bytes() == record


def test_a_damaged_record_is_forgotten_unless_qemu_listens(here: Path) -> None:
    run = here / "run"
    with qemu.paused(run, "a") as children:
        (run / "a/record.json").write_text("{")
        with pytest.raises(ConfigError, match="it lives"):
            forget(run, "a")
        children["a"].kill()
        children["a"].wait()
        forget(run, "a")
        assert nothing_left(run)


def test_a_guest_is_forgotten_by_its_unique_name(here: Path) -> None:
    for guest in ("a", "b"):
        record = GuestRecord(
            version=1,
            id=guest,
            name="web 1",
            pid=1 << 22,
            start_time=1,
            socket=str(here / "none"),
            uid=os.getuid(),
            created=0.0,
            origin="adopted",
        )
        (here / guest).mkdir()
        rundir.write_record(here, record)
    with pytest.raises(ConfigError, match="the name of several guests") as caught:
        forget(here, "web 1")
    assert caught.value.hint == "say which: a, b"
    rundir.write_record(here, replace(rundir_record(here, "b"), name="web 2"))
    assert forget(here, "web 2").id == "b"


def rundir_record(run: Path, guest: str) -> GuestRecord:
    record = rundir.read_record(run / guest)
    assert isinstance(record, GuestRecord)
    return record


async def test_a_launched_guest_that_became_a_daemon_is_reached(here: Path) -> None:
    """Its record names the launcher, which is gone; the daemon has called listen() since."""
    directory = here / "run/a"
    directory.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "qmp.sock"))
        listener.listen()
        number = listener.fileno()
        chardev = f"socket,id=m,fd={number},server=on,wait=off"
        words = ("-chardev", chardev, "-mon", "chardev=m,mode=control")
        with daemon(here, *words, pass_fds=(number,)) as pid:
            listener.close()
            record = GuestRecord(
                version=1,
                id="a",
                name="a",
                pid=1 << 22,  # above any pid: that process is gone
                start_time=1,
                socket=str(directory / "qmp.sock"),
                uid=os.getuid(),
                created=0.0,
                daemonize=True,
            )
            rundir.write_record(here / "run", record)
            seen = (await listed(here / "run"))["a"]
            assert (seen.pid, seen.state) == (pid, "prelaunch")
