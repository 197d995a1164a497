"""The doctor's lines, each both ways, on small roots."""

import itertools
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from launchers import kvm_settings
from qmpmem import doctor, launcher_install
from qmpmem.doctor import Finding, Host, access, settings
from qmpmem.files import launcher_paths
from qmpmem.guests import rundir
from qmpmem.guests.rundir import GuestRecord
from qmpmem.ksm import boot
from qmpmem.model import obstacles
from qmpmem.records import replace
from tests.rig.command import called
from tests.rig.install_roots import make_launchers
from tests.rig.qemu import short_directory

ME = os.geteuid()
QEMU = "/usr/bin/qemu-system-x86_64"


@pytest.fixture
def short() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture
def host(short: Path) -> Host:
    """A host on which all is well, but that it has no launcher."""
    root = short / "root"
    write(root / "usr/bin/qemu-system-x86_64", "#!/bin/sh\necho QEMU emulator version 9.2.0\n")
    (root / "usr/bin/qemu-system-x86_64").chmod(0o755)
    (root / "usr/bin/kvm").symlink_to("qemu-system-x86_64")
    write(root / "etc/default/qmpmem", "QMPMEM_ASK_SCRIPT=on\n")  # as this emulator is one
    write(root / "dev/kvm", "")
    write(root / "proc/cpuinfo", "flags\t: fpu vmx\n")
    write(root / "proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
    write(root / "sys/kernel/mm/ksm/run", "1\n")
    write(root / "etc/group", "root:x:0:\nqmpmem:x:4711:ada,bob\n")
    (root / "usr/lib").mkdir()
    return Host(
        root=root,
        run=root / "r",
        environ={"PATH": "/usr/local/bin:/usr/bin"},
        uid=ME,
        groups=frozenset({4711}),
        machine="x86_64",
    )


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def lines(host: Host, what: str) -> list[Finding]:
    found = [line for line in doctor.check(host) if line.what == what]
    assert all(line.todo is None for line in found if line.status == "ok")
    return found


def line(host: Host, what: str) -> Finding:
    [found] = lines(host, what)
    return found


def test_every_check_has_a_line_on_a_healthy_host(host: Host) -> None:
    found = {line.what: line.status for line in doctor.check(host)}
    assert found == dict.fromkeys(doctor.CHECKS, "ok") | {"launcher": "warning"}


async def test_examining_does_not_block_the_event_loop(host: Host) -> None:
    found = await doctor.examine(host.run, root=host.root, environ=host.environ)
    assert {line.what for line in found} == doctor.CHECKS.keys()


def test_a_root_may_be_named_from_where_one_is(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = called("doctor", "--root", str(host.root), run=host.run)
    monkeypatch.chdir(host.root.parent)
    assert called("doctor", "--root", host.root.name, run=host.run) == whole


def test_one_sick_corner_hides_no_other(host: Host) -> None:
    (host.run).write_text("")  # a file in the place of the run directory cannot be listed
    found = doctor.check(host)
    assert {line.what for line in found} == doctor.CHECKS.keys()
    assert line(host, "leftovers").status == "failed"


# Programs.


def test_the_emulator_is_named_with_its_version(host: Host) -> None:
    found = line(host, "emulator")
    assert found.said == f"{host.root}/usr/bin/kvm -> {host.root}{QEMU}, QEMU 9.2.0"


def test_no_emulator_is_a_failure(host: Host) -> None:
    (host.root / "usr/bin/kvm").unlink()
    (host.root / QEMU[1:]).unlink()
    assert line(host, "emulator").status == "failed"


def test_an_emulator_is_found_under_its_long_name(host: Host) -> None:
    (host.root / "usr/bin/kvm").unlink()
    assert line(host, "emulator").said == f"{host.root}{QEMU}, QEMU 9.2.0"


def test_what_answers_otherwise_is_no_emulator(host: Host) -> None:
    write(host.root / QEMU[1:], "#!/bin/sh\necho hello\n")
    assert line(host, "emulator").status == "failed"


def test_the_emulator_that_was_chosen_is_the_one(host: Host) -> None:
    write(host.root / "opt/mine", "#!/bin/sh\necho QEMU emulator version 10.0.0\n")
    (host.root / "opt/mine").chmod(0o755)
    chosen = replace(host, environ={**host.environ, "QMPMEM_REAL": "/opt/mine"})
    assert line(chosen, "emulator").said == f"{host.root}/opt/mine, QEMU 10.0.0"


def test_the_launcher_in_place(host: Host, tmp_path: Path) -> None:
    files = make_launchers(tmp_path / "launchers")
    host = replace(host, launchers=files)
    assert line(host, "launcher").status == "warning"
    launcher_install.install(launcher_install.site(host.root, files))
    found = line(host, "launcher")
    assert found.status == "ok"
    assert line(host, "emulator").said.startswith(f"{host.root}/usr/bin/distrib-kvm -> ")

    (files / "kvm.py").write_text("# the next version\n")
    found = line(host, "launcher")
    assert (found.status, found.todo) == ("warning", "`qmpmem launcher install`")

    with (host.root / "usr/bin/kvm").open("a") as file:
        file.write("# edited\n")
    found = line(host, "launcher")
    assert found.status == "failed"
    assert found.todo


def test_an_install_that_was_cut_off(host: Host, tmp_path: Path) -> None:
    host = replace(host, launchers=make_launchers(tmp_path / "launchers"))
    next(launcher_install.installing(launcher_install.site(host.root, host.launchers)))
    assert "cut off" in line(host, "launcher").said


def test_the_old_recipe_turns_kvm_off(host: Host) -> None:
    kvm = host.root / "usr/bin/kvm"
    kvm.rename(host.root / "usr/bin/kvm.real")
    write(kvm, '#!/bin/sh\nexec /usr/bin/kvm.real -balloon virtio "$@"\n')
    kvm.chmod(0o755)
    found = line(host, "old recipe")
    assert found.status == "failed"
    assert found.todo == "move it back: mv /usr/bin/kvm.real /usr/bin/kvm"
    assert line(host, "launcher").status == "failed"


@pytest.mark.parametrize("name", ["kvm.real", "kvm.distrib"])
def test_what_an_upgrade_left_of_it_can_go(host: Host, name: str) -> None:
    (host.root / "usr/bin" / name).symlink_to("qemu-system-x86_64")
    assert line(host, "old recipe").todo == f"remove it: rm /usr/bin/{name}"


# The kernel.


def test_kvm_that_is_not_usable_is_slow_and_works(host: Host) -> None:
    write(host.root / "proc/cpuinfo", "flags\t: fpu\n")
    found = line(host, "KVM")
    assert found.status == "warning"
    assert "neither vmx nor svm" in found.said
    assert found.todo
    assert lines(host, "emulated guests") == []


@pytest.mark.parametrize("content", ["0\n", "2\n", "x\n", None])
def test_ksm_that_does_not_run(host: Host, content: str | None) -> None:
    path = host.root / "sys/kernel/mm/ksm/run"
    path.unlink()
    if content is not None:
        write(path, content)
    assert line(host, "KSM").status == "warning"


@pytest.mark.parametrize("content", ["", None])
def test_a_kernel_without_pressure(host: Host, content: str | None) -> None:
    path = host.root / "proc/pressure/memory"
    path.unlink()
    if content is not None:
        write(path, content)
    assert "psi=1" in (line(host, "pressure").todo or "")


# Guests.


def record_guest(host: Host, pid: int, *words: str, kvm: bool = False, program: str = QEMU) -> None:
    directory = host.proc / str(pid)
    write(directory / "stat", f"{pid} (kvm) S " + "1 " * 18 + "4711 0 0\n")
    write(directory / "cmdline", "".join(f"{word}\0" for word in words))
    (directory / "exe").symlink_to(program)
    (directory / "fd").mkdir()
    (directory / "fd/9").symlink_to("anon_inode:kvm-vm" if kvm else "/dev/null")


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (("qemu-system-x86_64", "-name", "db1"), "-accel kvm"),
        (("/usr/bin/kvm.real", "-m", "64"), "a name that ends in kvm"),
        (("kvm", "-machine", "accel=kvm:tcg"), "/dev/kvm"),
    ],
)
def test_a_guest_that_runs_emulated_unasked_is_named(
    host: Host, words: tuple[str, ...], cure: str
) -> None:
    record_guest(host, 9, *words)
    found = line(host, "emulated guests")
    assert found.status == "warning"
    assert "process 9" in found.said
    assert cure in (found.todo or "")


