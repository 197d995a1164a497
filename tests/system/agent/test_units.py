"""The units: what they may do, measured by systemd, and that the agent works with no more."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from qmpmem import systemd
from qmpmem.agent import system_user
from qmpmem.agent.systemd_units import BROKER, SEPARATE, installed, unit_of
from qmpmem.agent.systemd_units import UNIT as AGENT
from qmpmem.cli.systemd_units import expect_runnable
from qmpmem.errors import ConfigError, LaunchError
from qmpmem.files import launcher_paths
from qmpmem.ksm.systemd_unit import UNIT as KSM
from qmpmem.records import replace
from qmpmem.serve.systemd_unit import UNIT as PAGE
from tests.rig import odd
from tests.rig.agent import running
from tests.rig.command import PROGRAM, Ran, called
from tests.rig.patience import patient
from tests.rig.qemu import paused, short_directory, until
from tests.rig.users import AS_ORDINARY, NOBODY, needs_root, python_of

USERS: Final = replace(
    AGENT,
    source="qmpmem-agent-user.service",
    values=(("USER", "kim"), ("UID", "1000"), ("RUN", "/run/user/1000")),
)
EXPOSED: Final[Mapping[str, tuple[systemd.Unit, float]]] = {
    # Root's is as low as an agent can be that is root, sees others' guests and asks sock_diag(7).
    "agent": (AGENT, 2.9),
    "agent of a user": (USERS, 1.0),
    # NETLINK and the whole of /proc are what it takes to see guests; @chown, to give sockets away.
    "separate agent": (SEPARATE, 0.8),
    # Of this, 0.4 are User=: it is root, because the guests' sockets are.
    "broker": (BROKER, 1.0),
    "ksm": (KSM, 1.5),
    "page": (PAGE, 1.5),
}


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    checker = shutil.which("systemd-analyze")
    if checker is None:
        pytest.skip("missing: systemd-analyze (Debian: systemd)")
    return subprocess.run(
        [checker, *words], capture_output=True, text=True, timeout=patient(60), check=False
    )


@pytest.mark.parametrize("which", EXPOSED)
def test_a_unit_is_no_more_exposed_than_it_must_be(tmp_path: Path, which: str) -> None:
    unit, most = EXPOSED[which]
    path = tmp_path / unit.name
    path.write_text(systemd.text_of(unit, "/bin/true"))
    done = analyze("security", "--offline=true", "--no-pager", str(path))
    match = re.search(r"exposure level for .*: ([0-9.]+)", done.stdout)
    assert match is not None, done.stderr
    assert float(match[1]) <= most, done.stdout


@pytest.mark.parametrize("units", [[USERS], [BROKER, SEPARATE]])
def test_systemd_takes_the_units_of_an_agent_that_is_not_root(
    tmp_path: Path, units: list[systemd.Unit]
) -> None:
    for unit in units:
        (tmp_path / unit.name).write_text(systemd.text_of(unit, "/bin/true"))
    done = analyze("verify", "--man=no", *(str(tmp_path / unit.name) for unit in units))
    mistakes = [line for line in done.stderr.splitlines() if "qmpmem" in line]
    assert (done.returncode, mistakes) == (0, [])


@pytest.mark.parametrize("unit", [AGENT, USERS, KSM, SEPARATE, BROKER, PAGE])
def test_all_that_a_unit_runs_is_the_program_that_installed_it(unit: systemd.Unit) -> None:
    text = systemd.text_of(unit, "/opt/qmpmem")
    assert not re.search(r"@[A-Z]+@", text)
    runs = re.findall(r"(?m)^Exec(?:Start|Stop|StopPost)=-?(\S+)", text)
    assert set(runs) == {"/opt/qmpmem"}


@pytest.mark.parametrize("unit", [AGENT, USERS, KSM, SEPARATE, BROKER])
def test_a_unit_runs_nothing_that_a_small_debian_has_not(unit: systemd.Unit) -> None:
    """Beside the program, only what is of essential packages (Debian: dash, coreutils)."""
    text = systemd.text_of(unit, "/opt/qmpmem")
    runs = re.findall(r"(?m)^Exec\w+=[-+]*(\S+)", text)
    assert set(runs) <= {"/opt/qmpmem", "/bin/sh"}


@pytest.mark.parametrize("unit", [AGENT, USERS, KSM, SEPARATE, BROKER])
def test_what_a_unit_may_write_is_there_when_it_starts(unit: systemd.Unit) -> None:
    """systemd looks it up for each command of the unit, before the first one has run."""
    text = systemd.text_of(unit, "/opt/qmpmem")
    written = re.findall(r"(?m)^ReadWritePaths=(/.*)$", text)
    made = [f"/run/{each}" for each in re.findall(r"(?m)^RuntimeDirectory=(.*)$", text)]
    made += re.findall(r"(?m)^ConditionPathExists=(.*)$", text)
    for uid in re.findall(r"(?m)^Requires=user-runtime-dir@(\d+)\.service$", text):
        made.append(f"/run/user/{uid}")
    above = {str(each) for path in made for each in (Path(path), *Path(path).parents)}
    assert [path for path in written if path not in above] == []


def test_nothing_is_given_to_a_group_where_there_is_no_ksm(tmp_path: Path) -> None:
    """One of KSM's files is called run, as a directory of / is, and the command runs there."""
    text = systemd.text_of(SEPARATE, "/opt/qmpmem")
    [command] = re.findall(r"(?m)^ExecStartPre=-\+/bin/sh -c '(.*)'$", text)
    (tmp_path / "run").mkdir(mode=0o755)
    command = command.replace("/sys/kernel/mm/ksm", str(tmp_path / "none"))
    done = subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o755


