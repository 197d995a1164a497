"""A guest's current allocation: the size it starts with, where that is less than its maximum.

Theory of operation:
    No argument of QEMU sets the size of a balloon, so QEMU is told by QMP. That takes no process
    beside it: our socket listens before QEMU starts, so the launcher connects to it and leaves the
    request there, as the first client's. QEMU takes it up when it begins to work, before it serves
    any other client, and with QEMU's end it is gone. The balloon's driver inflates when it loads.

    The connection has to end by itself, as QEMU serves one client at a time. Two simple ways fail,
    seen with QEMU 7.2 and 10.0. The request of a client that has closed its socket is lost: QEMU
    looks for the hang-up (poll(2): POLLHUP) while it is busy with the negotiation. A client's
    socket that stays open, and ends only what it sends (shutdown(2)), would be a descriptor of QEMU
    for ever. So that socket goes along with the request (unix(7): SCM_RIGHTS). QEMU keeps what
    came with a request, for `getfd`, until the connection ends, and closes it then (QEMU:
    chardev/char-socket.c, tcp_chr_free_connection).

Rules of this file:
    Loaded only where a current allocation is asked for. What stands in its way is a remark, and the
    guest starts with all of its memory.
"""

import sys

from launchers.kvm_memory import backends, values
from launchers.kvm_options import Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launchers.kvm_plan import Plan

EXPECTED = "a size such as 512M, at least 1 MiB, or 1% to 100%"
DIGITS = 15
DECIMALS = 9
"""As `qmpmem.units` takes them."""
LEAST = 1 << 20
LARGEST = 1 << 62
WHOLE = 100
UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}
QEMU_UNITS = {"B": 0, **UNITS, "P": 50, "E": 60}
"""Powers of two (QEMU: util/cutils.c, do_strtosz)."""
DESCRIPTOR = 4
"""Bytes of a descriptor in a message (cmsg(3): an int)."""
PAGE = 4096
"""What a balloon counts in."""
ALIGNED = 8192
"""QEMU rounds -m up to it (QEMU: softmmu/vl.c)."""
DEFLATE = "deflate-on-oom"
MEMORY_DEVICES = ("dimm", "virtio-mem", "virtio-pmem", "cxl-type3")
"""Parts of the names of devices that bring memory, which a guest may not use yet while it boots."""


class Current:
    """What is asked for: a size in bytes, or percent of the maximum."""

    __slots__ = ("percent", "size")

    def __init__(self, *, size: "int | None" = None, percent: "int | None" = None) -> None:
        self.size = size
        self.percent = percent

    def of(self, maximum: "int | None") -> "int | None":
        """Return the size in bytes, in whole pages; None: a part of a maximum that is not known."""
        if self.percent is None:
            found = self.size if maximum is None else min(self.size or 0, maximum)
        else:
            found = None if maximum is None else maximum * self.percent // WHOLE
        return None if found is None else max(PAGE, found - found % PAGE)


def read_current(text: str) -> Current:
    """Read what is asked for, as a rule of the agent's configuration takes it.

    Raises:
        ValueError: it is neither a size nor a part.
    """
    number, unit = split_unit(text.strip())
    if unit == "%" and "." not in number and 1 <= scaled(number, 1) <= WHOLE:
        return Current(percent=int(number))
    letter = unit.upper().removesuffix("IB")
    if not text.isascii() or letter not in UNITS:
        raise ValueError(text)
    size = scaled(number, 1 << UNITS[letter])
    if not LEAST <= size <= LARGEST:
        raise ValueError(text)
    return Current(size=size - size % PAGE)


def split_unit(word: str) -> "tuple[str, str]":
    """Split a size into its number and its unit."""
    end = 0
    while word[end : end + 1] in tuple("0123456789."):
        end += 1
    return word[:end], word[end:].strip()