def test_guests_under_kvm_or_emulated_on_purpose_are_well(host: Host) -> None:
    record_guest(host, 9, "kvm", kvm=True)
    record_guest(host, 10, "qemu-system-x86_64", "-accel", "tcg")
    record_guest(host, 11, "qemu-system-aarch64", program="/usr/bin/qemu-system-aarch64")
    assert line(host, "emulated guests").status == "ok"


def register(host: Host, guest: str) -> Path:
    record = GuestRecord(
        version=1,
        id=guest,
        name=guest,
        pid=9,
        start_time=4711,
        socket=str(host.run / guest / "qmp.sock"),
        uid=os.getuid(),
        created=0.0,
    )
    (host.run / guest).mkdir(parents=True)
    host.run.chmod(0o700)
    rundir.write_record(host.run, record)
    return host.run / guest


def test_leftovers_are_named_with_what_removes_them(host: Host) -> None:
    register(host, "gone")
    write(register(host, "odd") / "record.json", "{")
    (host.run / "bare").mkdir()
    found = {line.said.rpartition(": ")[0]: line for line in lines(host, "leftovers")}
    assert [line.status for line in found.values()] == ["warning"] * 3
    assert {line.todo for line in found.values()} == {
        "`qmpmem list` removes them",
        "`qmpmem forget odd`, if nothing runs there",
        "`qmpmem forget bare`, if nothing runs there",
    }


