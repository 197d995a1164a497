"""An agent that is not root, and sockets that systemd made: the same rights for the same users."""

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import which

import pytest

from tests.rig.command import Ran, plain_environment
from tests.rig.namespace import Namespace, namespace, started
from tests.rig.qemu import short_directory, until
from tests.rig.users import needs_root

pytestmark = [pytest.mark.timeout(180), needs_root("may not mount")]

AGENT = 990
"""The user qmpmem-agent."""
PASSWD = (
    f"cp /etc/passwd /run/passwd; echo qmpmem-agent:x:{AGENT}:{AGENT}::/:/bin/false >>/run/passwd; "
    "mount --bind /run/passwd /etc/passwd"
)
ENVIRON = {
    "QMPMEM_DEFAULTS": "/proc/nonexistent",
    "XDG_RUNTIME_DIR": "/run/own",
    "STATE_DIRECTORY": "/run/state",
    "QMPMEM_KSM_DIR": "/run/ksm",
    "QMPMEM_RUN_DIR": "/run/guests",
    "QMPMEM_AGENT_SOCKET": "/run/qmpmem/agent/agent.sock",
}
AS_AGENT = ("setpriv", f"--reuid={AGENT}", f"--regid={AGENT}", "--inh-caps=-all")
BOTH = ("--bounding-set=-all", "--no-new-privs", "--groups=4711,4712")
READER, ADMIN = ["qmpmem"], ["qmpmem-admin"]


@pytest.fixture
def inside() -> Iterator[Namespace]:
    """Have a host with the user, and a directory for it."""
    with short_directory() as directory, namespace(directory) as made:
        directory.chmod(0o755)
        for command in (
            PASSWD,
            "install -d -m755 /run/qmpmem",
            f"install -d -m711 -o {AGENT} -g {AGENT} /run/qmpmem/agent",
            f"install -d -m700 -o {AGENT} -g {AGENT} /run/guests /run/state",
        ):
            ran = made.run("sh", "-c", command, environ={})
            assert ran.code == 0, ran.err
        yield made


def told(
    inside: Namespace, program: Path, groups: Sequence[str] | None, *words: str, **environ: str
) -> Ran:
    return inside.run(program, *words, groups=groups, environ=ENVIRON | environ)


def judge(inside: Namespace, program: Path) -> None:
    """See that each user may do what it may do with an agent of root's."""
    for groups, looks, holds in ((None, 0, 0), (READER, 0, 4), (ADMIN, 0, 0), ([], 4, 4)):
        seen = told(inside, program, groups, "agent", "status")
        assert seen.code == looks, (groups, seen.err)
        held = told(inside, program, groups, "agent", "hold")
        assert held.code == holds, (groups, held.err)
        assert told(inside, program, groups, "agent", "release").code == holds


def test_an_agent_without_any_capability_serves_the_groups(
    inside: Namespace, shared_program: Path
) -> None:
    with started(inside, *AS_AGENT, *BOTH, shared_program, "agent", environ=ENVIRON):
        until(lambda: told(inside, shared_program, None, "agent", "status").code == 0, seconds=30)
        judge(inside, shared_program)
        stat = inside.run("stat", "-c", "%a %g", *sockets(), environ={})
        assert stat.out.splitlines() == ["660 4711", "660 4712"]


def sockets() -> tuple[str, str]:
    path = ENVIRON["QMPMEM_AGENT_SOCKET"]
    return path, path.replace("agent.sock", "agent-admin.sock")


def test_another_users_agent_is_that_users_alone_and_no_other_user_believes_it(
    inside: Namespace, shared_program: Path
) -> None:
    """The same place, which root did not give to that user: it is in both groups, and no agent."""
    other = ("setpriv", "--reuid=991", "--regid=991", "--groups=4711,4712")
    moved = "rm -r /run/guests /run/state; chown 991 /run/qmpmem/agent; chmod 1777 /run/qmpmem; "
    made = "install -d -m700 -o 991 /run/guests /run/state"
    assert inside.run("sh", "-c", moved + made, environ={}).code == 0
    with started(inside, *other, shared_program, "agent", environ=ENVIRON):
        mine = inside.words(*other, shared_program, "agent", "status")
        environment = plain_environment() | ENVIRON

        def answers() -> bool:
            return (
                subprocess.run(mine, env=environment, capture_output=True, check=False).returncode
                == 0
            )

        until(answers, seconds=30)
        for groups, words in (
            (None, "uid 991 listens there"),
            (READER, "only root"),
            (ADMIN, "only"),
        ):
            refused = told(inside, shared_program, groups, "agent", "status")
            assert refused.code in (4, 5)
            assert words in refused.err
        assert inside.run("stat", "-c", "%a", *sockets(), environ={}).out.split() == ["600", "600"]


@pytest.mark.skipif(which("systemd-socket-activate") is None, reason="no systemd-socket-activate")
@pytest.mark.parametrize("is_root", [True, False])
def test_sockets_of_systemd_are_taken(
    inside: Namespace, shared_program: Path, *, is_root: bool
) -> None:
    """Made by root with whatever mode: the rights are the same, and the files stay."""
    listens = [word for path in sockets() for word in ("-l", path)]
    variables = [f"-E{name}" for name in ENVIRON]
    activate = ("systemd-socket-activate", *listens, "--fdname=agent:agent-admin", *variables)
    agent = () if is_root else (*AS_AGENT, "--clear-groups")
    if is_root:
        owned = ("/run/qmpmem/agent", "/run/guests", "/run/state")
        assert inside.run("chown", "0:0", *owned, environ={}).code == 0
    with started(inside, *activate, *agent, shared_program, "agent", environ=ENVIRON):
        until(
            lambda: inside.run("test", "-S", sockets()[1], environ={}).code == 0,
            seconds=20,
            what="systemd listens",
        )
        assert inside.run("chmod", "666", *sockets(), environ={}).code == 0
        until(lambda: told(inside, shared_program, None, "agent", "status").code == 0, seconds=30)
        judge(inside, shared_program)
    assert inside.run("ls", *sockets(), environ={}).code == 0
