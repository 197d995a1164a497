"""Guests that run emulated where KVM could be used, and what guests left behind."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qmpmem.doctor.finding import Finding, Host, is_roots, ok, warning
from qmpmem.guests import inventory, qemu_binaries, qemu_processes, rundir
from qmpmem.guests.inventory import LiveGuest
from qmpmem.guests.qemu_processes import Facts, View
from qmpmem.model import obstacles
from qmpmem.wire import kernel, kvm
from qmpmem.wire.errors import one_line

_FAMILY: Final = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64", "arm")}
"""By architecture: the architectures whose guests its KVM runs (QEMU: docs/system/introduction,
"accelerators")."""


def check_emulated(host: Host) -> Iterator[Finding]:
    """Tell whether a guest runs emulated without having asked for it."""
    if not kvm.usable(host.root, host.machine).usable:
        return  # all do, and another line says why
    view = View(host.proc)
    pids, _ = qemu_processes.find_emulators(view)
    native = [pid for pid in pids if _is_native(host, kernel.executable(pid, host.proc) or "")]
    seen = qemu_processes.each_within(
        qemu_processes.PATIENCE, lambda pid: qemu_processes.look(pid, view), native
    )
    slow = [facts for facts in seen.values() if _is_emulated_unasked(facts)]
    for facts in slow:
        said = f"process {facts.pid}{_named(facts)} runs emulated, though KVM is usable"
        yield warning("emulated guests", said, _cure(facts))
    if not slow:
        yield ok("emulated guests", f"none of {len(native)} without having asked for it")


def check_leftovers(host: Host) -> Iterator[Finding]:
    """Tell whether guests that are gone left something, or a record cannot be read."""
    if not host.run.is_relative_to(host.root) or is_roots(host):
        return  # the processes of that root say nothing about the guests of this one
    taken = inventory.take(host.run, host.proc)
    if taken.stale:
        names = ", ".join(record.id for record in taken.stale)
        said = f"records of guests that are gone: {names}"
        yield warning("leftovers", said, "`qmpmem list` removes them")
    unreadable = [entry for entry in taken.unreadable if not _is_open(Path(entry.path).parent)]
    for entry in unreadable:
        guest = os.path.basename(os.path.dirname(entry.path))  # noqa: PTH119, PTH120 - text
        said = one_line(f"{entry.path}: {entry.problem}")
        yield warning("leftovers", said, f"`qmpmem forget {guest}`, if nothing runs there")
    lost = [error for found in taken.guests if (error := inventory.lost_socket(found))]
    for error in lost:
        yield warning("leftovers", error.message, error.hint)
    if not taken.stale and not unreadable and not lost:
        yield ok("leftovers", f"none beside {len(taken.guests)} live guests")


def _is_open(directory: Path) -> bool:
    """Tell whether others may write in a guest's directory: the run directory's line says it."""
    try:
        return bool(directory.lstat().st_mode & rundir.OTHERS_WRITE)
    except OSError:
        return False


def check_balloons(host: Host) -> Iterator[Finding]:
    """Find guests whose balloons free nothing, or that have none, for a reason that is known."""
    if not host.run.is_relative_to(host.root) or is_roots(host):
        return  # the processes of that root say nothing about the guests of this one
    guests = inventory.take(host.run, host.proc).guests
    odd = [line for found in guests for line in _balloon(found, host)]
    yield from odd
    if not odd:
        yield ok("balloons", f"nothing stands against those of {len(guests)} guests")


def _balloon(found: LiveGuest, host: Host) -> Iterator[Finding]:
    record = found.record
    memory = None if found.pid is None else kernel.memory(found.pid, host.proc)
    reason = record.unmovable or (memory and inventory.obstacle(memory, None))
    if record.no_balloon is not None:
        said = f"guest {record.id}: {obstacles.no_device(record.no_balloon)}"
        yield warning("balloons", said, obstacles.advice(record.no_balloon))
    elif reason and record.managed:
        said = f"guest {record.id}: {obstacles.frees_nothing(reason)}"
        yield warning("balloons", said, obstacles.advice(reason))
    if record.note is not None:
        said = f"guest {record.id}: {record.note}"
        yield warning("balloons", said, obstacles.advice(record.note))


def _is_native(host: Host, program: str) -> bool:
    name = qemu_binaries.base_name(program)
    targets = _FAMILY.get(host.machine, (host.machine,))
    emulated = name.removeprefix("qemu-system-").partition("-")[0]
    return name.endswith("kvm") or emulated in targets


def _is_emulated_unasked(facts: Facts) -> bool:
    if facts.line is None or facts.kvm is not False:
        return False
    asked = facts.line.accelerators
    return not asked or "kvm" in asked


def _named(facts: Facts) -> str:
    name = facts.line.name if facts.line else None
    return "" if name is None else f" ({one_line(name)})"


def _cure(facts: Facts) -> str:
    program = facts.line.program if facts.line else ""
    if facts.line and "kvm" in facts.line.accelerators:
        return f"it asked for KVM and did not get it: may user {facts.uid} open /dev/kvm?"
    if program.endswith((".real", ".distrib")):
        return f"it was started as {one_line(program)}; QEMU wants a name that ends in kvm"
    return "start it as kvm, or with -accel kvm"
