"""Plugging a balloon into a running guest, where its machine allows that.

Theory of operation:
    A pc takes a device on its root bus. A q35 or an arm virt machine takes one only on a free root
    port, one device each. microvm and isapc have no bus that takes one. QEMU is asked, not a table
    of machines: the free ports first, then without a bus. QEMU's answer to that is the reason.

    QOM tells whether a port is free. query-pci does not, before the firmware has numbered the
    buses, and QEMU 7.2 then plugs a second device into the same port, which no guest ever sees.
"""

from contextlib import suppress
from itertools import count
from typing import Final

from qmpmem.errors import GuestRefused, GuestUnreachable
from qmpmem.model.guest import BalloonDevice
from qmpmem.wire import commands
from qmpmem.wire.channel import Channel

IDENTITY: Final = "qmpmem"
"""Device ids of ours begin with this, as ``qmpmem0``, which the launcher uses."""

_PERIPHERAL: Final = "/machine/peripheral"
_PORTS: Final = ("pcie-root-port", "ioh3420", "xio3130-downstream")
"""QEMU's PCI Express ports that take one device each. Bridges are left out: they need a driver in
the guest, and without one the device is plugged and never seen."""


async def plug_balloon(session: Channel) -> BalloonDevice:
    """Plug a balloon device into a guest that has none.

    Raises:
        GuestRefused: the machine takes none while it runs.
        GuestUnreachable: the session broke; the device may be there.
    """
    machine = await commands.machine_type(session)
    driver = "virtio-balloon-ccw" if machine.startswith("s390-ccw") else "virtio-balloon-pci"
    identity = await _free_identity(session)
    for port in await _free_ports(session):
        with suppress(GuestRefused):
            await commands.add_balloon(session, driver, identity, port)
            return await _verified(session)
    try:
        await commands.add_balloon(session, driver, identity, None)
    except GuestRefused as error:
        why = error.message.removeprefix(f"guest {session.guest}: ")
        raise GuestRefused(
            f"guest {session.guest}: machine {machine} takes no balloon while it runs: {why}",
            error_class=error.error_class,
            hint="start it with a balloon, or with a free -device pcie-root-port,id=ID",
        ) from error
    return await _verified(session)


async def _free_ports(session: Channel) -> list[str]:
    """List the buses of ports that nothing is plugged into."""
    found: list[str] = []
    for device in await commands.properties(session, _PERIPHERAL):
        if device.child in _PORTS:
            for bus in await commands.properties(session, f"{_PERIPHERAL}/{device.name}"):
                path = f"{_PERIPHERAL}/{device.name}/{bus.name}"
                if bus.child == "PCIE" and not await _is_occupied(session, path):
                    found.append(bus.name)
    return found


async def _is_occupied(session: Channel, bus: str) -> bool:
    entries = await commands.properties(session, bus)
    return any(entry.name.startswith("child[") for entry in entries)


async def _free_identity(session: Channel) -> str:
    taken = {entry.name for entry in await commands.properties(session, _PERIPHERAL)}
    return next(name for name in (f"{IDENTITY}{n}" for n in count()) if name not in taken)


async def _verified(session: Channel) -> BalloonDevice:
    device = await commands.find_balloon(session)
    if device is None or await commands.balloon_actual(session) is None:
        raise GuestUnreachable(
            f"guest {session.guest}: QEMU took a balloon device, and has none", reason="protocol"
        )
    return device
