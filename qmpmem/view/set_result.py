"""What `set` did, in words. Pure."""

from qmpmem.model import halts
from qmpmem.model.halts import Standing
from qmpmem.records import Record
from qmpmem.units import Bytes, exact_size, format_size
from qmpmem.view.rows import label


class SetResult(Record, frozen=True):
    """The result of setting a size. The field names are the keys of ``--json``."""

    id: str
    before: Bytes
    """What the guest had."""
    target: Bytes
    """What it was told to have."""
    actual: Bytes
    """What it had when it was last looked at."""
    reached: bool
    """Whether that is the target."""
    state: str
    """Its run state, as in `GuestView`."""
    pinned: bool
    """Whether an agent keeps it there, until `unpin`."""
    exempt: str | None
    """Why the agent leaves it alone all the same."""
    dry_run: bool = False
    """Whether nothing was done."""
    name: str | None = None
    """What its owner called it."""

    @property
    def called(self) -> str:
        """Return what to call it in a sentence."""
        return label(self.id, self.name)

    @property
    def obstacle(self) -> str | None:
        """Return why it does not move now, or None where nothing is known to keep it."""
        return Standing(state=self.state, pinned=self.pinned, exempt=self.exempt).obstacle


def asked(moved: SetResult) -> str:
    """Return what a guest was told, and whether it will do it."""
    target = format_size(moved.target)
    if moved.dry_run:
        return f"{moved.called}: would go from {format_size(moved.before)} to {target}"
    if moved.pinned:
        return f"{moved.called}: pinned to {target}{_pin_state(moved)}"
    if moved.reached:
        return f"{moved.called}: has {target} already"
    words = f"{moved.called}: asked to go from {format_size(moved.before)} to {target}"
    return words if moved.obstacle is None else f"{words}; {waiting(moved)}"


def waiting(moved: SetResult) -> str:
    """Return why a guest does not move now, and what would change that."""
    if moved.state != halts.RUNNING:
        return f"{moved.obstacle}; {halts.advice(moved.state)}"
    return moved.obstacle or ""


def arrived(moved: SetResult) -> str:
    """Return the line that a guest is at its target."""
    pin = f", pinned; {_unpin(moved)}" if moved.pinned else ""
    return f"{moved.called}: {format_size(moved.actual)}{pin}"


def interrupted(moved: SetResult) -> str:
    """Return how far a guest came that goes on by itself, and how to undo that."""
    words = f"{moved.called}: at {format_size(moved.actual)}"
    target = format_size(moved.target)
    if moved.pinned:
        return f"{words}, pinned to {target}; {_unpin(moved)}"
    back = f"`qmpmem set {moved.id} {exact_size(moved.before)}` takes that back"
    if moved.state != halts.RUNNING:
        return f"{words}, goes on to {target} when it runs: it is {moved.state} now; {back}"
    return f"{words}, goes on to {target}; {back}"


def _pin_state(moved: SetResult) -> str:
    if moved.obstacle is not None:
        left = f", but the agent leaves it alone: {moved.obstacle}"
        return f"{left}; `qmpmem unpin {moved.id}` ends the pin"
    return f"{', which it has already' if moved.reached else ''}; {_unpin(moved)}"


def _unpin(moved: SetResult) -> str:
    return f"`qmpmem unpin {moved.id}` gives it back to the agent"
