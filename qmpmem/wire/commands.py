"""The QMP commands we use, each with the shape of its reply.

Rules of this file:
    A reply of another shape than QEMU documents is a protocol error of that guest. Numbers that the
    guest writes pass as they are: `qmpmem.model.sanitise` checks them.

Sources: QEMU docs/interop/qemu-qmp-ref and virtio-balloon-stats, hw/virtio/virtio-balloon.c.
"""

from typing import Final, TypeVar

import msgspec

from qmpmem.errors import GuestRefused, GuestUnreachable
from qmpmem.model.guest import BalloonDevice
from qmpmem.model.sizes import Sizes
from qmpmem.records import replace
from qmpmem.units import Bytes
from qmpmem.wire import replies
from qmpmem.wire.channel import Channel

T = TypeVar("T")

_BALLOON: Final = "virtio-balloon-"
"""QEMU's type names of a balloon begin with this, and no other device's: -pci, -pci-transitional,
-pci-non-transitional, -device, -ccw (QEMU: hw/virtio/virtio-balloon-pci.c, hw/s390x). An alias such
as ``-device virtio-balloon`` is resolved before the object is made."""
_MEMORY: Final = ("dimm", "nvdimm", "virtio-mem", "virtio-pmem")
"""Memory devices whose pages a guest can use as RAM (qapi: MemoryDeviceInfoKind)."""
_CONTAINERS: Final = ("/machine/peripheral", "/machine/peripheral-anon")


async def run_state(session: Channel) -> str:
    """Ask for QEMU's run state, such as ``running`` or ``paused`` (qapi: RunState)."""
    return _shape(session, await session.query("query-status"), replies.Status).status


async def balloon_actual(session: Channel) -> object:
    """Ask for the size that the guest claims, unchecked; None without a balloon device."""
    try:
        reply = await session.query("query-balloon")
    except GuestRefused as error:
        if error.error_class == "DeviceNotActive":
            return None
        raise
    return _shape(session, reply, replies.Balloon).actual


async def sizes(session: Channel) -> Sizes:
    """Ask which memory the guest was given, without CXL memory (see `wire.guest_devices`)."""
    reply = await session.query("query-memory-size-summary")
    memory = _shape(session, reply, replies.MemorySize)
    known = Sizes(boot=memory.base_memory)
    if memory.plugged_memory == 0:
        return known
    reply = await session.query("query-memory-devices")
    for each in _shape(session, reply, list[replies.Plugged]):
        if each.type in _MEMORY:
            known = _with_device(known, each.type, _shape(session, each.data, replies.Device))
    return known


async def block_drivers(session: Channel) -> list[str]:
    """Ask for the drivers of all disks and of what lies below them."""
    reply = await session.query("query-named-block-nodes", {"flat": True})
    return [node.drv for node in _shape(session, reply, list[replies.BlockNode])]


async def disks(session: Channel) -> list[replies.Disk]:
    """Ask what each disk did since QEMU started; a drive without a medium counts as a disk, too."""
    return _shape(session, await session.query("query-blockstats"), list[replies.Disk])


async def devices(session: Channel) -> list[tuple[str, str]]:
    """List the devices that were plugged by option or command: QOM path and type."""
    return [
        (f"{container}/{entry.name}", entry.child)
        for container in _CONTAINERS
        for entry in await properties(session, container)
        if entry.child
    ]


async def machine_type(session: Channel) -> str:
    """Ask for the machine, such as ``pc-i440fx-7.2``."""
    return replies.machine_name(await _property(session, "/machine", "type", str))


async def kvm_enabled(session: Channel) -> bool:
    """Ask whether this guest runs under KVM."""
    return _shape(session, await session.query("query-kvm"), replies.Kvm).enabled


async def memory_devices(session: Channel) -> list[replies.MemoryDevice]:
    """Ask which memory backends there are, and whether their pages may be merged."""
    return _shape(session, await session.query("query-memdev"), list[replies.MemoryDevice])