def test_the_page_may_ask_which_user_a_visitor_is() -> None:
    """In a user namespace all others would be one user (user_namespaces(7): overflowuid)."""
    lines = systemd.text_of(PAGE, "/opt/qmpmem").splitlines()
    families = next(line for line in lines if line.startswith("RestrictAddressFamilies="))
    assert "AF_NETLINK" in families
    assert not [line for line in lines if line.startswith(("PrivateUsers", "PrivateNetwork"))]


@pytest.mark.parametrize("unit", [AGENT, USERS, SEPARATE])
def test_an_agents_unit_gives_up_on_no_host_and_bounds_the_agent(unit: systemd.Unit) -> None:
    lines = systemd.text_of(unit, "/opt/qmpmem").splitlines()
    for line in (
        "StartLimitIntervalSec=0",
        "ExecStopPost=-/opt/qmpmem ksm restore --agents",
        "MemorySwapMax=0",
        "WatchdogSec=30",
        "OOMScoreAdjust=-900",
    ):
        assert line in lines
    settings = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
    # ExecStopPost has it as well, and takes long on a host that is in need.
    assert int(settings["TimeoutStopSec"]) >= 60
    assert int(settings["TimeoutAbortSec"]) <= 10, "one that hangs is started again soon"
    assert int(settings["TimeoutStartSec"]) >= 180, "as long as the boot of a slow host takes"
    for key in ("MemoryMax", "MemoryMin", "TasksMax", "UMask"):
        assert any(line.startswith(f"{key}=") for line in lines), key


@pytest.mark.parametrize("unit", [AGENT, USERS, SEPARATE, BROKER, KSM, PAGE])
def test_no_unit_is_kept_from_the_processes_of_its_user(unit: systemd.Unit) -> None:
    """In a user namespace of its own it would see none of them in /proc, and trust no socket."""
    assert "PrivateUsers=" not in re.sub(r"(?m)^#.*", "", systemd.text_of(unit, "/opt/qmpmem"))


