"""Why a guest that QEMU does not run cannot move its balloon. Pure.

QEMU takes a target in every run state, but the guest's driver moves the balloon only while the
guest runs (QEMU: qapi/run-state.json, RunState).
"""

from collections.abc import Mapping
from typing import Final

from qmpmem.records import Record

RUNNING: Final = "running"

_CONTINUE: Final = "`cont` on its monitor lets it run"
_MIGRATES: Final = "wait for the migration"
_ADVICE: Final[Mapping[str, str]] = {
    "prelaunch": f"it was started with -S and has not begun; {_CONTINUE}",
    "preconfig": "it waits for `x-exit-preconfig` on its monitor",
    "paused": _CONTINUE,
    "debug": "a debugger holds it",
    "inmigrate": "it waits for the migration that it was started for",
    "finish-migrate": _MIGRATES,
    "postmigrate": "it has migrated away",
    "restore-vm": "it is being restored",
    "save-vm": "it is being saved",
    "colo": _MIGRATES,
    "suspended": "`system_wakeup` on its monitor wakes it",
    "shutdown": "it has shut down",
    "guest-panicked": "its kernel has panicked",
    "watchdog": "its watchdog has expired",
    "io-error": f"QEMU stopped it because of an I/O error; {_CONTINUE}",
    "internal-error": "QEMU stopped it because of an error of its own",
}


class Standing(Record, frozen=True):
    """What decides whether a guest moves to a size that was set."""

    state: str
    """QEMU's run state, or why there is no session with QEMU (`GuestView.state`)."""
    pinned: bool = False
    """Whether an agent keeps it at that size."""
    exempt: str | None = None
    """Why the agent leaves it alone, or None where it does not, or where there is no agent."""

    @property
    def obstacle(self) -> str | None:
        """Return why it does not move now, or None where nothing is known to keep it."""
        if self.state != RUNNING:
            return f"it is {self.state}, not running"
        return self.exempt


def advice(state: str) -> str:
    """Return what lets a guest in this state run, and so move its balloon."""
    found = _ADVICE.get(state)
    moves = "the balloon moves when the guest runs"
    return moves if found is None else f"{moves}: {found}"
