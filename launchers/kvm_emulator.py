"""What an emulator can do: asked once, then remembered in the run directory.

Theory of operation:
    A QEMU without a machine starts in about 50 ms and answers over QMP which machines and devices
    it has, and, in its schema, whether -device takes JSON (feature json-cli of device_add). What it
    said is kept under the identity of its file: device, inode, size and time of change. A script is
    asked only if a setting says so, because it may do more than that, and then each time, because
    what it runs may change while it stays the same.

Rules of this file:
    The answer decides what a guest is started with, so a file with it is only believed if no
    other user than this one and root can have written it.
"""

import os
import stat
import time

from launchers.kvm_balloon import Capabilities
from launchers.kvm_slots import DRIVERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from subprocess import Popen

PATIENCE = 10.0
"""Seconds. QEMU takes 0.05 to 0.1, on a host that is starting all its guests some seconds. It is
asked once and then remembered; a guest without a balloon would be without until it ends."""
LONGEST = 60.0
"""Seconds for which an emulator is waited for that is still at work: on a host that is short of
processors or memory it needs more than `PATIENCE`, and there a guest needs its balloon most."""
AGAIN = 0.5
"""Seconds between two looks at whether it is."""
AT_WORK = frozenset("RD")
"""States of a process that wants a processor, or waits for a page of its program (proc(5))."""
PARTING = 0.5
"""Seconds for it to end after a kill, which a stuck disk can delay."""
KILL = 9
PR_SET_PDEATHSIG = 1
"""linux/prctl.h."""
PART = 64 * 1024
SHORT = 400
"""Longer than the last answer."""
LIMIT = 16 * 1024
OUTPUT_LIMIT = 4 << 20
"""Bytes of answers. QEMU writes less than 1 MiB."""
PREFIX = ".emulator-"
FORMAT = "qmpmem capabilities 1"
ARGUMENTS = ("-S", "-nodefaults", "-no-user-config", "-display", "none", "-qmp", "stdio")
NO_MACHINE = ("-machine", "none,accel=tcg:kvm")
"""Either accelerator: no guest runs."""


def find_capabilities(
    real: str, environment: "Mapping[str, str]", run: "int | None"
) -> "Capabilities | None":
    """Find out what an emulator can do; None where it does not say.

    Args:
        real: the emulator's path.
        environment: what to run it with.
        run: a descriptor of the run directory; None: remember nothing.
    """
    if run is None or is_script(real):
        text = ask(real, environment)
        return None if text is None else decode(text)
    memory = f"{PREFIX}{identity(real)}"
    text = recall(run, memory)
    if text is None:
        text = ask(real, environment)
        if text is not None:
            remember(run, memory, text)
    return None if text is None else decode(text)


def is_script(real: str) -> bool:
    """Tell whether a program is a script."""
    descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 2) == b"#!"
    finally:
        os.close(descriptor)


def identity(real: str) -> str:
    """Tell a file from any other, and from itself after a change."""
    seen = os.stat(real)
    return f"{seen.st_dev:x}-{seen.st_ino:x}-{seen.st_size:x}-{seen.st_mtime_ns:x}"


def recall(run: int, name: str) -> "str | None":
    """Read what was remembered, if it can be believed."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(name, flags, dir_fd=run)
    except OSError:
        return None
    try:
        seen = os.fstat(descriptor)
        mine = seen.st_uid in (0, os.geteuid()) and not seen.st_mode & 0o022
        text = os.read(descriptor, LIMIT).decode("ascii", "replace")
    finally:
        os.close(descriptor)
    believed = mine and stat.S_ISREG(seen.st_mode) and text.startswith(FORMAT)
    return text if believed and text.endswith("end\n") else None


def remember(run: int, name: str, text: str) -> None:
    """Keep what an emulator said, whole or not at all; no matter if that fails."""
    beside = f"{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(beside, flags, 0o600, dir_fd=run)
    except OSError:
        return
    try:
        os.write(descriptor, text.encode("ascii"))
        os.rename(beside, name, src_dir_fd=run, dst_dir_fd=run)
    except OSError:
        os.unlink(beside, dir_fd=run)
    finally:
        os.close(descriptor)


def decode(text: str) -> "Capabilities | None":
    """Read what `ask` wrote; None: it makes no sense."""
    facts = [line.split() for line in text.splitlines()[1:-1]]
    named = {words[0]: words[1:] for words in facts}
    if "json" not in named:
        return None
    machine = named.get("machine")
    return Capabilities(
        json=named["json"] == ["yes"],
        machine=machine[0] if machine else None,
        properties={key: frozenset(named[key]) for key in DRIVERS if key in named},
    )


def ask(real: str, environment: "Mapping[str, str]") -> "str | None":
    """Run an emulator and have it say what it can do, as text; None: it does not."""
    import subprocess

    from launchers import kvm_probe

    process = subprocess.Popen(
        [real, *ARGUMENTS, *NO_MACHINE],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # a script is ended with what it runs
        preexec_fn=end_with_us(),  # noqa: PLW1509 - there is one thread
    )
    try:
        output = converse(process, kvm_probe.REQUESTS, kvm_probe.LAST)
    finally:
        end(process)
    facts = list(kvm_probe.read_answers(output))
    return "\n".join((FORMAT, *facts, "end\n")) if facts else None


def end_with_us() -> "Callable[[], object] | None":
    """Return what a child runs first, so that a killed launcher leaves no emulator behind.

    prctl(2): PR_SET_PDEATHSIG. None where Python comes without ctypes (Debian: python3-minimal).
    """
    try:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None
    us = os.getpid()

    def first() -> None:
        prctl(PR_SET_PDEATHSIG, KILL, 0, 0, 0)
        if os.getppid() != us:  # too late: we are dead already
            os._exit(1)

    return first


def converse(process: "Popen[bytes]", requests: bytes, last: bytes) -> bytes:
    """Send requests, and read until the last answer, the end, or `OUTPUT_LIMIT`.

    It ends after `PATIENCE`, or after `LONGEST` where the emulator is still at work. QEMU is not
    told to quit: it would do so without having written all of its answers.
    """
    import select

    began = time.monotonic()
    output = b""
    if process.stdin is None or process.stdout is None:
        return output  # never so; it says that the pipes are there
    try:
        process.stdin.write(requests)
    except BrokenPipeError:
        pass  # it may have said something all the same
    while last not in output[-len(last) - SHORT :] and len(output) < OUTPUT_LIMIT:
        waited = time.monotonic() - began
        if waited >= PATIENCE and (waited >= LONGEST or not is_at_work(process.pid)):
            break
        rest = PATIENCE - waited if waited < PATIENCE else AGAIN
        if not select.select([process.stdout], [], [], rest)[0]:
            continue
        part = os.read(process.stdout.fileno(), PART)
        if not part:
            break
        output += part
    return output


def is_at_work(pid: int) -> bool:
    """Tell whether a process would go on if the host let it."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        text = os.read(descriptor, SHORT)
    finally:
        os.close(descriptor)
    return text.rpartition(b") ")[2][:1].decode() in AT_WORK


def end(process: "Popen[bytes]") -> None:
    """End an emulator that was asked, whatever became of it, and don't wait for long."""
    import subprocess

    try:
        os.killpg(process.pid, KILL)  # not yet waited for, so the number is still its own
    except ProcessLookupError:
        pass
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(PARTING)
    except subprocess.TimeoutExpired:
        pass  # it ends when the kernel lets it
