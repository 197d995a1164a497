"""A mount namespace with a /run and groups of its own: what root's guests are to other users."""

import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.rig.command import Ran, plain_environment
from tests.rig.guests import end
from tests.rig.patience import patient
from tests.rig.qemu import WITH_US

GROUPS: Final = {"qmpmem": 4711, "qmpmem-admin": 4712}
USER: Final = 4242
"""A user that belongs to no group of this host."""

_MOUNTS: Final = """
mount -t tmpfs -o mode=755 tmpfs /run
mount --bind "$1" /etc/group
echo ready
exec cat
"""


class Namespace(NamedTuple):
    """Where commands run."""

    pid: int

    def words(
        self, *words: object, groups: Sequence[str] | None = None, user: int = USER
    ) -> list[str]:
        """Write the command that runs another inside.

        Args:
            words: the other one.
            groups: of an ordinary user that runs it; None: root does.
            user: that user.
        """
        # Without --root it would leave a chroot that the tests run in (setns(2), CLONE_NEWNS).
        # The working directory is given as well: a shell says so where the user, or what is mounted
        # inside, keeps it from the tests' own.
        enter = [*WITH_US, "nsenter", "--mount", "--root", "--wdns=/", f"--target={self.pid}", "--"]
        if groups is not None:
            numbers = ",".join(str(GROUPS[name]) for name in groups)
            mine = f"--groups={numbers}" if numbers else "--clear-groups"
            enter += ["setpriv", f"--reuid={user}", f"--regid={user}", mine]
        return [*enter, *map(str, words)]

    def run(
        self,
        *words: object,
        groups: Sequence[str] | None = None,
        user: int = USER,
        environ: Mapping[str, str],
    ) -> Ran:
        """Run a command inside, to its end."""
        done = subprocess.run(
            self.words(*words, groups=groups, user=user),
            env=plain_environment() | dict(environ),
            capture_output=True,
            text=True,
            check=False,
            timeout=patient(60),
        )
        return Ran(done.returncode, done.stdout, done.stderr)


@contextmanager
def namespace(directory: Path) -> Generator[Namespace]:
    """Make a namespace; its mounts are gone at the end."""
    group = directory / "group"
    lines = Path("/etc/group").read_text().splitlines()
    known = [line for line in lines if line.partition(":")[0] not in GROUPS]
    added = [f"{name}:x:{number}:" for name, number in GROUPS.items()]
    group.write_text("".join(f"{line}\n" for line in (*known, *added)))
    words = [*WITH_US, "unshare", "--mount", "sh", "-ec", _MOUNTS, "sh", str(group)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
            yield Namespace(holder.pid)
        finally:
            holder.kill()


@contextmanager
def started(
    inside: Namespace, *words: object, environ: Mapping[str, str]
) -> Generator["subprocess.Popen[bytes]"]:
    """Run a program of root's inside, and end it at the end."""
    child = subprocess.Popen(
        inside.words(*words), env=plain_environment() | dict(environ), stdin=subprocess.DEVNULL
    )
    try:
        yield child
    finally:
        end(child, patient(20))
