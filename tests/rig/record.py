"""Records what a kernel shows in /proc and /sys, as trees that a test can take for the root.

    python tests/rig/record.py guest KERNEL INTO [WORD ...]   INTO/quiet, INTO/merged
    python tests/rig/record.py host INTO

KERNEL is a Debian package linux-image-*-cloud-amd64, which is unpacked, never installed, or a
vmlinuz; it boots in the tiny guest, with each WORD added to its command line. `host` needs root.

Theory of operation:
    One shell script copies the files and packs them: in a guest by busybox, on the host by its own
    tools. Nothing else ever writes into a tree, so what stands there came from a kernel.
    A process and ksmd are the only two in a tree's /proc. The process sits in a memory cgroup below
    another one with another limit.
    quiet    KSM has not run since boot; the host must be in that state when this begins
    merged   what could be merged is, and the process has its part of it
"""

import argparse
import base64
import io
import json
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from launchers.guest import boot, build, channel
from launchers.guest.build import Artifacts
from tests.rig import guests, ksm, qemu
from tests.rig.guests import RunningGuest
from tests.rig.patience import patient

Execute = Callable[[str], bytes]
"""Runs a shell command where the kernel is, and gives what it wrote; fails as the command does."""

SOURCE: Final = Path(__file__).resolve().parents[1] / "data/mergeable.c"
KSM: Final = "/sys/kernel/mm/ksm"
V1: Final = "/sys/fs/cgroup/memory"
V2: Final = "/sys/fs/cgroup"
PARENT: Final = "qmrecord"
CHILD: Final = f"{PARENT}/guest"
MIB: Final = 1 << 20

HOST_FILES: Final = (
    f"{KSM}/*",
    "/proc/meminfo",
    "/proc/vmstat",
    "/proc/pressure/memory",
    "/proc/pressure/io",
    "/sys/devices/system/node/online",
)
THREAD_FILES: Final = ("stat", "comm")
PROCESS_FILES: Final = (
    *THREAD_FILES,
    *("status", "ksm_stat", "ksm_merging_pages", "smaps_rollup"),
)
GROUP_FILES: Final = (
    *("memory.limit_in_bytes", "memory.usage_in_bytes"),
    *("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"),
    *("memory.max", "memory.high", "memory.current", "memory.pressure", "memory.stat"),
    *("memory.swap.max", "memory.swap.current"),
)

COPY: Final = """
tree=$(mktemp -d) && trap 'rm -rf "$tree"' EXIT || exit 1
for file in {files}; do
    [ -f "$file" ] || continue
    mkdir -p "$tree${{file%/*}}"
    cat "$file" >"$tree$file" 2>/dev/null || rm "$tree$file"
done
tar -czf - -C "$tree" .
"""
"""A file that is there and cannot be read (pressure with psi=0) is not in the tree."""

KSMD: Final = "grep -l '^[0-9]* (ksmd)' /proc/[0-9]*/stat | cut -d/ -f3"
SCANS: Final = 4
"""Full scans after which nothing changes: one takes checksums, the next one merges."""


