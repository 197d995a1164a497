"""The launcher with a play emulator behind it, which writes down how it was started.

The play emulator is a script; like a real one it says over QMP what it can do when it is asked so.
"""

import json
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from launchers import kvm_emulator, kvm_monitor
from launchers.kvm_run import DIRECTORY, Run, open_run
from qmpmem.guests import rundir
from qmpmem.guests.rundir import GuestRecord
from tests.rig.command import Ran
from tests.rig.patience import patient
from tests.rig.qemu import listens, until

LAUNCHERS: Final = Path(__file__).parents[2] / "launchers"
SHIM: Final = LAUNCHERS / "kvm"

PROPERTIES: Final = [{"name": "deflate-on-oom"}, {"name": "free-page-reporting"}, {"name": "addr"}]
ANSWERS: Final[tuple[object, ...]] = (
    {"QMP": {"version": {}, "capabilities": ["oob"]}},
    {"return": {}},
    {"id": "machines", "return": [{"name": "isapc"}, {"name": "pc-9.9", "is-default": True}]},
    {"id": "schema", "return": [{"name": "device_add", "features": ["json-cli"]}, {"name": "0"}]},
    {"id": "virtio-balloon-pci", "return": PROPERTIES},
    {"id": "virtio-balloon-ccw", "error": {"class": "DeviceNotFound", "desc": "no"}},
    {"id": "virtio-balloon-device", "return": PROPERTIES},
    {"id": "qmpmem-last", "return": {}},
)
"""What a QEMU says that knows everything that the launcher would like."""

EMULATOR: Final = """#!/bin/sh
case "$*" in *" stdio -machine none,accel=tcg:kvm") exec cat "$0.answers" ;; esac
printf '%s\\0' "$@" >"$0.words"
for word; do
    case $word in /proc/self/fd/*|*/monitor.conf) cat "$word" >"$0.config" ;; esac
done
env -0 >"$0.environment"
exit 7
"""
"""Exits with a code of its own, so that no other failure is taken for its end."""
PLAYED: Final = 7
TOOLS: Final = ("cat", "env", "ls", "readlink", "timeout", "uname")


NASTY: Final = (
    *(b"", b"-", b"--", b"-S", b"--help", b"help", b"'", b'"', b"$(id)", b"*", b"a b", b"\\"),
    *(b"-M", b"-device", b"-name", b"-append", b"-drive", b"-readconfig", b"-m", b"-m", b"-m"),
    *(b"q35", b"none", b"pc,accel=tcg", b"virtio-balloon-pci", b"/dev/null", b"x" * 131071),
    *(b"-qmp", b"stdio", b"-balloon", b"virtio", b"-nographic", b"-daemonize", b"a=b,,c,,"),
)


def draw_words(draw: random.Random) -> list[bytes]:
    """Draw arguments of the nasty kinds, up to nine."""
    return [_draw_word(draw) for _ in range(draw.randrange(10))]


def _draw_word(draw: random.Random) -> bytes:
    byte = bytes([draw.randrange(1, 256)])
    return draw.choice(
        (
            *(draw.choice(NASTY) for _ in range(5)),
            bytes(draw.randrange(1, 256) for _ in range(draw.randrange(40))),
            b'{"driver":"e1000","id":"' + byte + b'"}',
            b"," * draw.randrange(9) + b"a=b,," + byte,
        )
    )


def copy_launchers(directory: Path) -> Path:
    """Copy the launchers to where any user may read them; returns the shim."""
    copy = directory / "launchers"
    copy.mkdir()
    for source in LAUNCHERS.glob("kvm*"):
        if source.is_file():
            shutil.copy(source, copy)
    for path in (directory, copy):
        path.chmod(0o755)
    return copy / SHIM.name


