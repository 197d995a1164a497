"""Memory overcommit for bare QEMU/KVM hosts.

    from qmpmem import Guest

`Guest` is loaded when it is first asked for: the command line imports this package before it knows
whether it will need an event loop.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qmpmem.guest import Guest

__all__ = ["Guest"]


def __getattr__(name: str) -> object:
    if name == "Guest":
        from qmpmem.guest import Guest  # noqa: PLC0415 - see above

        return Guest
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