def test_live_guests_are_no_leftovers(host: Host) -> None:
    register(host, "a")
    record_guest(host, 9, "kvm", kvm=True)
    assert line(host, "leftovers").said == "none beside 1 live guests"


@pytest.mark.parametrize(
    ("kept", "status", "said", "todo"),
    [
        ({"no_balloon": "24 or more devices may leave no PCI slot"}, "", "no PCI slot", "fewer"),
        ({"no_balloon": "the guest's memory is locked"}, "", "is locked", "without locked memory"),
        ({"unmovable": "its memory is in huge pages"}, "", "frees nothing", "without huge pages"),
        ({}, "HugetlbPages:\t2048 kB\n", "2 MiB of its memory", "without huge pages"),
        ({"note": obstacles.NO_DEFLATE}, "", "lacks deflate-on-oom", "deflate-on-oom=on"),
    ],
)
def test_a_balloon_that_is_not_there_or_does_nothing_is_explained(
    host: Host, kept: dict[str, str], status: str, said: str, todo: str
) -> None:
    record_guest(host, 9, "kvm", kvm=True)
    write(host.root / "proc/9/status", status)
    directory = register(host, "a")
    record = rundir.read_record(directory)
    assert isinstance(record, rundir.GuestRecord)
    rundir.write_record(host.run, replace(record, **kept))
    (found,) = lines(host, "balloons")
    assert (found.status, said in found.said, todo in str(found.todo)) == ("warning", True, True)


def test_balloons_that_nothing_stands_against(host: Host) -> None:
    register(host, "a")
    record_guest(host, 9, "kvm", kvm=True)
    assert line(host, "balloons").status == "ok"


# The users that may use them.


def test_the_group(host: Host) -> None:
    user, root = replace(host, uid=1000), replace(host, uid=0)
    assert line(root, "group").said == "qmpmem: ada, bob"
    told = line(user, "group").said
    assert told.startswith("qmpmem: you are in it, so root's agent shows you its guests")
    assert "groupadd --system qmpmem-admin && usermod -aG qmpmem-admin USER" in told
    stranger = line(replace(user, groups=frozenset({1})), "group")
    assert (stranger.status, bool(stranger.todo)) == ("warning", True)
    write(host.root / "etc/group", "root:x:0:\n# qmpmem:x:1:\nqmpmem:x\n")
    assert line(root, "group").todo == "groupadd --system qmpmem"
    assert line(user, "group").status == "ok"


def test_the_group_that_may_change_guests(host: Host) -> None:
    write(host.root / "etc/group", "qmpmem:x:4711:\nqmpmem-admin:x:4712:\n")
    user = replace(host, uid=1000)
    told = line(user, "group").said
    assert "to change them, as root: `usermod -aG qmpmem-admin USER`, then log in again" in told
    both = replace(user, groups=frozenset({4711, 4712}))
    assert line(both, "group").said.endswith("qmpmem-admin: you are in it, so you may change them")


