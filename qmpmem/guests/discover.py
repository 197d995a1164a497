"""QEMU processes that are no guests of ours, and what can be done about each."""

import asyncio
import os
import shlex
from pathlib import Path
from typing import Literal

from qmpmem.guests import inventory, managers, qemu_processes
from qmpmem.guests.qemu_command_line import CommandLine
from qmpmem.guests.qemu_processes import PATIENCE, Facts, Monitor, View
from qmpmem.model.names import safe_id
from qmpmem.records import Record
from qmpmem.wire import kernel, sock_diag
from qmpmem.wire.errors import NO_STATISTICS, one_line
from qmpmem.wire.sock_diag import Holder

Category = Literal["adoptable", "in-use", "libvirt", "managed", "no-qmp", "elsewhere", "unreadable"]
"""What a QEMU process is to us:

adoptable   a QMP socket of it is free
in-use      all its QMP sockets have a client, and take one at a time
libvirt     libvirt manages it: it is left alone
managed     another program manages it, such as Proxmox VE: it is left alone
no-qmp      it has no QMP socket that can be reached from here
elsewhere   a guest of ours, in another run directory
unreadable  a QEMU that cannot be looked at: not permitted, or no answer in time
"""


class Discovered(Record, frozen=True, rename={"category": "class"}):
    """One QEMU process that is no guest of this run directory."""

    pid: int
    uid: int | None
    name: str | None
    """What its user called it: any text. Escape it before showing it."""
    category: Category
    socket: str | None = None
    holder: Holder | None = None
    command: str | None = None
    """The shell command, quoted, that adopts it or shows where it is."""
    note: str | None = None
    """Why it is in its category, and what to do, in one line."""
    manager: str | None = None
    """The program that manages it."""


class Discovery(Record, frozen=True):
    """What is on this host beside our guests."""

    found: tuple[Discovered, ...] = ()
    hidden: int = 0
    """Number of processes that call themselves QEMU and that this user may not look at: it is not
    known whether they are."""


async def discover(run: Path, proc: Path = kernel.PROC) -> Discovery:
    """Find the QEMU processes that are not guests of this run directory.

    Raises:
        ConfigError: the run directory cannot be listed.
    """
    return await asyncio.to_thread(survey, run, proc)


def survey(run: Path, proc: Path = kernel.PROC, *, patience: float = PATIENCE) -> Discovery:
    """Find them as `discover`, but block; reading all of them takes at most `patience` seconds."""
    ours = inventory.take(run, proc).guests
    known = {pid for guest in ours for pid in (guest.pid, guest.record.pid)}
    view = View(proc)
    pids, hidden = qemu_processes.find_emulators(view)
    strangers = [pid for pid in pids if pid not in known]
    seen = qemu_processes.each_within(
        patience, lambda pid: qemu_processes.look(pid, view), strangers
    )
    sockets = {guest.record.socket for guest in ours}
    names = _names_in(run)
    found: list[Discovered] = []
    for pid in strangers:
        facts = seen.get(pid, Facts(pid=pid))
        is_ours = any(monitor.address in sockets for monitor in facts.monitors)
        if not is_ours and kernel.process(pid, proc) is not None:
            identity = suggest(facts.line.name if facts.line else None, pid, names)
            names.add(identity)
            found.append(classify(facts, identity))
    return Discovery(found=tuple(found), hidden=hidden)


def classify(facts: Facts, identity: str) -> Discovered:
    """Return what a process is to us. Pure.

    Args:
        facts: what was seen of it.
        identity: the id to propose for it.
    """
    line = facts.line
    if line is None:
        why = "cannot be looked at: not permitted, or no answer in time"
        return _discovered(facts, "unreadable", note=why)
    if facts.manager is not None:
        category: Category = "libvirt" if facts.manager == "libvirt" else "managed"
        return _discovered(facts, category, note=managed_by(facts.manager))
    if facts.home is not None:
        show = f"QMPMEM_RUN_DIR={shlex.quote(facts.home)} qmpmem list"
        return _discovered(facts, "elsewhere", command=show)
    reachable = [monitor for monitor in facts.monitors if monitor.address is not None]
    # A person may use a human monitor, so it is taken only where there is no other.
    reachable = [each for each in reachable if not each.human] or reachable
    if not reachable:
        return _discovered(facts, "no-qmp", note=_why_no_qmp(facts, line))
    free = [monitor for monitor in reachable if monitor.holder is None]
    if not free:
        return _discovered(facts, "in-use", monitor=reachable[0], note=_free_it(reachable[0]))
    command, note = _command(identity, free[0].address or "")
    if free[0].human and note is None:
        note = NO_STATISTICS
    return _discovered(facts, "adoptable", monitor=free[0], command=command, note=note)


def managed_by(manager: str) -> str:
    """Return the line that another program manages a guest."""
    return f"{manager} manages it and its memory; {managers.find(manager).advice}"


def suggest(name: str | None, pid: int, taken: set[str]) -> str:
    """Return an id to propose that is safe and free."""
    base = safe_id(name) if name else f"guest-{pid}"
    identity, number = base, 2
    while identity in taken:
        identity, number = f"{base[:40]}-{number}", number + 1
    return identity


def _discovered(
    facts: Facts,
    category: Category,
    *,
    monitor: Monitor | None = None,
    command: str | None = None,
    note: str | None = None,
) -> Discovered:
    return Discovered(
        pid=facts.pid,
        uid=facts.uid,
        name=facts.line.name if facts.line else None,
        category=category,
        socket=monitor.address if monitor else None,
        holder=monitor.holder if monitor else None,
        command=command,
        note=note,
        manager=facts.manager,
    )


def _command(identity: str, address: str) -> tuple[str | None, str | None]:
    """Return the command that adopts; or None, and why, where the path cannot be typed."""
    if not address.isprintable():
        return None, "its socket's path cannot be typed: adopt it from a program"
    return shlex.join(["qmpmem", "adopt", identity, address]), None


def _free_it(monitor: Monitor) -> str:
    """Return which process is attached to a monitor, and what to do, in one line."""
    held = monitor.holder or Holder()
    if sock_diag.is_agent(held):
        return f"{sock_diag.describe(held)} holds its monitor: an agent of another run directory"
    instead = "end that, or start the guest with one more -qmp unix:PATH,server=on,wait=off"
    return f"{sock_diag.describe(held)} holds its monitor: {instead}"


def _why_no_qmp(facts: Facts, line: CommandLine) -> str:
    restart = "restart it through the launcher, or with -qmp unix:PATH,server=on,wait=off"
    if facts.lost is not None:
        home = one_line(os.path.dirname(os.path.dirname(facts.lost)))  # noqa: PTH120 - text
        return f"a guest of run directory {home}, whose files are gone: restart it"
    if facts.monitors:
        path = one_line(facts.monitors[0].path)
        return f"{path}: its socket's file is gone, replaced or out of sight: {restart}"
    if line.paths:
        return f"{one_line(line.paths[0])}: it does not listen there: {restart}"
    if line.other:
        return f"its QMP is on no socket: {restart}"
    if line.unread:
        return f"{one_line(line.unread[0])}: its -readconfig cannot be read: run as root"
    return restart


def _names_in(run: Path) -> set[str]:
    try:
        return set(os.listdir(run))  # noqa: PTH208 - names are all that is wanted
    except OSError:
        return set()