async def find_balloon(session: Channel) -> BalloonDevice | None:
    """Look for the balloon device among the devices that were plugged by option or command."""
    for container in _CONTAINERS:
        for entry in await properties(session, container):
            if entry.child and entry.child.startswith(_BALLOON):
                return await _describe(session, entry.child, f"{container}/{entry.name}")
    return None


async def properties(session: Channel, path: str) -> list[replies.Property]:
    """List what an object of QEMU has: its properties and its children."""
    return _shape(session, await session.query("qom-list", {"path": path}), list[replies.Property])


async def set_balloon(session: Channel, target: Bytes) -> None:
    """Ask the guest to go to this size. It gets there later, or never.

    Raises:
        GuestRefused: there is no balloon device (``DeviceNotActive``), or ballooning is impossible.
    """
    await session.change("balloon", {"value": target})


async def guest_stats(session: Channel, device: BalloonDevice) -> replies.RawStats:
    """Read what the guest last reported, unchecked."""
    return await _property(session, device.path, "guest-stats", replies.RawStats)


async def polling_interval(session: Channel, device: BalloonDevice) -> int:
    """Read the seconds between two reports that QEMU asks the guest for; 0: it does not ask."""
    return await _property(session, device.path, "guest-stats-polling-interval", int)


async def set_polling_interval(session: Channel, device: BalloonDevice, seconds: int) -> None:
    """Set the seconds between two reports that QEMU asks for. Going from 0 to N asks at once."""
    await session.change(
        "qom-set",
        {"path": device.path, "property": "guest-stats-polling-interval", "value": seconds},
    )


async def add_balloon(session: Channel, driver: str, identity: str, bus: str | None) -> None:
    """Plug a balloon device into a running guest.

    Raises:
        GuestRefused: this machine has no hot-plug, no free slot, or a balloon already.
    """
    arguments: dict[str, int | bool | str] = {
        "driver": driver,
        "id": identity,
        "deflate-on-oom": True,
        "free-page-reporting": True,
    }
    if bus is not None:
        arguments["bus"] = bus
    await session.change("device_add", arguments)


def _with_device(known: Sizes, kind: str, device: replies.Device) -> Sizes:
    match kind:
        case "dimm":
            return replace(known, dimms=Bytes(known.dimms + device.size))
        case "virtio-mem":
            more = max(0, device.max_size - device.size)
            return replace(
                known,
                movable=Bytes(known.movable + device.size),
                pluggable=Bytes(known.pluggable + more),
            )
        case _:
            return replace(known, storage=Bytes(known.storage + device.size))


async def text(session: Channel, path: str, name: str) -> str:
    """Read a property that is text, or a link: the path of its object, or ""."""
    return await _property(session, path, name, str)


async def number(session: Channel, path: str, name: str) -> int:
    """Read a property that is a number."""
    return await _property(session, path, name, int)


async def switch(session: Channel, path: str, name: str) -> bool | None:
    """Read a property that is on or off; None where this QEMU does not have it."""
    return await _switch(session, path, name)


async def _describe(session: Channel, driver: str, path: str) -> BalloonDevice:
    return BalloonDevice(
        driver=driver,
        path=path,
        deflate_on_oom=await _switch(session, path, "deflate-on-oom"),
        free_page_reporting=await _switch(session, path, "free-page-reporting"),
    )


async def _switch(session: Channel, path: str, name: str) -> bool | None:
    try:
        return await _property(session, path, name, bool)
    except GuestRefused:
        return None  # a QEMU older than the property


async def _property(session: Channel, path: str, name: str, kind: type[T]) -> T:
    reply = await session.query("qom-get", {"path": path, "property": name})
    return _shape(session, reply, kind)


def _shape(session: Channel, reply: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(reply, kind)
    except msgspec.ValidationError as error:
        raise GuestUnreachable(
            f"guest {session.guest}: an answer of unexpected shape: {error}", reason="protocol"
        ) from error
