"""Real guests with an operating system in them: booted, told what to do, surely gone after."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from launchers.guest import boot as command_line
from launchers.guest import build, channel
from launchers.guest.build import Artifacts
from launchers.guest.channel import BOOT_SECONDS
from launchers.guest.errors import ChannelError
from tests.rig.interrupts import uninterrupted
from tests.rig.patience import patient

ROOT: Final = Path(__file__).resolve().parents[2]

QEMU: Final = ("qemu-system-x86_64",)
PLAIN: Final = ("-accel", "tcg,tb-size=64", "-display", "none", "-nodefaults")
"""What every guest gets unless the test says otherwise; the machine type is QEMU's default, pc.

A boot makes 40 MiB of translated code; where they do not fit QEMU translates a part of it twice."""

END_SECONDS: Final = 5.0
TAIL: Final = 2000


class Executed(NamedTuple):
    """How a command in a guest ended, and what it wrote to stdout and stderr, as text."""

    code: int
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningGuest:
    """A guest that has booted. `directory` is its own, short, and goes when the guest goes."""

    process: subprocess.Popen[bytes]
    directory: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def channel(self) -> Path:
        return self.directory / "channel"

    @property
    def console(self) -> Path:
        return self.directory / "console"

    @property
    def stderr(self) -> Path:
        return self.directory / "stderr"

    def execute(self, command: str, timeout: float = 30.0) -> Executed:
        """Run a shell command in the guest.

        Raises:
            ChannelError: the guest did not answer in time, ended or restarted.
        """
        answer = channel.execute(self.channel, command, seconds=patient(timeout))
        return Executed(code=answer.code, output=answer.output.decode(errors="replace"))

    def check(self, command: str, timeout: float = 30.0) -> str:
        """Run a shell command that must exit with 0, and give what it wrote."""
        code, output = self.execute(command, timeout)
        assert code == 0, f"in the guest: {command!r} exited with {code}: {output}"
        return output

    def processor_time(self, command: str) -> float:
        """Run a command in the guest, and return the seconds of processor time that its QEMU took.

        Beside other programs these stay about the same, unlike the time by any clock of the guest.
        """
        clock = processor_clock(self.pid)
        before = time.clock_gettime(clock)
        self.check(command)
        return time.clock_gettime(clock) - before

    def meminfo(self, field: str) -> int:
        """Read a line of the guest's /proc/meminfo, in MiB."""
        return int(self.check(f"grep ^{field}: /proc/meminfo").split()[1]) // 1024

    def wait_until_up(self, timeout: float = BOOT_SECONDS) -> None:
        """Wait until the guest says a positive word, as after a restart."""
        limit = patient(timeout)
        channel.wait(self.channel, seconds=limit, alive=lambda: self.process.poll() is None)

    def poweroff(self) -> int:
        """Power the guest off from inside, and give QEMU's exit code."""
        channel.poweroff(self.channel)
        return self.process.wait(timeout=patient(END_SECONDS))

    def obituary(self) -> str:
        """Say what became of it: for the message of a failure."""
        return (
            f"QEMU's exit code: {self.process.poll()}\n"
            f"stderr: {_tail(self.stderr)}\nconsole: {_tail(self.console)}"
        )


def ensure_built() -> Artifacts:
    """Build the guest where `launchers/tinyguest` would, unless that is done."""
    return build.ensure(build.default_directory(os.environ))


@contextmanager
def boot(
    emulator: Sequence[str] = QEMU,
    *,
    memory: str = "256M",
    extra: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    base: Sequence[str] = PLAIN,
) -> Generator[RunningGuest, None, None]:
    """Boot a guest and yield it when it says a positive word; it is dead and reaped at the end.

    Args:
        emulator: the command, such as `launchers/kvm`; a relative path is the checkout's.
        memory: for QEMU's -m.
        extra: more QEMU arguments, such as ``-machine q35``.
        environ: added to this process's environment.
        base: instead of PLAIN, as to boot without -nodefaults.

    Raises:
        AssertionError: it did not come up; with the last words of QEMU and of its console.
    """
    started = start(emulator, memory=memory, extra=extra, environ=environ, base=base)
    with started as guest:
        come_up(guest)
        yield guest


@contextmanager
def start(
    emulator: Sequence[str] = QEMU,
    *,
    memory: str = "256M",
    extra: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    base: Sequence[str] = PLAIN,
) -> Generator[RunningGuest, None, None]:
    """Start a guest and yield it before it has booted, so that many boot at once.

    Args:
        emulator: as of `boot`, like the rest.
        memory: for QEMU's -m.
        extra: more QEMU arguments.
        environ: added to this process's environment.
        base: instead of PLAIN.
    """
    artifacts = ensure_built()
    directory = Path(tempfile.mkdtemp(prefix="qm-", dir="/tmp"))
    guest = None
    try:
        with uninterrupted():
            guest = RunningGuest(
                process=_start(
                    [*emulator, *base, "-m", memory, *extra], artifacts, directory, environ
                ),
                directory=directory,
            )
        yield guest
    finally:
        if guest is not None:
            end(guest.process)
        shutil.rmtree(directory, ignore_errors=True)


def end(process: subprocess.Popen[Any], seconds: float = END_SECONDS) -> None:
    """End a process, by force where it has not ended after so many seconds, and reap it."""
    process.terminate()
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:  # stopped, or its main loop is stuck
        process.kill()
        process.wait()


def _start(
    words: Sequence[str], artifacts: Artifacts, directory: Path, environ: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    ours = command_line.arguments(
        artifacts, channel=directory / "channel", console=directory / "console"
    )
    with (directory / "stderr").open("wb") as stderr, (directory / "stdout").open("wb") as stdout:
        return subprocess.Popen(
            [*words, *ours],
            cwd=ROOT,
            env=os.environ | dict(environ or {}),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )


def come_up(guest: RunningGuest) -> None:
    """Wait until a guest that was started says a positive word.

    Raises:
        AssertionError: it did not; with the last words of QEMU and of its console.
    """
    try:
        guest.wait_until_up()
    except ChannelError as error:
        with suppress(subprocess.TimeoutExpired):  # the socket closes a moment before the end
            guest.process.wait(timeout=patient(1))
        raise AssertionError(f"the guest did not come up: {error}\n{guest.obituary()}") from error


def processor_clock(pid: int) -> int:
    """Name the clock of a process's processor time, as clock_getcpuclockid(3) does.

    Source: Linux, include/linux/posix-timers_types.h: the inverted pid, and CPUCLOCK_SCHED.
    """
    return ~pid << 3 | 2


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-TAIL:].strip() if path.exists() else "(none)"