def scaled(number: str, factor: int) -> int:
    """Multiply a number, and leave out what is less than one.

    Raises:
        ValueError: it is none, or has too many digits.
    """
    whole, dot, part = number.partition(".")
    if not whole.isdecimal() or len(whole) > DIGITS or bool(dot) != part.isdecimal():
        raise ValueError(number)
    if len(part) > DECIMALS:
        raise ValueError(number)
    return int(whole + part) * factor // int("1" + "0" * len(part))


def ram_size(line: Line) -> "int | None":
    """Return the guest's boot memory in bytes; None where the arguments do not say it plainly."""
    machine = line.machine
    said = [found for found in line.of_group("memory") if "size" in found]
    if "memory.size" in machine or (line.configured and len(said) > 1):
        return None
    if said:  # a number without a unit is MiB; the last counts
        return read_ram(said[-1]["size"], 20)
    named = machine.get("memory-backend")
    found = [values(each, "size") for each in backends(line) if values(each, "id") == named]
    return read_ram(found[0], 0) if len(found) == 1 else None


def read_ram(text: str, bare: int) -> "int | None":
    """Read a size as QEMU does.

    Args:
        text: what stands in the arguments.
        bare: the power of two that a number without a unit counts in.
    """
    number, unit = split_unit(text)
    power = QEMU_UNITS.get(unit.upper()) if unit else bare
    try:
        size = None if power is None else scaled(number, 1 << power)
    except ValueError:
        return None
    return -(-size // ALIGNED) * ALIGNED if size else None  # of 0, QEMU makes its default


def decide_current(plan: "Plan", line: Line, asked: Current) -> None:
    """Write into a plan with which size the guest starts, or why it starts with all of its memory.

    Args:
        plan: what is added, the balloon last.
        line: the user's words and configuration files.
        asked: what is asked for.
    """
    if plan.static or plan.arriving:  # saved state has a size of its own
        return
    maximum = ram_size(line)
    size = asked.of(maximum)
    reason = why_not_small(plan, line)
    if reason is None and size is None:
        reason = "it is a part of the guest's memory, and -m does not say how much that is"
    if reason is None:
        plan.current = size
        plan.starts_small = size != maximum
    elif reason:
        plan.remarks.append(f"QMPMEM_CURRENT is not followed: {reason}")


def why_not_small(plan: "Plan", line: Line) -> "str | None":
    """Return why a guest cannot start with less; "": its user knows; None: it can."""
    if plan.balloon is None:
        return "" if plan.no_balloon else "the guest has a balloon of its own"
    if DEFLATE not in plan.arguments[-1]:
        return f"the balloon of this emulator lacks {DEFLATE}"
    if line.options.has("preconfig"):
        return "with -preconfig, there is no balloon yet when QEMU begins to work"
    beside = [name for name in line.drivers() if any(part in name for part in MEMORY_DEVICES)]
    return f"{beside[0]} brings memory of its own" if beside else None


def leave_request(plan: "Plan", path: str) -> None:
    """Leave the request for a plan's current allocation on a socket that listens.

    Before anything tells of the socket, so that it is the first that QEMU reads: behind a client
    that stays, it would be read when that client ends.
    """
    import _socket

    client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
    try:
        rights = client.fileno().to_bytes(DESCRIPTOR, sys.byteorder)
        try:
            client.connect(path)
            client.sendmsg(
                [request(plan.current or 0)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)]
            )
        except OSError as error:
            plan.current = None
            plan.remarks.append(f"QMPMEM_CURRENT is not followed: {path}: {error.strerror}")
        else:
            client.shutdown(_socket.SHUT_WR)
    finally:
        client.close()


def request(size: int) -> bytes:
    """Write what QEMU is asked to do (QEMU: qemu-qmp-ref, "balloon"; bytes)."""
    return (
        f'{{"execute":"qmp_capabilities"}}{{"execute":"balloon","arguments":{{"value":{size}}}}}'
    ).encode()
