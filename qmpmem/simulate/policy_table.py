"""Our policy and what others do about memory, as functions of the same shape: the rows of a table.

Rules of this file:
    Each policy knows only what it would know on a real host, whatever else a snapshot holds. A
    policy that remembers anything does so by itself, and is made anew for each run.
    Every policy but ours is tried twice: on guests with the devices that our launcher gives them,
    and on guests as its own stack starts them: none switches on deflate-on-oom, and of those here
    only Proxmox VE free page reporting.
"""

from collections.abc import Callable, Mapping
from typing import Final, Literal

from qmpmem.model.config import Config
from qmpmem.model.observation import Snapshot
from qmpmem.model.round import Plan
from qmpmem.policy import History, decide
from qmpmem.records import Record, replace
from qmpmem.simulate.ksmtuned import Ksmtuned
from qmpmem.simulate.mom import Mom
from qmpmem.simulate.policy_helpers import Starts, movable, plan
from qmpmem.simulate.proxmox import Proxmox
from qmpmem.simulate.spec import World

Policy = Callable[[Snapshot, History, Config], tuple[Plan, History]]
Devices = Literal["launcher", "stock"]
"""What balloons can do: `launcher`, as our launcher makes them, with deflate-on-oom and free page
reporting, unless a scenario says otherwise; `stock`, as the policy's own stack makes them."""


class PolicyRow(Record, frozen=True):
    """A policy, how it looks at guests, and what their balloons can do."""

    name: str
    start: Callable[[], Policy]
    """Returns the policy for one run, which remembers nothing of any other."""
    adapts: bool = False
    """Whether it looks more often when the host is short."""
    learns: bool = False
    """Whether it is told what guests used at this hour on the days before, if a world has days."""
    devices: Devices = "launcher"
    reports: bool = False
    """Whether its own stack switches on free page reporting."""

    @property
    def title(self) -> str:
        """Return the name of the row."""
        return self.name if self.devices == "launcher" else f"{self.name}, {self.devices} devices"

    def equip(self, world: World) -> World:
        """Return the world with the devices of this row."""
        if self.devices == "launcher":
            return world
        guests = tuple(
            replace(
                guest,
                deflate_on_oom=False,
                free_page_reporting=self.reports and guest.free_page_reporting,
            )
            for guest in world.guests
        )
        return replace(world, guests=guests)


def static(_: Snapshot, history: History, __: Config) -> tuple[Plan, History]:
    """Move nothing: every guest keeps what it was started with."""
    return Plan(), history


class AtMinimum:
    """Tell every balloon its minimum once, when the guest is first seen, and do nothing more."""

    def __init__(self) -> None:
        self._starts = Starts()

    def __call__(
        self, snapshot: Snapshot, history: History, config: Config
    ) -> tuple[Plan, History]:
        """Decide on one round."""
        new = self._starts.new(movable(snapshot, config))
        targets = {guest.id: guest.minimum for guest in new}
        return plan(snapshot, targets, "its minimum, once"), history


RIVALS: Final[Mapping[str, PolicyRow]] = {
    rival.name: rival
    for rival in (
        PolicyRow(name="ours", start=lambda: decide, adapts=True, learns=True),
        PolicyRow(name="static", start=lambda: static),
        PolicyRow(name="at-minimum", start=AtMinimum),
        PolicyRow(name="proxmox", start=Proxmox, reports=True),
        PolicyRow(name="mom", start=Mom),
        PolicyRow(name="ksmtuned-only", start=Ksmtuned),
    )
}
"""Each policy once, with the launcher's devices."""


def rows(name: str | None = None) -> tuple[PolicyRow, ...]:
    """Return the rows of a policy by its name; None: of all policies."""
    chosen = [rival for rival in RIVALS.values() if name in (None, rival.name)]
    return tuple(row for rival in chosen for row in _rows(rival))


def _rows(rival: PolicyRow) -> tuple[PolicyRow, ...]:
    if rival is RIVALS["ours"]:
        return (rival,)
    return rival, replace(rival, devices="stock")
