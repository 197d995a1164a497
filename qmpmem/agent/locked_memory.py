"""Keeping the agent's memory out of swap: a host that swaps needs the agent at once.

Theory of operation:
    An agent whose pages have to be read back takes seconds for a round, just when guests have to
    give within one. Pages are locked as they are touched (mlock2(2): MCL_ONFAULT), so that what is
    only reserved, as the stacks of threads, takes no memory.

    Where the lock is bounded, memory that is asked for later could be refused. So all memory is
    locked, or none. systemd permits that by ``LimitMEMLOCK=infinity``, without a capability.
"""

import ctypes
import resource
from pathlib import Path
from typing import Final

from qmpmem.wire.kernel.files import read

MCL_CURRENT: Final = 1
MCL_FUTURE: Final = 2
MCL_ONFAULT: Final = 4
CAP_IPC_LOCK: Final = 14
"""The bit of CAP_IPC_LOCK in a set of capabilities (capabilities(7))."""
WHOLE: Final = ["0", "0", "4294967295"]
"""The map of the first user namespace: in another one a capability lifts no bound."""


def stay(root: Path = Path("/")) -> bool:
    """Keep this process's memory out of swap, where that is permitted without a bound.

    Args:
        root: the file system's root.

    Returns:
        Whether it is kept.
    """
    if not is_permitted(root):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0)


def is_permitted(root: Path = Path("/")) -> bool:
    """Tell whether this process may lock as much memory as it likes."""
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    if (read(root / "proc/self/uid_map") or "").split() != WHOLE:
        return False
    lines = (read(root / "proc/self/status") or "").split("\n")
    found = [line.split()[1] for line in lines if line.startswith("CapEff:\t")]
    return bool(found) and bool(int(found[0], 16) >> CAP_IPC_LOCK & 1)