def test_a_user_with_guests_of_his_own_is_told_where_roots_are(host: Host) -> None:
    host.run.mkdir(mode=0o700)
    _, told = lines(replace(host, roots=Path("/r")), "run directory")
    assert (told.status, "QMPMEM_RUN_DIR=/r" in told.said) == ("ok", True)


def test_a_group_is_read_as_group_5_says() -> None:
    assert access.parse_group("a:x:7:\n", "a") == access.Group(gid=7, members=())
    assert access.parse_group("ab:x:7:\n", "a") is None


def test_a_private_run_directory(host: Host) -> None:
    user = replace(host, uid=ME or 1000)
    assert "made with the first guest" in line(user if ME else host, "run directory").said
    host.run.mkdir(mode=0o700)
    os.chown(host.run, user.uid, -1)
    assert line(user, "run directory").status == "ok"
    host.run.chmod(0o750)
    assert line(user, "run directory").todo == f"chmod 700 {host.run}"


@pytest.mark.parametrize(("mode", "status"), [(0o2771, "warning"), (0o2772, "failed")])
def test_a_run_directory_that_is_open_to_others(host: Host, mode: int, status: str) -> None:
    host.run.mkdir()
    host.run.chmod(mode)
    found = line(host, "run directory")
    assert (found.status, found.todo) == (status, f"chmod 700 {host.run}")


def test_another_users_run_directory_is_a_failure(host: Host) -> None:
    host.run.mkdir(mode=0o700)
    os.chown(host.run, ME or 1001, -1)
    found = line(replace(host, uid=1000 if ME != 1000 else 1001), "run directory")
    assert found.status == "failed"
    assert "belongs to uid" in found.said


@pytest.mark.skipif(ME != 0, reason="not root: cannot make root's directories")
def test_roots_run_directory(host: Host) -> None:
    root, user = replace(host, uid=0), replace(host, uid=1000)
    host.run.mkdir(mode=0o700)
    assert line(root, "run directory").status == "ok"
    assert "asked of root's agent" in line(user, "run directory").said
    assert {each.what for each in doctor.check(user) if each.status == "failed"} == set()
    for mode in (0o2770, 0o750, 0o711):
        host.run.chmod(mode)
        assert line(root, "run directory").todo == f"chmod 700 {host.run}"


@pytest.mark.parametrize("mode", [0o2770, 0o755, 0o750])
def test_a_guests_directory_that_others_get_into_is_named(host: Host, mode: int) -> None:
    host.run.mkdir(mode=0o700)
    for name in ("a", "b", ".agent"):
        (host.run / name).mkdir(mode=0o700)
    (host.run / ".agent").chmod(0o755)
    assert line(host, "run directory").status == "ok"
    for name in ("b", "a"):
        (host.run / name).chmod(mode)
    assert line(host, "run directory").todo == f"chmod 700 {host.run}/a {host.run}/b"


def test_a_directory_that_others_may_write_in_is_named_once(host: Host) -> None:
    host.run.mkdir(mode=0o700)
    (host.run / "b").mkdir()
    (host.run / "b").chmod(0o2770)
    told = [each for each in doctor.check(host) if f"{host.run}/b" in each.said]
    assert [each.what for each in told] == ["run directory"]


@pytest.mark.skipif(ME != 0, reason="not root: cannot give directories away")
def test_a_guests_directory_of_another_user_is_named(host: Host) -> None:
    host.run.mkdir(mode=0o700)
    (host.run / "b").mkdir(mode=0o700)
    os.chown(host.run / "b", 1000, 1000)
    assert "belongs to uid 1000" in line(host, "run directory").said


def test_a_run_directory_that_is_none_or_cannot_be_made(host: Host) -> None:
    host.run.symlink_to("/tmp")
    kind = line(host, "run directory")
    assert "not a directory" in kind.said
    assert "rm " not in (kind.todo or "")  # it may be anything
    inside = replace(host, run=host.root / "etc/group/run")
    assert line(inside, "run directory").status == "failed"


def test_a_user_without_a_session_has_no_place(host: Host) -> None:
    parent = host.root / "run/user"
    parent.mkdir(parents=True, mode=0o755)
    user = replace(host, uid=ME + 1000, run=parent / "1000/qmpmem")
    assert "loginctl enable-linger" in (line(user, "run directory").todo or "")
    parent.chmod(0o777)
    assert line(user, "run directory").status == "ok"