@needs_root("mounts /proc as systemd does for a unit, and becomes another user")
@pytest.mark.qemu
@pytest.mark.timeout(120)
def test_a_users_agent_sees_guests_with_what_its_unit_leaves_it(shared_program: Path) -> None:
    text = systemd.text_of(USERS, "/opt/qmpmem")
    hidden = "invisible" if "ProtectProc=invisible" in text else "off"
    apart = ["unshare", "--user"] if "\nPrivateUsers=yes" in text else []
    become = [*AS_ORDINARY, "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    see = "import sys; from qmpmem.wire import kernel; print(kernel.process(int(sys.argv[1])))"
    guest = subprocess.Popen([*AS_ORDINARY, "sleep", "60"])
    try:
        script = f'mount -t proc -o hidepid={hidden} proc /proc && exec "$@"'
        program = python_of(shared_program, see)
        words = [*become, *apart, *program, str(guest.pid)]
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", *words],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        guest.kill()
        guest.wait()
    assert f"pid={guest.pid}" in done.stdout, done.stderr


def test_a_users_unit_is_known_again(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nkim:x:1234:1234::/home/kim:/x\n")
    done = called(
        "agent", "service", "install", "--user", "kim", "--root", str(tmp_path), run=tmp_path
    )
    assert done.code == 0, done.err
    text = (tmp_path / systemd.DIRECTORY / AGENT.name).read_text()
    assert "\nUser=kim\n" in text
    assert "\nReadWritePaths=/run/user/1234\n" in text
    assert installed(tmp_path) == unit_of("kim", tmp_path)
    seen = called("agent", "service", "status", "--root", str(tmp_path), run=tmp_path)
    assert re.search(r"(?m)^state: +installed$", seen.out), seen.out
    assert called("agent", "service", "install", "--root", str(tmp_path), run=tmp_path).code == 0
    assert installed(tmp_path) == AGENT
    for wrong in ("root", "nobody-of-that-name", "a b", "-x", ""):
        with pytest.raises(ConfigError):
            unit_of(wrong, tmp_path)


@pytest.mark.parametrize(
    ("number", "known"),
    [
        *(("1234", True), ("65534", True), ("4294967294", True)),
        *(
            ("²", False),
            ("٣", False),
            ("-1", False),
            ("+1", False),
            ("", False),
            ("1" * 5000, False),
        ),
        *(("65535", False), ("4294967295", False), ("4294967296", False)),
    ],
)
def test_a_user_of_an_image_has_a_number_that_systemd_takes(
    tmp_path: Path, number: str, *, known: bool
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(f"kim:x:{number}:1::/:/bin/sh\n")
    if known:
        assert ("UID", number) in unit_of("kim", tmp_path).values
        return
    with pytest.raises(ConfigError, match="no such user"):
        unit_of("kim", tmp_path)


@pytest.mark.parametrize("user", [None, "kim"])
def test_an_agent_may_write_where_the_hosts_defaults_have_guests(
    tmp_path: Path, user: str | None
) -> None:
    (tmp_path / "etc/default").mkdir(parents=True)
    (tmp_path / "etc/passwd").write_text("kim:x:1234:1::/:/bin/sh\n")
    defaults = tmp_path / "etc/default/qmpmem"
    defaults.write_text("QMPMEM_RUN_DIR=/srv/guests\n")
    words = ["install"] if user is None else ["install", "--user", user]
    assert call(tmp_path, *words).code == 0
    text = (tmp_path / systemd.DIRECTORY / AGENT.name).read_text()
    assert "\nReadWritePaths=-/srv/guests\n" in text
    assert re.search(r"(?m)^state: +installed$", call(tmp_path, "status").out)
    for odd_path in ("/srv/a b", "/srv/%n", "srv", "/srv/\x01"):
        defaults.write_text(f"QMPMEM_RUN_DIR={odd_path}\n")
        done = call(tmp_path, *words)
        assert (done.code, "QMPMEM_RUN_DIR=" in done.err) == (2, True)
        assert re.search(r"(?m)^state: ", call(tmp_path, "status").out)
    assert (tmp_path / systemd.DIRECTORY / AGENT.name).read_text() == text


@pytest.mark.parametrize(
    "chosen",
    [
        *("/", "//", "/.", "/etc", "/etc/", "/etc/qmpmem", "//usr", "/usr/lib/x", "/a/../etc"),
        *("/run", "/run/user", "/var/./lib/", "/tmp", "/home", "/boot", "/link", "/link/x"),
        *("/run/systemd/system", "/run/dbus", "/var/run", "/var/lock", "/var/run/systemd/x"),
        *("/root/.ssh", "/var/spool/cron", "/var/lib/dpkg/info", "/home/kim", "/link/missing/x"),
        *("/srv/link/guests", "/srv/file", "/srv/loop/x"),
    ],
)
@pytest.mark.parametrize("user", [None, "kim"])
def test_an_agent_may_not_write_in_what_is_the_systems(
    tmp_path: Path, chosen: str, user: str | None
) -> None:
    """Row F115: else one setting would undo ProtectSystem=strict."""
    (tmp_path / "etc/default").mkdir(parents=True)
    (tmp_path / "etc/x").mkdir()
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/link").symlink_to("/usr")
    (tmp_path / "srv/loop").symlink_to("loop")
    (tmp_path / "srv/file").touch()
    (tmp_path / "usr").mkdir()
    (tmp_path / "home/kim/.config").mkdir(parents=True)
    (tmp_path / "home/kim/.profile").touch()
    (tmp_path / "etc/passwd").write_text("kim:x:1234:1::/:/bin/sh\n")
    (tmp_path / "etc/default/qmpmem").write_text(f"QMPMEM_RUN_DIR={chosen}\n")
    before = files(tmp_path)
    done = call(tmp_path, "install", *(() if user is None else ("--user", user)))
    assert (done.code, "expected a directory of its own" in done.err) == (2, True)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("chosen", "written"),
    [
        ("//srv//guests/./", "/srv/guests"),
        ("/guests", "/guests"),
        ("/run/user/1000/x", "/run/user/1000/x"),
        ("/usrlocal", "/usrlocal"),
        ("/link/guests", "/link/guests"),
        ("/var/run/guests", "/var/run/guests"),
        ("/link/missing/guests", "/link/missing/guests"),
        ("/home/kim/guests", "/home/kim/guests"),
    ],
)
def test_a_directory_of_its_own_is_written_plainly(
    tmp_path: Path, chosen: str, written: str
) -> None:
    (tmp_path / "etc/default").mkdir(parents=True)
    (tmp_path / "srv/guests/web1").mkdir(parents=True)
    (tmp_path / "srv/guests/.lock").touch()
    (tmp_path / "srv/guests/web1/qmp.sock").touch()
    (tmp_path / "link").symlink_to("/srv")
    (tmp_path / "etc/default/qmpmem").write_text(f"QMPMEM_RUN_DIR={chosen}\n")
    assert call(tmp_path, "install").code == 0
    text = (tmp_path / systemd.DIRECTORY / AGENT.name).read_text()
    assert f"\nReadWritePaths=-{written}\n" in text


def _to_all(path: Path) -> None:
    path.chmod(0o666)


def _to_another_user(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def _with_its_directory_to_all(path: Path) -> None:
    path.parent.chmod(0o777)


def _with_its_directory_to_another_user(path: Path) -> None:
    os.chown(path.parent, NOBODY, NOBODY)


def _by_a_directory_of_all(path: Path) -> None:
    path.parent.parent.chmod(0o777)


def _to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _to_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        _to_all,
        pytest.param(_to_another_user, marks=needs_root("gives a file to another user")),
        _with_its_directory_to_all,
        pytest.param(
            _with_its_directory_to_another_user, marks=needs_root("gives it to another user")
        ),
        _by_a_directory_of_all,
        _to_itself,
        _to_a_directory,
    ],
)
@pytest.mark.parametrize("words", [[], ["--user", "kim"], ["--separate"]], ids=str)
def test_defaults_that_cannot_be_believed_are_said_and_nothing_is_done(
    tmp_path: Path, spoil: Callable[[Path], None], words: list[str]
) -> None:
    """Row F86."""
    defaults = tmp_path / "etc/default/qmpmem"
    defaults.parent.mkdir(parents=True)
    (tmp_path / "etc/passwd").write_text("kim:x:1234:1::/:/bin/sh\n")
    defaults.write_text("QMPMEM_RUN_DIR=/srv/guests\n")
    spoil(defaults)
    before = files(tmp_path)
    done = call(tmp_path, "install", *words)
    assert done.code == 2
    assert "/etc/default/qmpmem: " in done.err
    assert "nothing of it counts" in done.err
    assert files(tmp_path) == before


@pytest.mark.parametrize("target", ["../../srv/real", "/srv/real", "other"])
def test_defaults_behind_a_link_of_an_image_are_read(tmp_path: Path, target: str) -> None:
    """Row F86: as that system itself would."""
    defaults = tmp_path / "etc/default/qmpmem"
    defaults.parent.mkdir(parents=True)
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/real").write_text("QMPMEM_RUN_DIR=/srv/guests\n")
    (defaults.parent / "other").symlink_to("/srv/real")
    defaults.symlink_to(target)
    assert call(tmp_path, "install").code == 0
    text = (tmp_path / systemd.DIRECTORY / AGENT.name).read_text()
    assert "\nReadWritePaths=-/srv/guests\n" in text
    done = call(tmp_path, "install", "--separate")
    assert (done.code, "QMPMEM_RUN_DIR=/srv/guests" in done.err) == (2, True)


PLACES: Final = (
    *(f"{systemd.WANTS}/{AGENT.name}", systemd.WANTS, systemd.DIRECTORY, "etc/systemd", "etc"),
    f"{systemd.WANTS}/{BROKER.name}",
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("words", [[], ["--separate"]], ids=str)
def test_a_file_in_the_way_of_any_of_it_is_named_and_nothing_is_written(
    tmp_path: Path, place: str, words: list[str]
) -> None:
    """Row F87."""
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way")
    done = call(tmp_path, "install", *words)
    if place.endswith(BROKER.name) and not words:  # which is none of its business
        assert done.code == 0
        return
    assert done.code == 3
    assert f"{path}: " in done.err
    assert "out of the way" in done.err
    assert path.read_text() == "in the way"
    assert files(tmp_path) == {place}


@pytest.mark.parametrize(
    ("place", "make"),
    [
        ("etc/sysusers.d", odd.fifo),
        ("etc/sysusers.d/qmpmem.conf", odd.fifo),
        ("etc/sysusers.d/qmpmem.conf", odd.directory),
    ],
)
def test_what_is_in_the_way_of_the_user_is_named(
    tmp_path: Path, place: str, make: odd.Make
) -> None:
    """Row F87."""
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    make(path)
    done = call(tmp_path, "install", "--separate")
    assert (done.code, f"{path}: " in done.err, "out of the way" in done.err) == (3, True, True)
    assert not (tmp_path / systemd.DIRECTORY).exists()


@pytest.mark.parametrize(
    "odd_name", ["\r", "\x0b", "\x01", "\x7f", "\udcff", "\u2028", " ", "%", "$"]
)
def test_a_path_that_systemd_would_read_otherwise_stands_in_no_unit(odd_name: str) -> None:
    with pytest.raises(LaunchError, match="expected an absolute path"):
        systemd.text_of(AGENT, f"/opt/{odd_name}/qmpmem")


def test_directories_of_an_image_are_for_all_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        systemd.install(AGENT, tmp_path, "/opt/qmpmem")
    finally:
        os.umask(before)
    made = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert {path.stat().st_mode & 0o777 for path in made} == {0o755}
    assert len(made) == 4


@needs_root("becomes another user")
def test_a_program_that_its_user_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="qm-", dir="/run") as made:
        closed = Path(made)
        program = closed / "qmpmem"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "argv", [str(program)])
        expect_runnable("root", Path("/"))
        expect_runnable("nobody", closed)  # in an image nothing is tried
        for user in ("nobody", "no-user-of-that-name"):
            with pytest.raises(LaunchError, match=f"{user} cannot run it: Permission denied"):
                expect_runnable(user, Path("/"))
        closed.chmod(0o711)
        expect_runnable("nobody", Path("/"))
        program.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
        with pytest.raises(LaunchError, match="cannot run it: not today"):
            expect_runnable("nobody", Path("/"))


