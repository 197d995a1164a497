"""Guests without a QEMU: a socket, a record, and a simulated balloon that answers the agent.

    async with herd(directory, "a", "b") as host:
        host.guests["a"].hang()
        ...

Theory of operation:
    All guests live in one process and one event loop, which may be one whose clock jumps
    (`tests.rig.clock`): what a balloon has done by now is worked out when a client asks.
    A guest notes what no client may do: commands that are none of the agent's, and a second
    command before the first was answered.
"""

import asyncio
import json
import os
import shutil
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from qmpmem.guests import rundir
from qmpmem.guests.rundir import GuestRecord
from qmpmem.units import MIB
from qmpmem.wire import kernel
from tests.rig.fakeqmp import GREETING

DEVICE: Final = "/machine/peripheral/qmpmem0"
NOT_REPORTED: Final = (1 << 64) - 1
HARMLESS: Final = frozenset(
    {
        "qmp_capabilities",
        "query-status",
        "query-balloon",
        "query-memory-size-summary",
        "query-memory-devices",
        "query-named-block-nodes",
        "query-blockstats",
        "query-kvm",
        "qom-list",
        "qom-get",
        "qom-set",
        "balloon",
        "x",
    }
)
"""All that an agent may say: nothing that kills, pauses or reconfigures."""

FIRST_PID: Final = 10_000_000
"""More than Linux ever gives (PID_MAX_LIMIT: 4 Mi), so that none is a process's."""

_DECODER: Final = json.JSONDecoder()
_CHILDREN: Final = [
    {"name": "type", "type": "string"},
    {"name": "qmpmem0", "type": "child<virtio-balloon-pci>"},
]
Answer = Mapping[str, object]