def test_the_longest_id_must_fit_into_a_socket_path(host: Host) -> None:
    """unix(7): 107 bytes. The kernel is the oracle for what is just short enough."""
    room = access.SOCKET_PATH - 1 - 48 - len("/qmp.sock")
    fits = Path("/tmp/" + "x" * (room - 5))
    assert line(replace(host, run=fits), "run directory").status == "ok"
    assert line(replace(host, run=Path(f"{fits}x")), "run directory").status == "warning"
    with socket.socket(socket.AF_UNIX) as probe:
        with pytest.raises(FileNotFoundError):
            probe.bind(f"{fits}/{'i' * 48}/qmp.sock")
        with pytest.raises(OSError, match="too long"):
            probe.bind(f"{fits}x/{'i' * 48}/qmp.sock")


# Settings.


def test_settings_that_make_sense(host: Host) -> None:
    write(host.root / "etc/default/qmpmem", "# comment\n\nQMPMEM_KSM=off\nQMPMEM_DOMAIN='a'\n")
    good = replace(host, environ={**host.environ, "QMPMEM_MODE": "static", "QMPMEM_KSM": ""})
    assert line(good, "settings").said == "1 in the environment, /etc/default/qmpmem"


def test_every_mistake_is_named(host: Host) -> None:
    write(host.root / "etc/default/qmpmem", "QMPMEM_KSM=maybe\nexport X=1\nQMPMEM_MOOD=good\n")
    known = {"QMPMEM_CONFIG": "x.toml", "QMPMEM_AGENT_SOCKET": "/x.sock"}
    environ = {**host.environ, **known, "QMPMEM_MODE": "fast", "QMPMEM_PYTHON": "/proc/none"}
    found = [(line.status, line.said) for line in lines(replace(host, environ=environ), "settings")]
    assert found == [
        ("failed", "environment: QMPMEM_MODE='fast', expected balloon or static"),
        ("failed", "environment: QMPMEM_PYTHON='/proc/none', expected a program"),
        ("failed", "/etc/default/qmpmem line 2: 'export X=1', expected KEY=VALUE"),
        ("failed", "/etc/default/qmpmem: QMPMEM_KSM='maybe', expected on or off"),
        ("warning", "/etc/default/qmpmem: QMPMEM_MOOD is no setting"),
    ]


def test_defaults_may_be_elsewhere(host: Host) -> None:
    write(host.root / "srv/defaults", "QMPMEM_MODE=x\n")
    there = replace(host, environ={"PATH": "", "QMPMEM_DEFAULTS": "/srv/defaults"})
    assert "/srv/defaults" in line(there, "settings").said
    (host.root / "srv/defaults").unlink()
    (host.root / "srv/defaults").mkdir()
    assert line(there, "settings").status == "failed"


VALUES = (
    *("on", "off", "balloon", "static", "x", "/x", "a.b-c_", "...", "a b", "a" * 65, "\u00e4"),
    *("25%", "512M", "1.5 GiB", "512", "101%", "1K", "\u0665%"),
)
OTHERS = {f"QMPMEM_{name}" for name in ("REAL", "PYTHON", "DEFAULTS", "DEBUG", "LAUNCHING")}
"""Read by the launcher's shell part, which takes any value."""
KSM = {"QMPMEM_KSM_DIR", *boot.CHOICES}
"""Nothing to the launcher."""
KEYS = sorted(settings._SETTINGS.keys() - OTHERS - KSM)


@pytest.mark.parametrize(("key", "value"), list(itertools.product(KEYS, VALUES)))
def test_the_launcher_accepts_what_the_doctor_does(host: Host, key: str, value: str) -> None:
    try:
        kvm_settings.read_settings({key: value}, "")
        accepted = True
    except kvm_settings.SettingError:
        accepted = False
    assert (settings._SETTINGS[key](host, value) is None) == accepted


def test_the_doctor_knows_every_setting_of_the_launcher() -> None:
    files = [path for path in launcher_paths.launchers_directory().iterdir() if path.is_file()]
    text = "".join(path.read_text() for path in files if path.name.startswith("kvm"))
    assert set(re.findall("QMPMEM_[A-Z_]+[A-Z]", text)) <= settings._SETTINGS.keys()


def test_with_another_root_the_guests_of_this_one_are_not_looked_at(
    host: Host, tmp_path: Path
) -> None:
    elsewhere = replace(host, root=tmp_path)
    assert lines(elsewhere, "leftovers") == []
