"""Memory overcommit for bare QEMU/KVM hosts.

    from qmpmem import Agent, Guest

What is exported is loaded when it is first asked for: the command line imports this package before
it knows whether it will need an event loop.
"""

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qmpmem.errors import QmpmemError
    from qmpmem.library import Agent, Guest
    from qmpmem.units import GIB, MIB, Bytes

__all__ = ["GIB", "MIB", "Agent", "Bytes", "Guest", "QmpmemError"]

_HOMES: Final = {
    "Agent": "qmpmem.library",
    "Bytes": "qmpmem.units",
    "GIB": "qmpmem.units",
    "Guest": "qmpmem.library",
    "MIB": "qmpmem.units",
    "QmpmemError": "qmpmem.errors",
}
"""The module that defines each name."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