@needs_root("mounts an empty directory over the host's units")
@pytest.mark.skipif(not Path("/etc/systemd/system").is_dir(), reason="no /etc/systemd/system")
@pytest.mark.parametrize(
    ("where", "words", "why"),
    [
        ("/run", "agent service install --user nobody", "the user nobody cannot run it"),
        ("/run", "serve service install", "the user qmpmem-serve cannot run it"),
        ("/tmp", "ksm service install", "a service does not see it there"),
        ("/var/tmp", "agent service install", "a service does not see it there"),
    ],
)
def test_no_unit_is_put_in_place_that_cannot_run(where: str, words: str, why: str) -> None:
    with tempfile.TemporaryDirectory(prefix="qm-", dir=where) as closed:
        program = Path(closed) / "qmpmem"
        shutil.copy(PROGRAM, program)
        script = (
            "mount --make-rprivate / && mount -t tmpfs tmpfs /etc/systemd/system && "
            f"{{ {program} {words}; ls -A /etc/systemd/system; }}"
        )
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script],
            capture_output=True,
            text=True,
            timeout=patient(60),
            check=False,
        )
    assert why in done.stderr
    assert done.stdout == ""


def call(root: Path, *words: str) -> Ran:
    return called("agent", "service", *words, "--root", str(root), run=root)


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