def tree(execute: Execute, pid: int, group: str, into: Path) -> None:
    """Record one tree: host, KSM, the process, and its group with all above it."""
    thread = int(execute(KSMD))
    files = [
        *HOST_FILES,
        *(f"/proc/{thread}/{name}" for name in THREAD_FILES),
        *(f"/proc/{pid}/{name}" for name in PROCESS_FILES),
        *(f"{above}/{name}" for above in _upwards(group) for name in GROUP_FILES),
    ]
    packed = execute(COPY.format(files=" ".join(files)))
    shutil.rmtree(into, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        archive.extractall(into, filter="data")
    for path in (into, *into.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    print(f"{into}: {sum(path.is_file() for path in into.rglob('*'))} files")


def merge(execute: Execute) -> None:
    """Let KSM merge what there is; with the advisor where this kernel has one."""
    for name, value in (
        ("pages_to_scan", "5000"),
        ("sleep_millisecs", "10"),
        ("use_zero_pages", "1"),
        ("advisor_mode", "scan-time"),
        ("run", "1"),
    ):
        execute(f"[ ! -f {KSM}/{name} ] || echo {value} >{KSM}/{name}")
    before = int(execute(f"cat {KSM}/full_scans"))
    qemu.until(
        lambda: int(execute(f"cat {KSM}/full_scans")) >= before + SCANS,
        seconds=120,
        what="KSM has looked at all memory often enough",
    )


def record_guest(kernel: Path, into: Path, words: Sequence[str]) -> None:
    """Boot a kernel, and record both its states."""
    with qemu.short_directory() as work, _booted(kernel, work, words) as guest:

        def execute(command: str) -> bytes:
            answer = channel.execute(guest.channel, command, seconds=patient(60))
            assert answer.code == 0, f"in the guest: {command}: {answer.output!r}"
            return answer.output

        print(f"{into}: Linux {execute('uname -r').decode().strip()}")
        program = base64.b64encode(_compile(work)).decode()
        execute(f"echo {program} | base64 -d >/bin/mergeable; chmod 755 /bin/mergeable")
        execute(IN_V2)
        pid = int(execute(START))
        tree(execute, pid, f"{V2}/{CHILD}", into / "quiet")
        merge(execute)
        tree(execute, pid, f"{V2}/{CHILD}", into / "merged")


IN_V2: Final = f"""
mount -t cgroup2 none {V2} && cd {V2} && mkdir -p {CHILD} || exit 1
echo +memory >cgroup.subtree_control && echo +memory >{PARENT}/cgroup.subtree_control || exit 1
echo {128 * MIB} >{PARENT}/memory.high && echo {96 * MIB} >{CHILD}/memory.max || exit 1
[ ! -e {CHILD}/memory.swap.max ] || echo {64 * MIB} >{CHILD}/memory.swap.max
"""
START: Final = f"""
(echo 0 >{V2}/{CHILD}/cgroup.procs; exec setsid mergeable) >/tmp/pid 2>&1 </dev/null &
until grep -q . /tmp/pid; do usleep 10000; done
cat /tmp/pid
"""


@contextmanager
def _booted(kernel: Path, work: Path, words: Sequence[str]) -> Generator[RunningGuest]:
    built = guests.ensure_built()
    config = work / "config"
    line = " ".join((*build.COMMAND_LINE, *words))
    config.write_text(f'[machine]\n  append = "{line}"\n')
    # The tiny guest's drivers are of another kernel; its channel, a serial port, needs none.
    artifacts = Artifacts(kernel=_vmlinuz(kernel, work), initrd=built.initrd, config=config)
    ours = boot.arguments(artifacts, channel=work / "channel", console=work / "console")
    with (work / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [*guests.QEMU, *guests.PLAIN, "-m", "256M", *ours],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
        )
    guest = RunningGuest(process=process, directory=work)
    try:
        guest.wait_until_up()
        yield guest
    finally:
        guests.end(process)


def _vmlinuz(kernel: Path, work: Path) -> Path:
    if kernel.suffix != ".deb":
        return kernel
    return next(_unpacked(kernel, work / "kernel").glob("boot/vmlinuz-*"))


def _compile(work: Path) -> bytes:
    store = build.default_directory({}) / "packages"
    tcc = _unpacked(next(store.glob(build.PACKAGES["tcc"])), work / "tcc")
    library = next(tcc.glob("usr/lib/*/tcc"))
    words = [str(tcc / "usr/bin/tcc"), f"-B{library}", "-nostdlib", "-nostdinc", "-static", "-Wall"]
    subprocess.run([*words, "-o", str(work / "mergeable"), str(SOURCE)], check=True)
    return (work / "mergeable").read_bytes()


def _unpacked(package: Path, into: Path) -> Path:
    subprocess.run(["dpkg-deb", "-x", package, into], check=True)
    return into


def record_host(into: Path) -> None:
    """Record this machine's kernel with two equal guests on it; KSM is put back as it was."""
    with ksm.held(), _group() as join, qemu.short_directory() as work:
        assert int(_here(f"cat {KSM}/full_scans")) == 0, "KSM has run since boot"
        with _halted(join, work / "1") as guest, _halted(join, work / "2"):
            tree(_here, guest.pid, f"{V1}/{CHILD}", into / "quiet")
            merge(_here)
            tree(_here, guest.pid, f"{V1}/{CHILD}", into / "merged")


@contextmanager
def _halted(join: str, monitor: Path) -> Generator[RunningGuest]:
    """Boot a guest in the group, give it something to merge, and halt it."""
    emulator = ["sh", "-c", f'{join} && exec "$@"', "sh", *guests.QEMU]
    extra = ["-qmp", f"unix:{monitor},server=on,wait=off"]
    with guests.boot(emulator, extra=extra) as guest:
        guest.check("eat same 32")
        _halt(monitor)
        yield guest


def _halt(monitor: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(patient(10))
        connection.connect(str(monitor))
        for command in ("qmp_capabilities", "stop"):
            connection.sendall(json.dumps({"execute": command}).encode())
        with connection.makefile() as lines:
            assert any(json.loads(line).get("event") == "STOP" for line in lines)


@contextmanager
def _group() -> Generator[str]:
    """Make a v1 group with a wider limit than its parent's; yields the command that joins it."""
    parent, child = Path(V1, PARENT), Path(V1, CHILD)
    try:
        child.mkdir(parents=True)
        (parent / "memory.limit_in_bytes").write_text(str(768 * MIB))
        (child / "memory.limit_in_bytes").write_text(str(1024 * MIB))
        (child / "memory.memsw.limit_in_bytes").write_text(str(1536 * MIB))
        yield f"echo 0 >{child}/cgroup.procs"
    finally:
        child.rmdir()
        parent.rmdir()


def _here(command: str) -> bytes:
    return subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout


def _upwards(group: str) -> Iterator[str]:
    while group not in (V1, V2):
        yield group
        group = group.rpartition("/")[0]
    yield group


def main() -> None:
    """Record what the command line asks for."""
    parser = argparse.ArgumentParser("record.py", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    guest = commands.add_parser("guest")
    guest.add_argument("kernel", type=Path)
    guest.add_argument("into", type=Path)
    guest.add_argument("words", nargs="*")
    commands.add_parser("host").add_argument("into", type=Path)
    options = parser.parse_args()
    if options.command == "guest":
        record_guest(options.kernel, options.into, options.words)
    else:
        record_host(options.into)


if __name__ == "__main__":
    main()
