"""Puts the `Report` together: it reads the kernel twice, and each guest once."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

from qmpmem.errors import ConfigError, KernelError
from qmpmem.guests import inventory
from qmpmem.guests.inventory import LiveGuest
from qmpmem.ksm import domains, guest_savings, ledger, rules, verdict
from qmpmem.ksm.ledger import Ledger
from qmpmem.ksm.status_records import GuestMerging, Report
from qmpmem.ksm.verdict import Sample
from qmpmem.model.ksm import KsmState
from qmpmem.wire import kernel
from qmpmem.wire.kernel import ksm, processes

RIVALS: Final = ("ksmtuned",)
"""Programs that steer KSM by themselves, by the names of their processes."""

DEFAULTS: Final = {"run": "0", "pages_to_scan": "100", "sleep_millisecs": "20"}
"""The values with which the kernel starts (mm/ksm.c)."""


LEAST_PAUSE: Final = 0.1
"""Least seconds between two readings: ksmd's time is counted in hundredths of a second."""


class KsmSource:
    """The host that is read.

    Args:
        where: the directory of the ledger.
        root: the host's file system.
    """

    def __init__(self, where: Path, root: Path = Path("/")) -> None:
        self.where = where
        self.root = root


async def survey(found: Sequence[LiveGuest], place: KsmSource, *, seconds: float = 1.0) -> Report:
    """Read KSM over so many seconds, and every guest.

    Raises:
        KernelError: a file of KSM holds an impossible value.
    """
    first = await asyncio.to_thread(sample, place.root)
    if first is None:
        return _without_ksm(await guest_savings.look(found, place.root))
    seen = asyncio.create_task(guest_savings.look(found, place.root))
    try:
        if first.state.run == 1:
            await asyncio.sleep(seconds)
        last = await asyncio.to_thread(sample, place.root)
        return await _report(first, last or first, await seen, place)
    finally:
        seen.cancel()


async def watch(
    find: Callable[[], Sequence[LiveGuest]], place: KsmSource, pause: float
) -> AsyncIterator[Report]:
    """Read again every so many seconds, for ever.

    Args:
        find: lists the guests; called for each report, because guests start and end.
        place: the host.
        pause: seconds, at least `LEAST_PAUSE`.

    Raises:
        KernelError: as `survey`.
    """
    before = await asyncio.to_thread(sample, place.root)
    if before is None:
        yield _without_ksm(await guest_savings.look(find(), place.root))
        return
    while True:
        await asyncio.sleep(max(LEAST_PAUSE, pause))
        now = await asyncio.to_thread(sample, place.root)
        if now is None:
            return
        found = await asyncio.to_thread(find)
        yield await _report(before, now, await guest_savings.look(found, place.root), place)
        before = now


def sample(root: Path = Path("/")) -> Sample | None:
    """Read KSM once; None where the kernel cannot merge. Blocks."""
    state = ksm.state(root)
    if state is None:
        return None
    thread = ksm.ksmd(root)
    cpu = None if thread is None else ksm.cpu_time(thread, root)
    return Sample(time=time.monotonic(), state=state, cpu=cpu)


def rival(root: Path = Path("/")) -> str | None:
    """Find a running program that steers KSM by itself. Blocks."""
    proc = root / "proc"
    seen = (kernel.process(pid, proc) for pid in kernel.pids(proc))
    named = (each for each in seen if each is not None and each.comm in RIVALS)
    return next((f"{each.comm} (pid {each.pid})" for each in named), None)


def strangers(seen: Sequence[GuestMerging]) -> list[list[str]]:
    """Group the guests that may merge with each other though they are of different domains. Pure.

    A guest of which that is not known counts as one that may merge. So does a guest that has merged
    pages, whatever it is thought to offer.
    """
    mergeable = [guest.id for guest in seen if guest.mergeable is not False or guest.merged]
    return domains.strangers({guest.id: guest.domain for guest in seen}, mergeable)


def expect_one_domain(groups: Sequence[Sequence[str]]) -> None:
    """Refuse to switch merging on where guests that do not trust each other would merge. Pure.

    Args:
        groups: what `strangers` returned.

    Raises:
        ConfigError: there are such guests.
    """
    if groups:
        raise ConfigError(
            f"guests of different domains would merge: {domains.describe(groups)}; {domains.WHY}",
            hint="start some with QMPMEM_KSM=off, or say --across-domains",
        )


def strangers_by_record(run: Path) -> list[list[str]]:
    """Group the guests of a run directory as `strangers`, without asking any QEMU. Blocks.

    A guest counts as one that may merge, unless its launcher forbade it and none of it is merged.

    Raises:
        KernelError: the run directory cannot be listed.
        ConfigError: the run directory is no directory.
    """
    known = inventory.take(run).guests
    mergeable = [
        each.record.id
        for each in known
        if each.record.ksm is not False or (each.pid and processes.merged_pages(each.pid))
    ]
    return domains.strangers({each.record.id: each.record.domain for each in known}, mergeable)


def owner(state: KsmState, book: Ledger, agents: Ledger) -> str:
    """Return what set KSM up as it is, as in `Report.owner`. Pure.

    Args:
        state: KSM now.
        book: the ledger of commands.
        agents: the ledger of an agent that is not root.
    """
    now = rules.current(state)
    if ledger.own(book, now):
        return "qmpmem"
    if ledger.own(agents, now):
        return "qmpmem's agent"
    at_start = all(now.get(name, value) == value for name, value in DEFAULTS.items())
    return "the kernel" if at_start else "another program"


async def _report(
    first: Sample, last: Sample, seen: Sequence[GuestMerging], place: KsmSource
) -> Report:
    book, agents, problem = await asyncio.to_thread(_read_ledgers, place)
    state = last.state
    return Report(
        state=state,
        saved=verdict.saved(state),
        profit=verdict.profit(state),
        rates=verdict.rates(first, last) if state.run == 1 else None,
        verdict=verdict.judge(state, book.scans),
        owner=owner(state, book, agents) if problem is None else "unknown",
        since=book.since,
        foreign=ledger.foreign(book, rules.current(state)),
        rival=await asyncio.to_thread(rival, place.root),
        strangers=strangers(seen),
        guests=seen,
        problem=problem,
    )


def _read_ledgers(place: KsmSource) -> tuple[Ledger, Ledger, str | None]:
    """Read the ledger of commands, and that of an agent that is not root.

    Returns:
        Both, and why the first cannot be read: all else can be shown without it.
    """
    agents = ledger.of_agent(place.root)
    try:
        return ledger.load(place.where, place.root), agents, None
    except KernelError as error:
        return Ledger(), agents, error.message


def _without_ksm(seen: Sequence[GuestMerging]) -> Report:
    return Report(
        state=None,
        saved=None,
        profit=None,
        rates=None,
        verdict=None,
        owner="the kernel",
        since=None,
        foreign={},
        rival=None,
        strangers=(),
        guests=seen,
    )