@needs_root("makes users, if only in an image")
@pytest.mark.skipif(shutil.which(system_user.PROGRAM) is None, reason=f"no {system_user.PROGRAM}")
def test_an_agent_that_is_not_root_gets_a_user_and_a_broker(tmp_path: Path) -> None:
    done = call(tmp_path, "install", "--separate")
    assert done.code == 0, done.err
    text = (tmp_path / systemd.DIRECTORY / AGENT.name).read_text()
    assert "\nUser=qmpmem-agent\n" in text
    assert (tmp_path / systemd.DIRECTORY / BROKER.name).exists()
    users = (tmp_path / "etc/passwd").read_text()
    assert re.search(r"(?m)^qmpmem-agent:.*nologin$", users), users
    groups = (tmp_path / "etc/group").read_text()
    for group in ("qmpmem", "qmpmem-admin"):
        assert re.search(rf"(?m)^{group}:.*:qmpmem-agent$", groups), groups
    assert call(tmp_path, "install", "--separate").out == "nothing to change\n"
    assert installed(tmp_path) == SEPARATE
    seen = call(tmp_path, "status").out
    assert len(re.findall(r"(?m)^state: +installed$", seen)) == 2, seen

    # Without the option it is root's agent again; the user stays: files may belong to it.
    assert call(tmp_path, "install").code == 0
    assert installed(tmp_path) == AGENT
    assert not (tmp_path / systemd.DIRECTORY / BROKER.name).exists()
    assert call(tmp_path, "install", "--separate").code == 0
    gone = call(tmp_path, "uninstall")
    assert gone.code == 0, gone.err
    left = {name for name in files(tmp_path) if not re.match(r"etc/(passwd|group|g?shadow)", name)}
    assert left <= {"etc/.pwd.lock"}
    assert "qmpmem-agent" in (tmp_path / "etc/passwd").read_text()


