"""What looks after the guests' memory in a row of a bench: a policy, and the balloons it has.

Rules of this file:
    The order is that in which the rows are measured: first those that could beat ours.
    The policy of another stack is measured twice: with the balloon that its own stack gives a
    guest (Proxmox VE's reports free pages; oVirt's is libvirt's default), and with the launcher's,
    which also deflates when the guest runs out of memory. So what the device does is not taken for
    what the policy does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

Devices = Literal["launcher", "reporting", "plain", "absent"]

DEVICES: Final[Mapping[Devices, str]] = {
    "launcher": "deflates on OOM, reports",
    "reporting": "reports",
    "plain": "plain",
    "absent": "no balloon",
}
"""What a table calls them: `reports` is free page reporting."""

ARGUMENTS: Final[Mapping[Devices, tuple[str, ...]]] = {
    "launcher": (),
    "reporting": ("-device", "virtio-balloon-pci,free-page-reporting=on"),
    "plain": ("-device", "virtio-balloon-pci"),
    "absent": (),
}
"""What a guest is started with, beside what the launcher adds where there is no balloon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """One row."""

    policy: str
    """A word for the command line."""
    devices: Devices = "launcher"
    title: str
    """For the table."""
    rival: str | None = None
    """The policy that an agent decides by (`qmpmem.simulate.policy_table`); None: no agent runs."""
    is_small: bool = False
    """Every balloon is told its guest's minimum once, when the guest has booted."""
    times: int = 1
    """How much more memory than the others' the host has."""

    @property
    def key(self) -> str:
        """Name the row in one word, for the command line and in JSON."""
        return f"{self.policy}/{self.devices}"


OURS: Final = Stack(policy="ours", title="ours", rival="ours")
MINIMUM: Final = Stack(policy="minimum", title="at minimum once", is_small=True)
PROXMOX: Final = Stack(policy="proxmox", title="Proxmox VE's", rival="proxmox")
MOM: Final = Stack(policy="mom", title="oVirt MOM's", rival="mom")
REPORTING: Final = Stack(policy="none", title="none")
PROXMOX_AS_SHIPPED: Final = Stack(
    policy="proxmox", devices="reporting", title="Proxmox VE's", rival="proxmox"
)
MOM_AS_SHIPPED: Final = Stack(policy="mom", devices="plain", title="oVirt MOM's", rival="mom")
NONE: Final = Stack(policy="none", devices="absent", title="none")

STACKS: Final = (
    *(OURS, MINIMUM, PROXMOX, MOM, REPORTING),
    *(PROXMOX_AS_SHIPPED, MOM_AS_SHIPPED, NONE),
)

DOUBLE: Final = Stack(policy="double", title="none, twice the memory", times=2)
"""The yardstick: what a load does where memory is not short."""

OUTSIDE: Final = replace(OURS, policy="outside", title="ours, outside the limit")
"""Where the agent shares the guests' limit otherwise."""

EVERY: Final = (*STACKS, DOUBLE, OUTSIDE)


def chosen(words: Sequence[str], stacks: Sequence[Stack]) -> list[Stack]:
    """Return the rows that are meant, in their order.

    Args:
        words: policies, or whole keys; empty: all rows.
        stacks: the rows that there are.
    """
    return [each for each in stacks if not words or {each.policy, each.key} & set(words)]