class Emulator:
    """A play emulator in a directory of its own."""

    def __init__(
        self, directory: Path, name: str = "real-kvm", answers: Sequence[object] = ANSWERS
    ) -> None:
        self.path = directory / name
        self.path.write_text(EMULATOR)
        self.path.chmod(0o755)
        lines = [json.dumps(answer) for answer in answers]
        self.path.with_name(f"{name}.answers").write_text("\n".join(lines) + "\n")
        self.run = directory / "run"
        """The run directory that `launch` names."""
        self.tools = directory / "tools"
        """All programs there are besides: no emulator of this host's."""
        self.tools.mkdir(exist_ok=True)
        for tool in TOOLS:
            if not (self.tools / tool).is_symlink():
                (self.tools / tool).symlink_to(shutil.which(tool) or tool)

    def words(self) -> list[bytes]:
        """What it was started with after argv[0]; only the last start counts."""
        file = self.path.with_name(f"{self.path.name}.words")
        words = file.read_bytes().split(b"\0")[:-1]
        file.unlink()
        return words

    def config(self) -> str:
        """What it was told of its monitor."""
        return self.path.with_name(f"{self.path.name}.config").read_text()

    def environment(self) -> dict[bytes, bytes]:
        """What was in its environment."""
        content = self.path.with_name(f"{self.path.name}.environment").read_bytes()
        pairs = (entry.partition(b"=") for entry in content.split(b"\0") if entry)
        return {key: value for key, _, value in pairs}

    def settings(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment in which the launcher finds this emulator, and nothing of this host's."""
        kept = {key: value for key, value in os.environ.items() if key == "QMPMEM_TEST_RUN"}
        chosen = {
            "PATH": str(self.tools),
            "PWD": str(Path.cwd()),
            "QMPMEM_REAL": str(self.path),
            "QMPMEM_RUN_DIR": str(self.run),
            "QMPMEM_DEFAULTS": "/proc/nonexistent",
            "QMPMEM_PYTHON": "/usr/bin/python3",
            "QMPMEM_ASK_SCRIPT": "on",
        }
        merged = kept | chosen | dict(environ)
        return {key: value for key, value in merged.items() if value}

    def launch(
        self,
        *words: str | bytes,
        environ: Mapping[str, str] | None = None,
        shim: Path = SHIM,
        before: Sequence[str] = (),
    ) -> Ran:
        """Run the launcher. An empty value in `environ` takes a setting away."""
        done = subprocess.run(
            [*before, str(shim), *words],
            env=self.settings(environ or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=patient(30),
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace"))


@contextmanager
def opened(directory: Path) -> Iterator[int]:
    """Open a directory as the launcher does."""
    descriptor = os.open(directory, DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def opened_run(directory: Path) -> Iterator[Run]:
    """Open a run directory as the launcher does."""
    run = open_run(str(directory))
    try:
        yield run
    finally:
        os.close(run.descriptor)


def listen(directory: Path) -> int:
    """Listen in a guest's directory, as its launcher does; returns the socket."""
    with opened(directory) as descriptor:
        return kvm_monitor.listen(descriptor, str(directory))


def remember(run: Path, emulator: str | Path, said: str) -> None:
    """Have the launcher know of an emulator what it said of itself."""
    name = f"{kvm_emulator.PREFIX}{kvm_emulator.identity(str(emulator))}"
    with opened(run) as descriptor:
        kvm_emulator.remember(descriptor, name, said)


def leave(run: Path, *, pid: int, started: int, path: str | None = None) -> None:
    """Leave behind what a guest leaves that was killed: a record, and a socket that refuses."""
    (run / "a").mkdir()
    if path is None:
        os.close(listen(run / "a"))
    record = GuestRecord(
        version=rundir.RECORD_VERSION,
        id="a",
        name='"pid":1,"start_time":2',
        pid=pid,
        start_time=started,
        socket=path or f"{run}/a/qmp.sock",
        uid=os.getuid(),
        created=0,
        origin="launcher" if path is None else "adopted",
    )
    rundir.write_record(run, record)


class Monitor:
    """A QMP session, one question at a time."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(patient(20))
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")
        self.events: list[str] = []
        """Names of the events that came before the last answer."""

    def greet(self) -> None:
        """Do what comes before the first command."""
        assert b'"QMP"' in self._lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        """Execute a command and return what it returns."""
        request = {"execute": command, "arguments": arguments}
        self._socket.sendall(json.dumps(request).encode())
        while True:
            answer = json.loads(self._lines.readline())
            if "event" not in answer:
                assert "return" in answer, answer
                return answer["return"]
            self.events.append(answer["event"])

    def say(self, line: str) -> str:
        """Execute a line of the human monitor."""
        text: str = self.ask("human-monitor-command", **{"command-line": line})
        return text.replace("\r\n", "\n")

    def quit(self) -> None:
        """End the QEMU, and wait until it has closed all that it had open."""
        self.ask("quit")
        self._lines.read()

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


@contextmanager
def talking(path: Path) -> Iterator[Monitor]:
    """Talk to a QEMU as soon as it listens."""
    until(lambda: listens(path), what=f"{path} listens")
    monitor = Monitor(path)
    try:
        monitor.greet()
        yield monitor
    finally:
        monitor.close()


@contextmanager
def monitored(command: Sequence[str], path: Path, **environ: str) -> Iterator[Monitor]:
    """Run a QEMU, with more in its environment, and talk to it."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=os.environ | environ)
    try:
        with talking(path) as monitor:
            yield monitor
    finally:
        child.kill()
        child.wait()