@needs_root("makes users, if only in an image")
@pytest.mark.skipif(shutil.which(system_user.PROGRAM) is None, reason=f"no {system_user.PROGRAM}")
@pytest.mark.parametrize(("before", "after"), [("", "--separate"), ("--separate", "")])
def test_one_agent_is_left_where_another_cannot_be_written(
    tmp_path: Path, before: str, after: str
) -> None:
    assert call(tmp_path, "install", *before.split()).code == 0
    if after:  # so that all but the agent's unit is written
        assert system_user.make(tmp_path)
        systemd.install(BROKER, tmp_path, str(PROGRAM))
        (tmp_path / systemd.WANTS / BROKER.name).unlink()
    links = {path.name for path in (tmp_path / systemd.WANTS).iterdir()}
    was = installed(tmp_path)
    words = [str(PROGRAM), "agent", "service", "install", *after.split(), "--root", str(tmp_path)]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 0 && exec "$@"', "sh", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "File too large" in done.stderr) == (3, True), done
    assert installed(tmp_path) == was
    assert {path.name for path in (tmp_path / systemd.WANTS).iterdir()} == links
    assert (tmp_path / systemd.DIRECTORY / BROKER.name).exists()


@pytest.mark.parametrize("name", [AGENT.name, BROKER.name])
def test_a_unit_of_another_stands_in_the_way_of_all(tmp_path: Path, name: str) -> None:
    place = tmp_path / systemd.DIRECTORY / name
    place.parent.mkdir(parents=True)
    place.write_text("[Service]\n")
    done = call(tmp_path, "install", "--separate")
    assert (done.code, "not written by qmpmem" in done.err) == (3, True)
    assert files(tmp_path) == {str(place.relative_to(tmp_path))}
    if name == BROKER.name:  # which is none of its business
        assert call(tmp_path, "install").code == 0
        assert call(tmp_path, "uninstall").code == 0
    assert place.read_text() == "[Service]\n"