class FakeGuest:
    """One guest. Sizes are in MiB; change any field at any time.

    Attributes:
        used: what it works with.
        letter: the state of its process.
        speed: MiB a second that its balloon moves; 0: not at all.
        reports: whether its driver reports statistics.
        stats: fields that are reported instead of the true ones.
        plugged: memory beside boot memory; what of it, `devices` says.
        counted: what of that its balloon counts.
        online: what of that the guest uses.
        kept: what its kernel keeps for itself.
        costs: more lines of its process's status.
        disks: the drivers of its disks.
        reads: bytes that each disk was asked for, and how many images lie below it.
        passed: types of other devices.
        confidential: the object that protects its memory; "": none.
        hung: no request is answered, those that came meanwhile are when it ends.
        balloons: the targets that it was told, in bytes.
        mistakes: what the client did and must not.
    """

    def __init__(self, guest: str, size: int = 512, *, used: int = 100) -> None:
        self.id = guest
        self.size = size
        self.used = used
        self.speed = 10_000.0
        self.state = "running"
        self.letter = "S"
        self.reports = True
        self.stats: dict[str, object] = {}
        self.balloon = True
        self.hung = False
        self.polling = 0
        self.plugged = 0
        self.counted = 0
        self.online = 0
        self.kept = 0
        self.costs = ""
        self.devices: list[object] = []
        self.disks: list[str] = []
        self.reads: list[tuple[object, int]] = [(0, 0)]
        self.passed: list[str] = []
        self.confidential = ""
        self.balloons: list[int] = []
        self.commands: deque[str] = deque(maxlen=10_000)
        self.mistakes: list[str] = []
        self.lines: list[_Line] = []
        self.last_update: int | None = None
        self._zero = 0.0
        self._from = self._to = size * MIB
        self._since = 0.0
        self._asked = 0.0

    @property
    def actual(self) -> int:
        """What it has by now, in bytes."""
        way = int((_now() - self._since) * self.speed * MIB)
        if self._to < self._from:
            return max(self._to, self._from - way)
        return min(self._to, self._from + way)

    def plug(self, kind: str, size: int) -> None:
        """Have more memory; the guest does not use it yet."""
        self.plugged += size
        self.counted += size if kind == "dimm" else 0
        self.devices.append({"type": kind, "data": {"size": size * MIB, "max-size": size * MIB}})

    def have(self, size: int) -> None:
        """Have a size at once, as if another client had moved the balloon."""
        self._from = self._to = size * MIB

    def hang(self) -> None:
        """Answer nothing from now on, as a stopped process."""
        self.hung = True

    def go_on(self) -> None:
        """Answer again, what came meanwhile first."""
        self.hung = False
        for line in self.lines:
            line.answer_all()

    def reset(self) -> None:
        """Restart: the driver begins anew, with all memory until it is squeezed again."""
        self._from = self.size * MIB
        self.last_update = None
        self.event("RESET", {"guest": True, "reason": "guest-reset"})

    def event(self, name: str, data: Answer | None = None) -> None:
        """Tell the client of something."""
        stamp = {"seconds": 1_700_000_000, "microseconds": 0}
        for line in self.lines:
            line.send({"event": name, "data": data or {}, "timestamp": stamp})

    def reply(self, command: str, words: Mapping[str, object]) -> Answer:  # noqa: C901, PLR0911, PLR0912 - a table
        """Answer a command."""
        self.commands.append(command)
        if command not in HARMLESS:
            self.mistakes.append(f"{command} is nothing that an agent may do")
        match command:
            case "qmp_capabilities":
                return {"return": {}}
            case "query-status":
                return {"return": {"status": self.state, "running": self.state == "running"}}
            case "query-memory-size-summary":
                return {
                    "return": {"base-memory": self.size * MIB, "plugged-memory": self.plugged * MIB}
                }
            case "query-memory-devices":
                return {"return": self.devices}
            case "query-named-block-nodes":
                return {"return": [{"drv": drv} for drv in self.disks]}
            case "query-blockstats":
                return {"return": [disk_stats(*each) for each in self.reads]}
            case "query-kvm":
                return {"return": {"enabled": False, "present": True}}
            case "query-balloon" if self.balloon:
                return {"return": {"actual": self.actual + self.counted * MIB}}
            case "query-balloon" | "balloon" if not self.balloon:
                return _error("DeviceNotActive", "No balloon device has been activated")
            case "balloon":
                return self._inflate(words["value"])
            case "qom-list":
                if words["path"] != "/machine/peripheral":
                    return {"return": []}
                passed = [{"name": each, "type": f"child<{each}>"} for each in self.passed]
                return {"return": [*(_CHILDREN if self.balloon else []), *passed]}
            case "qom-get" | "qom-set":
                return self._property(words)
            case _:
                return _error("CommandNotFound", f"The command {command} has not been found")

    def _inflate(self, value: object) -> Answer:
        assert isinstance(value, int)
        self.balloons.append(value)
        self._from, self._since = self.actual, _now()
        self._to = min(value - self.counted * MIB, self.size * MIB)
        return {"return": {}}

    def _property(self, words: Mapping[str, object]) -> Answer:
        if words["path"] == "/machine":
            is_type = words["property"] == "type"
            return {"return": "pc-i440fx-7.2-machine" if is_type else self.confidential}
        if not self.balloon:
            return _error("DeviceNotFound", f"Device '{words['path']}' not found")
        match words["property"]:
            case "guest-stats":
                return {"return": self._report()}
            case "guest-stats-polling-interval" if "value" in words:
                assert isinstance(words["value"], int)
                if words["value"] != self.polling:
                    self.polling, self._asked = words["value"], _now()
                return {"return": {}}
            case "guest-stats-polling-interval":
                return {"return": self.polling}
            case _:
                return {"return": True}

    def _report(self) -> Answer:
        if self.reports and self.polling and self.state == "running":
            polls = int((_now() - self._asked) // self.polling)
            # The wall clock when the loop's stood at 0, which it did not begin at where it is real.
            self._zero = self._zero or time.time() - _now()
            self.last_update = int(self._zero + self._asked) + polls * self.polling
        if self.last_update is None:
            return {"stats": {"stat-available-memory": NOT_REPORTED}, "last-update": 0}
        available = max(0, self.actual + (self.online - self.used) * MIB)
        known: dict[str, object] = {
            "stat-available-memory": available,
            "stat-free-memory": available,
            "stat-total-memory": (self.size + self.online - self.kept) * MIB,
            "stat-swap-in": 0,
            "stat-swap-out": 0,
            "stat-major-faults": 0,
            "stat-minor-faults": 0,
            "stat-disk-caches": 0,
        }
        return {"stats": known | self.stats, "last-update": self.last_update}


def disk_stats(reads: object, images: int = 0, waited: object = 0) -> dict[str, object]:
    """Give what QEMU 7.2 tells of a disk, less the fields that no program reads.

    Args:
        reads: its `rd_bytes`.
        images: how many lie below it.
        waited: its `rd_total_time_ns`.
    """
    node: dict[str, object] = {"stats": {"rd_bytes": 0, "wr_bytes": 0}, "node-name": "#block1"}
    file = node | {"driver-specific": {"driver": "file", "discard-nb-ok": 0}}
    below: dict[str, object] = {}
    for _ in range(images):
        below = {"backing": {**node, "parent": file, **below}}
    own = {"device": "virtio0", "qdev": "/machine/peripheral-anon/device[0]/virtio-backend"}
    stats = {"rd_bytes": reads, "wr_bytes": 4096, "timed_stats": [], "rd_operations": 7}
    stats["rd_total_time_ns"] = waited
    return {**own, **node, "stats": stats, "parent": file, **below}


class _Line(asyncio.Protocol):
    """One client's connection to a guest."""

    def __init__(self, guest: FakeGuest) -> None:
        self._guest = guest
        self._transport: asyncio.Transport | None = None
        self._text = ""
        self._waiting: deque[dict[str, object]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._guest.lines.append(self)
        if not self._guest.hung:
            transport.write(GREETING)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport = None
        self._guest.lines.remove(self)

    def data_received(self, data: bytes) -> None:
        self._text += data.decode()
        while self._text:
            request, end = _DECODER.raw_decode(self._text)
            self._text = self._text[end:].lstrip()
            in_band = [each for each in self._waiting if "execute" in each]
            if in_band and "execute" in request:
                self._guest.mistakes.append(f"{request} before {in_band} was answered")
            self._waiting.append(request)
        if not self._guest.hung:
            self.answer_all()

    def answer_all(self) -> None:
        while self._waiting:
            request = self._waiting.popleft()
            words = request.get("arguments", {})
            assert isinstance(words, dict)
            command = str(request.get("execute") or request.get("exec-oob"))
            self.send({**self._guest.reply(command, words), "id": request.get("id")})

    def send(self, message: Answer) -> None:
        if self._transport is not None:
            self._transport.write(json.dumps(message).encode() + b"\r\n")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class FakeHost:
    """A host with such guests: a run directory, and a root with a /proc that follows them.

    Attributes:
        total: its memory, in MiB; what guests hold of it is not available.
        stalls: percent of the last 10 s in which some task waited for memory.
    """

    def __init__(self, directory: Path, total: int) -> None:
        self.run = directory / "r"
        self.root = directory
        self.total = total
        self.stalls = 0.0
        self.guests: dict[str, FakeGuest] = {}
        self._servers: dict[str, asyncio.Server] = {}
        self._pids: dict[str, int] = {}
        self._last_pid = FIRST_PID
        self._written: dict[str, str] = {}
        (directory / "proc/pressure").mkdir(parents=True)
        (directory / "proc/net").mkdir()
        (directory / "proc/net/unix").write_text("")
        (directory / "proc/vmstat").write_text("pswpin 0\npswpout 0\n")
        self.run.mkdir()
        self.write()

    async def start(self, guest: FakeGuest) -> FakeGuest:
        """Have one more guest, or another of an id that is gone."""
        self.guests[guest.id] = guest
        self._last_pid += 1
        self._pids[guest.id] = self._last_pid
        (self.root / f"proc/{self._last_pid}").mkdir()
        self._write_process(guest.id)
        self._servers[guest.id] = await connect_point(self.run, guest)
        pid, proc = self._pids[guest.id], self.root / "proc"
        await asyncio.to_thread(register, self.run, guest.id, pid, proc)
        return guest

    def end(self, guest: str) -> None:
        """Have a guest's QEMU exit; its directory stays, as after a SIGKILL."""
        self._hang_up(guest)
        pid = self._pids.pop(guest)
        self._put(f"{pid}/status", "")
        shutil.rmtree(self.root / f"proc/{pid}")
        self._written.pop(f"{pid}/stat")

    def _hang_up(self, guest: str) -> None:
        known = self.guests.pop(guest)
        self._servers.pop(guest).close()
        for line in tuple(known.lines):
            line.close()

    def write(self) -> None:
        """Have the files of /proc say how things are now."""
        for guest in self._pids:
            self._write_process(guest)
        free = self.total * MIB - sum(known.actual for known in self.guests.values())
        self._put(
            "meminfo",
            f"MemTotal: {self.total * 1024} kB\nMemAvailable: {max(0, free) // 1024} kB\n",
        )
        line = f"avg10={self.stalls:.2f} avg60=0.00 avg300=0.00 total=0"
        self._put("pressure/memory", f"some {line}\nfull {line}\n")

    def _write_process(self, guest: str) -> None:
        known, pid = self.guests[guest], self._pids[guest]
        self._put(f"{pid}/stat", f"{pid} (qemu) {known.letter} {'0 ' * 18}{pid} 0\n")
        self._put(
            f"{pid}/status",
            f"State:\t{known.letter} (x)\nVmRSS:\t{known.actual // 1024} kB\n"
            f"VmSwap:\t0 kB\n{known.costs}",
        )

    def _put(self, name: str, text: str) -> None:
        """Write a file, the same that is open elsewhere."""
        if self._written.get(name) == text:
            return
        self._written[name] = text
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        file = os.open(f"{self.root}/proc/{name}", flags, 0o644)
        try:
            os.pwrite(file, text.encode(), 0)
        finally:
            os.close(file)

    async def follow(self) -> None:
        """Keep /proc up to date."""
        while True:
            await asyncio.sleep(0.25)
            self.write()

    async def close(self) -> None:
        """Close what is open; the files are the directory's."""
        for guest in tuple(self.guests):
            self._hang_up(guest)
        await asyncio.sleep(0)  # so that connections are told that they are lost


@asynccontextmanager
async def herd(
    directory: Path,
    *ids: str,
    total: int = 65536,
) -> AsyncIterator[FakeHost]:
    """Have a host with guests, in a directory with a short name."""
    host = FakeHost(directory, total)
    try:
        for guest in ids:
            await host.start(FakeGuest(guest))
        following = asyncio.create_task(host.follow())
        try:
            yield host
        finally:
            following.cancel()
    finally:
        await host.close()


async def connect_point(run: Path, guest: FakeGuest) -> asyncio.Server:
    """Listen as a guest, in a directory of its own; it is not registered yet."""
    directory = run / guest.id
    directory.mkdir()
    path = str(directory / "qmp.sock")
    return await asyncio.get_running_loop().create_unix_server(lambda: _Line(guest), path)


def register(
    run: Path, guest: str, pid: int, proc: Path = kernel.PROC, *, name: str | None = None
) -> None:
    """Write the record of a guest whose socket this process serves."""
    process = kernel.process(pid, proc)
    assert process is not None
    record = GuestRecord(
        version=rundir.RECORD_VERSION,
        id=guest,
        name=guest if name is None else name,
        pid=pid,
        start_time=process.start_time,
        socket=str(run / guest / "qmp.sock"),
        uid=os.getuid(),
        created=time.time(),
        listener=os.getpid(),
        balloon="qmpmem0",
    )
    rundir.write_record(run, record)


def _error(kind: str, text: str) -> Answer:
    return {"error": {"class": kind, "desc": text}}


def _now() -> float:
    return asyncio.get_running_loop().time()