def test_an_agent_that_is_not_root_is_for_the_usual_run_directory(tmp_path: Path) -> None:
    defaults = tmp_path / "etc/default/qmpmem"
    defaults.parent.mkdir(parents=True)
    defaults.write_text("QMPMEM_RUN_DIR=/srv/guests\n")
    done = call(tmp_path, "install", "--separate")
    assert done.code == 2
    assert "QMPMEM_RUN_DIR=/srv/guests" in done.err
    assert files(tmp_path) == {"etc/default/qmpmem"}
    assert call(tmp_path, "install", "--separate", "--user", "kim").code == 2


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [odd.fifo, odd.link, odd.directory])
def test_what_is_no_file_in_a_units_place_is_left_alone(tmp_path: Path, make: odd.Make) -> None:
    place = tmp_path / systemd.DIRECTORY / AGENT.name
    place.parent.mkdir(parents=True)
    make(place)
    with pytest.raises(LaunchError, match="not written by qmpmem"):
        systemd.install(AGENT, tmp_path, "/opt/qmpmem")
    with pytest.raises(LaunchError, match="not written by qmpmem"):
        systemd.uninstall(AGENT, tmp_path)
    assert systemd.status(AGENT, tmp_path, "/opt/qmpmem").state == "foreign"
    if make is odd.link:
        assert odd.victim(place).read_bytes() == odd.WORDS


@pytest.mark.parametrize("through", ["etc", "etc/systemd", "etc/systemd/system"])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_of_an_image_does_not_lead_to_the_host(
    tmp_path: Path, through: str, *, absolute: bool
) -> None:
    image, host = tmp_path / "image", tmp_path / "host"
    host.mkdir()
    (image / through).parent.mkdir(parents=True)
    target = host if absolute else Path("../" * 20) / host.relative_to("/")
    (image / through).symlink_to(target)
    with suppress(LaunchError):
        systemd.install(AGENT, image, "/opt/qmpmem")
    assert list(host.iterdir()) == []
    systemd.status(AGENT, image, "/opt/qmpmem")
    inside = image / host.relative_to("/")
    inside.mkdir(parents=True, exist_ok=True)
    systemd.install(AGENT, image, "/opt/qmpmem")
    assert list(host.iterdir()) == []
    assert list(inside.rglob(AGENT.name))
    systemd.uninstall(AGENT, image)
    assert not list(inside.rglob(AGENT.name))


@needs_root("drops capabilities")
@pytest.mark.qemu
@pytest.mark.timeout(120)
def test_roots_agent_works_with_the_capabilities_of_its_unit() -> None:
    text = systemd.text_of(AGENT, "/opt/qmpmem")
    match = re.search(r"(?m)^CapabilityBoundingSet=(.*)$", text)
    assert match is not None
    permissions = ",".join(f"+{each.removeprefix('CAP_').lower()}" for each in match[1].split())
    before = ("setpriv", f"--bounding-set=-all,{permissions}", "--inh-caps=-all", "--no-new-privs")
    with short_directory() as run, paused(run, "g"), running(run, before=before) as agent:
        status = Path(f"/proc/{agent.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        until(lambda: sees(run), seconds=60, what="the agent sees g")
        done = called("agent", "pin", "g", "75%", run=run)
        assert done.code == 0, done.err


def sees(run: Path) -> bool:
    return re.search(r"(?m)^g\b.*\d", called("agent", "status", run=run).out) is not None


def test_what_is_shipped_is_what_is_measured() -> None:
    directory = launcher_paths.launchers_directory()
    found = {path.name for path in directory.glob("*.service")}
    assert found == {unit.source or unit.name for unit, _ in EXPOSED.values()}
